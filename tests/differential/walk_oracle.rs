//! Upstream's library as a layer (feature `libdwarfs`): its errors, its side car, many threads at a time.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::Path,
    thread,
};

use fim::{
    dwarfs::{
        read::Place,
        write::{DirSource, WriteOptions, write_archive},
    },
    layer::{Libdwarfs, LibdwarfsError},
    vfs::{Errno, Layer, Name, NodeId, SeekWhence},
};
use rustix::fs::{XattrFlags, setxattr};

use crate::support::{full, list, open};

const START: Place = Place::At { offset: 0, len: None };
const CACHE: usize = 64 << 20;

/// Length of the large file: several blocks.
const BIG: usize = 3_000_000;

/// An archive of our writer, with extended attributes.
fn example(scratch: &Path) -> std::path::PathBuf {
    let (tree, archive) = (scratch.join("tree"), scratch.join("archive.dwarfs"));
    fs::create_dir_all(tree.join("d")).unwrap();
    fs::write(tree.join("big"), big(0, BIG)).unwrap();
    fs::write(tree.join("d/small"), b"small").unwrap();
    std::os::unix::fs::symlink("d/small", tree.join("link")).unwrap();
    setxattr(tree.join("d"), "user.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    setxattr(tree.join("d/small"), "user.note", &[0, 255], XattrFlags::empty()).unwrap();
    let mut output = BufWriter::new(File::create(&archive).unwrap());
    let options = WriteOptions { block_size_bits: 20, ..WriteOptions::default() };
    write_archive(&DirSource::open(&tree).unwrap(), &options, &mut output, &()).unwrap();
    output.flush().unwrap();
    archive
}

/// Bytes that repeat nowhere, so that the writer finds no part of them again, and yet shrink: upstream's library checks
/// no sum of a stored block.
fn big(offset: usize, len: usize) -> Vec<u8> {
    let mixed = |at: usize| {
        let at = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (at ^ (at >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 60
    };
    (offset..offset + len).map(|at| mixed(at).to_le_bytes()[0]).collect()
}

fn find(layer: &dyn Layer, path: &str) -> NodeId {
    path.split('/').fold(layer.root(), |node, name| {
        layer.lookup(node, Name::new(name.as_bytes()).unwrap()).unwrap().expect("it is there").0
    })
}

#[test]
fn the_side_car_is_taken_for_what_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let archive = example(scratch.path());
    let (ours, theirs) = (open(&archive, START).unwrap(), Libdwarfs::open(&archive, START, CACHE).unwrap());
    let names =
        |layer: &dyn Layer| list(layer, layer.root()).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&theirs), [b"big".to_vec(), b"d".to_vec(), b"link".to_vec()]);
    assert_eq!(names(&ours), names(&theirs));
    assert_eq!(theirs.lookup(theirs.root(), Name::new(b".fim.sidecar").unwrap()).unwrap(), None);
    assert!(theirs.has_xattrs());
    for path in ["d", "d/small", "big"] {
        let (ours_names, names) =
            (ours.xattr_names(find(&ours, path)).unwrap(), theirs.xattr_names(find(&theirs, path)).unwrap());
        assert_eq!(ours_names, names, "{path}");
        for name in names {
            assert_eq!(
                ours.xattr(find(&ours, path), &name).unwrap(),
                theirs.xattr(find(&theirs, path), &name).unwrap()
            );
        }
    }
    assert_eq!(theirs.xattr(find(&theirs, "d/small"), b"user.note").unwrap(), Some(vec![0, 255]));
    let figures = theirs.stat_fs().unwrap();
    assert_eq!(figures.files, ours.stat_fs().unwrap().files);
}

