//! The merged entries of one directory, at offsets that stay while entries come and go.
//!
//! An offset belongs to an entry for as long as the entry lives, and is not given out again. New entries come last. A
//! listing goes on behind an offset whether or not the entry there is still alive: so an entry that is there all the
//! time is shown exactly once. It ends where the index ended when the latest listing began: who renames each entry that he
//! is shown comes to an end.
//!
//! A directory that only one layer has is not indexed: its listing comes from the layer, whose positions serve as
//! offsets. When it is indexed later, its entries keep these offsets, and a listing under way goes on as before.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};

use crate::{
    casefold::{Mode, fold},
    sync::Arc,
    vfs::{FileKind, Ino},
};

/// Offsets of `.` and `..`; entries come behind.
pub(super) const DOT: u64 = 1;
pub(super) const DOT_DOT: u64 = 2;

/// Where an entry lies that the upper has: above all layers.
pub(super) const TOP: u32 = u32::MAX;

/// An entry of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexEntry {
    pub(super) name: Arc<[u8]>,
    pub(super) kind: FileKind,
    /// Its inode number, once somebody had to find it out.
    pub(super) ino: Option<Ino>,
    /// Number of the highest layer that has it.
    pub(super) layer: u32,
}

/// Names with one key.
pub(super) type Spellings = SmallVec<[Arc<[u8]>; 1]>;

/// The entries by offset, and offsets by name.
#[derive(Debug)]
pub(super) struct DirIndex {
    entries: BTreeMap<u64, IndexEntry>,
    offsets: HashMap<Arc<[u8]>, u64>,
    last: u64,
    /// The last offset when a listing began for the last time.
    end: u64,
    /// Where names are folded: what is one.
    folds: Option<Folds>,
}

/// The entries by key.
#[derive(Debug)]
struct Folds {
    mode: Mode,
    /// The spellings that are there, the one that shows first.
    by_key: HashMap<Box<[u8]>, Spellings>,
    /// Number of keys with more than one spelling.
    several: usize,
}

impl Default for DirIndex {
    fn default() -> Self {
        Self::new(None)
    }
}

impl DirIndex {
    /// An empty index of a directory that folds names like `mode`.
    pub(super) fn new(mode: Option<Mode>) -> Self {
        let folds = mode.map(|mode| Folds { mode, by_key: HashMap::new(), several: 0 });
        Self { entries: BTreeMap::new(), offsets: HashMap::new(), last: DOT_DOT, end: DOT_DOT, folds }
    }

    /// Adds `name` at an offset of its own, or changes what the entry is.
    pub(super) fn insert(&mut self, name: &[u8], kind: FileKind, ino: Option<Ino>, layer: u32) {
        if !self.change(name, kind, ino, layer) {
            self.insert_at(self.last + 1, name, kind, ino, layer);
        }
    }

    /// Changes what the entry `name` is; `false` where there is none.
    pub(super) fn change(&mut self, name: &[u8], kind: FileKind, ino: Option<Ino>, layer: u32) -> bool {
        let entry = self.offsets.get(name).and_then(|offset| self.entries.get_mut(offset));
        let is_there = entry.is_some_and(|entry| {
            (entry.kind, entry.ino, entry.layer) = (kind, ino, layer);
            true
        });
        if is_there {
            self.sort_spellings(name);
        }
        is_there
    }

    /// Adds `name`, which is new, at `offset`, which is behind all others.
    pub(super) fn insert_at(
        &mut self,
        offset: u64,
        name: &[u8],
        kind: FileKind,
        ino: Option<Ino>,
        layer: u32,
    ) {
        let name: Arc<[u8]> = name.into();
        self.offsets.insert(Arc::clone(&name), offset);
        self.entries.insert(offset, IndexEntry { name: Arc::clone(&name), kind, ino, layer });
        self.last = self.last.max(offset);
        if let Some(folds) = &mut self.folds {
            let key = fold(&name, folds.mode);
            match folds.by_key.get_mut(key.as_bytes()) {
                Some(spellings) => {
                    spellings.push(Arc::clone(&name));
                    folds.several += usize::from(spellings.len() == 2);
                }
                None => {
                    folds.by_key.insert(key.as_bytes().into(), smallvec![Arc::clone(&name)]);
                }
            }
            self.sort_spellings(&name);
        }
    }

    /// Takes `name` out.
    pub(super) fn remove(&mut self, name: &[u8]) {
        let Some(offset) = self.offsets.remove(name) else { return };
        self.entries.remove(&offset);
        let Some(folds) = &mut self.folds else { return };
        let key = fold(name, folds.mode);
        let Some(spellings) = folds.by_key.get_mut(key.as_bytes()) else { return };
        spellings.retain(|there| **there != *name);
        match spellings.len() {
            0 => drop(folds.by_key.remove(key.as_bytes())),
            1 => folds.several -= 1,
            _ => {}
        }
    }

