//! What a tree of the host is like, in a form that can be compared.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::Path,
};

use xxhash_rust::xxh3::xxh3_64;

/// What can be seen of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Of all but directories.
    pub(crate) size: u64,
    pub(crate) mtime: (i64, i64),
    pub(crate) rdev: u64,
    pub(crate) nlink: u64,
    /// The first path of the same object.
    pub(crate) same_as: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) contents: u64,
}

/// Facts by path.
pub(crate) type Tree = BTreeMap<Vec<u8>, Facts>;

/// Looks at a whole tree. The contents of files longer than `longest` are not read.
pub(crate) fn facts(root: &Path, longest: u64) -> Tree {
    let mut tree = Tree::new();
    let mut first = HashMap::new();
    let mut stack = vec![root.to_owned()];
    while let Some(path) = stack.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let relative = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let kind = metadata.file_type();
        if kind.is_dir() {
            let mut below: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            below.sort();
            stack.extend(below.into_iter().rev());
        }
        // Upstream knows hard links of files only.
        let same_as = match kind.is_file() {
            true => first.entry(metadata.ino()).or_insert_with(|| relative.clone()).clone(),
            false => relative.clone(),
        };
        let is_device = kind.is_char_device() || kind.is_block_device();
        let is_read = kind.is_file() && metadata.len() <= longest;
        tree.insert(
            relative,
            Facts {
                mode: metadata.mode(),
                uid: metadata.uid(),
                gid: metadata.gid(),
                size: if kind.is_dir() { 0 } else { metadata.len() },
                mtime: (metadata.mtime(), metadata.mtime_nsec()),
                rdev: if is_device { metadata.rdev() } else { 0 },
                nlink: if kind.is_file() { metadata.nlink() } else { 1 },
                same_as,
                target: if kind.is_symlink() {
                    fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
                } else {
                    Vec::new()
                },
                contents: if is_read { xxh3_64(&fs::read(&path).unwrap()) } else { 0 },
            },
        );
    }
    // Which of several names comes first depends on inode numbers only, so it is the same on both sides.
    tree
}

/// Panics with the first differences between two trees.
pub(crate) fn assert_same(expected: &Tree, found: &Tree) {
    let missing: Vec<_> = expected.keys().filter(|path| !found.contains_key(*path)).take(5).collect();
    let extra: Vec<_> = found.keys().filter(|path| !expected.contains_key(*path)).take(5).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {}, extra {}", show(&missing), show(&extra));
    for (path, facts) in expected {
        assert_eq!(&found[path], facts, "{}", path.escape_ascii());
    }
}

fn show(paths: &[&Vec<u8>]) -> String {
    paths.iter().map(|path| path.escape_ascii().to_string()).collect::<Vec<_>>().join(", ")
}
