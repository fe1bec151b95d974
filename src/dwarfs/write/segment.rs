//! Puts the contents of files into blocks.
//!
//! For now files simply follow each other, cut where a block is full. What remembers recent blocks and finds their
//! contents again in later files will stand here.

use std::{collections::VecDeque, io};

use super::{
    compress::BlockSink,
    dedup::Group,
    error::WriteError,
    object::Object,
    progress::Progress,
    read::{Files, read_stable},
    source::Contents,
    tree::{ObjectId, Tree},
};

/// A piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Part of a block.
    Data { block: u32, offset: u32, size: u32 },
    /// Bytes that are zero and not stored.
    Hole { size: u64 },
}

/// Files with equal contents, and where these are.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) group: Group,
    /// Range of [`Segmented::pieces`].
    pub(super) pieces: std::ops::Range<usize>,
}

/// Where all files went.
#[derive(Debug, Default)]
pub(super) struct Segmented {
    pub(super) files: Vec<Packed>,
    pub(super) pieces: Vec<Piece>,
    pub(super) blocks: u32,
}

/// Reads all files and hands full blocks to `sink`. Files that have changed since they were scanned are brought up
/// to date in the tree, and leave their group.
pub(super) fn segment(
    files: &Files<'_>,
    tree: &mut Tree,
    groups: Vec<Group>,
    block_size: u32,
    sink: &dyn BlockSink,
    progress: &dyn Progress,
) -> Result<Segmented, WriteError> {
    let mut segmenter = Segmenter {
        sink,
        progress,
        block_size,
        buffer: None,
        fill: 0,
        out: Segmented::default(),
        is_aborted: false,
    };
    let mut queue = VecDeque::from(groups);
    while let Some(Group { first, mut others }) = queue.pop_front() {
        let start = segmenter.out.pieces.len();
        let (pieces, newer) = read_stable(files, tree, first, |contents, object| {
            segmenter.out.pieces.truncate(start);
            let is_whole = segmenter.add_file(contents, object)?;
            Ok(is_whole.then_some(start..segmenter.out.pieces.len()))
        })?;
        if let (Some(newer), Some(object)) = (newer, tree.object_mut(first)) {
            *object = newer;
            if !others.is_empty() {
                let second = others.remove(0);
                queue.push_front(Group { first: second, others: std::mem::take(&mut others) });
            }
        }
        progress.files(1 + others.len() as u64);
        segmenter.out.files.push(Packed { group: Group { first, others }, pieces });
        if segmenter.is_aborted {
            break;
        }
    }
    segmenter.flush()?;
    Ok(segmenter.out)
}

struct Segmenter<'a> {
    sink: &'a dyn BlockSink,
    progress: &'a dyn Progress,
    block_size: u32,
    /// The block that is being filled, and how far.
    buffer: Option<Vec<u8>>,
    fill: u32,
    out: Segmented,
    /// Somebody else failed and takes no more blocks.
    is_aborted: bool,
}

impl Segmenter<'_> {
    /// Adds a file; false if it ended early.
    fn add_file(&mut self, contents: &dyn Contents, object: &Object) -> io::Result<bool> {
        let Some(file) = object.file() else { return Ok(false) };
        let mut at = 0;
        for range in file.data() {
            self.add_hole(range.start - at);
            if !self.add_data(contents, range.clone())? {
                return Ok(self.is_aborted);
            }
            at = range.end;
        }
        self.add_hole(file.size - at);
        Ok(true)
    }

    fn add_hole(&mut self, size: u64) {
        if size > 0 {
            self.out.pieces.push(Piece::Hole { size });
        }
    }

    fn add_data(&mut self, contents: &dyn Contents, range: std::ops::Range<u64>) -> io::Result<bool> {
        let mut at = range.start;
        // A range continues the piece before it only within itself.
        let mut is_open = false;
        while at < range.end {
            let (offset, block) = (self.fill, self.out.blocks);
            let want = u32::try_from(range.end - at).unwrap_or(u32::MAX).min(self.block_size - offset);
            let Some(free) = self.free_space(want) else { return Ok(false) };
            let read = contents.read_at(free, at)?;
            // No more was read than `want`, which is 32 bits.
            let read = u32::try_from(read).unwrap_or(want);
            if read == 0 {
                return Ok(false);
            }
            match self.out.pieces.last_mut().filter(|_| is_open) {
                Some(Piece::Data { size, .. }) => *size += read,
                _ => self.out.pieces.push(Piece::Data { block, offset, size: read }),
            }
            is_open = true;
            self.fill += read;
            self.progress.bytes_in(u64::from(read));
            at += u64::from(read);
            if self.fill == self.block_size {
                self.flush().map_err(io::Error::other)?;
                is_open = false;
            }
        }
        Ok(true)
    }

    /// Returns the next `len` bytes of the block that is being filled.
    fn free_space(&mut self, len: u32) -> Option<&mut [u8]> {
        if self.buffer.is_none() {
            self.buffer = self.sink.buffer(self.block_size as usize);
            self.is_aborted |= self.buffer.is_none();
        }
        let start = self.fill as usize;
        self.buffer.as_mut()?.get_mut(start..start + len as usize)
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        if self.fill == 0 {
            return Ok(());
        }
        if let Some(buffer) = self.buffer.take() {
            self.sink.block(self.out.blocks, buffer, self.fill as usize);
        }
        self.fill = 0;
        // The number behind the last block stands for holes.
        self.out.blocks = self.out.blocks.checked_add(1).ok_or(WriteError::TooMany { what: "blocks" })?;
        Ok(())
    }
}

/// Number of files that share the contents of another one.
pub(super) fn duplicates(segmented: &Segmented) -> u64 {
    segmented.files.iter().map(|file| file.group.others.len() as u64).sum()
}

/// All files of a group.
pub(super) fn members(group: &Group) -> impl Iterator<Item = ObjectId> {
    std::iter::once(group.first).chain(group.others.iter().copied())
}