    /// Brings the spelling that shows to the front.
    fn sort_spellings(&mut self, name: &[u8]) {
        let Some(folds) = self.folds.as_mut().filter(|folds| folds.several > 0) else { return };
        let key = fold(name, folds.mode);
        let Some(spellings) = folds.by_key.get_mut(key.as_bytes()) else { return };
        let layer = |name: &Arc<[u8]>| {
            self.offsets.get(name).and_then(|offset| self.entries.get(offset)).map(|entry| entry.layer)
        };
        spellings.sort_by(|one, other| layer(other).cmp(&layer(one)).then_with(|| one.cmp(other)));
    }

    /// The spellings of a key, the one that shows first.
    pub(super) fn spellings(&self, key: &[u8]) -> Spellings {
        let folds = self.folds.as_ref();
        folds.and_then(|folds| folds.by_key.get(key)).map_or_else(SmallVec::new, SmallVec::clone)
    }

    /// Whether each name has one spelling.
    pub(super) fn is_plain(&self) -> bool {
        self.folds.as_ref().is_none_or(|folds| folds.several == 0)
    }

    /// Whether a listing shows `name`, which is there: it is the spelling that others are found by.
    fn shows(&self, name: &[u8]) -> bool {
        self.folds.as_ref().filter(|folds| folds.several > 0).is_none_or(|folds| {
            let key = fold(name, folds.mode);
            let first = folds.by_key.get(key.as_bytes()).and_then(|all| all.first());
            first.is_none_or(|first| **first == *name)
        })
    }

    /// Keeps the inode number of `name`, if it is still the same kind of thing.
    pub(super) fn learn(&mut self, offset: u64, name: &[u8], ino: Ino) {
        if let Some(entry) = self.entries.get_mut(&offset).filter(|entry| *entry.name == *name) {
            entry.ino = Some(ino);
        }
    }

    /// Forgets what was learned about inode numbers: what the upper had is in layer `number` now.
    pub(super) fn rebase(&mut self, number: u32) {
        for entry in self.entries.values_mut() {
            entry.ino = None;
            entry.layer = if entry.layer == TOP { number } else { entry.layer };
        }
    }

    /// Notes that a listing begins: it shows what is there now.
    pub(super) fn begin_listing(&mut self) {
        self.end = self.last;
    }

    /// Up to `count` entries behind `offset` that a listing shows.
    pub(super) fn behind(&self, offset: u64, count: usize) -> Vec<(u64, IndexEntry)> {
        if offset >= self.end {
            return Vec::new();
        }
        let range = (std::ops::Bound::Excluded(offset), std::ops::Bound::Included(self.end));
        let shown = self.entries.range(range).filter(|(_, entry)| self.shows(&entry.name));
        shown.take(count).map(|(offset, entry)| (*offset, entry.clone())).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(index: &mut DirIndex, behind: u64) -> Vec<(u64, String)> {
        index.begin_listing();
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
            index.insert(name, FileKind::Regular, None, 0);
        }
        assert_eq!(names(&mut index, 0), [(3, "a".into()), (4, "b".into()), (5, "c".into())]);
        index.remove(b"c");
        index.remove(b"a");
        index.insert(b"a", FileKind::Fifo, None, 0);
        assert_eq!(names(&mut index, 3), [(4, "b".into()), (6, "a".into())]);
        index.insert(b"b", FileKind::Socket, Some(Ino::new(9)), 0);
        assert_eq!(index.behind(3, 1)[0].1.kind, FileKind::Socket);
        index.remove(b"b");
        index.remove(b"a");
        assert!(index.is_empty());
    }

    #[test]
    fn a_listing_ends_where_the_index_ended_when_it_began() {
        let mut index = DirIndex::default();
        index.insert(b"a", FileKind::Regular, None, 0);
        assert_eq!(names(&mut index, 0), [(3, "a".into())]);
        index.insert(b"b", FileKind::Regular, None, 0);
        assert!(index.behind(3, 10).is_empty() && index.behind(9, 10).is_empty());
        assert_eq!(names(&mut index, 3), [(4, "b".into())]);
    }

    #[test]
    fn of_each_key_the_highest_spelling_shows_and_of_one_layer_the_smallest() {
        let mut index = DirIndex::new(Some(Mode::Unicode));
        let there = |index: &DirIndex| -> Vec<String> {
            let spellings = index.spellings(b"foo");
            spellings.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
        };
        assert!(there(&index).is_empty());
        for (name, layer) in [(b"foo", 0), (b"Foo", 0), (b"FOO", 1), (b"bar", 0)] {
            index.insert(name, FileKind::Regular, None, layer);
        }
        assert_eq!(there(&index), ["FOO", "Foo", "foo"]);
        assert_eq!(names(&mut index, 0), [(5, "FOO".into()), (6, "bar".into())]);
        index.change(b"foo", FileKind::Regular, None, TOP);
        assert_eq!(there(&index), ["foo", "FOO", "Foo"]);
        assert!(!index.is_plain());
        index.remove(b"FOO");
        index.remove(b"foo");
        assert_eq!((there(&index), index.is_plain()), (vec!["Foo".to_owned()], true));
        index.remove(b"Foo");
        assert!(there(&index).is_empty());
    }
}
