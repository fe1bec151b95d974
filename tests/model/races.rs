//! Several threads on few names.
//!
//! Two threads do a few operations each on three names at once. What they are told, and what is there afterwards, must
//! be what some order of the same steps gives: all orders are tried on a model in memory. Longer runs of more threads
//! have too many orders; there it must end, with errors that can be, no node left, and the same tree after a remount.

use std::{
    collections::BTreeMap,
    sync::{Barrier, mpsc},
    thread,
    time::Duration,
};

use fim::vfs::{DeviceId, FileKind, FileSystem as _, Ino, Lookup, Name, RenameFlags, SetAttr};
use proptest::prelude::*;

use crate::{
    dump,
    fixture::{dir, file},
    ops::{Op, op},
    ours::{Ours, ROOT, raw},
    random::try_all,
    tree::{Tree, scratch},
};

/// Whoever waits longer for a lock waits for ever.
const DEADLOCK: Duration = Duration::from_secs(100);

const NAMES: [&str; 3] = ["a", "b", "c"];

/// One operation of a thread.
#[derive(Clone, Copy, Debug)]
enum Act {
    Create(usize),
    Mkdir(usize),
    Unlink(usize),
    Rmdir(usize),
    Rename(usize, usize, u32),
    /// The others look a name up first, which is a step of its own.
    Link(usize, usize),
    Write(usize, u8),
    Read(usize),
    Truncate(usize, u64),
    Chmod(usize, u16),
    Stat(usize),
}

impl Act {
    /// The name that is looked up first.
    const fn looked_up(self) -> Option<usize> {
        match self {
            Self::Create(_) | Self::Mkdir(_) | Self::Unlink(_) | Self::Rmdir(_) | Self::Rename(..) => None,
            Self::Link(name, _)
            | Self::Write(name, _)
            | Self::Read(name)
            | Self::Truncate(name, _)
            | Self::Chmod(name, _)
            | Self::Stat(name) => Some(name),
        }
    }
}

