//! Directories of the host as sources.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use nix::sys::stat::Mode;

use crate::dwarfs::{
    format::sidecar::Xattrs,
    write::{Content, DirSource, Faults, Object, Source as _, Tree, Unreadable, WriteError},
};

fn scan(source: &DirSource) -> Tree {
    source.scan(&Faults::new(Unreadable::Refuse, &()), &()).unwrap()
}

fn paths(tree: &Tree) -> Vec<String> {
    tree.entry_ids().map(|id| String::from_utf8(tree.path(id)).unwrap()).collect()
}

fn object<'t>(tree: &'t Tree, path: &str) -> (&'t Object, Xattrs) {
    let entry = tree.entry_ids().find(|id| tree.path(*id) == path.as_bytes()).unwrap();
    let id = tree.object_of(entry);
    (tree.object(id).unwrap(), tree.xattrs(id).cloned().unwrap_or_default())
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

#[test]
fn skipped_paths_are_left_out_with_what_is_below() {
    let directory = tempfile::tempdir().unwrap();
    for path in ["a/b/c", "a/bb", "b"] {
        fs::create_dir_all(directory.path().join(path)).unwrap();
    }
    let source = DirSource::open(directory.path()).unwrap().skip(["a/b".into(), "b".into(), "c".into()]);
    assert_eq!(paths(&scan(&source)), ["", "a", "a/bb"]);
}

#[test]
fn a_fifo_does_not_block_and_a_link_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(&directory.path().join("fifo"), Mode::S_IRWXU).unwrap();
    symlink("/", directory.path().join("link")).unwrap();
    let source = DirSource::open(directory.path()).unwrap();
    let tree = source.scan(&Faults::new(Unreadable::Refuse, &()), &()).unwrap();
    assert_eq!(paths(&tree), ["", "fifo", "link"]);
    assert_eq!(object(&tree, "link").0.content, Content::Symlink(b"/"[..].into()));
    let file = Object::new(Content::File(Default::default()), 0);
    for path in ["fifo", "link/etc/passwd", "link", "../x"] {
        assert!(matches!(source.open(path.as_bytes(), &file), Err(WriteError::Source { .. })), "{path}");
    }
}

#[test]
fn a_file_is_the_same_until_it_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, b"one").unwrap();
    let source = DirSource::open(directory.path()).unwrap();
    let tree = source.scan(&Faults::new(Unreadable::Refuse, &()), &()).unwrap();
    let known = object(&tree, "file").0;
    let contents = source.open(b"file", known).unwrap();
    assert!(contents.is_unchanged(known).unwrap());
    fs::write(&path, b"three").unwrap();
    assert!(!contents.is_unchanged(known).unwrap());
    let newer = contents.refresh(known).unwrap();
    assert!(contents.is_unchanged(&newer).unwrap());
    assert_eq!(newer.file().unwrap().size, 5);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!contents.is_unchanged(&newer).unwrap());
}

#[test]
fn attributes_are_kept_or_tell_what_an_object_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("opaque")).unwrap();
    fs::write(path("device"), b"").unwrap();
    fs::write(path("plain"), b"").unwrap();
    match rustix::fs::lsetxattr(path("plain"), "user.note", b"x", rustix::fs::XattrFlags::empty()) {
        Err(rustix::io::Errno::NOTSUP) => return eprintln!("skipped: no user attributes here"),
        result => result.unwrap(),
    }
    set_xattr(&path("plain"), "user.fim.origin", b"?");
    set_xattr(&path("opaque"), "user.overlay.opaque", b"y");
    set_xattr(&path("device"), "user.containers.override_stat", b"12:34:0620:char-4-7");
    let tree = scan(&DirSource::open(directory.path()).unwrap());
    let xattrs = |name: &str, value: &[u8]| Xattrs::from([(name.as_bytes().to_vec(), value.to_vec())]);
    assert_eq!(object(&tree, "plain").1, xattrs("user.note", b"x"));
    assert_eq!(object(&tree, "opaque").1, xattrs("user.overlay.opaque", b"y"));
    let (device, none) = object(&tree, "device");
    assert_eq!((device.uid, device.gid, device.mode()), (12, 34, 0o020_620));
    assert_eq!(none, Xattrs::new());
}

#[test]
fn names_linked_across_directories_are_one_object() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("d")).unwrap();
    fs::write(directory.path().join("z"), b"x").unwrap();
    for link in ["a", "d/a", "d/b"] {
        fs::hard_link(directory.path().join("z"), directory.path().join(link)).unwrap();
    }
    let tree = scan(&DirSource::open(directory.path()).unwrap());
    assert_eq!((tree.entries().len(), tree.objects().len()), (6, 3));
}

#[test]
fn a_path_longer_than_one_call_takes_is_walked_in_parts() {
    let directory = tempfile::tempdir().unwrap();
    let name = "x".repeat(250);
    let mut at = rustix::fs::open(directory.path(), rustix::fs::OFlags::DIRECTORY, 0.into()).unwrap();
    for _ in 0..40 {
        rustix::fs::mkdirat(&at, &name, 0o700.into()).unwrap();
        at = rustix::fs::openat(&at, &name, rustix::fs::OFlags::DIRECTORY, 0.into()).unwrap();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    rustix::io::write(rustix::fs::openat(&at, "file", flags, 0o600.into()).unwrap(), b"deep").unwrap();
    let source = DirSource::open(directory.path()).unwrap();
    let tree = source.scan(&Faults::new(Unreadable::Refuse, &()), &()).unwrap();
    let deepest = tree.entry_ids().next_back().unwrap();
    let path = tree.path(deepest);
    assert_eq!(path.len(), 40 * 251 + 4);
    let contents = source.open(&path, tree.object(tree.object_of(deepest)).unwrap()).unwrap();
    let mut bytes = [0; 4];
    assert_eq!(contents.read_at(&mut bytes, 0).unwrap(), 4);
    assert_eq!(&bytes, b"deep");
}

#[test]
fn a_mount_point_is_all_that_is_kept_of_a_mount() {
    let pts = Path::new("/dev/pts");
    let device = |path: &Path| fs::symlink_metadata(path).map(|metadata| metadata.dev()).ok();
    if device(pts).is_none() || device(pts) == device(Path::new("/dev")) {
        return eprintln!("skipped: nothing is mounted on /dev/pts");
    }
    let scan = |yes| scan(&DirSource::open(Path::new("/dev")).unwrap().one_file_system(yes));
    let in_pts = |tree: &Tree| paths(tree).iter().filter(|path| path.starts_with("pts")).count();
    assert!(in_pts(&scan(false)) > 1);
    assert_eq!(in_pts(&scan(true)), 1);
}

#[test]
fn a_missing_directory_is_named() {
    let error = DirSource::open(Path::new("/nonexistent/tree")).unwrap_err();
    assert_eq!(error.to_string(), "cannot open /nonexistent/tree");
    assert!(matches!(error, WriteError::Source { source, .. } if source.kind() == io::ErrorKind::NotFound));
}
