//! In which order files are put into blocks.

use super::{
    options::Order,
    tree::{EntryId, ObjectId, Tree},
};

/// Returns all regular files, each once, in the order in which they are to be packed.
pub(super) fn order(tree: &Tree, order: Order) -> Vec<ObjectId> {
    match order {
        Order::Path => by_path(tree),
    }
}

fn by_path(tree: &Tree) -> Vec<ObjectId> {
    let mut files = Vec::new();
    let mut stack = vec![EntryId::ROOT];
    while let Some(id) = stack.pop() {
        let object = tree.object_of(id);
        let is_file = tree.object(object).is_some_and(|object| object.file().is_some());
        if is_file && tree.first_name(object) == id {
            files.push(object);
        }
        stack.extend(tree.children(id).rev());
    }
    files
}
