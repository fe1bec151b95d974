//! Names that differ in spelling alone: the overlay equals a plain tree in which each name is looked for by its key.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, Mutex},
};

use fim::{
    casefold::Mode,
    layer::HostDir,
    overlay::{Folding, Overlay, OverlayOptions},
    vfs::{DeviceId, Errno, FileKind, FileSystem as _, Ino, Invalidate, Layer, Lookup, RenameFlags, Upper},
};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use proptest::prelude::*;

use crate::{
    fixture::{dir, errno, file, is_whiteout, list, name, xattr},
    ops::{Op, op},
    ours::{ROOT, open_upper},
    random::{Pair, config},
    tree::{Tree, layer, scratch},
};

/// What the kernel was told to forget.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Invalidate for Told {
    fn entry(&self, _parent: Ino, name: &[u8]) {
        self.0.lock().unwrap().push(String::from_utf8_lossy(name).into_owned());
    }
    fn inode(&self, _ino: Ino, _data: bool) {}
}

/// An overlay that folds names over several layers, the lowest first.
struct Folded {
    scratch: tempfile::TempDir,
    layers: usize,
    told: Arc<Told>,
    fs: Overlay,
}

impl Folded {
    fn new(layers: &[Tree]) -> Self {
        let scratch = scratch();
        for (number, tree) in layers.iter().enumerate() {
            tree.write(&scratch.path().join(format!("lower{number}")));
        }
        for name in ["upper", "work"] {
            fs::create_dir(scratch.path().join(name)).unwrap();
        }
        Self::mount(scratch, layers.len(), Some(Folding::new(Mode::Unicode, &[] as &[&[u8]])))
    }

    fn mount(scratch: tempfile::TempDir, layers: usize, casefold: Option<Folding>) -> Self {
        let path = |number| scratch.path().join(format!("lower{number}"));
        let opened =
            (0..layers).map(|number| Arc::new(HostDir::open(&path(number)).unwrap()) as Arc<dyn Layer>);
        let upper = open_upper(&scratch.path().join("upper"), &scratch.path().join("work"));
        let upper = Some(Arc::new(upper) as Arc<dyn Upper>);
        let told = Arc::new(Told::default());
        let options = OverlayOptions { casefold, smallest_without_data: 1, ..OverlayOptions::default() };
        let fs = Overlay::new(opened.collect(), upper, options, Arc::clone(&told) as _).unwrap();
        Self { scratch, layers, told, fs }
    }

    fn remounted(self, casefold: Option<Folding>) -> Self {
        let Self { scratch, layers, fs, .. } = self;
        drop(fs);
        Self::mount(scratch, layers, casefold)
    }

    fn folded_anew(self) -> Self {
        self.remounted(Some(Folding::new(Mode::Unicode, &[] as &[&[u8]])))
    }

    fn find(&self, path: &str) -> Option<Ino> {
        path.split('/').filter(|name| !name.is_empty()).try_fold(Ino::ROOT, |dir, text| {
            match self.fs.lookup(dir, name(text)).unwrap() {
                Lookup::Found(entry) | Lookup::Respelled(entry) => Some(entry.ino),
                Lookup::Absent | Lookup::AbsentUncached => None,
            }
        })
    }

    fn ino(&self, path: &str) -> Ino {
        self.find(path).unwrap_or_else(|| panic!("nothing is called {path}"))
    }

    fn read(&self, path: &str) -> String {
        let data = self.fs.read(self.ino(path), 0, 100).unwrap();
        String::from_utf8(data.contiguous().into_owned()).unwrap()
    }

    fn names(&self, path: &str) -> Vec<String> {
        list(&self.fs, self.ino(path))
    }

    fn mv(&self, from: &str, to: &str) -> Result<(), Errno> {
        let split = |path: &str| match path.rsplit_once('/') {
            Some((dir, last)) => (self.ino(dir), last.to_owned()),
            None => (Ino::ROOT, path.to_owned()),
        };
        let ((dir, old), (new_dir, new)) = (split(from), split(to));
        let flags = RenameFlags::empty();
        self.fs.rename(dir, name(&old), new_dir, name(&new), flags).map_err(|error| error.errno())
    }

