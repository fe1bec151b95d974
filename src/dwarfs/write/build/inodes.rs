//! Numbers inodes and directory entries.

use std::ops::Range;

use crate::dwarfs::write::{
    object::Content,
    segment::{Segmented, members},
    tree::{EntryId, ObjectId, Tree},
};

/// Objects and entries by their numbers in the archive.
pub(super) struct Inodes {
    /// By inode number.
    pub(super) objects: Vec<ObjectId>,
    /// Inode number by object.
    pub(super) numbers: Vec<u32>,
    /// Number of names by object.
    pub(super) links: Vec<u32>,
    /// By number of directory entry.
    pub(super) entries: Vec<EntryId>,
    pub(super) symlinks: Range<usize>,
    pub(super) devices: Range<usize>,
    /// Packed files: the unique ones first, then one of each group of shared ones.
    pub(super) contents: Vec<usize>,
    /// For each shared file, the number of its group.
    pub(super) shared: Vec<u32>,
}

impl Inodes {
    pub(super) fn new(tree: &Tree, files: &Segmented) -> Self {
        let entries = breadth_first(tree);
        let mut links = vec![0_u32; tree.objects().len()];
        for entry in &entries {
            if let Some(count) = links.get_mut(tree.object_of(*entry).index()) {
                *count += 1;
            }
        }
        let firsts = entries.iter().filter(|entry| tree.first_name(tree.object_of(**entry)) == **entry);
        let named: Vec<ObjectId> = firsts.map(|entry| tree.object_of(*entry)).collect();
        let of_kind = |is_wanted: fn(&Content) -> bool| {
            named
                .iter()
                .copied()
                .filter(move |id| tree.object(*id).is_some_and(|object| is_wanted(&object.content)))
        };

        let mut objects: Vec<ObjectId> = of_kind(|content| matches!(content, Content::Directory)).collect();
        let links_start = objects.len();
        objects.extend(of_kind(|content| matches!(content, Content::Symlink(_))));
        let symlinks = links_start..objects.len();
        let (unique, shared_groups): (Vec<usize>, Vec<usize>) = (0..files.files.len())
            .partition(|index| files.files.get(*index).is_some_and(|file| file.group.others.is_empty()));
        let mut shared = Vec::new();
        objects
            .extend(unique.iter().filter_map(|index| files.files.get(*index)).map(|file| file.group.first));
        for (number, index) in (0_u32..).zip(&shared_groups) {
            for id in files.files.get(*index).iter().flat_map(|file| members(&file.group)) {
                objects.push(id);
                shared.push(number);
            }
        }
        let devices_start = objects.len();
        objects
            .extend(of_kind(|content| matches!(content, Content::CharDevice(_) | Content::BlockDevice(_))));
        let devices = devices_start..objects.len();
        objects.extend(of_kind(|content| matches!(content, Content::Fifo | Content::Socket)));

        let mut numbers = vec![0; tree.objects().len()];
        for (number, id) in (0..).zip(&objects) {
            if let Some(slot) = numbers.get_mut(id.index()) {
                *slot = number;
            }
        }
        let contents = [unique, shared_groups].concat();
        Self { objects, numbers, links, entries, symlinks, devices, contents, shared }
    }

    pub(super) fn number(&self, id: ObjectId) -> u32 {
        self.numbers.get(id.index()).copied().unwrap_or_default()
    }
}

/// All entries, the root first, then those of each directory in the order in which the directories were met.
fn breadth_first(tree: &Tree) -> Vec<EntryId> {
    let mut entries = vec![EntryId::ROOT];
    let mut next = 0;
    while let Some(entry) = entries.get(next).copied() {
        entries.extend(tree.children(entry));
        next += 1;
    }
    entries
}
