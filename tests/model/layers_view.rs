//! Each layer by itself.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use fim::{
    layer::{HostDir, HostUpper},
    overlay::{LayersView, Overlay, OverlayOptions},
    vfs::{
        Attr, DirPlusSink, DirSink, Entry, Errno, FileKind, FileSystem as _, Full, Ino, Invalidate, Layer,
        Lookup, Name, NoInvalidate, SetAttr,
    },
};

use crate::{ours::ROOT, tree::scratch};

/// What the kernel would have been told.
#[derive(Default)]
struct Told(Mutex<Vec<(Ino, bool)>>);

impl Invalidate for Told {
    fn entry(&self, _: Ino, _: &[u8]) {}

    fn entry_afterwards(&self, _: Ino, _: &[u8]) {}

    fn inode(&self, ino: Ino, data: bool) {
        self.0.lock().unwrap().push((ino, data));
    }
}

/// A listing: entries by name, and where to go on.
#[derive(Default)]
struct Listing {
    entries: BTreeMap<String, Ino>,
    room: usize,
    next: u64,
}

impl Listing {
    fn take(&mut self, ino: Ino, name: &[u8], next: u64) -> Result<(), Full> {
        if self.room == 0 {
            return Err(Full);
        }
        self.room -= 1;
        self.next = next;
        let before = self.entries.insert(String::from_utf8(name.to_vec()).unwrap(), ino);
        assert_eq!(before, None, "shown twice");
        Ok(())
    }
}

impl DirSink for Listing {
    fn push(&mut self, ino: Ino, _: FileKind, name: &[u8], next: u64) -> Result<(), Full> {
        self.take(ino, name, next)
    }
}

impl DirPlusSink for Listing {
    fn push(&mut self, entry: &Entry, name: &[u8], next: u64) -> Result<(), Full> {
        assert_eq!(entry.ino.get(), entry.attr.ino);
        self.take(entry.ino, name, next)
    }

    fn push_plain(&mut self, _: FileKind, name: &[u8], _: u64) -> Result<(), Full> {
        panic!("{} cannot be shown", name.escape_ascii());
    }
}

/// Lists `room` entries at a time, without and with attributes; both must show the same.
fn list(view: &LayersView, dir: Ino, room: usize) -> BTreeMap<String, Ino> {
    let (mut plain, mut plus) = (Listing::default(), Listing::default());
    loop {
        (plain.room, plus.room) = (room, room);
        view.readdir(dir, plain.next, &mut plain).unwrap();
        view.readdirplus(dir, plus.next, &mut plus).unwrap();
        if plain.room == room {
            break;
        }
    }
    for (_, ino) in plus.entries.iter().filter(|(name, _)| !matches!(name.as_str(), "." | "..")) {
        view.forget(*ino, 1);
    }
    assert_eq!(plain.entries, plus.entries);
    plain.entries
}

/// Looks a path up and keeps the look-ups; the numbers on it, the last of what it leads to. Fewer where it ends early.
fn walk(view: &LayersView, path: &str) -> Vec<Ino> {
    let mut inos: Vec<Ino> = Vec::new();
    for name in path.split('/') {
        let parent = inos.last().copied().unwrap_or(Ino::ROOT);
        match view.lookup(parent, Name::new(name.as_bytes()).unwrap()).unwrap() {
            Lookup::Found(entry) | Lookup::Respelled(entry) => inos.push(entry.ino),
            Lookup::Absent | Lookup::AbsentUncached => break,
        }
    }
    inos
}

fn give_back(view: &LayersView, inos: Vec<Ino>) {
    inos.into_iter().for_each(|ino| view.forget(ino, 1));
}

fn find(view: &LayersView, path: &str) -> Option<Attr> {
    let inos = walk(view, path);
    let last = inos.last().filter(|_| inos.len() == path.split('/').count());
    let attr = last.map(|ino| view.getattr(*ino).unwrap());
    give_back(view, inos);
    attr
}

struct Fixture {
    scratch: tempfile::TempDir,
    layers: Vec<Arc<HostDir>>,
    overlay: Arc<Overlay>,
    view: LayersView,
    told: Arc<Told>,
}

/// Three layers with a directory in common, and an upper.
fn fixture() -> Fixture {
    let scratch = scratch();
    let path = |name: &str| scratch.path().join(name);
    for name in ["0/dir", "1/dir", "2", "upper", "work"] {
        fs::create_dir_all(path(name)).unwrap();
    }
    fs::write(path("0/dir/below"), "zero").unwrap();
    fs::write(path("0/dir/both"), "zero").unwrap();
    fs::write(path("1/dir/both"), "first").unwrap();
    fs::hard_link(path("1/dir/both"), path("1/linked")).unwrap();
    let layers: Vec<_> = ["0", "1", "2"].map(|name| open(&path(name))).into();
    let stack = layers.iter().map(|layer| Arc::clone(layer) as Arc<dyn Layer>).collect();
    let upper = Arc::new(HostUpper::open(&path("upper"), &path("work")).unwrap());
    let options = OverlayOptions::default();
    let overlay = Arc::new(Overlay::new(stack, Some(upper), options, Arc::new(NoInvalidate)).unwrap());
    let told = Arc::new(Told::default());
    let view = LayersView::new(Arc::clone(&overlay), Arc::clone(&told) as _);
    Fixture { scratch, layers, overlay, view, told }
}

fn open(path: &Path) -> Arc<HostDir> {
    Arc::new(HostDir::open(path).unwrap())
}

