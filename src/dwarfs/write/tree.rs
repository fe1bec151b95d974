//! The tree that is to be archived: names over objects, as a source found them.
//!
//! Names and objects are apart, because hard links are several names of one object:
//!
//! ```text
//! entries  [ root | children of the root ... | children of the first directory ... | ... ]   breadth first
//!             |            each run sorted bytewise by name
//!             v
//! objects  [ kind, owner, mode, times, what a file holds ]        xattrs: of the few that have some
//! ```

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use super::{error::WriteError, object::Object};
use crate::dwarfs::{format::sidecar::Xattrs, limits};

/// Number of an entry in its [`Tree`]; the root is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(u32);

/// Number of an object in its [`Tree`]; the root is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(u32);

impl EntryId {
    /// The entry of the root directory.
    pub const ROOT: Self = Self(0);

    /// The entry with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// Its place in [`Tree::entries`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl ObjectId {
    /// The root directory.
    pub const ROOT: Self = Self(0);

    /// Its place in [`Tree::objects`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A name in a directory.
#[derive(Clone, Debug)]
pub struct Entry {
    name: Range<u32>,
    parent: EntryId,
    object: ObjectId,
    children: Range<u32>,
}

/// A tree of names over objects. It is built from the root down, one whole directory at a time.
#[derive(Debug)]
pub struct Tree {
    names: Vec<u8>,
    entries: Vec<Entry>,
    objects: Vec<Object>,
    /// First entry of each object.
    first_names: Vec<EntryId>,
    xattrs: HashMap<ObjectId, Xattrs>,
    /// Files that were found and cannot be read.
    lost: HashSet<ObjectId>,
}

impl Tree {
    /// Makes a tree of a root directory without entries.
    ///
    /// # Errors
    /// Fails if `root` is not a directory.
    pub fn new(root: Object, xattrs: Xattrs) -> Result<Self, WriteError> {
        if !root.is_directory() {
            return Err(WriteError::NotADirectory { path: Vec::new().into() });
        }
        let mut tree = Self {
            names: Vec::new(),
            entries: vec![Entry {
                name: 0..0,
                parent: EntryId::ROOT,
                object: ObjectId::ROOT,
                children: 0..0,
            }],
            objects: vec![root],
            first_names: vec![EntryId::ROOT],
            xattrs: HashMap::new(),
            lost: HashSet::new(),
        };
        tree.set_xattrs(ObjectId::ROOT, xattrs);
        Ok(tree)
    }

    /// Adds an object that has no name yet.
    ///
    /// # Errors
    /// Fails where the tree outgrows its 32-bit numbers.
    pub fn add_object(&mut self, object: Object, xattrs: Xattrs) -> Result<ObjectId, WriteError> {
        let id = match u32::try_from(self.objects.len()) {
            Ok(number) if number < MAX_ENTRIES => ObjectId(number),
            _ => return Err(WriteError::TooMany { what: "objects" }),
        };
        self.objects.push(object);
        self.first_names.push(NAMELESS);
        self.set_xattrs(id, xattrs);
        Ok(id)
    }

    /// Gives a directory its entries, sorted here, and returns their numbers in that order. A file that has a name
    /// already gets one more: a hard link. Anything else with several names becomes several objects, because
    /// upstream's extractor knows hard links of files only (and the kernel's overlay links whiteouts by the dozen).
    ///
    /// # Errors
    /// Fails on a name that no Linux directory can hold, on one that is there twice, if the directory has entries
    /// already, and where the tree outgrows its 32-bit numbers.
    pub fn fill_directory(
        &mut self,
        directory: EntryId,
        mut children: Vec<(Vec<u8>, ObjectId)>,
    ) -> Result<Range<u32>, WriteError> {
        children.sort_by(|a, b| a.0.cmp(&b.0));
        self.check_directory(directory, &children)?;
        let first = self.next_entry()?;
        for (name, object) in children {
            let id = EntryId(self.next_entry()?);
            let object = self.unshared(object)?;
            self.note_name(object, id);
            let name = self.add_name(&name)?;
            self.entries.push(Entry { name, parent: directory, object, children: 0..0 });
        }
        let range = first..self.next_entry()?;
        if let Some(entry) = self.entries.get_mut(directory.index()) {
            entry.children = range.clone();
        }
        Ok(range)
    }

