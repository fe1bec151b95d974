//! An upper that fails: at every call of every operation, with every errno that a full, quota-bound, broken or
//! read-only file system gives.
//!
//! An operation that fails says why, and everything is as it was before it or as it would be after it; the next one
//! works; layers are untouched and nothing is leaked. Those that only tidy up may fail unnoticed.

mod faulty;

use std::{
    hash::{Hash as _, Hasher as _},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use fim::{
    layer::HostDir,
    overlay::{Overlay, OverlayOptions},
    vfs::{Errno, FileSystem as _, Ino, Layer, NoInvalidate, Upper},
};

use crate::{
    dump::{self, Dump},
    fixture::{dir, file, path},
    ops::{Answer, Op, Side as _},
    ours::Ours,
    tree::{Tree, scratch},
};
use faulty::{Calls, Fault, Faulty, Lasting};

/// An operation with what comes before it.
struct Case {
    before: Vec<Op>,
    op: Op,
}

fn cases() -> Vec<Case> {
    let rename = |from: &str, to: &str| Op::Rename(path(from), path(to), 0);
    let exchange = |from: &str, to: &str| Op::Rename(path(from), path(to), libc::RENAME_EXCHANGE);
    let write = |at: &str| Op::Write(path(at), 3, b'w', 20);
    let chmod = |at: &str| Op::Chmod(path(at), 0o600);
    let unlink = |at: &str| Op::Unlink(path(at));
    let xattr = |at: &str| Op::SetXattr(path(at), b"new".to_vec(), 0);
    let link = |from: &str, to: &str| Op::Link(path(from), path(to));
    let emptied = || vec![unlink("d/a"), unlink("d/b"), unlink("d/sub/c"), Op::Rmdir(path("d/sub"))];
    let case = |before: Vec<Op>, op| Case { before, op };
    vec![
        // New objects: beside others, below a directory of a layer, over whiteouts.
        case(vec![], Op::Create(path("new"), 0o644)),
        case(vec![], Op::Create(path("d/sub/new"), 0o644)),
        case(vec![unlink("f")], Op::Create(path("f"), 0o600)),
        case(vec![], Op::Mkdir(path("d/sub/new"), 0o755)),
        case(vec![unlink("f")], Op::Mkdir(path("f"), 0o755)),
        case(emptied(), Op::Mkdir(path("d/sub"), 0o700)),
        case(vec![unlink("s")], Op::Symlink(path("s"), "to".to_owned())),
        case(vec![], Op::Symlink(path("d/new"), "to".to_owned())),
        case(vec![], Op::Fifo(path("d/new"))),
        // Contents.
        case(vec![], write("f")),
        case(vec![], write("d/sub/c")),
        case(vec![], write("h1")),
        case(vec![chmod("f")], write("f")),
        case(vec![chmod("h1")], write("d/h2")),
        case(vec![], Op::Truncate(path("f"), 0)),
        case(vec![], Op::Truncate(path("f"), 10)),
        case(vec![], Op::Truncate(path("d/sub/c"), 5000)),
        case(vec![chmod("f")], Op::Truncate(path("f"), 10)),
        case(vec![chmod("f")], Op::Truncate(path("f"), 5000)),
        case(vec![], Op::Allocate(path("f"), 0, 0, 5000)),
        case(vec![], Op::Punch(path("f"), 0, 20)),
        case(vec![], Op::CopyRange(path("f"), path("d/a"), 5000)),
        case(vec![write("f")], Op::CopyRange(path("f"), path("d/a"), 5000)),
        case(vec![write("f")], Op::Fsync(path("f"))),
        case(vec![write("d/a")], Op::Fsync(path("d"))),
        // Attributes.
        case(vec![], chmod("f")),
        case(vec![], chmod("d/sub/c")),
        case(vec![], chmod("d/sub")),
        case(vec![], chmod("h1")),
        case(vec![], chmod("p")),
        case(vec![chmod("f")], chmod("f")),
        case(vec![], Op::Touch(path("s"), 77)),
        case(vec![], xattr("f")),
        case(vec![], xattr("d/sub")),
        case(vec![xattr("f")], Op::RemoveXattr(path("f"))),
        // Names that go.
        case(vec![], unlink("f")),
        case(vec![], unlink("d/sub/c")),
        case(vec![write("f")], unlink("f")),
        case(vec![], unlink("h1")),
        case(vec![write("h1")], unlink("d/h2")),
        case(vec![unlink("h1")], unlink("d/h2")),
        case(vec![Op::Create(path("new"), 0o644)], unlink("new")),
        case(vec![], Op::Rmdir(path("e"))),
        case(vec![chmod("e")], Op::Rmdir(path("e"))),
        case([emptied(), vec![unlink("d/h2")]].concat(), Op::Rmdir(path("d"))),
        case(vec![unlink("d/sub/c")], Op::Rmdir(path("d/sub"))),
        case(vec![Op::Mkdir(path("new"), 0o755)], Op::Rmdir(path("new"))),
        case(
            vec![Op::Mkdir(path("new"), 0o755), rename("f", "new/f"), unlink("new/f")],
            Op::Rmdir(path("new")),
        ),
        // Names that move.
        case(vec![], rename("f", "g")),
        case(vec![], rename("f", "d/sub/g")),
        case(vec![], rename("d/sub/c", "g")),
        case(vec![], rename("f", "d/a")),
        case(vec![], rename("s", "f")),
        case(vec![write("f")], rename("f", "d/a")),
        case(vec![write("f"), unlink("d/a")], rename("f", "d/a")),
        case(vec![Op::Create(path("new"), 0o644)], rename("new", "f")),
        case(vec![Op::Create(path("new"), 0o644), unlink("f")], rename("new", "f")),
        case(vec![], rename("h1", "g")),
        case(vec![], rename("h1", "f")),
        case(vec![], rename("f", "h1")),
        case(vec![write("h1")], rename("f", "d/h2")),
        case(vec![], rename("d", "g")),
        case(vec![], rename("d/sub", "g")),
        case(vec![], rename("d/sub", "e")),
        case(vec![unlink("d/sub/c"), Op::Touch(path("d/sub"), 33), xattr("d/sub")], rename("e", "d/sub")),
        case(vec![rename("d", "g")], rename("g", "e")),
        case(vec![Op::Mkdir(path("new"), 0o755), unlink("d/sub/c")], rename("new", "d/sub")),
        case(vec![Op::Mkdir(path("new"), 0o755), unlink("f")], rename("new", "f")),
        case(vec![Op::Mkdir(path("new"), 0o755)], rename("d/sub", "new")),
        case(vec![], exchange("f", "d/a")),
        case(vec![], exchange("d", "f")),
        case(vec![], exchange("d", "e")),
        case(vec![Op::Create(path("new"), 0o644)], exchange("new", "d/sub")),
        case(vec![], exchange("h1", "f")),
        // Names that come.
        case(vec![], link("f", "g")),
        case(vec![], link("f", "d/sub/g")),
        case(vec![], link("h1", "g")),
        case(vec![chmod("f")], link("f", "d/g")),
        case(vec![unlink("d/a")], link("f", "d/a")),
        case(vec![write("h1"), unlink("d/a")], link("d/h2", "d/a")),
        case(vec![], link("s", "g")),
    ]
}

/// A layer with one of everything.
fn lower() -> Tree {
    let long: Vec<u8> = (0..9000_u32).map(|at| (at % 251) as u8).collect();
    dir([
        ("f", Tree::File(long, 0o4644)),
        ("h1", file(b"a file with two names")),
        ("s", Tree::Symlink("f".to_owned())),
        ("p", Tree::Fifo),
        ("e", dir([])),
        (
            "d",
            dir([
                ("a", file(b"a in d")),
                ("b", file(b"b in d")),
                ("h2", Tree::Link(path("h1"))),
                ("sub", dir([("c", file(b"c in sub"))])),
            ]),
        ),
    ])
}

/// A stack over an upper that can be made to fail.
struct Bench {
    ours: Ours,
    faulty: Arc<Faulty>,
    scratch: tempfile::TempDir,
}

impl Bench {
    fn new(options: &OverlayOptions, before: &[Op]) -> Self {
        let scratch = scratch();
        let at = |name: &str| scratch.path().join(name);
        lower().write(&at("lower"));
        Tree::empty().write(&at("upper"));
        std::fs::create_dir(at("work")).unwrap();
        let mut ours = Ours::new(vec![at("lower")], at("upper"), at("work"));
        let faulty = break_in(&mut ours, options);
        for op in before {
            ours.apply(op).unwrap_or_else(|errno| panic!("{op:?}: {errno}"));
        }
        Self { ours, faulty, scratch }
    }

    /// What is to be seen. Without the times of directories: that a copy-up does not change them is no promise where
    /// things fail.
    fn dump(&self) -> Dump {
        let mut dump = dump::ours(&self.ours).0;
        dump.values_mut().filter(|seen| seen.kind == libc::S_IFDIR).for_each(|seen| seen.mtime = None);
        dump
    }

    /// Everything is given back, the layer is as it was, and a new start shows the same.
    fn end(self, options: &OverlayOptions, work_is_clean: bool) {
        let look = |ours: &Ours| {
            let mut seen = dump::ours(ours).0;
            if !work_is_clean {
                // What stayed in the work directory may have been a name of something.
                seen.values_mut().for_each(|seen| seen.links = 0);
            }
            seen
        };
        let seen = look(&self.ours);
        let Self { mut ours, faulty, scratch } = self;
        drop(faulty);
        if work_is_clean {
            ours.unmount();
        } else {
            ours.overlay = None;
            assert_eq!(ours.host_upper.take().unwrap().live_nodes(), 3, "nodes of the upper");
        }
        ours.mount();
        drop(break_in(&mut ours, options));
        assert_eq!(look(&ours), seen, "after a new start");
        ours.unmount();
        let fresh = self::scratch();
        lower().write(fresh.path());
        assert_eq!(dump::native(&scratch.path().join("lower")), dump::native(fresh.path()), "the layer");
    }
}

/// Puts the switch between the overlay and its upper.
fn break_in(ours: &mut Ours, options: &OverlayOptions) -> Arc<Faulty> {
    ours.overlay = None;
    let faulty = Arc::new(Faulty::new(Arc::clone(ours.host_upper.as_ref().unwrap())));
    let layers = ours.layers.iter().map(|layer: &Arc<HostDir>| Arc::clone(layer) as Arc<dyn Layer>);
    let upper = Some(Arc::clone(&faulty) as Arc<dyn Upper>);
    let overlay = Overlay::new(layers.collect(), upper, options.clone(), Arc::new(NoInvalidate));
    ours.overlay = Some(overlay.unwrap());
    faulty
}

/// Runs a case with the failure at call `at`; `false` where it has fewer calls.
fn try_one(case: &Case, after: &Dump, options: &OverlayOptions, fault: Fault, known: bool) -> bool {
    let what = format!("{:?} after {:?} with {fault:?}, known: {known}", case.op, case.before);
    let mut bench = Bench::new(options, &case.before);
    let before = bench.dump();
    // As a kernel that has it all in its caches, or nothing of it.
    let kept = if known { bench.ours.keep_all() } else { Vec::new() };
    bench.faulty.break_with(fault);
    let answer = bench.ours.apply(&case.op);
    let failed = bench.faulty.heal();
    let seen = bench.dump();
    let mut unchanged = seen.clone();
    for (path, seen) in &mut unchanged {
        // A time may be newer than it must be: nobody misses a change for that.
        let old = before
            .get(path)
            .filter(|old| dump::Seen { mtime: None, links: seen.links, ..(*old).clone() } == *seen);
        seen.mtime = old.map_or(seen.mtime, |old| old.mtime);
        if fault.lasting == Lasting::On {
            // A name in the work directory that could not be taken away counts until the next start.
            seen.links = before.get(path).map_or(seen.links, |old| old.links);
        }
    }
    match &answer {
        Ok(_) => assert_eq!(&seen, after, "{what}: it said that it was done"),
        Err(errno) => {
            assert!(failed > 0, "{what}: {errno} without a failure");
            // Attributes that do not fit are refused with the errno of a full disk, which this one is not: the caller
            // copies and deletes.
            let is_tried_otherwise = *errno == libc::EXDEV && fault.errno == Errno::ENOSPC;
            assert!(*errno == fault.errno as i32 || is_tried_otherwise, "{what}: {errno}");
            assert!(unchanged == before || seen == *after, "{what}: {}", difference(&before, after, &seen));
        }
    }
    if answer.is_err() && unchanged == before {
        let again = bench.ours.apply(&case.op);
        assert!(matches!(again, Ok(Answer::Done)), "{what}: {again:?} at the second attempt");
        let mut seen = bench.dump();
        if fault.lasting == Lasting::On {
            seen.iter_mut()
                .for_each(|(path, seen)| seen.links = after.get(path).map_or(0, |after| after.links));
        }
        assert_eq!(&seen, after, "{what}: the second attempt");
    }
    // Directories are usable whether or not the operation was done.
    let dirs: Vec<_> = bench.dump().into_iter().filter(|(_, seen)| seen.kind == libc::S_IFDIR).collect();
    for (dir, _) in dirs {
        let new = dump::join(&dir, "probe");
        bench.ours.apply(&Op::Create(path(&new), 0o600)).unwrap_or_else(|e| panic!("{what}: {new}: {e}"));
    }
    bench.ours.give_back(kept);
    assert_eq!(bench.ours.fs().live_nodes(), 1, "{what}: nodes that nobody has");
    assert!(bench.ours.fs().getattr(Ino::ROOT).is_ok(), "{what}");
    // Where it was tidying up that failed something stays for the next start to sweep.
    let is_tidy = answer.is_err() && fault.lasting == Lasting::Once && fault.calls == Calls::Changes;
    bench.end(options, is_tidy);
    failed > 0
}

/// What is neither as before nor as after.
fn difference(before: &Dump, after: &Dump, seen: &Dump) -> String {
    let mut text = String::new();
    let paths: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).chain(seen.keys()).collect();
    for path in paths {
        let (before, after, seen) = (before.get(path), after.get(path), seen.get(path));
        if seen != before || seen != after {
            text.push_str(&format!(
                "\n{path:?}\n  before {}\n  after  {}\n  seen   {}",
                short(before),
                short(after),
                short(seen)
            ));
        }
    }
    text
}

