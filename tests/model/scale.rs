//! Sizes that hurt: depth, width, numbers of layers and of live nodes.

use std::{path::PathBuf, sync::Arc, time::Instant};

use fim::{
    layer::{FdPool, HostDir, HostUpper, Memory},
    overlay::{Overlay, OverlayOptions},
    vfs::{
        DeviceId, DirSink, FileKind, FileSystem as _, Full, Ino, Layer, Lookup, Name, NoInvalidate,
        RenameFlags, Upper,
    },
};

use crate::ours::ROOT;

struct Mount {
    _scratch: tempfile::TempDir,
    upper: Arc<HostUpper>,
    overlay: Overlay,
    path: PathBuf,
}

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).unwrap()
}

fn mount(layers: Vec<Arc<dyn Layer>>, pool: Arc<FdPool>) -> Mount {
    let scratch = crate::tree::scratch();
    let path = scratch.path().to_owned();
    std::fs::create_dir(path.join("upper")).unwrap();
    std::fs::create_dir(path.join("work")).unwrap();
    let upper = Arc::new(HostUpper::open_with(&path.join("upper"), &path.join("work"), pool).unwrap());
    let role = Some(Arc::clone(&upper) as Arc<dyn Upper>);
    let overlay = Overlay::new(layers, role, OverlayOptions::default(), Arc::new(NoInvalidate)).unwrap();
    Mount { _scratch: scratch, upper, overlay, path }
}

fn found(fs: &Overlay, dir: Ino, text: &str) -> Ino {
    match fs.lookup(dir, name(text)).unwrap() {
        Lookup::Found(entry) => entry.ino,
        other => panic!("{text}: {other:?}"),
    }
}

fn file(fs: &Overlay, dir: Ino, text: &str) -> Ino {
    fs.mknod(ROOT, dir, name(text), FileKind::Regular, 0o644, DeviceId::default()).unwrap().ino
}

/// Names and offsets of a directory, `room` entries a call.
#[derive(Default)]
struct Names {
    names: Vec<(String, u64)>,
    room: usize,
}

impl DirSink for Names {
    fn push(&mut self, _ino: Ino, _kind: FileKind, name: &[u8], next: u64) -> Result<(), Full> {
        self.room = self.room.checked_sub(1).ok_or(Full)?;
        self.names.push((String::from_utf8_lossy(name).into_owned(), next));
        Ok(())
    }
}

fn list_from(fs: &Overlay, dir: Ino, offset: u64, room: usize) -> Vec<(String, u64)> {
    let mut names = Names { room, ..Names::default() };
    fs.readdir(dir, offset, &mut names).unwrap();
    names.names
}

#[test]
fn ten_thousand_deep_directories_work_without_a_path() {
    const DEPTH: usize = 10_000;
    let mount = mount(Vec::new(), FdPool::new(100));
    let fs = &mount.overlay;
    let mut inos = vec![Ino::ROOT];
    for _ in 0..DEPTH {
        let made = fs.mkdir(ROOT, *inos.last().unwrap(), name("directory"), 0o755).unwrap();
        inos.push(made.ino);
    }
    let deepest = *inos.last().unwrap();
    let made = file(fs, deepest, "file");
    fs.write(ROOT, made, 0, b"deep", false).unwrap();
    assert_eq!(fs.read(made, 0, 9).unwrap().contiguous().as_ref(), b"deep");
    fs.forget(made, 1);
    // The top is moved: everything below goes along.
    fs.rename(Ino::ROOT, name("directory"), Ino::ROOT, name("moved"), RenameFlags::empty()).unwrap();
    let again = found(fs, deepest, "file");
    assert_eq!(again, made);
    assert_eq!(fs.read(again, 0, 9).unwrap().contiguous().as_ref(), b"deep");
    fs.forget(again, 1);
    // Only the deepest is held now; giving it back takes all others along.
    for ino in &inos[1..DEPTH] {
        fs.forget(*ino, 1);
    }
    assert_eq!(fs.live_nodes(), DEPTH + 1);
    fs.unlink(deepest, name("file")).unwrap();
    fs.forget(deepest, 1);
    assert_eq!(fs.live_nodes(), 1);
    // Removed again from the top: std's own removal would run out of path, the sweep of the work directory does not.
    let (upper, work) = (mount.path.join("upper"), mount.path.join("work"));
    drop(mount.overlay);
    drop(mount.upper);
    std::fs::rename(upper.join("moved"), work.join("work/moved")).unwrap();
    drop(HostUpper::open(&upper, &work).unwrap());
    assert_eq!(std::fs::read_dir(work.join("work")).unwrap().count(), 0);
}

