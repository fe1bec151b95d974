//! Everything that can be seen of a tree.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::Path,
};

use fim::vfs::{DirPlusSink, DirSink, Entry, FileKind, FileSystem as _, Full, Ino};

use crate::{ours::Ours, tree::OLD};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: u32,
    pub(crate) perm: u32,
    /// Hard links; 0 for directories.
    pub(crate) links: u64,
    pub(crate) size: u64,
    pub(crate) content: Vec<u8>,
    pub(crate) xattr: Option<Vec<u8>>,
    /// The modification time where no operation made it the current one.
    pub(crate) mtime: Option<i64>,
    /// The first path with the same inode.
    pub(crate) same_as: String,
}

pub(crate) type Dump = BTreeMap<String, Seen>;

/// Times later than this are the current time of some operation.
const RECENT: i64 = 1_500_000_000;

fn known_time(seconds: i64) -> Option<i64> {
    assert!(seconds < RECENT || seconds > OLD as i64);
    (seconds < RECENT).then_some(seconds)
}

pub(crate) fn native(root: &Path) -> Dump {
    let mut dump = Dump::new();
    let mut inodes = BTreeMap::new();
    native_below(root, "", &mut dump, &mut inodes);
    dump
}

fn native_below(root: &Path, path: &str, dump: &mut Dump, inodes: &mut BTreeMap<u64, String>) {
    let full = root.join(path);
    let meta = fs::symlink_metadata(&full).unwrap();
    let kind = meta.file_type();
    let content = match () {
        () if kind.is_file() => fs::read(&full).unwrap(),
        () if kind.is_symlink() => fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec(),
        () => Vec::new(),
    };
    let mut xattr = [0; 64];
    let xattr = match rustix::fs::lgetxattr(&full, "user.x", &mut xattr[..]) {
        Ok(len) => Some(xattr[..len].to_vec()),
        Err(_) => None,
    };
    let same_as = inodes.entry(meta.ino()).or_insert_with(|| path.to_owned()).clone();
    assert!(!kind.is_block_device());
    let seen = Seen {
        kind: meta.mode() & libc::S_IFMT,
        perm: meta.mode() & 0o7777,
        links: if kind.is_dir() { 0 } else { meta.nlink() },
        size: if kind.is_dir() { 0 } else { meta.len() },
        content,
        xattr,
        mtime: known_time(meta.mtime()),
        same_as,
    };
    dump.insert(path.to_owned(), seen);
    if kind.is_dir() {
        // The kernel lists whiteouts of a directory that only one layer has; they are no entries all the same.
        let mut names: Vec<_> = fs::read_dir(&full)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| fs::symlink_metadata(full.join(name)).is_ok())
            .collect();
        names.sort();
        for name in names {
            native_below(root, &join(path, &name), dump, inodes);
        }
    }
}

/// The dump of the overlay, and its inode numbers.
pub(crate) fn ours(ours: &Ours) -> (Dump, BTreeMap<String, u64>) {
    let mut dump = Dump::new();
    let mut inos = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    ours_below(ours, &[], &mut dump, &mut inos, &mut inodes);
    (dump, inos)
}