/// What an operation says: an errno, or what can be seen of the object.
type Said = Result<Seen, i32>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Bytes(Vec<u8>),
    /// Permissions, links (1 or 0 for a directory), size.
    Stat(u16, u32, u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Object {
    is_dir: bool,
    perm: u16,
    links: u32,
    content: Vec<u8>,
}

/// The model: three names and what they name.
#[derive(Clone, Debug)]
struct Model {
    names: [Option<usize>; 3],
    objects: Vec<Object>,
}

impl Model {
    /// The objects of the layer that [`lower`] makes.
    fn new() -> Self {
        let object =
            |is_dir, content: &[u8]| Object { is_dir, perm: 0o644, links: 1, content: content.to_vec() };
        let mut model =
            Self { names: [Some(0), Some(1), None], objects: vec![object(false, LOWER), object(true, b"")] };
        model.objects[1].perm = 0o755;
        model
    }

    fn step(&mut self, act: Act, found: Option<usize>) -> Said {
        match act {
            Act::Create(name) => self.make(name, false),
            Act::Mkdir(name) => self.make(name, true),
            Act::Unlink(name) => match self.names[name] {
                None => Err(libc::ENOENT),
                Some(object) if self.objects[object].is_dir => Err(libc::EISDIR),
                Some(object) => self.lose(name, object),
            },
            Act::Rmdir(name) => match self.names[name] {
                None => Err(libc::ENOENT),
                Some(object) if !self.objects[object].is_dir => Err(libc::ENOTDIR),
                Some(object) => self.lose(name, object),
            },
            Act::Rename(old, new, flags) => self.rename(old, new, flags),
            _ => self.on(act, found.unwrap()),
        }
    }

    fn make(&mut self, name: usize, is_dir: bool) -> Said {
        if self.names[name].is_some() {
            return Err(libc::EEXIST);
        }
        self.names[name] = Some(self.objects.len());
        let perm = if is_dir { 0o755 } else { 0o644 };
        self.objects.push(Object { is_dir, perm, links: 1, content: Vec::new() });
        Ok(Seen::Nothing)
    }

    fn lose(&mut self, name: usize, object: usize) -> Said {
        self.names[name] = None;
        self.objects[object].links -= 1;
        Ok(Seen::Nothing)
    }

    fn rename(&mut self, old: usize, new: usize, flags: u32) -> Said {
        let source = self.names[old].ok_or(libc::ENOENT)?;
        match (self.names[new], flags) {
            (Some(_), 1) => return Err(libc::EEXIST),
            (None, 2) => return Err(libc::ENOENT),
            (Some(target), 2) => {
                self.names[old] = Some(target);
                self.names[new] = Some(source);
                return Ok(Seen::Nothing);
            }
            (Some(target), _) => {
                if target == source {
                    return Ok(Seen::Nothing);
                }
                match (self.objects[source].is_dir, self.objects[target].is_dir) {
                    (true, false) => return Err(libc::ENOTDIR),
                    (false, true) => return Err(libc::EISDIR),
                    _ => self.objects[target].links -= 1,
                }
            }
            (None, _) => {}
        }
        self.names[old] = None;
        self.names[new] = Some(source);
        Ok(Seen::Nothing)
    }

    fn on(&mut self, act: Act, found: usize) -> Said {
        let object = &mut self.objects[found];
        match act {
            Act::Link(_, new) => {
                if object.is_dir {
                    return Err(libc::EPERM);
                }
                if self.names[new].is_some() {
                    return Err(libc::EEXIST);
                }
                if object.links == 0 {
                    return Err(libc::ENOENT);
                }
                object.links += 1;
                self.names[new] = Some(found);
            }
            Act::Write(..) | Act::Read(_) | Act::Truncate(..) if object.is_dir => return Err(libc::EISDIR),
            Act::Write(_, byte) => {
                let len = object.content.len().max(3);
                object.content.resize(len, 0);
                object.content[1..3].fill(byte);
            }
            Act::Read(_) => return Ok(Seen::Bytes(object.content.clone())),
            Act::Truncate(_, len) => object.content.resize(usize::try_from(len).unwrap(), 0),
            Act::Chmod(_, perm) => object.perm = perm,
            Act::Stat(_) => {
                return Ok(Seen::Stat(object.perm, object.links, object.content.len() as u64));
            }
            _ => unreachable!("{act:?} looks nothing up"),
        }
        Ok(Seen::Nothing)
    }

    /// Which names are one object, and what it is.
    fn shown(&self) -> BTreeMap<usize, (Object, usize)> {
        let first = |object| self.names.iter().position(|name| *name == Some(object)).unwrap();
        let named = self.names.iter().enumerate();
        named
            .filter_map(|(name, object)| {
                object.map(|object| (name, (self.objects[object].clone(), first(object))))
            })
            .collect()
    }
}

const LOWER: &[u8] = b"of the layer";

fn lower() -> Tree {
    dir([("a", file(LOWER)), ("b", dir([]))])
}

/// Carries an operation out as a kernel would: it looks a name up, and goes on with the number.
fn ours(ours: &Ours, act: Act) -> Said {
    let fs = ours.fs();
    let name = |name: usize| Name::new(NAMES[name].as_bytes()).unwrap();
    let made = |entry: fim::vfs::Result<fim::vfs::Entry>| {
        fs.forget(entry.map_err(raw)?.ino, 1);
        Ok(Seen::Nothing)
    };
    let Some(looked_up) = act.looked_up() else {
        return match act {
            Act::Create(at) => {
                made(fs.mknod(ROOT, Ino::ROOT, name(at), FileKind::Regular, 0o644, DeviceId::default()))
            }
            Act::Mkdir(at) => made(fs.mkdir(ROOT, Ino::ROOT, name(at), 0o755)),
            Act::Unlink(at) => fs.unlink(Ino::ROOT, name(at)).map_err(raw).map(|()| Seen::Nothing),
            Act::Rmdir(at) => fs.rmdir(Ino::ROOT, name(at)).map_err(raw).map(|()| Seen::Nothing),
            Act::Rename(old, new, flags) => {
                let flags = RenameFlags::from_bits_retain(flags);
                let done = fs.rename(Ino::ROOT, name(old), Ino::ROOT, name(new), flags);
                done.map_err(raw).map(|()| Seen::Nothing)
            }
            _ => unreachable!("{act:?} looks a name up"),
        };
    };
    let entry = match fs.lookup(Ino::ROOT, name(looked_up)).map_err(raw)? {
        Lookup::Found(entry) | Lookup::Respelled(entry) => entry,
        Lookup::Absent | Lookup::AbsentUncached => return Err(libc::ENOENT),
    };
    let said = on(ours, act, entry.ino, entry.attr.kind == FileKind::Directory);
    fs.forget(entry.ino, 1);
    said
}

fn on(ours: &Ours, act: Act, ino: Ino, is_dir: bool) -> Said {
    let fs = ours.fs();
    let set = |changes: SetAttr| fs.setattr(ROOT, ino, &changes).map_err(raw).map(|_| Seen::Nothing);
    match act {
        Act::Link(_, new) => {
            let entry = fs.link(ino, Ino::ROOT, Name::new(NAMES[new].as_bytes()).unwrap()).map_err(raw)?;
            fs.forget(entry.ino, 1);
            Ok(Seen::Nothing)
        }
        Act::Write(..) | Act::Read(_) | Act::Truncate(..) if is_dir => Err(libc::EISDIR),
        Act::Write(_, byte) => fs.write(ROOT, ino, 1, &[byte; 2], false).map_err(raw).map(|_| Seen::Nothing),
        Act::Read(_) => {
            fs.read(ino, 0, 100).map_err(raw).map(|data| Seen::Bytes(data.contiguous().into_owned()))
        }
        Act::Truncate(_, len) => set(SetAttr { size: Some(len), ..SetAttr::default() }),
        Act::Chmod(_, perm) => set(SetAttr { perm: Some(perm), ..SetAttr::default() }),
        _ => {
            let attr = fs.getattr(ino).map_err(raw)?;
            let links = if is_dir { u32::from(attr.nlink > 0) } else { attr.nlink };
            Ok(Seen::Stat(attr.perm, links, if is_dir { 0 } else { attr.size }))
        }
    }
}

/// A thread's operations and what they said, and how far an order has come with them.
#[derive(Clone, Copy)]
struct Line<'a> {
    left: &'a [(Act, Said)],
    /// The first of them has looked its name up, and this is what it found.
    found: Option<usize>,
}

