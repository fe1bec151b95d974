//! Puts the contents of files into blocks, and finds contents again that a recent block has.
//!
//! ```text
//! file      [ literal ][   match   ][ literal ............ window ]  <- read so far
//!                 |          |                             hash
//! blocks    .. [  n-1  ] [ n: ... | match | ... literal|   ]
//! ```
//!
//! While a file is read, a hash of its last window of bytes rolls on; the hash of every so-many-th window of what
//! goes into a block is remembered. A window whose hash is known is compared, extended to both sides as far as the
//! bytes are equal, and becomes a piece that points there; everything else is literal. Without a window (levels 0
//! to 2) files simply follow each other, cut where a block is full.

mod recent;
mod rolling;
mod scanner;

use std::{collections::VecDeque, io};

use super::{
    category::Category,
    compress::BlockSink,
    dedup::Group,
    error::WriteError,
    object::Object,
    options::Segmentation,
    progress::Progress,
    read::{Files, read_stable},
    source::Contents,
    tree::{ObjectId, Tree},
};

use recent::{Current, Recent};
pub(super) use rolling::LEAST_BITS;
use scanner::Scanner;

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
    /// Of which category each block is.
    pub(super) categories: Vec<Category>,
    /// Bytes that were found again in a block.
    pub(super) matched: u64,
}

/// How files are put into blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Length of a block in bytes.
    pub(super) block_size: u32,
    /// How contents are found again; `None`: not at all.
    pub(super) segmentation: Option<Segmentation>,
}

/// Reads all files, of one category after the other, and hands full blocks to `sink`. Files that have changed since they were scanned are brought up
/// to date in the tree, and leave their group.
pub(super) fn segment(
    files: &Files<'_>,
    tree: &mut Tree,
    streams: Vec<(Category, Vec<Group>)>,
    cut: Cut,
    sink: &dyn BlockSink,
    progress: &dyn Progress,
) -> Result<Segmented, WriteError> {
    let mut segmenter = Segmenter {
        scanner: None,
        progress,
        blocks: Blocks::new(sink, cut.block_size),
        out: Segmented::default(),
    };
    for (category, groups) in streams {
        // What blocks of another category hold is not looked for: nobody shall need both for one file.
        segmenter.scanner = cut.segmentation.map(|segmentation| Scanner::new(cut.block_size, segmentation));
        segmenter.blocks.category = category;
        segmenter.add_groups(files, tree, groups)?;
        segmenter.blocks.flush()?;
        segmenter.out.categories.resize(segmenter.blocks.number as usize, category);
    }
    segmenter.out.blocks = segmenter.blocks.number;
    Ok(segmenter.out)
}
/// The blocks as they are filled.
struct Blocks<'a> {
    sink: &'a dyn BlockSink,
    block_size: u32,
    /// The block that is being filled, its number, and how far it is.
    buffer: Option<Vec<u8>>,
    number: u32,
    fill: usize,
    category: Category,
    /// Somebody else failed and takes no more blocks.
    is_aborted: bool,
}

impl<'a> Blocks<'a> {
    const fn new(sink: &'a dyn BlockSink, block_size: u32) -> Self {
        Self {
            sink,
            block_size,
            buffer: None,
            number: 0,
            fill: 0,
            category: Category::Default,
            is_aborted: false,
        }
    }

    /// Room in the block that is being filled, at most `most` bytes. `None`: everything is coming to an end.
    fn space(&mut self, most: usize) -> Option<&mut [u8]> {
        if self.buffer.is_none() {
            self.buffer = self.sink.buffer(self.block_size as usize);
            self.is_aborted |= self.buffer.is_none();
        }
        let end = self.fill.saturating_add(most).min(self.block_size as usize);
        self.buffer.as_mut()?.get_mut(self.fill..end)
    }

    /// The next `len` bytes have been filled in.
    const fn advance(&mut self, len: usize) {
        self.fill += len;
    }

    const fn is_full(&self) -> bool {
        self.fill == self.block_size as usize
    }

    /// What the current block holds.
    fn current(&self) -> Current<'_> {
        let bytes = self.buffer.as_deref().and_then(|buffer| buffer.get(..self.fill)).unwrap_or_default();
        Current { number: self.number, bytes }
    }

    /// Hands the current block on.
    fn flush(&mut self) -> Result<(), WriteError> {
        if self.fill == 0 {
            return Ok(());
        }
        if let Some(buffer) = self.buffer.take() {
            self.sink.block(self.number, buffer, self.fill, self.category);
        }
        self.fill = 0;
        // The number behind the last block stands for holes.
        self.number = self.number.checked_add(1).ok_or(WriteError::TooMany { what: "blocks" })?;
        Ok(())
    }
}