fn ours_below(
    ours: &Ours,
    path: &[String],
    dump: &mut Dump,
    inos: &mut BTreeMap<String, u64>,
    inodes: &mut BTreeMap<u64, String>,
) {
    let walked = ours.walk(path).unwrap_or_else(|errno| panic!("cannot look up {path:?}: {errno}"));
    let fs = ours.fs();
    let ino = walked.last();
    let attr = fs.getattr(ino).unwrap();
    let name = path.join("/");
    let content = match attr.kind {
        FileKind::Regular => fs.read(ino, 0, 1 << 20).unwrap().contiguous().into_owned(),
        FileKind::Symlink => fs.readlink(ino).unwrap(),
        _ => Vec::new(),
    };
    assert_eq!(attr.ino, ino.get());
    let is_dir = attr.kind == FileKind::Directory;
    inos.insert(name.clone(), ino.get());
    let same_as = inodes.entry(ino.get()).or_insert_with(|| name.clone()).clone();
    let names = fs.listxattr(ino).unwrap();
    assert!(names.is_empty() || names == b"user.x\0", "{}", names.escape_ascii());
    dump.insert(
        name.clone(),
        Seen {
            kind: attr.kind.mode_bits(),
            perm: attr.perm.into(),
            links: if is_dir { 0 } else { attr.nlink.into() },
            size: if is_dir { 0 } else { attr.size },
            content,
            xattr: fs.getxattr(ino, b"user.x").ok(),
            mtime: known_time(attr.mtime.seconds),
            same_as,
        },
    );
    if is_dir {
        let mut entries = list(ours, ino);
        let plus = list_plus(ours, ino);
        let plain: Vec<_> = entries.iter().map(|(name, ino, kind)| (name.clone(), *ino, *kind)).collect();
        assert_eq!(plain, plus, "readdir and readdirplus of {name:?}");
        entries.sort();
        for (child, ino, kind) in entries {
            if child == "." || child == ".." {
                continue;
            }
            let path: Vec<_> = path.iter().cloned().chain([child.clone()]).collect();
            ours_below(ours, &path, dump, inos, inodes);
            let path = join(&name, &child);
            assert_eq!(inos[&path], ino, "d_ino and st_ino of {path}");
            assert_eq!(dump[&path].kind, kind, "d_type of {path}");
        }
    }
}

type Listed = Vec<(String, u64, u32)>;

/// Takes `room` entries a call.
struct Sink {
    entries: Listed,
    room: usize,
    next: u64,
    plus: Vec<Ino>,
}

impl Sink {
    fn take(&mut self, ino: Ino, kind: FileKind, name: &[u8], next: u64) -> Result<(), Full> {
        if self.room == 0 {
            return Err(Full);
        }
        self.room -= 1;
        self.next = next;
        self.entries.push((String::from_utf8(name.to_vec()).unwrap(), ino.get(), kind.mode_bits()));
        Ok(())
    }
}

impl DirSink for Sink {
    fn push(&mut self, ino: Ino, kind: FileKind, name: &[u8], next: u64) -> Result<(), Full> {
        self.take(ino, kind, name, next)
    }
}

impl DirPlusSink for Sink {
    fn push(&mut self, entry: &Entry, name: &[u8], next: u64) -> Result<(), Full> {
        self.take(entry.ino, entry.attr.kind, name, next)?;
        if name != b"." && name != b".." {
            self.plus.push(entry.ino);
        }
        Ok(())
    }

    fn push_plain(&mut self, kind: FileKind, name: &[u8], next: u64) -> Result<(), Full> {
        self.take(Ino::new(u64::MAX), kind, name, next)
    }
}

/// Lists a directory, two entries a call.
pub(crate) fn list(ours: &Ours, dir: Ino) -> Listed {
    page(2, |offset, sink| ours.fs().readdir(dir, offset, sink).unwrap()).entries
}

/// Lists a directory, a few entries a call, and has each of them looked at behind the call.
pub(crate) fn list_with(ours: &Ours, dir: Ino, mut look: impl FnMut(&str)) {
    let mut sink = Sink { entries: Vec::new(), room: 0, next: 0, plus: Vec::new() };
    loop {
        sink.room = 5;
        ours.fs().readdir(dir, sink.next, &mut sink).unwrap();
        if sink.entries.is_empty() {
            return;
        }
        std::mem::take(&mut sink.entries).iter().for_each(|(name, ..)| look(name));
    }
}

fn list_plus(ours: &Ours, dir: Ino) -> Listed {
    let sink = page(3, |offset, sink| ours.fs().readdirplus(dir, offset, sink).unwrap());
    for ino in sink.plus {
        ours.fs().forget(ino, 1);
    }
    sink.entries
}

fn page(room: usize, mut call: impl FnMut(u64, &mut Sink)) -> Sink {
    let mut sink = Sink { entries: Vec::new(), room, next: 0, plus: Vec::new() };
    loop {
        let before = sink.entries.len();
        sink.room = room;
        call(sink.next, &mut sink);
        if sink.entries.len() == before {
            return sink;
        }
    }
}

pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}