#[test]
fn a_directory_of_one_hundred_thousand_entries_stays_fast_and_its_offsets_stable() {
    const COUNT: usize = 100_000;
    let mut lower = Memory::new();
    let root = lower.root();
    let dir = lower.add(root, name("d"), FileKind::Directory, 0o755, b"");
    for number in 0..COUNT {
        lower.add(dir, name(&format!("f{number:06}")), FileKind::Regular, 0o644, b"");
    }
    let mount = mount(vec![Arc::new(lower)], FdPool::new(100));
    let fs = &mount.overlay;
    let dir = found(fs, Ino::ROOT, "d");
    // The first half comes from the layer alone; then the directory changes, and the listing goes on.
    let first = list_from(fs, dir, 0, COUNT / 2);
    for number in (0..COUNT).step_by(10_000) {
        fs.unlink(dir, name(&format!("f{number:06}"))).unwrap();
    }
    let made = file(fs, dir, "new");
    let started = Instant::now();
    for number in 0..1_000 {
        fs.forget(file(fs, dir, &format!("n{number}")), 1);
        fs.unlink(dir, name(&format!("n{number}"))).unwrap();
    }
    assert!(started.elapsed().as_secs() < 10, "2,000 changes took {:?}", started.elapsed());
    let rest = list_from(fs, dir, first.last().unwrap().1, COUNT);
    let mut all: Vec<_> = first.into_iter().chain(rest).map(|(name, _)| name).collect();
    assert_eq!(all.len(), 2 + COUNT - 5 + 1, "five of the ten removed names had not been listed");
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 2 + COUNT - 5 + 1, "no name twice");
    fs.forget(made, 1);
    fs.forget(dir, 1);
    assert_eq!(fs.live_nodes(), 1);
}

#[test]
fn live_nodes_do_not_cost_descriptors() {
    const COUNT: usize = 5_000;
    const LIMIT: usize = 200;
    let pool = FdPool::new(LIMIT);
    let mount = mount(Vec::new(), Arc::clone(&pool));
    let fs = &mount.overlay;
    let mut inos = Vec::new();
    for number in 0..COUNT {
        let ino = file(fs, Ino::ROOT, &format!("f{number}"));
        fs.write(ROOT, ino, 0, format!("{number}").as_bytes(), false).unwrap();
        inos.push(ino);
        assert!(pool.open() <= LIMIT + 2, "{} descriptors", pool.open());
    }
    for (number, ino) in inos.iter().enumerate().rev() {
        assert_eq!(fs.read(*ino, 0, 99).unwrap().contiguous().as_ref(), format!("{number}").as_bytes());
        assert!(pool.open() <= LIMIT + 2, "{} descriptors", pool.open());
    }
    // Removed while they are held: each keeps one descriptor, and gives it back.
    for (number, ino) in inos.iter().enumerate().take(100) {
        fs.unlink(Ino::ROOT, name(&format!("f{number}"))).unwrap();
        assert_eq!(fs.getattr(*ino).unwrap().nlink, 0);
    }
    for ino in inos {
        fs.forget(ino, 1);
    }
    assert_eq!(fs.live_nodes(), 1);
    assert_eq!(mount.upper.live_nodes(), 3);
    assert!(pool.open() <= 1, "{} descriptors", pool.open());
}