struct Segmenter<'a> {
    scanner: Option<Scanner>,
    progress: &'a dyn Progress,
    blocks: Blocks<'a>,
    out: Segmented,
}

impl Segmenter<'_> {
    /// Adds the files of one category.
    fn add_groups(
        &mut self,
        files: &Files<'_>,
        tree: &mut Tree,
        groups: Vec<Group>,
    ) -> Result<(), WriteError> {
        let mut queue = VecDeque::from(groups);
        while let Some(Group { first, mut others, category }) = queue.pop_front() {
            let start = self.out.pieces.len();
            let read = read_stable(files, tree, first, |contents, object| {
                self.out.pieces.truncate(start);
                let is_whole = self.add_file(contents, object)?;
                Ok(is_whole.then_some(start..self.out.pieces.len()))
            });
            let is_left_out = read.is_err();
            let (pieces, newer) = match read {
                Ok(found) => found,
                Err(error) => {
                    files.faults.leave_out(error)?;
                    tree.lose(first);
                    self.out.pieces.truncate(start);
                    (start..start, None)
                }
            };
            // Whoever is not as the others any more leaves their group.
            if (is_left_out || newer.is_some()) && !others.is_empty() {
                let second = others.remove(0);
                let others = std::mem::take(&mut others);
                queue.push_front(Group { first: second, others, category });
            }
            if let (Some(newer), Some(object)) = (newer, tree.object_mut(first)) {
                *object = newer;
            }
            self.progress.files(1 + others.len() as u64);
            if !is_left_out {
                self.out.files.push(Packed { group: Group { first, others, category }, pieces });
            }
            if self.blocks.is_aborted {
                break;
            }
        }
        Ok(())
    }

    /// Adds a file; false if it ended early.
    fn add_file(&mut self, contents: &dyn Contents, object: &Object) -> io::Result<bool> {
        let Some(file) = object.file() else { return Ok(false) };
        let mut at = 0;
        for range in file.data() {
            self.add_hole(range.start - at);
            if !self.add_data(contents, range.clone())? {
                return Ok(self.blocks.is_aborted);
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
        let mut pieces = Pieces { out: &mut self.out, is_open: false };
        match &mut self.scanner {
            Some(scanner) if scanner.is_worth(range.end - range.start) => {
                scanner.scan(contents, range, &mut self.blocks, &mut pieces, self.progress)
            }
            scanner => {
                let recent = scanner.as_mut().map(Scanner::recent);
                copy(contents, range, &mut self.blocks, recent, &mut pieces, self.progress)
            }
        }
    }
}

/// Reads data straight into blocks; false if the file ended early.
fn copy(
    contents: &dyn Contents,
    range: std::ops::Range<u64>,
    blocks: &mut Blocks<'_>,
    mut recent: Option<&mut Recent>,
    pieces: &mut Pieces<'_>,
    progress: &dyn Progress,
) -> io::Result<bool> {
    let mut at = range.start;
    while at < range.end {
        let want = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        let Some(space) = blocks.space(want) else { return Ok(false) };
        let read = contents.read_at(space, at)?;
        if read == 0 {
            return Ok(false);
        }
        pieces.data(blocks.number, blocks.fill, read);
        blocks.advance(read);
        progress.bytes_in(read as u64);
        at += read as u64;
        if blocks.is_full() {
            if let Some(recent) = &mut recent {
                recent.turn(blocks.current());
            }
            blocks.flush().map_err(io::Error::other)?;
        }
    }
    Ok(true)
}

/// The pieces of a range of data. Pieces that follow each other in a block are one.
struct Pieces<'a> {
    out: &'a mut Segmented,
    /// Whether the last piece belongs to this range.
    is_open: bool,
}

impl Pieces<'_> {
    fn data(&mut self, block: u32, offset: usize, len: usize) {
        // Blocks are at most 2^30 bytes long.
        let (Ok(offset), Ok(len)) = (u32::try_from(offset), u32::try_from(len)) else { return };
        match self.out.pieces.last_mut().filter(|_| self.is_open) {
            Some(Piece::Data { block: last, offset: start, size })
                if *last == block && *start + *size == offset =>
            {
                *size += len;
            }
            _ => self.out.pieces.push(Piece::Data { block, offset, size: len }),
        }
        self.is_open = true;
    }

    fn matched(&mut self, block: u32, offset: usize, len: usize) {
        self.data(block, offset, len);
        self.out.matched += len as u64;
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

#[cfg(test)]
mod tests;