    fn create(&self, dir: &str, text: &str) -> Result<Ino, Errno> {
        let made =
            self.fs.mknod(ROOT, self.ino(dir), name(text), FileKind::Regular, 0o644, DeviceId::default());
        made.map(|entry| entry.ino).map_err(|error| error.errno())
    }

    fn upper(&self, path: &str) -> std::path::PathBuf {
        self.scratch.path().join("upper").join(path)
    }

    fn told(&self) -> Vec<String> {
        let mut told = std::mem::take(&mut *self.told.0.lock().unwrap());
        told.sort();
        told
    }
}

#[test]
fn directories_of_all_layers_are_one_whatever_their_spellings() {
    let folded = Folded::new(&[
        dir([("data", dir([("low", file(b"0")), ("Both", file(b"0"))]))]),
        dir([("Data", dir([("mid", file(b"1")), ("Both", file(b"1"))]))]),
        dir([("other", dir([]))]),
    ]);
    for spelling in ["data", "Data", "DATA"] {
        assert_eq!(folded.names(spelling), ["Both", "low", "mid"], "{spelling}");
        assert_eq!(folded.ino(spelling), folded.ino("dAtA"));
        assert_eq!(folded.read(&format!("{spelling}/BOTH")), "1");
        assert_eq!(folded.read(&format!("{spelling}/LOW")), "0");
    }
    assert_eq!(folded.names(""), ["Data", "other"], "the highest layer's spelling shows");
    // What is made goes to the one that shows.
    folded.create("DATA", "New").unwrap();
    assert!(folded.upper("Data/New").exists() && !folded.upper("data").exists());
    let ino = folded.ino("data");
    let folded = folded.folded_anew();
    assert_eq!(folded.ino("daTA"), ino);
    assert_eq!(folded.names("data"), ["Both", "New", "low", "mid"]);
}

#[test]
fn exact_names_win_then_the_highest_layer_then_the_smallest() {
    let folded = Folded::new(&[
        dir([("Foo", file(b"Foo 0")), ("foo", file(b"foo 0")), ("bar", file(b"bar 0"))]),
        dir([("Bar", file(b"Bar 1")), ("BAR", file(b"BAR 1"))]),
    ]);
    for (asked, expected) in [
        ("Foo", "Foo 0"),
        ("foo", "foo 0"),
        ("FOO", "Foo 0"),
        ("Bar", "Bar 1"),
        ("bar", "bar 0"),
        ("bAR", "BAR 1"),
    ] {
        assert_eq!(folded.read(asked), expected, "{asked}");
    }
    assert_eq!(folded.names(""), ["BAR", "Foo"]);
    // A removed name is gone in every spelling, and nothing from below comes to light.
    folded.fs.unlink(Ino::ROOT, name("fOO")).unwrap();
    folded.fs.unlink(Ino::ROOT, name("Bar")).unwrap();
    for asked in ["Foo", "foo", "FOO", "bar", "BAR", "Bar"] {
        assert_eq!(folded.find(asked), None, "{asked}");
    }
    for whiteout in ["Foo", "foo", "bar", "Bar", "BAR"] {
        assert!(is_whiteout(&folded.upper(whiteout)), "{whiteout}");
    }
    assert_eq!(folded.names(""), [""; 0]);
    let folded = folded.folded_anew();
    assert_eq!(folded.names(""), [""; 0]);
    folded.create("", "FOO").unwrap();
    assert_eq!((folded.names(""), folded.read("foo")), (vec!["FOO".to_owned()], String::new()));
}

#[test]
fn two_directories_of_one_layer_stay_two_and_both_are_reachable() {
    let folded = Folded::new(&[
        dir([("A", dir([("1", file(b""))])), ("a", dir([("2", file(b""))]))]),
        dir([("á", dir([])), ("Á", file(b"x"))]),
    ]);
    assert_eq!(folded.names("A"), ["1"]);
    assert_eq!(folded.names("a"), ["2"]);
    assert_eq!(folded.names(""), ["A", "Á"]);
    assert_eq!(errno(folded.fs.rmdir(Ino::ROOT, name("a"))), Errno::ENOTEMPTY);
    folded.fs.unlink(folded.ino("A"), name("1")).unwrap();
    folded.fs.rmdir(Ino::ROOT, name("A")).unwrap();
    assert_eq!(folded.find("a"), None);
    // A file in place of a directory, and the other way round.
    folded.fs.unlink(Ino::ROOT, name("Á")).unwrap();
    assert_eq!(folded.find("á"), None);
    assert_eq!(folded.names(""), [""; 0]);
}

