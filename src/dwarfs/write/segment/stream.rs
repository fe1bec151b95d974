//! A stream: the files of one category, put into blocks one after the other.
//!
//! Files of audio give two kinds of blocks. Samples come into blocks that are cut between two frames, as FLAC needs
//! it; what stands beside them comes into a block of its own that is filled meanwhile. So a block's place among the
//! others is known only when it is full: until then pieces bear the number that the stream gives it.

use std::{collections::VecDeque, io, ops::Range};

use super::{
    Cut, Packed, Piece, Segmented,
    recent::{Current, Recent},
    scanner::Scanner,
    turns::Seat,
};
use crate::dwarfs::write::{
    category::{
        Category,
        audio::{self, Waveform},
    },
    codec::Pcm,
    dedup::Group,
    error::WriteError,
    object::{FileContent, Object},
    progress::Progress,
    read::{Files, read_stable},
    source::Contents,
    tree::Tree,
};

/// The blocks of one kind as they are filled.
pub(super) struct Blocks<'a> {
    seat: Seat<'a>,
    /// Length of a full block.
    full: usize,
    category: Category,
    /// Number of the first block in the stream's counting.
    first: u32,
    /// The final number of each block that was handed on.
    numbers: Vec<u32>,
    /// The block that is being filled, and how far it is.
    buffer: Option<Vec<u8>>,
    fill: usize,
    /// Somebody else failed and takes no more blocks.
    is_aborted: bool,
}

impl<'a> Blocks<'a> {
    const fn new(seat: Seat<'a>, full: usize, category: Category, first: u32) -> Self {
        Self { seat, full, category, first, numbers: Vec::new(), buffer: None, fill: 0, is_aborted: false }
    }

    /// The number of the block that is being filled, in the stream's counting.
    pub(super) fn number(&self) -> u32 {
        u32::try_from(self.numbers.len()).unwrap_or(u32::MAX).saturating_add(self.first)
    }

    /// How far it is filled.
    pub(super) const fn fill(&self) -> usize {
        self.fill
    }

    /// Whether everything is coming to an end.
    pub(super) const fn is_aborted(&self) -> bool {
        self.is_aborted
    }

    /// Room in the block that is being filled, at most `most` bytes. `None`: everything is coming to an end.
    pub(super) fn space(&mut self, most: usize) -> Option<&mut [u8]> {
        if self.is_aborted {
            return None;
        }
        if self.buffer.is_none() {
            self.buffer = self.seat.buffer(self.full);
            self.is_aborted |= self.buffer.is_none();
        }
        let end = self.fill.saturating_add(most).min(self.full);
        self.buffer.as_mut()?.get_mut(self.fill..end)
    }

    /// The next `len` bytes have been filled in.
    pub(super) const fn advance(&mut self, len: usize) {
        self.fill += len;
    }

    pub(super) const fn is_full(&self) -> bool {
        self.fill == self.full
    }

    /// What the current block holds.
    pub(super) fn current(&self) -> Current<'_> {
        let bytes = self.buffer.as_deref().and_then(|buffer| buffer.get(..self.fill)).unwrap_or_default();
        Current { number: self.number(), bytes }
    }

    /// Hands the current block on.
    pub(super) fn flush(&mut self) -> Result<(), WriteError> {
        if self.fill == 0 {
            return Ok(());
        }
        if self.numbers.len() as u64 >= u64::from(SECOND) {
            return Err(WriteError::TooMany { what: "blocks" });
        }
        if let Some(buffer) = self.buffer.take() {
            match self.seat.block(buffer, self.fill, self.category)? {
                Some(number) => self.numbers.push(number),
                None => self.is_aborted = true,
            }
        }
        self.fill = 0;
        Ok(())
    }

    /// The final number of a block that was handed on; `None` for one of the other kind.
    fn final_number(&self, block: u32) -> Option<u32> {
        self.numbers.get(block.checked_sub(self.first)? as usize).copied()
    }
}

/// Where the numbers begin that a stream gives to blocks of its second kind.
const SECOND: u32 = 1 << 31;

/// A stream as it is worked on.
pub(super) struct Stream<'a> {
    category: Category,
    scanner: Option<Scanner>,
    progress: &'a dyn Progress,
    blocks: Blocks<'a>,
    /// What stands beside samples.
    beside: Blocks<'a>,
    out: Segmented,
}

impl<'a> Stream<'a> {
    pub(super) fn new(category: Category, cut: Cut, seat: Seat<'a>, progress: &'a dyn Progress) -> Self {
        let block_size = cut.block_size as usize;
        let (frame, segmentation) = match category {
            Category::Waveform(pcm) => (pcm.frame().max(1), None),
            _ => (1, cut.segmentation),
        };
        Self {
            category,
            // What blocks of another category hold is not looked for: nobody shall need both for one file.
            scanner: segmentation.map(|segmentation| Scanner::new(cut.block_size, segmentation)),
            progress,
            blocks: Blocks::new(seat, block_size - block_size % frame, category, 0),
            beside: Blocks::new(seat, block_size, Category::AudioMetadata, SECOND),
            out: Segmented::default(),
        }
    }