/// Whether some order of the steps gives what was said and what is there.
fn is_explained(model: &Model, lines: &[Line<'_>], end: &BTreeMap<usize, (Object, usize)>) -> bool {
    if lines.iter().all(|line| line.left.is_empty()) {
        return model.shown() == *end;
    }
    (0..lines.len()).any(|thread| {
        let mut lines = lines.to_vec();
        let mut model = model.clone();
        let line = &mut lines[thread];
        let Some(((act, said), rest)) = line.left.split_first() else { return false };
        if let (Some(name), None) = (act.looked_up(), line.found) {
            match model.names[name] {
                Some(object) => line.found = Some(object),
                None if *said == Err(libc::ENOENT) => line.left = rest,
                None => return false,
            }
            return is_explained(&model, &lines, end);
        }
        let matches = model.step(*act, line.found) == *said;
        (line.left, line.found) = (rest, None);
        matches && is_explained(&model, &lines, end)
    })
}

fn act() -> impl Strategy<Value = Act> {
    let name = || 0..3_usize;
    prop_oneof![
        2 => name().prop_map(Act::Create),
        2 => name().prop_map(Act::Mkdir),
        3 => name().prop_map(Act::Unlink),
        2 => name().prop_map(Act::Rmdir),
        6 => (name(), name(), 0..3_u32).prop_filter("two names", |(old, new, _)| old != new)
            .prop_map(|(old, new, flags)| Act::Rename(old, new, flags)),
        3 => (name(), name()).prop_map(|(old, new)| Act::Link(old, new)),
        3 => (name(), any::<u8>()).prop_map(|(name, byte)| Act::Write(name, byte)),
        2 => name().prop_map(Act::Read),
        2 => (name(), 0..5_u64).prop_map(|(name, len)| Act::Truncate(name, len)),
        2 => (name(), prop_oneof![Just(0o600), Just(0o700)]).prop_map(|(name, perm)| Act::Chmod(name, perm)),
        2 => name().prop_map(Act::Stat),
    ]
}

/// What is there in the end, as the model would say it.
fn shown(dump: &dump::Dump) -> BTreeMap<usize, (Object, usize)> {
    let at = |name: &str| NAMES.iter().position(|known| *known == name).unwrap();
    let named = dump.iter().filter(|(name, _)| !name.is_empty());
    named
        .map(|(name, seen)| {
            let is_dir = seen.kind == libc::S_IFDIR;
            let links = if is_dir { 1 } else { u32::try_from(seen.links).unwrap() };
            let perm = u16::try_from(seen.perm).unwrap();
            (at(name), (Object { is_dir, perm, links, content: seen.content.clone() }, at(&seen.same_as)))
        })
        .collect()
}

fn stack() -> (tempfile::TempDir, Ours) {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    lower().write(&at("lower"));
    std::fs::create_dir(at("upper")).unwrap();
    std::fs::create_dir(at("work")).unwrap();
    let ours = Ours::new(vec![at("lower")], at("upper"), at("work"));
    (scratch, ours)
}

/// Carries `work` out; says where it hangs, if it does.
fn without_deadlock<T: Send>(what: &str, work: impl FnOnce() -> T + Send) -> T {
    let (done, waited_for) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if waited_for.recv_timeout(DEADLOCK) == Err(mpsc::RecvTimeoutError::Timeout) {
                println!("threads wait for each other: {what}");
                std::process::abort();
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Tries one set of lines once.
fn race(acts: &[Vec<Act>]) {
    let (_scratch, mut stack) = stack();
    let start = Barrier::new(acts.len());
    let lines: Vec<Vec<(Act, Said)>> = without_deadlock(&format!("{acts:?}"), || {
        thread::scope(|scope| {
            let (stack, start) = (&stack, &start);
            let running: Vec<_> = acts
                .iter()
                .map(|line| {
                    scope.spawn(move || {
                        start.wait();
                        line.iter().map(|act| (*act, ours(stack, *act))).collect()
                    })
                })
                .collect();
            running.into_iter().map(|line| line.join().unwrap()).collect()
        })
    });
    let (end, _) = dump::ours(&stack);
    let left: Vec<_> = lines.iter().map(|line| Line { left: line, found: None }).collect();
    assert!(is_explained(&Model::new(), &left, &shown(&end)), "no order explains {lines:#?} and {end:#?}");
    stack.unmount();
    stack.mount();
    assert_eq!(shown(&dump::ours(&stack).0), shown(&end), "after a remount, and {lines:#?}");
    stack.unmount();
}

#[test]
fn what_two_threads_are_told_has_an_order() {
    let strategy = prop::collection::vec(prop::collection::vec(act(), 1..5), 2..3);
    try_all("races of two threads", &strategy, |lines| {
        // Each several times: who comes first is chance.
        for _ in 0..4 {
            race(&lines);
        }
        lines.iter().map(Vec::len).sum::<usize>() * 4
    });
}

#[test]
fn what_three_threads_are_told_has_an_order() {
    let strategy = prop::collection::vec(prop::collection::vec(act(), 1..3), 3..4);
    try_all("races of three threads", &strategy, |lines| {
        for _ in 0..4 {
            race(&lines);
        }
        lines.iter().map(Vec::len).sum::<usize>() * 4
    });
}

/// The races that have names.
#[test]
fn a_copy_up_meets_others() {
    let copies = [Act::Write(0, 7), Act::Truncate(0, 2), Act::Chmod(0, 0o600), Act::Link(0, 2)];
    let others = [
        Act::Write(0, 9),
        Act::Chmod(0, 0o700),
        Act::Truncate(0, 0),
        Act::Unlink(0),
        Act::Rename(0, 2, 0),
        Act::Rename(0, 1, 2),
        Act::Link(0, 2),
        Act::Read(0),
    ];
    for copy in copies {
        for other in others {
            for _ in 0..25 {
                race(&[vec![copy, Act::Stat(0)], vec![other, Act::Read(0)]]);
            }
        }
    }
}

/// A copy-up that truncates shows the shorter file at once. Nobody's writing behind the new end is cut off again.
#[test]
fn a_truncation_that_copies_up_happens_once() {
    for _ in 0..400 {
        race(&[vec![Act::Truncate(0, 0)], vec![Act::Write(0, 9), Act::Stat(0)]]);
    }
}

/// The data of a file that was copied up without them come once: who looked the file up before another one brought them,
/// wrote and forgot it does not lay those of the layer over what was written.
#[test]
fn data_are_brought_once() {
    for _ in 0..400 {
        race(&[vec![Act::Chmod(0, 0o600), Act::Truncate(0, 2)], vec![Act::Write(0, 9), Act::Stat(0)]]);
    }
}

/// An error that threads may see of each other; others tell of something half-made.
fn is_expected(errno: i32) -> bool {
    let expected = [
        libc::ENOENT,
        libc::EEXIST,
        libc::ENOTDIR,
        libc::EISDIR,
        libc::ENOTEMPTY,
        libc::EINVAL,
        libc::EPERM,
        libc::EBUSY,
        libc::EBADF,
        libc::ENODATA,
        libc::EOPNOTSUPP,
        libc::ESTALE,
    ];
    expected.contains(&errno)
}

#[test]
fn four_threads_end_with_one_tree() {
    let layer = || crate::tree::layer(false);
    let strategy = (layer(), prop::collection::vec(prop::collection::vec(op(), 30..60), 4..5));
    try_all("four threads", &strategy, |(lowest, lines)| {
        let scratch = scratch();
        let at = |name: &str| scratch.path().join(name);
        lowest.write(&at("lower"));
        std::fs::create_dir(at("upper")).unwrap();
        std::fs::create_dir(at("work")).unwrap();
        let before = dump::native(&at("lower"));
        let mut stack = Ours::new(vec![at("lower")], at("upper"), at("work"));
        without_deadlock(&format!("{lines:?}"), || {
            thread::scope(|scope| {
                for line in &lines {
                    let stack = &stack;
                    scope.spawn(move || {
                        for op in line.iter().filter(|op| !matches!(op, Op::Commit)) {
                            if let Err(errno) = stack.answer(op) {
                                assert!(is_expected(errno), "{op:?}: errno {errno}");
                            }
                        }
                    });
                }
            });
        });
        let (tree, _) = dump::ours(&stack);
        stack.unmount();
        stack.mount();
        let (again, _) = dump::ours(&stack);
        assert_eq!(again, tree, "after a remount");
        stack.unmount();
        assert_eq!(dump::native(&at("lower")), before, "the layer");
        lines.iter().map(Vec::len).sum()
    });
}

#[test]
fn a_listing_shows_once_what_is_not_renamed_meanwhile() {
    const KEPT: usize = 40;
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let files = |prefix: &str, count: usize| (0..count).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
    for dir in ["lower", "upper", "work"] {
        std::fs::create_dir(at(dir)).unwrap();
    }
    for name in files("kept", KEPT).into_iter().chain(files("moved", 10)) {
        std::fs::write(at("lower").join(name), "x").unwrap();
    }
    let mut stack = Ours::new(vec![at("lower")], at("upper"), at("work"));
    without_deadlock("listing and renaming", || {
        thread::scope(|scope| {
            let stack = &stack;
            let mover = scope.spawn(move || {
                for round in 0..60 {
                    for number in 0..10 {
                        let (old, new) = (format!("moved{number}"), format!("away{number}"));
                        let (old, new) = if round % 2 == 0 { (old, new) } else { (new, old) };
                        stack.answer(&Op::Rename(vec![old], vec![new], 0)).unwrap();
                    }
                }
            });
            while !mover.is_finished() {
                let names: Vec<_> = dump::list(stack, Ino::ROOT).into_iter().map(|(name, ..)| name).collect();
                // A name that goes and comes again in between may be shown twice.
                let mut kept: Vec<_> = names.iter().filter(|name| name.starts_with("kept")).collect();
                kept.sort();
                kept.dedup();
                let (kept, shown) =
                    (kept.len(), names.iter().filter(|name| name.starts_with("kept")).count());
                assert_eq!(shown, kept, "a name twice");
                assert_eq!(kept, KEPT, "{names:?}");
            }
            mover.join().unwrap();
        });
    });
    stack.unmount();
}