#[test]
fn what_exists_in_another_spelling_is_not_made_again() {
    let folded = Folded::new(&[dir([("Straße", file(b"x")), ("dir", dir([]))])]);
    assert_eq!(folded.create("", "STRASSE"), Err(Errno::EEXIST));
    assert_eq!(errno(folded.fs.mkdir(ROOT, Ino::ROOT, name("DIR"), 0o755)), Errno::EEXIST);
    assert_eq!(errno(folded.fs.symlink(ROOT, Ino::ROOT, name("Dir"), b"x")), Errno::EEXIST);
    let file = folded.ino("strasse");
    assert_eq!(errno(folded.fs.link(file, Ino::ROOT, name("STRAßE"))), Errno::EEXIST);
    folded.fs.link(file, Ino::ROOT, name("Link")).unwrap();
    assert_eq!(folded.ino("LINK"), file);
    assert_eq!(folded.names(""), ["Link", "Straße", "dir"], "every name keeps its case");
    assert_eq!(folded.fs.getattr(file).unwrap().nlink, 2);
}

#[test]
fn renaming_to_another_spelling_changes_what_shows() {
    let folded = Folded::new(&[
        dir([
            ("file", file(b"low")),
            ("tree", dir([("low", file(b""))])),
            ("TREE2", dir([("x", file(b""))])),
        ]),
        dir([("Tree", dir([("mid", file(b""))]))]),
    ]);
    folded.create("", "new").unwrap();
    let inos = ["file", "Tree", "new", "tree2"].map(|path| folded.ino(path));
    for (from, to) in [("file", "File"), ("TREE", "tREE"), ("NEW", "New"), ("TREE2", "tree2")] {
        folded.mv(from, to).unwrap();
    }
    assert_eq!(folded.names(""), ["File", "New", "tREE", "tree2"]);
    assert!(is_whiteout(&folded.upper("file")) && is_whiteout(&folded.upper("Tree")));
    assert!(is_whiteout(&folded.upper("tree")) && !folded.upper("new").exists());
    let folded = folded.folded_anew();
    assert_eq!(folded.names(""), ["File", "New", "tREE", "tree2"]);
    assert_eq!(["file", "tree", "new", "tree2"].map(|path| folded.ino(path)), inos);
    assert_eq!(folded.names("tree"), ["low", "mid"], "both parts move along");
    // To a spelling that a part of it has, and on to another name.
    folded.mv("tree", "tree").unwrap();
    folded.mv("tree", "Tree").unwrap();
    folded.mv("TREE", "tree").unwrap();
    assert_eq!(folded.names("TrEE"), ["low", "mid"]);
    folded.mv("Tree", "Tree2/Moved").unwrap();
    let folded = folded.folded_anew();
    assert_eq!(folded.names("tREE2/mOVED"), ["low", "mid"]);
    assert_eq!(folded.find("tree"), None);
    assert_eq!(folded.read("FILE"), "low");
}

/// In the directory that it leaves, its new name is a spelling as any other.
#[test]
fn a_directory_leaves_none_of_its_spellings_behind() {
    for (flags, there, left) in [(0, dir([]), None), (libc::RENAME_EXCHANGE, dir([("a", dir([]))]), Some(0))]
    {
        let folded = Folded::new(&[
            dir([("a", dir([("0", file(b""))])), ("b", there)]),
            dir([("A", dir([("1", file(b""))]))]),
        ]);
        let moved = folded.ino("a");
        let flags = RenameFlags::from_bits(flags).unwrap();
        folded.fs.rename(Ino::ROOT, name("A"), folded.ino("b"), name("a"), flags).unwrap();
        let check = |folded: &Folded| {
            for spelling in ["a", "A"] {
                assert_eq!(folded.find(spelling).map(|ino| list(&folded.fs, ino).len()), left, "{spelling}");
            }
            assert_eq!((folded.names("b").len(), folded.ino("b/a")), (1, moved));
            assert_eq!(folded.names("b/a"), ["0", "1"]);
        };
        check(&folded);
        check(&folded.folded_anew());
    }
}