    /// Puts all files into blocks.
    pub(super) fn run(
        mut self,
        files: &Files<'_>,
        tree: &Tree,
        groups: Vec<Group>,
    ) -> Result<Segmented, WriteError> {
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
                    self.out.lost.push(first);
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
            self.out.changed.extend(newer.map(|newer| (first, newer)));
            self.progress.files(1 + others.len() as u64);
            if !is_left_out {
                self.out.files.push(Packed { group: Group { first, others, category }, pieces });
            }
            if self.is_aborted() {
                break;
            }
        }
        self.finish()
    }

    /// Hands on what is left, and gives all blocks their final numbers.
    pub(super) fn finish(mut self) -> Result<Segmented, WriteError> {
        self.blocks.flush()?;
        self.beside.flush()?;
        for piece in &mut self.out.pieces {
            if let Piece::Data { block, .. } = piece {
                let known = self.blocks.final_number(*block).or_else(|| self.beside.final_number(*block));
                // Only where everything is coming to an end one is missing.
                *block = known.unwrap_or(*block);
            }
        }
        Ok(self.out)
    }

    /// Number of pieces so far.
    #[cfg(test)]
    pub(super) const fn pieces(&self) -> usize {
        self.out.pieces.len()
    }

    const fn is_aborted(&self) -> bool {
        self.blocks.is_aborted || self.beside.is_aborted
    }

    /// Adds a file; false if it ended early.
    fn add_file(&mut self, contents: &dyn Contents, object: &Object) -> io::Result<bool> {
        let Some(file) = object.file() else { return Ok(false) };
        if let Category::Waveform(pcm) = self.category {
            return self.add_audio(contents, file, pcm);
        }
        let mut at = 0;
        for range in file.data() {
            self.add_hole(range.start - at);
            if !self.add_data(contents, range.clone())? {
                return Ok(self.is_aborted());
            }
            at = range.end;
        }
        self.add_hole(file.size - at);
        Ok(true)
    }

    /// Adds a file of audio. It may have become something else meanwhile: all of it is put beside the samples then.
    fn add_audio(&mut self, contents: &dyn Contents, file: &FileContent, pcm: Pcm) -> io::Result<bool> {
        self.even_out(pcm.frame())?;
        let samples = match file.data().as_slice() {
            [all] if *all == (0..file.size) => samples(contents, file.size, pcm)?,
            _ => None,
        };
        let samples = samples.unwrap_or(0..0);
        let mut at = 0;
        for range in file.data() {
            self.add_hole(range.start - at);
            let (before, behind) =
                (range.start..samples.start.max(range.start), samples.end.max(range.start)..range.end);
            for (part, is_beside) in [(before, true), (samples.clone(), false), (behind, true)] {
                if part.start >= part.end {
                    continue;
                }
                let blocks = if is_beside { &mut self.beside } else { &mut self.blocks };
                let mut pieces = Pieces { out: &mut self.out, is_open: false };
                if !copy(contents, part, blocks, None, &mut pieces, self.progress)? {
                    return Ok(self.is_aborted());
                }
            }
            at = range.end;
        }
        self.add_hole(file.size - at);
        Ok(true)
    }

    /// Fills up the last frame after a file that ended early, so that the next one begins with a frame.
    fn even_out(&mut self, frame: usize) -> io::Result<()> {
        let missing = self.blocks.fill.next_multiple_of(frame.max(1)) - self.blocks.fill;
        if missing > 0
            && let Some(space) = self.blocks.space(missing)
        {
            space.fill(0);
            self.blocks.advance(missing);
            if self.blocks.is_full() {
                self.blocks.flush().map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    fn add_hole(&mut self, size: u64) {
        if size > 0 {
            self.out.pieces.push(Piece::Hole { size });
        }
    }

    pub(super) fn add_data(&mut self, contents: &dyn Contents, range: Range<u64>) -> io::Result<bool> {
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

/// Where a file has samples of a kind; `None` if it has no such ones any more.
fn samples(contents: &dyn Contents, len: u64, pcm: Pcm) -> io::Result<Option<Range<u64>>> {
    let mut head = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(audio::MOST_HEAD)];
    let mut fill = 0;
    while let Some(space) = head.get_mut(fill..).filter(|space| !space.is_empty()) {
        match contents.read_at(space, fill as u64)? {
            0 => return Ok(None),
            read => fill += read,
        }
    }
    let found = audio::parse(&head, len).filter(|found| found.pcm == pcm);
    Ok(found.map(|Waveform { data, .. }| data))
}

/// Reads data straight into blocks; false if the file ended early.
fn copy(
    contents: &dyn Contents,
    range: Range<u64>,
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
        pieces.data(blocks.number(), blocks.fill, read);
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
pub(super) struct Pieces<'a> {
    out: &'a mut Segmented,
    /// Whether the last piece belongs to this range.
    is_open: bool,
}

impl Pieces<'_> {
    pub(super) fn data(&mut self, block: u32, offset: usize, len: usize) {
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

    pub(super) fn matched(&mut self, block: u32, offset: usize, len: usize) {
        self.data(block, offset, len);
        self.out.matched += len as u64;
    }
}
