//! In which order files are put into blocks.

use std::collections::HashSet;

use super::{
    options::Order,
    tree::{EntryId, ObjectId, Tree},
};
use crate::dwarfs::profile::Profile;

/// Returns all regular files, each once, in the order in which they are to be packed.
pub(super) fn order(tree: &Tree, order: &Order) -> Vec<ObjectId> {
    match order {
        Order::Path => by_path(tree),
        Order::Profile(profile) => by_profile(tree, profile),
    }
}

fn by_path(tree: &Tree) -> Vec<ObjectId> {
    let mut files = Vec::new();
    let mut stack = vec![EntryId::ROOT];
    while let Some(id) = stack.pop() {
        let object = tree.object_of(id);
        if is_file(tree, object) && tree.first_name(object) == id {
            files.push(object);
        }
        stack.extend(tree.children(id).rev());
    }
    files
}

/// The files of a profile that are there, then the others. A file with several names counts under each of them.
fn by_profile(tree: &Tree, profile: &Profile) -> Vec<ObjectId> {
    let listed = profile.files.iter().filter_map(|file| tree.find(&file.path)).map(|id| tree.object_of(id));
    let mut seen = HashSet::new();
    let mut files: Vec<ObjectId> =
        listed.filter(|object| is_file(tree, *object) && seen.insert(*object)).collect();
    files.extend(by_path(tree).into_iter().filter(|object| !seen.contains(object)));
    files
}

fn is_file(tree: &Tree, object: ObjectId) -> bool {
    tree.object(object).is_some_and(|object| object.file().is_some())
}