#[test]
fn renaming_over_another_spelling_replaces_it_and_keeps_its_name() {
    let folded = Folded::new(&[
        dir([
            ("Old", file(b"old 0")),
            ("new", file(b"new")),
            ("Dir", dir([])),
            ("full", dir([("x", file(b""))])),
        ]),
        dir([("old", file(b"old 1"))]),
    ]);
    folded.mv("NEW", "OLD").unwrap();
    assert_eq!(folded.names(""), ["Dir", "full", "old"]);
    for asked in ["old", "Old", "oLD"] {
        assert_eq!(folded.read(asked), "new", "{asked}");
    }
    assert_eq!(folded.mv("full", "dIR"), Ok(()));
    assert_eq!((folded.names("dir"), folded.find("FULL")), (vec!["x".to_owned()], None));
    let folded = folded.folded_anew();
    assert_eq!(folded.names(""), ["Dir", "old"]);
    assert_eq!((folded.read("OLD"), folded.names("DIR")), ("new".to_owned(), vec!["x".to_owned()]));
    let flags = |bits| RenameFlags::from_bits(bits).unwrap();
    let rename = |from, to, bits| folded.fs.rename(Ino::ROOT, name(from), Ino::ROOT, name(to), flags(bits));
    assert_eq!(errno(rename("OLD", "DIR", libc::RENAME_NOREPLACE)), Errno::EEXIST);
    rename("OLD", "Old", libc::RENAME_NOREPLACE).unwrap();
    rename("OLD", "dir", libc::RENAME_EXCHANGE).unwrap();
    assert_eq!((folded.read("dir"), folded.names("old")), ("new".to_owned(), vec!["x".to_owned()]));
    assert_eq!(folded.names(""), ["Dir", "Old"]);
}

#[test]
fn the_kernel_is_told_of_what_it_would_keep() {
    let folded = Folded::new(&[dir([
        ("foo", file(b"")),
        ("Both", dir([])),
        ("both", dir([])),
        ("plain", dir([("x", file(b""))])),
    ])]);
    // Absent names are not kept, so that making them needs no notice.
    assert_eq!(folded.fs.lookup(Ino::ROOT, name("none")).unwrap(), Lookup::AbsentUncached);
    for asked in ["foo", "FOO", "both", "Both"] {
        folded.ino(asked);
    }
    folded.fs.unlink(Ino::ROOT, name("fOO")).unwrap();
    assert_eq!(folded.told(), [""; 0], "entries of files do not last");
    folded.fs.rmdir(Ino::ROOT, name("Both")).unwrap();
    assert_eq!(folded.told(), ["both"], "it was another directory, and is gone as well");
    let folded = folded.remounted(Some(Folding::new(Mode::Unicode, &["/folds"])));
    folded.fs.mkdir(ROOT, Ino::ROOT, name("folds"), 0o755).unwrap();
    folded.mv("plain/x", "folds/y").unwrap();
    assert_eq!(folded.told(), ["y"], "its entry lasted where it was");
    assert_eq!(folded.fs.lookup(Ino::ROOT, name("none")).unwrap(), Lookup::Absent);
}

#[test]
fn links_and_data_of_another_spelling_are_kept() {
    let scratch = scratch();
    let lower = scratch.path().join("lower0");
    fs::create_dir_all(lower.join("Dir")).unwrap();
    fs::write(lower.join("Dir/One"), b"data").unwrap();
    fs::hard_link(lower.join("Dir/One"), lower.join("Two")).unwrap();
    fs::hard_link(lower.join("Dir/One"), lower.join("two")).unwrap();
    for name in ["upper", "work"] {
        fs::create_dir(scratch.path().join(name)).unwrap();
    }
    let all = || Some(Folding::new(Mode::Unicode, &[] as &[&[u8]]));
    let folded = Folded::mount(scratch, 1, all());
    let ino = folded.ino("dir/one");
    assert_eq!(folded.fs.getattr(ino).unwrap().nlink, 3);
    folded.mv("dir/ONE", "DIR/Three").unwrap();
    folded.fs.unlink(Ino::ROOT, name("TWO")).unwrap();
    assert_eq!((folded.find("two"), folded.fs.getattr(ino).unwrap().nlink), (None, 1));
    folded.mv("DIR", "other").unwrap();
    let folded = folded.folded_anew();
    assert_eq!((folded.read("OTHER/three"), folded.ino("other/Three")), ("data".to_owned(), ino));
    assert_eq!(folded.fs.getattr(ino).unwrap().nlink, 1);
}