#[test]
fn each_layer_is_a_directory_that_shows_it_alone() {
    let Fixture { view, overlay, layers, scratch: _scratch, .. } = fixture();
    for room in [1, 2, 100] {
        let names: Vec<_> = list(&view, Ino::ROOT, room).into_keys().collect();
        assert_eq!(names, [".", "..", "0", "1", "2"]);
    }
    for (path, size) in [
        ("0/dir/below", Some(4)),
        ("0/dir/both", Some(4)),
        ("1/dir/both", Some(5)),
        ("1/dir/below", None),
        ("0/linked", None),
        ("2/dir", None),
    ] {
        assert_eq!(find(&view, path).map(|attr| attr.size), size, "{path}");
    }
    let inos = walk(&view, "1/dir/both");
    assert_eq!(view.read(inos[0], 0, 100).unwrap_err().errno(), Errno::EISDIR);
    assert_eq!(view.read(Ino::ROOT, 0, 100).unwrap_err().errno(), Errno::EISDIR);
    assert_eq!(&*view.read(inos[2], 1, 100).unwrap().contiguous(), b"irst");
    give_back(&view, inos);
    drop((view, overlay));
    for layer in layers {
        assert_eq!(layer.live_nodes(), 1, "the view has kept something");
    }
}

#[test]
fn a_name_of_the_root_is_a_number_as_it_is_written() {
    let Fixture { view, scratch: _scratch, .. } = fixture();
    let lookup = |name: &str| view.lookup(Ino::ROOT, Name::new(name.as_bytes()).unwrap()).unwrap();
    for name in
        ["00", "01", "+1", "-0", " 1", "x", "1x", "4294967296", "340282366920938463463374607431768211456"]
    {
        assert!(matches!(lookup(name), Lookup::Absent), "{name}");
    }
    for name in ["3", "4294967295"] {
        assert!(matches!(lookup(name), Lookup::AbsentUncached), "{name}");
    }
}

#[test]
fn inode_numbers_agree_and_differ_between_layers() {
    let Fixture { view, scratch: _scratch, .. } = fixture();
    let root = list(&view, Ino::ROOT, 100);
    assert_eq!((root["."], root[".."]), (Ino::ROOT, Ino::ROOT));
    let mut seen = std::collections::HashSet::from([Ino::ROOT]);
    for number in ["0", "1", "2"] {
        let top = root[number];
        assert_eq!(find(&view, number).unwrap().ino, top.get());
        // Held, as the kernel holds what it lists.
        let held = walk(&view, number);
        let entries = list(&view, top, 1);
        assert_eq!((entries["."], entries[".."]), (top, Ino::ROOT));
        assert!(seen.insert(top));
        for (name, ino) in entries.iter().filter(|(name, _)| !name.starts_with('.')) {
            assert_eq!(find(&view, &format!("{number}/{name}")).unwrap().ino, ino.get());
            assert!(seen.insert(*ino), "{number}/{name}");
        }
        give_back(&view, held);
    }
    let linked = find(&view, "1/linked").unwrap();
    assert_eq!((linked.ino, linked.nlink), (find(&view, "1/dir/both").unwrap().ino, 2));
}

#[test]
fn nothing_is_opened_before_somebody_looks() {
    let Fixture { view, scratch: _scratch, .. } = fixture();
    view.getattr(Ino::ROOT).unwrap();
    view.statfs().unwrap();
    view.readdir(Ino::ROOT, 0, &mut Listing { room: 100, ..Listing::default() }).unwrap();
    assert_eq!(view.opened(), 0);
    find(&view, "1/dir");
    find(&view, "1");
    assert_eq!(view.opened(), 1);
}

#[test]
fn nothing_can_be_changed() {
    let Fixture { view, scratch: _scratch, .. } = fixture();
    let (dir, new) = (walk(&view, "1/dir")[1], Name::new(b"new").unwrap());
    assert!(view.is_read_only());
    let results = [
        view.mkdir(ROOT, dir, new, 0o755).map(drop),
        view.unlink(dir, Name::new(b"both").unwrap()),
        view.setattr(ROOT, dir, &SetAttr { perm: Some(0o700), ..SetAttr::default() }).map(drop),
        view.write(ROOT, dir, 0, b"x", false),
        view.mkdir(ROOT, Ino::ROOT, new, 0o755).map(drop),
    ];
    for result in results {
        assert_eq!(result.unwrap_err().errno(), Errno::EROFS);
    }
}

#[test]
fn a_layer_that_joins_gets_the_next_number() {
    let Fixture { view, overlay, told, scratch, layers, .. } = fixture();
    let path = |name: &str| scratch.path().join(name);
    let file =
        overlay.mknod(ROOT, Ino::ROOT, Name::new(b"new").unwrap(), FileKind::Regular, 0o644, <_>::default());
    overlay.forget(file.unwrap().ino, 1);
    assert_eq!(find(&view, "3"), None);
    let guard = overlay.freeze().unwrap();
    fs::create_dir(path("3")).unwrap();
    fs::copy(path("upper/new"), path("3/new")).unwrap();
    overlay.rebase(guard, open(&path("3"))).unwrap();
    view.has_grown();
    assert_eq!(*told.0.lock().unwrap(), [(Ino::ROOT, true)]);
    assert!(find(&view, "3/new").is_some());
    assert_eq!(list(&view, Ino::ROOT, 2).len(), 2 + 4);
    assert_eq!(layers.len(), 3);
}
