//! Checks what the metadata says about itself.
//!
//! First what bounds the work: chunk lists and directories that stand one behind the other, each chunk and each entry
//! in exactly one of them. Where they do not, a few KiB could name gigabytes of work; that is the finding then, and
//! what builds on it is left out. After that everything is looked at once.

use std::ops::ControlFlow;

use super::{Findings, Part};
use crate::dwarfs::{
    Error, limits,
    read::{
        chunks::{Piece, Size, piece},
        index::Section,
        stat::{Kind, Stat},
        tree::{Inode, Tree},
    },
};

/// What was learnt on the way.
pub(super) struct References {
    /// Directory entries that were seen.
    pub(super) entries: u64,
    /// How many bytes of each block its chunks need.
    pub(super) needs: Vec<u64>,
    /// Whether directories and chunk lists are in order.
    pub(super) can_walk: bool,
}

/// Checks the metadata of an archive with these blocks.
pub(super) fn check(tree: &Tree, blocks: &[Section], findings: &mut Findings) -> References {
    let mut checker = Checker { tree, findings, needs: vec![0; blocks.len()], entries: 0 };
    let lists_are_in_order = checker.lists();
    let directories_are_in_order = checker.directories();
    let can_walk = lists_are_in_order && directories_are_in_order;
    if can_walk {
        let named = checker.walk();
        checker.inodes(&named);
    }
    References { entries: checker.entries, needs: checker.needs, can_walk }
}

struct Checker<'a> {
    tree: &'a Tree,
    findings: &'a mut Findings,
    needs: Vec<u64>,
    entries: u64,
}