#[test]
fn an_upper_goes_on_with_another_mode_or_none() {
    let folded = Folded::new(&[dir([("Foo", file(b"low")), ("Straße", file(b"s"))])]);
    folded.fs.write(ROOT, folded.ino("FOO"), 0, b"up!", false).unwrap();
    let folded = folded.remounted(None);
    assert_eq!((folded.read("Foo"), folded.find("foo")), ("up!".to_owned(), None));
    assert_eq!(folded.fs.lookup(Ino::ROOT, name("foo")).unwrap(), Lookup::Absent);
    folded.create("", "foo").unwrap();
    assert_eq!(folded.names(""), ["Foo", "Straße", "foo"]);
    let folded = folded.remounted(Some(Folding::new(Mode::Windows, &[] as &[&[u8]])));
    // Both are in the upper: the smallest shows, the other is found by its exact name.
    assert_eq!(folded.names(""), ["Foo", "Straße"]);
    assert_eq!((folded.read("fOO"), folded.read("foo")), ("up!".to_owned(), String::new()));
    assert_eq!((folded.find("STRASSE"), folded.read("STRAßE")), (None, "s".to_owned()));
}

#[test]
fn only_chosen_subtrees_fold() {
    let tree = || dir([("In", dir([("File", file(b""))])), ("x", file(b""))]);
    let folded =
        Folded::new(&[dir([("Games", dir([("Wine", tree()), ("Other", tree())])), ("top", file(b""))])]);
    let subtrees = ["/Games/Wine".as_bytes(), b"Games/later/"];
    let folded = folded.remounted(Some(Folding::new(Mode::Unicode, &subtrees)));
    assert!(
        folded.find("TOP").is_none() && folded.find("games").is_none() && folded.find("Games/WINE").is_none()
    );
    assert!(folded.find("Games/Other/in").is_none());
    assert_eq!(folded.names("Games/Wine/IN"), ["File"]);
    assert!(folded.find("Games/Wine/IN/FILE").is_some());
    let is_folded = |path| folded.fs.is_folded(folded.ino(path)).unwrap();
    assert_eq!(
        ["", "Games", "Games/Wine", "Games/Wine/in", "top"].map(is_folded),
        [false, false, true, true, false]
    );
    // The sign for Wine: found, and not listed.
    assert!(folded.find("Games/Wine/in/.ciopfs").is_some() && folded.find("Games/.ciopfs").is_none());
    let marker = folded.fs.getattr(folded.ino("Games/Wine/.ciopfs")).unwrap();
    assert_eq!((marker.kind, marker.size), (FileKind::Regular, 0));
    assert_eq!(folded.names("Games/Wine"), ["In", "x"]);
    // What does not fold yet does not move to where it would, and the other way round; files do.
    assert_eq!(folded.mv("Games/Other/In", "Games/Wine/New"), Err(Errno::EXDEV));
    assert_eq!(folded.mv("Games/Wine/In", "Games/Other/New"), Err(Errno::EXDEV));
    assert_eq!(folded.mv("Games", "games"), Err(Errno::EXDEV));
    folded.mv("Games/Other/x", "Games/Wine/in/Y").unwrap();
    assert!(folded.find("Games/Wine/in/y").is_some());
    folded.fs.mkdir(ROOT, folded.ino("Games"), name("later"), 0o755).unwrap();
    assert!(is_folded("Games/later"));
}