#[test]
fn one_thousand_layers_merge() {
    let mut layers: Vec<Arc<dyn Layer>> = Vec::new();
    for number in 0..1_000 {
        let mut layer = Memory::new();
        let root = layer.root();
        layer.add(root, name("top"), FileKind::Regular, 0o644, format!("{number}").as_bytes());
        let dir = layer.add(root, name("dir"), FileKind::Directory, 0o755, b"");
        layer.add(dir, name(&format!("f{number}")), FileKind::Regular, 0o644, b"");
        if number == 500 {
            layer.add_whiteout(dir, name("f499"));
            layer.add(root, name("lonely"), FileKind::Directory, 0o755, b"");
        }
        layers.push(Arc::new(layer));
    }
    let mount = mount(layers, FdPool::new(100));
    let fs = &mount.overlay;
    let top = found(fs, Ino::ROOT, "top");
    assert_eq!(fs.read(top, 0, 9).unwrap().contiguous().as_ref(), b"999");
    let dir = found(fs, Ino::ROOT, "dir");
    assert_eq!(list_from(fs, dir, 0, 9_999).len(), 2 + 999);
    assert_eq!(fs.lookup(dir, name("f499")).unwrap(), Lookup::Absent);
    for ino in [found(fs, dir, "f0"), found(fs, Ino::ROOT, "lonely"), top, dir] {
        fs.forget(ino, 1);
    }
    assert_eq!(fs.live_nodes(), 1);
}

#[test]
fn one_upper_has_one_writer() {
    let mount = mount(Vec::new(), FdPool::new(100));
    let error = HostUpper::open(&mount.path.join("upper"), &mount.path.join("work")).unwrap_err();
    assert!(error.to_string().ends_with("is in use by another process"), "{error}");
    let elsewhere = HostUpper::open(&mount.path.join("upper"), std::path::Path::new("/proc")).unwrap_err();
    assert!(elsewhere.to_string().contains("different file systems"), "{elsewhere}");
}

#[test]
fn parallel_changes_of_everything_end_well() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 300;
    let lower_dir = crate::tree::scratch();
    for number in 0..20 {
        std::fs::create_dir_all(lower_dir.path().join(format!("d{number}/e"))).unwrap();
        std::fs::write(lower_dir.path().join(format!("d{number}/f")), vec![b'x'; 100_000]).unwrap();
    }
    let lower = Arc::new(HostDir::open_with(lower_dir.path(), FdPool::new(20)).unwrap());
    let mount = mount(vec![Arc::clone(&lower) as Arc<dyn Layer>], FdPool::new(20));
    let fs = &mount.overlay;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let dir = found(fs, Ino::ROOT, &format!("d{}", (thread * 7 + round) % 20));
                    if let Ok(Lookup::Found(entry)) = fs.lookup(dir, name("f")) {
                        // All of one content, whoever copies it up.
                        fs.write(ROOT, entry.ino, (thread * 100) as u64, b"xxxx", false).unwrap();
                        let data = fs.read(entry.ino, 0, 200_000).unwrap();
                        assert!(data.len() == 100_000 && data.contiguous().iter().all(|byte| *byte == b'x'));
                        fs.forget(entry.ino, 1);
                    }
                    let own = format!("t{thread}");
                    match round % 5 {
                        0 => drop(fs.unlink(dir, name("f"))),
                        1 => {
                            let made = file(fs, dir, &own);
                            fs.write(ROOT, made, 0, &vec![b'x'; 100_000], false).unwrap();
                            fs.rename(dir, name(&own), dir, name("f"), RenameFlags::empty()).unwrap();
                            fs.forget(made, 1);
                        }
                        2 => drop(fs.rmdir(dir, name("e"))),
                        3 => {
                            if let Ok(entry) = fs.mkdir(ROOT, dir, name("e"), 0o755) {
                                fs.forget(entry.ino, 1);
                            }
                        }
                        _ => drop(list_from(fs, dir, 0, 100)),
                    }
                    fs.forget(dir, 1);
                }
            });
        }
    });
    assert_eq!(fs.live_nodes(), 1);
    assert_eq!(mount.upper.live_nodes(), 3);
    assert_eq!(lower.live_nodes(), 1);
}