impl Checker<'_> {
    fn add(&mut self, error: Error) {
        self.findings.add(Part::Metadata, error);
    }

    fn damaged(&mut self, what: &'static str, inode: Inode) {
        self.add(Error::Damaged { what, inode: inode.get() });
    }

    fn expect(&mut self, what: &'static str, found: u64, expected: u64) {
        if found != expected {
            self.add(Error::Unequal { what, found, expected });
        }
    }

    /// Checks chunk lists, chunks and the size cache. Returns whether each chunk is in exactly one list.
    fn lists(&mut self) -> bool {
        let tables = self.tree.tables();
        let mut next = 0;
        for list in 0..tables.chunk_table.len().saturating_sub(1) {
            let range = match self.tree.chunks_at(list) {
                Ok(range) if range.start == next => range,
                Ok(range) => {
                    self.expect("first chunk of a file", u64::from(range.start), u64::from(next));
                    return false;
                }
                Err(error) => {
                    self.add(error);
                    return false;
                }
            };
            next = range.end;
            let chunks = u64::from(range.end - range.start);
            let size = self.list(range);
            self.check_cached_size(list, chunks, size);
        }
        self.expect("number of chunks of all files", u64::from(next), u64::from(tables.chunk_size.len()));
        true
    }

    /// Checks the chunks of a list and returns their lengths; `None` where one is damaged.
    fn list(&mut self, chunks: std::ops::Range<u32>) -> Option<Size> {
        let mut size = Some(Size::default());
        for number in chunks {
            match self.chunk(number, &mut size) {
                Ok(()) => {}
                Err(error) => {
                    self.add(error);
                    size = None;
                }
            }
        }
        size
    }

    fn chunk(&mut self, number: u32, size: &mut Option<Size>) -> Result<(), Error> {
        let piece = piece(self.tree.tables(), self.tree.data(), number)?;
        if let Some(size) = size {
            size.add(piece)?;
        }
        let Piece::Data { block, offset, len } = piece else { return Ok(()) };
        let bound = self.needs.len() as u64;
        let out = || Error::OutOfRange { what: "block of a chunk", found: u64::from(block), bound };
        let need = self.needs.get_mut(usize::try_from(block).unwrap_or(usize::MAX)).ok_or_else(out)?;
        *need = (*need).max(u64::from(offset) + len);
        Ok(())
    }

    fn check_cached_size(&mut self, list: u32, chunks: u64, size: Option<Size>) {
        let (tables, data) = (self.tree.tables(), self.tree.data());
        let (Some(cache), Some(size)) = (&tables.size_cache, size) else { return };
        if chunks < cache.min_chunk_count {
            return;
        }
        if let Some(found) = cache.size(data, list) {
            self.expect("size of a file in the size cache", found, size.total);
            let found = cache.allocated(data, list).unwrap_or(found);
            self.expect("allocated size of a file in the size cache", found, size.allocated);
        }
    }

    /// Returns whether each entry is in exactly one directory.
    fn directories(&mut self) -> bool {
        let tables = self.tree.tables();
        let mut next = None;
        for number in 0..tables.dir_first.len().saturating_sub(1) {
            let range = match self.tree.entries_of(number, Inode::new(number)) {
                Ok(range) => range,
                Err(error) => {
                    self.add(error);
                    return false;
                }
            };
            // The first entry is the root's own, and in no directory.
            let expected = next.unwrap_or(1);
            if range.start != expected {
                self.expect("first entry of a directory", u64::from(range.start), u64::from(expected));
                return false;
            }
            next = Some(range.end);
        }
        let (found, expected) = (next.unwrap_or_default(), tables.entry_inode.len());
        self.expect("number of entries of all directories", u64::from(found), u64::from(expected));
        true
    }

    /// Looks at all entries that the root leads to. Returns how often each row of the inode table is named.
    fn walk(&mut self) -> Vec<u32> {
        let rows = self.tree.tables().inode.mode_index.len();
        let mut named = vec![0_u32; usize::try_from(rows).unwrap_or_default()];
        let mut waiting = vec![self.tree.root()];
        while let Some(directory) = waiting.pop() {
            if let Err(error) = self.directory(directory, &mut named, &mut waiting) {
                self.add(error);
            }
        }
        named
    }

    fn directory(
        &mut self,
        directory: Inode,
        named: &mut [u32],
        waiting: &mut Vec<Inode>,
    ) -> Result<(), Error> {
        let tree = self.tree;
        let range = tree.entries(directory)?;
        let mut before: Option<Vec<u8>> = None;
        let mut next = 0;
        tree.read_dir(directory, 0, &mut |entry| {
            if entry.position != next {
                self.damaged("the name of an entry cannot be read", directory);
            }
            next = entry.position + 1;
            self.entries += 1;
            if !is_name(entry.name) {
                self.damaged("an entry has a name that no file can have", directory);
            }
            if before.as_deref().is_some_and(|before| before >= entry.name) {
                self.damaged("the entries of a directory are not in the order of their names", directory);
            }
            let name = before.get_or_insert_default();
            name.clear();
            name.extend_from_slice(entry.name);
            match entry.inode {
                Some(inode) => self.named(inode, named, waiting),
                None => match tree.target(directory, range.start + entry.position) {
                    Err(error) => self.add(error),
                    Ok(inode) => self.damaged("an entry names nothing", inode),
                },
            }
            ControlFlow::Continue(())
        })?;
        if next != range.end - range.start {
            self.damaged("the name of an entry cannot be read", directory);
        }
        Ok(())
    }

    /// Counts an entry for what it names. Directories have one entry that leads to them, and are entered once.
    fn named(&mut self, inode: Inode, named: &mut [u32], waiting: &mut Vec<Inode>) {
        let Some(count) = named.get_mut(usize::try_from(inode.get()).unwrap_or(usize::MAX)) else {
            return self.damaged("an entry names no inode", inode);
        };
        *count = count.saturating_add(1);
        if *count == 1 && matches!(self.tree.kind(inode), Ok(Kind::Directory)) {
            waiting.push(inode);
        }
    }

    /// Looks at all inodes.
    fn inodes(&mut self, named: &[u32]) {
        let tables = self.tree.tables();
        let (mut files, mut links, mut last_list) = (0_u64, 0_u64, 0);
        for (row, names) in (0..).zip(named) {
            let inode = Inode::new(row);
            if *names == 0 && inode != self.tree.root() {
                self.damaged("no directory names the inode", inode);
            }
            match self.inode(inode, *names, &mut last_list) {
                Ok(Stat { kind: Kind::Regular, size, .. }) => files = files.saturating_add(size),
                Ok(Stat { kind: Kind::Symlink, size, .. }) => links = links.saturating_add(size),
                Ok(_) => {}
                Err(error) => self.add(error),
            }
        }
        // Until 2.2 files of equal content are one inode, and the sum counts otherwise. Writers on hosts whose links
        // have no length do not count those. The sum without holes is not compared: upstream has counted it wrongly.
        if self.findings.is_empty() && tables.entry_table.is_none() && tables.total_fs_size != files {
            self.expect("size of all files and links", tables.total_fs_size, files.saturating_add(links));
        }
    }

    fn inode(&mut self, inode: Inode, names: u32, last_list: &mut u32) -> Result<Stat, Error> {
        let tree = self.tree;
        match tree.kind(inode)? {
            Kind::Regular => {
                let list = tree.chunk_index(inode)?;
                if list < *last_list && tree.tables().entry_table.is_none() {
                    // Sizes are remembered for the lists used last; out of order each file could cost all chunks.
                    let what = "the shared files are not in the order of their chunk lists";
                    return Err(Error::Damaged { what, inode: inode.get() });
                }
                *last_list = list;
            }
            Kind::Symlink if tree.read_link(inode)?.is_empty() => {
                self.damaged("the target of a symlink is empty", inode);
            }
            _ => {}
        }
        let stat = tree.stat(inode)?;
        if stat.kind == Kind::Regular && tree.tables().options.has_nlink && names > 0 {
            self.expect("number of links of a file", u64::from(stat.nlink), u64::from(names));
        }
        Ok(stat)
    }
}

fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= limits::MAX_NAME_LEN
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}