#[test]
fn what_an_opaque_directory_hides_stays_hidden_in_every_spelling() {
    let opaque = Tree::Directory {
        opaque: true,
        perm: 0o755,
        entries: BTreeMap::from([("new".to_owned(), file(b""))]),
    };
    let folded = Folded::new(&[dir([("Dir", dir([("old", file(b""))]))]), dir([("dir", opaque)])]);
    assert_eq!(folded.names("DIR"), ["new"]);
    // Made anew where one was removed.
    let folded =
        Folded::new(&[dir([("Dir", dir([])), ("f", dir([]))]), dir([("dir", dir([("x", file(b""))]))])]);
    folded.fs.unlink(folded.ino("DIR"), name("X")).unwrap();
    folded.fs.rmdir(Ino::ROOT, name("dIR")).unwrap();
    folded.fs.mkdir(ROOT, Ino::ROOT, name("DIR"), 0o755).unwrap();
    folded.create("dir", "y").unwrap();
    let folded = folded.folded_anew();
    assert_eq!(
        (folded.names(""), folded.names("dir")),
        (vec!["DIR".to_owned(), "f".to_owned()], vec!["y".to_owned()])
    );
    assert!(xattr(&folded.upper("DIR"), "user.overlay.redirect").is_none());
}

/// Processor time of a look-up, in nanoseconds.
fn per_look_up(folded: &Folded, dir: Ino, names: &[String]) -> u64 {
    let start = thread_time();
    for text in names {
        match folded.fs.lookup(dir, name(text)).unwrap() {
            Lookup::Found(entry) | Lookup::Respelled(entry) => folded.fs.forget(entry.ino, 1),
            Lookup::Absent | Lookup::AbsentUncached => {}
        }
    }
    (thread_time() - start) / names.len() as u64
}

/// Processor time of this thread, in nanoseconds.
fn thread_time() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let time = usage.user_time() + usage.system_time();
    u64::try_from(time.num_microseconds()).unwrap() * 1000
}

#[test]
fn a_look_up_costs_the_same_whatever_the_number_of_names() {
    let mut figures = Vec::new();
    for count in [100, 5_000, 50_000] {
        let scratch = scratch();
        let lower = scratch.path().join("lower0");
        fs::create_dir(&lower).unwrap();
        for number in 0..count {
            fs::File::create(lower.join(format!("File Number {number}.Txt"))).unwrap();
        }
        for name in ["upper", "work"] {
            fs::create_dir(scratch.path().join(name)).unwrap();
        }
        let folded = Folded::mount(scratch, 1, Some(Folding::new(Mode::Unicode, &[] as &[&[u8]])));
        let ask = |pattern: &dyn Fn(usize) -> String| -> Vec<String> {
            (0..2000).map(|number| pattern(number * 7919 % count)).collect()
        };
        let first = per_look_up(&folded, Ino::ROOT, &["FILE NUMBER 0.TXT".to_owned()]);
        let other = per_look_up(&folded, Ino::ROOT, &ask(&|n| format!("FILE NUMBER {n}.TXT")));
        let miss = per_look_up(&folded, Ino::ROOT, &ask(&|n| format!("no file {n}")));
        let exact = per_look_up(&folded, Ino::ROOT, &ask(&|n| format!("File Number {n}.Txt")));
        println!(
            "{count} names: the first look-up {} us, then {other} ns by another spelling, {miss} ns where there is none, \
             {exact} ns by the exact name",
            first / 1000
        );
        figures.push((other, miss));
    }
    let (few, many) = (figures[0], figures[2]);
    assert!(many.0 < few.0 * 8 && many.1 < few.1 * 8, "{figures:?}");
}

/// All spellings of the letters that names are made of.
const SPELLINGS: [&[&str]; 4] =
    [&["a", "A"], &["b", "B"], &["c", "C"], &["é \u{7f}", "É \u{7f}", "E\u{301} \u{7f}"]];

fn respelled(text: &str, choice: usize) -> String {
    let all = SPELLINGS.iter().find(|all| all.contains(&text)).unwrap();
    all[choice % all.len()].to_owned()
}