#[test]
fn errors_have_the_numbers_of_the_manual() {
    let scratch = tempfile::tempdir().unwrap();
    let layer = Libdwarfs::open(&example(scratch.path()), START, CACHE).unwrap();
    let errno = |error: fim::vfs::Error| error.errno();
    let (file, link) = (find(&layer, "d/small"), find(&layer, "link"));
    let name = Name::new(b"x").unwrap();
    assert_eq!(layer.lookup(layer.root(), name).unwrap(), None);
    assert_eq!(layer.lookup(file, name).map_err(errno), Err(Errno::ENOTDIR));
    assert_eq!(
        layer.read_dir(file, 0, &mut |_| std::ops::ControlFlow::Continue(())).map_err(errno),
        Err(Errno::ENOTDIR)
    );
    assert_eq!(layer.read_link(file).map_err(errno), Err(Errno::EINVAL));
    assert_eq!(layer.read_link(link).unwrap(), b"d/small");
    assert_eq!(layer.read(link, 0, 1).map(|_| ()).map_err(errno), Err(Errno::EINVAL));
    assert_eq!(layer.read(file, 3, 10).unwrap().contiguous().as_ref(), b"ll");
    assert!(
        layer.read(file, 5, 10).unwrap().is_empty() && layer.read(file, u64::MAX, 10).unwrap().is_empty()
    );
    assert_eq!(layer.seek(file, 5, SeekWhence::Data).map_err(errno), Err(Errno::ENXIO));
    assert_eq!(layer.seek(file, 4, SeekWhence::Hole).unwrap(), 5);
    assert_eq!(layer.attr(NodeId::new(99)).map_err(errno), Err(Errno::EIO));
    assert_eq!(layer.attr(NodeId::new(u64::from(u32::MAX))).map_err(errno), Err(Errno::EIO));
    assert_eq!(layer.attr(NodeId::new(u64::MAX)).map_err(errno), Err(Errno::ESTALE));
}

#[test]
fn what_is_no_archive_is_refused_with_the_words_of_the_library() {
    let scratch = tempfile::tempdir().unwrap();
    let refused = |path: &Path| match Libdwarfs::open(path, START, CACHE) {
        Err(error @ LibdwarfsError::Library(_)) => full(&error),
        other => panic!("should be refused: {other:?}"),
    };
    let said = refused(&scratch.path().join("nothing"));
    assert!(said.contains("No such file"), "{said}");
    let empty = scratch.path().join("text");
    fs::write(&empty, "no archive, but longer than the header of one would be".repeat(9)).unwrap();
    assert!(refused(&empty).starts_with("libdwarfs: "));
    let archive = example(scratch.path());
    let bytes = fs::read(&archive).unwrap();
    fs::write(&archive, &bytes[..bytes.len() / 2]).unwrap();
    assert!(refused(&archive).starts_with("libdwarfs: "));
}

#[test]
fn a_damaged_block_is_an_error_of_its_file() {
    let scratch = tempfile::tempdir().unwrap();
    let archive = example(scratch.path());
    let mut bytes = fs::read(&archive).unwrap();
    // In a block of the large file, behind the one with the side car.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).unwrap();
    let layer = Libdwarfs::open(&archive, START, CACHE).unwrap();
    let read = layer.read(find(&layer, "big"), 0, BIG).map(|_| ());
    assert_eq!(read.map_err(|error| error.errno()), Err(Errno::EIO));
}

#[test]
fn many_threads_read_at_random_places() {
    let scratch = tempfile::tempdir().unwrap();
    let layer = Libdwarfs::open(&example(scratch.path()), START, CACHE).unwrap();
    let file = find(&layer, "big");
    thread::scope(|scope| {
        for seed in 1..=4_usize {
            let layer = &layer;
            scope.spawn(move || {
                let mut state = seed;
                for _ in 0..100 {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let (offset, len) = ((state >> 33) % BIG, (state >> 20) % 100_000);
                    let found = layer.read(file, offset as u64, len).unwrap();
                    assert!(found.contiguous() == big(offset, len.min(BIG - offset)), "{len} at {offset}");
                }
            });
        }
    });
}
