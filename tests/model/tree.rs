//! Trees of layers as values: written to a host directory, and folded into one plain tree.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use proptest::prelude::*;

/// Seconds since the epoch of everything that no operation has touched.
pub(crate) const OLD: u64 = 900_000_000;

/// An object of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    File(Vec<u8>, u32),
    Symlink(String),
    Fifo,
    Whiteout,
    Directory {
        opaque: bool,
        perm: u32,
        entries: BTreeMap<String, Tree>,
    },
    /// A further name of the file at this path from the root of its layer.
    Link(Vec<String>),
}

impl Tree {
    pub(crate) fn empty() -> Self {
        Self::Directory { opaque: false, perm: 0o755, entries: BTreeMap::new() }
    }

    pub(crate) fn has_links(&self) -> bool {
        match self {
            Self::Directory { entries, .. } => entries.values().any(Self::has_links),
            other => matches!(other, Self::Link(_)),
        }
    }

    /// Lays `self` over `below`.
    pub(crate) fn over(self, below: Self) -> Self {
        match (self, below) {
            (
                Self::Directory { opaque: false, perm, entries },
                Self::Directory { entries: mut under, .. },
            ) => {
                for (name, entry) in entries {
                    let folded = match under.remove(&name) {
                        Some(below) => entry.over(below),
                        None => entry,
                    };
                    under.insert(name, folded);
                }
                Self::Directory { opaque: false, perm, entries: under }
            }
            (top, _) => top,
        }
    }

    /// Without whiteouts and marks.
    pub(crate) fn plain(self) -> Self {
        match self {
            Self::Directory { perm, entries, .. } => {
                let entries = entries.into_iter().filter(|(_, entry)| *entry != Self::Whiteout);
                let entries = entries.map(|(name, entry)| (name, entry.plain())).collect();
                Self::Directory { opaque: false, perm, entries }
            }
            other => other,
        }
    }

    /// Writes it to `path`, which does not exist or is an empty directory.
    pub(crate) fn write(&self, path: &Path) {
        self.write_below(path);
        self.write_links(path, path);
        set_old(path);
    }

    fn write_below(&self, path: &Path) {
        match self {
            Self::File(content, perm) => {
                fs::write(path, content).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(*perm)).unwrap();
            }
            Self::Symlink(target) => symlink(target, path).unwrap(),
            Self::Fifo => rustix::fs::mknodat(
                rustix::fs::CWD,
                path,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::from_raw_mode(0o644),
                0,
            )
            .unwrap(),
            Self::Whiteout => rustix::fs::mknodat(
                rustix::fs::CWD,
                path,
                rustix::fs::FileType::CharacterDevice,
                rustix::fs::Mode::empty(),
                0,
            )
            .unwrap(),
            Self::Directory { opaque, perm, entries } => {
                let _ = fs::create_dir(path);
                fs::set_permissions(path, fs::Permissions::from_mode(*perm)).unwrap();
                if *opaque {
                    let flags = rustix::fs::XattrFlags::empty();
                    rustix::fs::setxattr(path, "user.overlay.opaque", b"y", flags).unwrap();
                    // For a kernel overlay of root's; others may not.
                    let _ = rustix::fs::setxattr(path, "trusted.overlay.opaque", b"y", flags);
                }
                for (name, entry) in entries {
                    entry.write_below(&path.join(name));
                }
            }
            Self::Link(_) => {}
        }
    }

    fn write_links(&self, root: &Path, path: &Path) {
        match self {
            Self::Directory { entries, .. } => {
                for (name, entry) in entries {
                    entry.write_links(root, &path.join(name));
                }
            }
            Self::Link(target) => {
                let target = root.join(target.join("/"));
                // A link to nothing, or to no file, is left out on both sides.
                if fs::symlink_metadata(&target).is_ok_and(|meta| meta.is_file()) {
                    fs::hard_link(target, path).unwrap();
                }
            }
            _ => {}
        }
    }
}

/// Gives everything below `path` the old times, children first.
fn set_old(path: &Path) {
    let meta = fs::symlink_metadata(path).unwrap();
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            set_old(&entry.unwrap().path());
        }
    }
    let time = rustix::fs::Timespec { tv_sec: OLD as i64, tv_nsec: 5 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A directory for a test: in memory where that is possible.
pub(crate) fn scratch() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap()
}

pub(crate) fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just("a"), 4 => Just("b"), 4 => Just("c"), 1 => Just("é \u{7f}")].prop_map(str::to_owned)
}

/// Random trees. Hard links are only made within one layer, and only in the lowest (`links`).
pub(crate) fn layer(whiteouts: bool) -> impl Strategy<Value = Tree> {
    let perm = prop_oneof![Just(0o644_u32), Just(0o600), Just(0o4755), Just(0o444)];
    let marks = if whiteouts { 2 } else { 0 };
    let leaf = prop_oneof![
        4 => (prop::collection::vec(any::<u8>(), 0..20), perm).prop_map(|(content, perm)| Tree::File(content, perm)),
        1 => name().prop_map(Tree::Symlink),
        1 => Just(Tree::Fifo),
        marks => Just(Tree::Whiteout),
    ];
    let tree = leaf.prop_recursive(3, 24, 4, move |inner| {
        let perm = prop_oneof![Just(0o755_u32), Just(0o700), Just(0o2755)];
        (prop::collection::btree_map(name(), inner, 0..4), perm, prop::bool::weighted(0.2)).prop_map(
            move |(entries, perm, opaque)| Tree::Directory { opaque: opaque && whiteouts, perm, entries },
        )
    });
    prop::collection::btree_map(name(), tree, 0..4).prop_map(|entries| Tree::Directory {
        opaque: false,
        perm: 0o755,
        entries,
    })
}

/// Random trees in which some files have several names.
pub(crate) fn linked_layer() -> impl Strategy<Value = Tree> {
    let path = || prop::collection::vec(name(), 1..3);
    (layer(false), prop::collection::vec((path(), path()), 1..6)).prop_map(|(mut tree, links)| {
        for (path, target) in links {
            tree.add_link(&path, target);
        }
        tree
    })
}

impl Tree {
    /// Puts a link at `path`, if that is free and its parent a directory.
    fn add_link(&mut self, path: &[String], target: Vec<String>) {
        let Self::Directory { entries, .. } = self else { return };
        match path {
            [name] => {
                entries.entry(name.clone()).or_insert(Self::Link(target));
            }
            [name, rest @ ..] => {
                if let Some(entry) = entries.get_mut(name) {
                    entry.add_link(rest, target);
                }
            }
            [] => {}
        }
    }
}