/// Gives every name of every layer a spelling, and returns what they show together. Directories have another one in each
/// layer; what would hide something of another spelling has the same everywhere.
fn respell(layers: &[Tree], seed: usize) -> (Vec<Tree>, Tree) {
    fn below(parts: &[Option<&Tree>], seed: usize, free: bool) -> Vec<Option<Tree>> {
        let is_plain = |tree: &&Tree| matches!(tree, Tree::Directory { opaque: false, .. });
        let free = free && parts.iter().flatten().all(is_plain);
        if parts.iter().all(Option::is_none) {
            return vec![None; parts.len()];
        }
        let mut made: Vec<Option<Tree>> = parts.iter().map(|part| part.cloned()).collect();
        for tree in made.iter_mut().flatten() {
            if let Tree::Directory { entries, .. } = tree {
                entries.clear();
            }
        }
        for (letter, all) in SPELLINGS.iter().enumerate() {
            let children: Vec<_> = parts
                .iter()
                .map(|part| match part {
                    Some(Tree::Directory { entries, .. }) => entries.get(all[0]),
                    _ => None,
                })
                .collect();
            let seed = seed.wrapping_mul(31).wrapping_add(letter + 7);
            let both = free && children.iter().flatten().all(is_plain);
            for (number, child) in below(&children, seed, free).into_iter().enumerate() {
                let choice = if both { seed / 3 + number * (seed % 5) } else { seed / 3 };
                if let (Some(child), Some(Tree::Directory { entries, .. })) = (child, &mut made[number]) {
                    entries.insert(respelled(all[0], choice), child);
                }
            }
        }
        made
    }
    /// Lays `top` over `below`, names meeting by their letter.
    fn over(top: Tree, below: Tree) -> Tree {
        let (Tree::Directory { opaque: false, perm, entries }, Tree::Directory { entries: mut under, .. }) =
            (top.clone(), below)
        else {
            return top;
        };
        for (text, entry) in entries {
            let all = SPELLINGS.iter().find(|all| all.contains(&&*text)).unwrap();
            let merged = match all.iter().find_map(|spelling| under.remove(*spelling)) {
                Some(below) => over(entry, below),
                None => entry,
            };
            under.insert(text, merged);
        }
        Tree::Directory { opaque: false, perm, entries: under }
    }
    let parts: Vec<_> = layers.iter().map(Some).collect();
    let made: Vec<Tree> = below(&parts, seed, true).into_iter().flatten().collect();
    let merged = made.iter().fold(Tree::empty(), |below, tree| over(tree.clone(), below));
    (made, merged.plain())
}

/// Operations that ask for names in any spelling.
fn respelled_op() -> impl Strategy<Value = Op> {
    (op(), any::<usize>()).prop_map(|(mut op, mut seed)| {
        let mut change = |path: &mut Vec<String>| {
            for text in path {
                seed = seed.rotate_left(5).wrapping_mul(0x9e37_79b9);
                *text = respelled(text, seed >> 7);
            }
        };
        match &mut op {
            Op::Rename(from, to, _) | Op::Link(from, to) | Op::CopyRange(from, to, _) => {
                change(from);
                change(to);
            }
            Op::Create(path, _)
            | Op::Mkdir(path, _)
            | Op::Symlink(path, _)
            | Op::Fifo(path)
            | Op::Whiteout(path)
            | Op::Unlink(path)
            | Op::Rmdir(path)
            | Op::Write(path, ..)
            | Op::Read(path)
            | Op::Truncate(path, _)
            | Op::Chmod(path, _)
            | Op::Touch(path, _)
            | Op::SetXattr(path, ..)
            | Op::RemoveXattr(path)
            | Op::Stat(path)
            | Op::Readlink(path)
            | Op::Hold(_, path) => change(path),
            _ => {}
        }
        op
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn equals_a_plain_tree_by_keys(
        lowest in layer(false),
        middle in prop::collection::vec(layer(true), 0..3),
        seed in any::<usize>(),
        ops in prop::collection::vec(respelled_op(), 1..60),
    ) {
        let layers: Vec<_> = [lowest].into_iter().chain(middle).collect();
        let (layers, merged) = respell(&layers, seed);
        let mut pair = Pair::with(&layers, &merged, Some(Mode::Unicode));
        pair.check();
        for op in &ops {
            pair.apply(op);
        }
        pair.finish();
    }
}

/// The upper holds what a plain mount would show, too: exact names alone.
#[test]
fn nothing_folded_reaches_the_disk() {
    let folded = Folded::new(&[dir([("Foo", file(b"x"))])]);
    folded.create("", "MiXed").unwrap();
    folded.fs.write(ROOT, folded.ino("foo"), 0, b"y", false).unwrap();
    let mut names: Vec<_> = fs::read_dir(folded.upper(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["Foo", "MiXed"]);
    assert_eq!(fs::metadata(folded.upper("Foo")).unwrap().len(), 1);
    let _: &Path = folded.scratch.path();
    assert!(fs::metadata(folded.upper("MiXed")).unwrap().nlink() == 1);
}
