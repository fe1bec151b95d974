//! In which order files are put into blocks.

use std::{cmp::Ordering, collections::HashSet};

use super::{
    options::Order,
    tree::{EntryId, ObjectId, Tree},
};

/// Returns all regular files, each once, in the order in which they are to be packed. For similarity, that is the
/// order of what is equally similar: the files have not been looked into yet.
pub(super) fn order(tree: &Tree, order: &Order) -> Vec<ObjectId> {
    match order {
        Order::None => as_found(tree),
        Order::Path | Order::Similarity => by_path(tree),
        Order::ReversePath => by_reverse_path(tree),
        Order::List(paths) => listed_first(tree, paths.iter().map(|path| &**path)),
        Order::Profile(profile) => listed_first(tree, profile.files.iter().map(|file| &*file.path)),
    }
}

/// Breadth first.
fn as_found(tree: &Tree) -> Vec<ObjectId> {
    tree.entry_ids().filter_map(|id| file_named_first(tree, id)).collect()
}

fn by_path(tree: &Tree) -> Vec<ObjectId> {
    let mut files = Vec::new();
    let mut stack = vec![EntryId::ROOT];
    while let Some(id) = stack.pop() {
        files.extend(file_named_first(tree, id));
        stack.extend(tree.children(id).rev());
    }
    files
}

/// By name, then by the name of the directory, and so on upwards: files of one name lie together.
fn by_reverse_path(tree: &Tree) -> Vec<ObjectId> {
    let mut files = by_path(tree);
    files.sort_by(|a, b| reverse_paths(tree, tree.first_name(*a), tree.first_name(*b)));
    files
}

fn reverse_paths(tree: &Tree, mut a: EntryId, mut b: EntryId) -> Ordering {
    while a != b {
        // The root has the empty name: a path that ends is less than one that goes on.
        let names = tree.name(a).cmp(tree.name(b));
        if names.is_ne() {
            return names;
        }
        (a, b) = (tree.parent(a), tree.parent(b));
    }
    Ordering::Equal
}

/// The files of a list that are there, then the others by path. A file with several names counts under each of them.
fn listed_first<'p>(tree: &Tree, paths: impl Iterator<Item = &'p [u8]>) -> Vec<ObjectId> {
    let listed = paths.filter_map(|path| tree.find(path)).map(|id| tree.object_of(id));
    let mut seen = HashSet::new();
    let mut files: Vec<ObjectId> =
        listed.filter(|object| is_file(tree, *object) && seen.insert(*object)).collect();
    files.extend(by_path(tree).into_iter().filter(|object| !seen.contains(object)));
    files
}

/// The file that an entry names, if that is its first name.
fn file_named_first(tree: &Tree, id: EntryId) -> Option<ObjectId> {
    let object = tree.object_of(id);
    (is_file(tree, object) && tree.first_name(object) == id).then_some(object)
}

fn is_file(tree: &Tree, object: ObjectId) -> bool {
    tree.object(object).is_some_and(|object| object.file().is_some())
}