    /// Adds a file to the root, whose entries are there already, and returns its object.
    ///
    /// # Errors
    /// Fails where the tree outgrows its 32-bit numbers.
    pub fn add_root_file(&mut self, name: &[u8], object: Object) -> Result<ObjectId, WriteError> {
        let siblings = self.children(EntryId::ROOT).len();
        let place = 1 + self.children(EntryId::ROOT).position(|id| self.name(id) >= name).unwrap_or(siblings);
        self.next_entry()?;
        let shift = u32::try_from(place).map_err(|_| WriteError::TooMany { what: "entries" })?;
        let moved = |number: u32| if number >= shift && number != NAMELESS.0 { number + 1 } else { number };
        for entry in self.entries.iter_mut().skip(1) {
            entry.parent = EntryId(moved(entry.parent.0));
            entry.children = moved(entry.children.start)..moved(entry.children.end);
        }
        self.first_names.iter_mut().for_each(|first| *first = EntryId(moved(first.0)));
        let object = self.add_object(object, Xattrs::new())?;
        self.note_name(object, EntryId(shift));
        let name = self.add_name(name)?;
        self.entries.insert(place, Entry { name, parent: EntryId::ROOT, object, children: 0..0 });
        if let Some(root) = self.entries.first_mut() {
            let end = if root.children.is_empty() { 1 } else { root.children.end };
            root.children = 1..end + 1;
        }
        Ok(object)
    }

    /// Gives a file up. It keeps its names until [`forget_lost`](Self::forget_lost).
    pub(super) fn lose(&mut self, file: ObjectId) {
        self.lost.insert(file);
    }

    /// Whether a file was given up.
    pub(super) fn is_lost(&self, file: ObjectId) -> bool {
        self.lost.contains(&file)
    }

    /// Takes the names of files away that were given up, and returns how many files these are. Numbers of entries
    /// change, those of objects do not.
    pub(super) fn forget_lost(&mut self) -> usize {
        if self.lost.is_empty() {
            return 0;
        }
        let mut kept = 0_u32;
        let mut moved: Vec<u32> = Vec::with_capacity(self.entries.len() + 1);
        for entry in &self.entries {
            moved.push(kept);
            kept += u32::from(!self.lost.contains(&entry.object));
        }
        moved.push(kept);
        let place = |number: u32| moved.get(number as usize).copied().unwrap_or(kept);
        self.entries.retain(|entry| !self.lost.contains(&entry.object));
        for entry in &mut self.entries {
            entry.parent = EntryId(place(entry.parent.0));
            entry.children = place(entry.children.start)..place(entry.children.end);
        }
        for (first, object) in self.first_names.iter_mut().zip((0..).map(ObjectId)) {
            *first = if self.lost.contains(&object) { NAMELESS } else { EntryId(place(first.0)) };
        }
        self.lost.len()
    }

    /// The entries, breadth first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The objects.
    #[must_use]
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// An object.
    #[must_use]
    pub fn object(&self, id: ObjectId) -> Option<&Object> {
        self.objects.get(id.index())
    }

    /// An object, to be changed.
    pub fn object_mut(&mut self, id: ObjectId) -> Option<&mut Object> {
        self.objects.get_mut(id.index())
    }

    /// Numbers of all objects.
    pub fn object_ids(&self) -> impl DoubleEndedIterator<Item = ObjectId> + use<> {
        (0..self.objects.len()).filter_map(|index| u32::try_from(index).ok().map(ObjectId))
    }

    /// Numbers of all entries.
    pub fn entry_ids(&self) -> impl DoubleEndedIterator<Item = EntryId> + use<> {
        (0..self.entries.len()).filter_map(|index| u32::try_from(index).ok().map(EntryId))
    }

