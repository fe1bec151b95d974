//! The merged entries of one directory, at offsets that stay while entries come and go.
//!
//! An offset belongs to an entry for as long as the entry lives, and is not given out again. New entries come last. A
//! listing goes on behind an offset whether or not the entry there is still alive: so an entry that is there all the
//! time is shown exactly once.
//!
//! A directory that only one layer has is not indexed: its listing comes from the layer, whose positions serve as
//! offsets. When it is indexed later, its entries keep these offsets, and a listing under way goes on as before.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::{
    sync::Arc,
    vfs::{FileKind, Ino},
};

/// Offsets of `.` and `..`; entries come behind.
pub(super) const DOT: u64 = 1;
pub(super) const DOT_DOT: u64 = 2;

/// An entry of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexEntry {
    pub(super) name: Arc<[u8]>,
    pub(super) kind: FileKind,
    /// Its inode number, once somebody had to find it out.
    pub(super) ino: Option<Ino>,
}

/// The entries by offset, and offsets by name.
#[derive(Debug)]
pub(super) struct DirIndex {
    entries: BTreeMap<u64, IndexEntry>,
    offsets: HashMap<Arc<[u8]>, u64>,
    last: u64,
}

impl Default for DirIndex {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), offsets: HashMap::new(), last: DOT_DOT }
    }
}

impl DirIndex {
    /// Adds `name` at an offset of its own, or changes what the entry is.
    pub(super) fn insert(&mut self, name: &[u8], kind: FileKind, ino: Option<Ino>) {
        if !self.change(name, kind, ino) {
            self.insert_at(self.last + 1, name, kind, ino);
        }
    }

    /// Changes what the entry `name` is; `false` where there is none.
    pub(super) fn change(&mut self, name: &[u8], kind: FileKind, ino: Option<Ino>) -> bool {
        let entry = self.offsets.get(name).and_then(|offset| self.entries.get_mut(offset));
        entry.is_some_and(|entry| {
            (entry.kind, entry.ino) = (kind, ino);
            true
        })
    }

    /// Adds `name`, which is new, at `offset`, which is behind all others.
    pub(super) fn insert_at(&mut self, offset: u64, name: &[u8], kind: FileKind, ino: Option<Ino>) {
        let name: Arc<[u8]> = name.into();
        self.offsets.insert(Arc::clone(&name), offset);
        self.entries.insert(offset, IndexEntry { name, kind, ino });
        self.last = self.last.max(offset);
    }

    /// Takes `name` out.
    pub(super) fn remove(&mut self, name: &[u8]) {
        if let Some(offset) = self.offsets.remove(name) {
            self.entries.remove(&offset);
        }
    }

    /// Keeps the inode number of `name`, if it is still the same kind of thing.
    pub(super) fn learn(&mut self, offset: u64, name: &[u8], ino: Ino) {
        if let Some(entry) = self.entries.get_mut(&offset).filter(|entry| *entry.name == *name) {
            entry.ino = Some(ino);
        }
    }

    /// Forgets what was learned about inode numbers.
    pub(super) fn forget_inos(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.ino = None);
    }

    /// Up to `count` entries behind `offset`.
    pub(super) fn behind(&self, offset: u64, count: usize) -> Vec<(u64, IndexEntry)> {
        let range = (std::ops::Bound::Excluded(offset), std::ops::Bound::Unbounded);
        self.entries.range(range).take(count).map(|(offset, entry)| (*offset, entry.clone())).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(index: &DirIndex, behind: u64) -> Vec<(u64, String)> {
        let entries = index.behind(behind, 10);
        entries
            .into_iter()
            .map(|(at, entry)| (at, String::from_utf8_lossy(&entry.name).into_owned()))
            .collect()
    }

    #[test]
    fn offsets_stay_and_are_not_given_out_again() {
        let mut index = DirIndex::default();
        for name in [b"a", b"b", b"c"] {
            index.insert(name, FileKind::Regular, None);
        }
        assert_eq!(names(&index, 0), [(3, "a".into()), (4, "b".into()), (5, "c".into())]);
        index.remove(b"c");
        index.remove(b"a");
        index.insert(b"a", FileKind::Fifo, None);
        assert_eq!(names(&index, 3), [(4, "b".into()), (6, "a".into())]);
        index.insert(b"b", FileKind::Socket, Some(Ino::new(9)));
        assert_eq!(index.behind(3, 1)[0].1.kind, FileKind::Socket);
        index.remove(b"b");
        index.remove(b"a");
        assert!(index.is_empty());
    }
}