fn short(seen: Option<&dump::Seen>) -> String {
    let Some(seen) = seen else { return "nothing".to_owned() };
    let mut sum = std::hash::DefaultHasher::new();
    seen.content.hash(&mut sum);
    let short = dump::Seen { content: Vec::new(), ..seen.clone() };
    format!("{short:?} with contents {:x}", sum.finish())
}

/// Tries every call of every case.
fn matrix(calls: Calls, lasting: Lasting, errnos: &[Errno]) {
    let small = OverlayOptions { smallest_without_data: 1, ..OverlayOptions::default() };
    let thorough = std::env::var_os("FIM_MODEL_CASES").is_some();
    let (mut faults, mut wrong) = (0, Vec::new());
    for (number, case) in cases().iter().enumerate() {
        for options in [&small, &OverlayOptions::default()] {
            let mut whole = Bench::new(options, &case.before);
            whole.ours.apply(&case.op).unwrap_or_else(|errno| panic!("{:?}: {errno}", case.op));
            let after = whole.dump();
            for known in if thorough { vec![false, true] } else { vec![number % 2 == 0] } {
                for at in 0.. {
                    // All of them behave alike; each gets its turn.
                    let errno = errnos[(number + usize::try_from(at).unwrap()) % errnos.len()];
                    let fault = Fault { errno, calls, lasting, at };
                    let attempt = AssertUnwindSafe(|| try_one(case, &after, options, fault, known));
                    match catch_unwind(attempt) {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(_) => wrong.push(format!("{:?} after {:?}, {fault:?}", case.op, case.before)),
                    }
                    faults += 1;
                    assert!(at < 300, "{:?} ends", case.op);
                }
            }
        }
    }
    println!("{faults} failures, {calls:?} {lasting:?}");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(faults > 500, "the failures reach something");
}

const REFUSALS: [Errno; 4] = [Errno::ENOSPC, Errno::EDQUOT, Errno::EIO, Errno::EROFS];

#[test]
fn a_change_that_fails_once_leaves_all_or_nothing() {
    matrix(Calls::Changes, Lasting::Once, &REFUSALS);
}

#[test]
fn changes_that_fail_from_some_point_on_leave_all_or_nothing() {
    matrix(Calls::Changes, Lasting::On, &REFUSALS);
}

#[test]
fn any_call_that_fails_once_leaves_all_or_nothing() {
    matrix(Calls::All, Lasting::Once, &[Errno::EIO]);
}

#[test]
fn calls_that_fail_from_some_point_on_leave_all_or_nothing() {
    matrix(Calls::All, Lasting::On, &[Errno::EIO]);
}
