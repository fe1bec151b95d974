//! Builds a tree from members that come in any order and may replace each other.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::members::{Member, What};
use crate::dwarfs::{
    format::sidecar::Xattrs,
    write::{
        error::{TarProblem, WriteError},
        object::{Content, Object, Timestamp},
        tree::{EntryId, ObjectId, Tree, is_valid_name},
        xattrs,
    },
};

/// Longest path in bytes: four times what a program can name at once.
const MAX_PATH_LEN: usize = 1 << 14;
/// Directories that are made up: one path of the longest kind makes thousands of them.
const MAX_MADE_UP: u32 = 1 << 20;

/// An object, and what is in it if it is a directory.
struct Node {
    object: Object,
    xattrs: Xattrs,
    children: BTreeMap<Vec<u8>, usize>,
}

/// A tree that grows by paths. Nodes that have been replaced stay behind without a name.
pub(super) struct TreeBuilder {
    nodes: Vec<Node>,
    made_up: u32,
}

const ROOT: usize = 0;

impl TreeBuilder {
    pub(super) fn new() -> Self {
        let mut builder = Self { nodes: Vec::new(), made_up: 0 };
        builder.push(Object::new(Content::Directory, 0o755), Xattrs::new());
        builder
    }

    /// Adds a member; a later one takes the place of an earlier one.
    pub(super) fn add(&mut self, member: Member) -> Result<(), TarProblem> {
        let path = member.path;
        let names = split(&path)?;
        match member.what {
            What::Link(target) => self.add_link(&path, &names, &target),
            What::Object(mut object, found) => {
                let xattrs = xattrs::normalise(&mut object, found);
                self.add_object(&path, &names, *object, xattrs)
            }
        }
    }

    /// Returns the tree, breadth first.
    pub(super) fn finish(self) -> Result<Tree, WriteError> {
        let mut nodes: Vec<Option<Node>> = self.nodes.into_iter().map(Some).collect();
        let mut take = |index: usize| nodes.get_mut(index).and_then(Option::take);
        let Some(root) = take(ROOT) else {
            return Err(WriteError::NotADirectory { path: Vec::new().into() });
        };
        let mut tree = Tree::new(root.object, root.xattrs)?;
        let mut known: HashMap<usize, ObjectId> = HashMap::new();
        let mut queue = VecDeque::from([(EntryId::ROOT, root.children)]);
        while let Some((directory, children)) = queue.pop_front() {
            let mut entries = Vec::with_capacity(children.len());
            let mut below = HashMap::new();
            for (name, index) in children {
                let id = match take(index) {
                    Some(node) => {
                        let id = tree.add_object(node.object, node.xattrs)?;
                        known.insert(index, id);
                        if !node.children.is_empty() {
                            below.insert(id, node.children);
                        }
                        Some(id)
                    }
                    None => known.get(&index).copied(),
                };
                entries.extend(id.map(|id| (name, id)));
            }
            for number in tree.fill_directory(directory, entries)? {
                let entry = EntryId::from_number(number);
                queue.extend(below.remove(&tree.object_of(entry)).map(|children| (entry, children)));
            }
        }
        Ok(tree)
    }

    fn add_object(
        &mut self,
        path: &[u8],
        names: &[&[u8]],
        object: Object,
        xattrs: Xattrs,
    ) -> Result<(), TarProblem> {
        let Some((name, parents)) = names.split_last() else {
            return self.update(ROOT, path, object, xattrs);
        };
        let parent = self.make_parents(path, parents, object.mtime)?;
        match self.child(parent, name) {
            Some(known) if self.is_directory(known) && object.is_directory() => {
                self.update(known, path, object, xattrs)
            }
            _ => {
                let index = self.push(object, xattrs);
                self.name(parent, name, index);
                Ok(())
            }
        }
    }

    /// Replaces what is known of a directory, but not what is in it.
    fn update(
        &mut self,
        index: usize,
        path: &[u8],
        object: Object,
        xattrs: Xattrs,
    ) -> Result<(), TarProblem> {
        match self.nodes.get_mut(index) {
            Some(node) if object.is_directory() => {
                node.object = object;
                node.xattrs = xattrs;
                Ok(())
            }
            _ => Err(TarProblem::Below(path.into())),
        }
    }

    fn add_link(&mut self, path: &[u8], names: &[&[u8]], target: &[u8]) -> Result<(), TarProblem> {
        let dangling = || TarProblem::Dangling(path.into());
        let found = split(target)?.iter().try_fold(ROOT, |at, name| self.child(at, name));
        let index = found.filter(|index| !self.is_directory(*index)).ok_or_else(dangling)?;
        let (name, parents) = names.split_last().ok_or_else(dangling)?;
        let parent = self.make_parents(path, parents, Timestamp::default())?;
        self.name(parent, name, index);
        Ok(())
    }

    /// Finds a directory, and makes it up, as old as what is in it, where it is not there.
    fn make_parents(
        &mut self,
        path: &[u8],
        parents: &[&[u8]],
        mtime: Timestamp,
    ) -> Result<usize, TarProblem> {
        let mut at = ROOT;
        for name in parents {
            at = match self.child(at, name) {
                Some(known) if self.is_directory(known) => known,
                Some(_) => return Err(TarProblem::Below(path.into())),
                None => {
                    self.made_up += 1;
                    if self.made_up > MAX_MADE_UP {
                        let (found, limit) = (u64::from(self.made_up), u64::from(MAX_MADE_UP));
                        let what = "number of directories that are not listed";
                        return Err(TarProblem::Limit { what, found, limit });
                    }
                    let mut object = Object::new(Content::Directory, 0o755);
                    (object.mtime, object.atime, object.ctime) = (mtime, mtime, mtime);
                    let index = self.push(object, Xattrs::new());
                    self.name(at, name, index);
                    index
                }
            };
        }
        Ok(at)
    }

    fn push(&mut self, object: Object, xattrs: Xattrs) -> usize {
        self.nodes.push(Node { object, xattrs, children: BTreeMap::new() });
        self.nodes.len() - 1
    }

    fn name(&mut self, directory: usize, name: &[u8], index: usize) {
        if let Some(node) = self.nodes.get_mut(directory) {
            node.children.insert(name.to_vec(), index);
        }
    }

    fn child(&self, directory: usize, name: &[u8]) -> Option<usize> {
        self.nodes.get(directory)?.children.get(name).copied()
    }

    fn is_directory(&self, index: usize) -> bool {
        self.nodes.get(index).is_some_and(|node| node.object.is_directory())
    }
}

/// Splits a path into its names. Slashes at its beginning and end, double ones and dots say nothing.
fn split(path: &[u8]) -> Result<Vec<&[u8]>, TarProblem> {
    if path.len() > MAX_PATH_LEN {
        let (found, limit) = (path.len() as u64, MAX_PATH_LEN as u64);
        return Err(TarProblem::Limit { what: "length of a path", found, limit });
    }
    let mut names = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(TarProblem::Escapes(path.into())),
            name if is_valid_name(name) => names.push(name),
            _ => return Err(TarProblem::Field("name")),
        }
    }
    Ok(names)
}