    /// Name of an entry; that of the root is empty.
    #[must_use]
    pub fn name(&self, id: EntryId) -> &[u8] {
        let range = self.entries.get(id.index()).map_or(0..0, |entry| entry.name.clone());
        self.names.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// The object that an entry names.
    #[must_use]
    pub fn object_of(&self, id: EntryId) -> ObjectId {
        self.entries.get(id.index()).map_or(ObjectId::ROOT, |entry| entry.object)
    }

    /// The directory that an entry is in; the root is in itself.
    #[must_use]
    pub fn parent(&self, id: EntryId) -> EntryId {
        self.entries.get(id.index()).map_or(EntryId::ROOT, |entry| entry.parent)
    }

    /// The entries of a directory, in ascending order of their names.
    pub fn children(
        &self,
        id: EntryId,
    ) -> impl ExactSizeIterator<Item = EntryId> + DoubleEndedIterator + use<> {
        let range = self.entries.get(id.index()).map_or(0..0, |entry| entry.children.clone());
        range.map(EntryId)
    }

    /// The first name of an object.
    #[must_use]
    pub fn first_name(&self, id: ObjectId) -> EntryId {
        self.first_names.get(id.index()).copied().unwrap_or(EntryId::ROOT)
    }

    /// Path of an entry: names with `/` between them, empty for the root.
    #[must_use]
    pub fn path(&self, id: EntryId) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = id;
        while at != EntryId::ROOT {
            names.push(self.name(at));
            at = self.parent(at);
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Finds an entry by its path: names with `/` between them.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<EntryId> {
        let mut at = EntryId::ROOT;
        for name in path.split(|byte| *byte == b'/') {
            let Range { start: mut low, end } = self.entries.get(at.index())?.children.clone();
            let mut high = end;
            while low < high {
                let middle = low.midpoint(high);
                if self.name(EntryId(middle)) < name { low = middle + 1 } else { high = middle }
            }
            let found = EntryId(low);
            if low == end || self.name(found) != name {
                return None;
            }
            at = found;
        }
        Some(at)
    }

    /// Extended attributes of an object.
    #[must_use]
    pub fn xattrs(&self, id: ObjectId) -> Option<&Xattrs> {
        self.xattrs.get(&id)
    }

    /// Replaces the extended attributes of an object.
    pub fn set_xattrs(&mut self, id: ObjectId, xattrs: Xattrs) {
        if xattrs.is_empty() {
            self.xattrs.remove(&id);
        } else {
            self.xattrs.insert(id, xattrs);
        }
    }

    /// Whether any object has extended attributes.
    #[must_use]
    pub fn has_xattrs(&self) -> bool {
        !self.xattrs.is_empty()
    }

    fn check_directory(
        &self,
        directory: EntryId,
        children: &[(Vec<u8>, ObjectId)],
    ) -> Result<(), WriteError> {
        let is_directory = self.object(self.object_of(directory)).is_some_and(Object::is_directory);
        if !is_directory || self.children(directory).len() > 0 {
            return Err(WriteError::NotADirectory { path: self.path(directory).into() });
        }
        let twice =
            children.windows(2).find(|pair| matches!(pair, [a, b] if a.0 == b.0)).and_then(<[_]>::first);
        let bad = children.iter().find(|(name, _)| !is_valid_name(name)).or(twice);
        match bad {
            Some((name, _)) => {
                let mut path = self.path(directory);
                path.push(b'/');
                path.extend_from_slice(name);
                Err(WriteError::BadName { path: path.into() })
            }
            None => Ok(()),
        }
    }

    fn next_entry(&self) -> Result<u32, WriteError> {
        match u32::try_from(self.entries.len()) {
            Ok(number) if number < MAX_ENTRIES => Ok(number),
            _ => Err(WriteError::TooMany { what: "entries" }),
        }
    }

    /// Returns the object for one more name: itself or, unless it is a file, its double.
    fn unshared(&mut self, id: ObjectId) -> Result<ObjectId, WriteError> {
        match self.object(id) {
            Some(object) if object.file().is_none() && self.first_name(id) != NAMELESS => {
                let xattrs = self.xattrs(id).cloned().unwrap_or_else(Xattrs::new);
                self.add_object(object.clone(), xattrs)
            }
            _ => Ok(id),
        }
    }

    fn note_name(&mut self, object: ObjectId, name: EntryId) {
        if let Some(first) = self.first_names.get_mut(object.index()).filter(|first| **first == NAMELESS) {
            *first = name;
        }
    }

    fn add_name(&mut self, name: &[u8]) -> Result<Range<u32>, WriteError> {
        let too_many = |_| WriteError::TooMany { what: "bytes of names" };
        let start = u32::try_from(self.names.len()).map_err(too_many)?;
        self.names.extend_from_slice(name);
        Ok(start..u32::try_from(self.names.len()).map_err(too_many)?)
    }
}

/// Entries of one archive: upstream's reader holds their numbers in signed 32 bits.
const MAX_ENTRIES: u32 = 1 << 31;

/// Stands for the first name of an object that has none yet.
const NAMELESS: EntryId = EntryId(u32::MAX);

/// Whether a Linux directory can hold an entry of this name.
#[must_use]
pub(super) fn is_valid_name(name: &[u8]) -> bool {
    (1..=limits::MAX_NAME_LEN).contains(&name.len())
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

#[cfg(test)]
mod tests {
    use super::{
        super::object::{Content, FileContent},
        *,
    };

    fn directory() -> Object {
        Object::new(Content::Directory, 0o755)
    }

    fn add(tree: &mut Tree, object: Object) -> ObjectId {
        tree.add_object(object, Xattrs::new()).unwrap()
    }

    fn file() -> Object {
        Object::new(Content::File(FileContent::default()), 0o644)
    }

    #[test]
    fn a_directory_is_sorted_and_paths_lead_back() {
        let mut tree = Tree::new(directory(), Xattrs::new()).unwrap();
        let (a, b) = (add(&mut tree, file()), add(&mut tree, directory()));
        let range = tree.fill_directory(EntryId::ROOT, vec![(b"b".to_vec(), b), (b"a".to_vec(), a)]).unwrap();
        assert_eq!(range, 1..3);
        tree.fill_directory(EntryId(2), vec![(b"c".to_vec(), a)]).unwrap();
        assert_eq!(tree.path(EntryId(3)), b"b/c");
        for id in [EntryId(1), EntryId(2), EntryId(3)] {
            assert_eq!(tree.find(&tree.path(id)), Some(id));
        }
        for path in [&b"0"[..], b"aa", b"c", b"b/b", b"b/d", b"a/c", b"b/", b"/a", b"", b"../a"] {
            assert_eq!(tree.find(path), None, "{path:?}");
        }
        assert_eq!(tree.object_of(EntryId(3)), a);
        assert_eq!(tree.first_name(a), EntryId(1));
    }

    #[test]
    fn a_file_added_to_the_root_moves_what_is_behind_it() {
        let mut tree = Tree::new(directory(), Xattrs::new()).unwrap();
        let (a, c, x) = (add(&mut tree, file()), add(&mut tree, directory()), add(&mut tree, file()));
        tree.fill_directory(EntryId::ROOT, vec![(b"a".to_vec(), a), (b"c".to_vec(), c)]).unwrap();
        tree.fill_directory(EntryId(2), vec![(b"x".to_vec(), x)]).unwrap();
        let added = tree.add_root_file(b"b", file()).unwrap();
        let paths: Vec<_> = tree.entry_ids().map(|id| tree.path(id)).collect();
        assert_eq!(paths, [&b""[..], b"a", b"b", b"c", b"c/x"]);
        assert_eq!(tree.path(tree.first_name(added)), b"b");
        for object in tree.object_ids() {
            assert_eq!(tree.object_of(tree.first_name(object)), object);
        }
        let mut empty = Tree::new(directory(), Xattrs::new()).unwrap();
        empty.add_root_file(b"b", file()).unwrap();
        assert_eq!(empty.children(EntryId::ROOT).len(), 1);
    }

    #[test]
    fn only_files_are_linked() {
        let mut tree = Tree::new(directory(), Xattrs::new()).unwrap();
        let xattrs = Xattrs::from([(b"user.a".to_vec(), Vec::new())]);
        let fifo = tree.add_object(Object::new(Content::Fifo, 0o600), xattrs.clone()).unwrap();
        let file = add(&mut tree, file());
        let names =
            [(b"a".to_vec(), fifo), (b"b".to_vec(), fifo), (b"c".to_vec(), file), (b"d".to_vec(), file)];
        tree.fill_directory(EntryId::ROOT, names.to_vec()).unwrap();
        let double = tree.object_of(EntryId(2));
        assert_ne!(double, fifo);
        assert_eq!((tree.object(double), tree.xattrs(double)), (tree.object(fifo), Some(&xattrs)));
        assert_eq!(tree.object_of(EntryId(4)), file);
    }

    #[test]
    fn impossible_names_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
            let mut tree = Tree::new(directory(), Xattrs::new()).unwrap();
            let object = add(&mut tree, file());
            assert!(tree.fill_directory(EntryId::ROOT, vec![(name.to_vec(), object)]).is_err());
        }
        let mut tree = Tree::new(directory(), Xattrs::new()).unwrap();
        let object = add(&mut tree, file());
        let twice = vec![(b"a".to_vec(), object), (b"a".to_vec(), object)];
        assert!(matches!(tree.fill_directory(EntryId::ROOT, twice), Err(WriteError::BadName { .. })));
    }
}
