//! Chunk lists: which pieces of which blocks make up a file.
//!
//! A file is the concatenation of its chunks, which say only how long they are. To find the chunk at an offset in a
//! long list, the offsets of every 64th chunk are summed up once and remembered for the files used last.

use std::{collections::VecDeque, ops::Range};

use crate::{
    dwarfs::{
        Error,
        format::{metadata::chunk, tables::Tables},
    },
    sync::{Arc, Mutex},
};

/// One piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of a block.
    Data {
        /// The block's number.
        block: u32,
        /// Where in the block they begin.
        offset: u32,
        /// How many there are.
        len: u64,
    },
    /// Zeros that are not stored.
    Hole {
        /// How many there are.
        len: u64,
    },
}

impl Piece {
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    /// Its length in bytes.
    pub const fn len(self) -> u64 {
        match self {
            Self::Data { len, .. } | Self::Hole { len } => len,
        }
    }
}

/// Length of a file, with holes and without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) total: u64,
    pub(super) allocated: u64,
}

impl Size {
    /// Adds a piece; files are at most as long as an offset of the host can be.
    pub(super) fn add(&mut self, piece: Piece) -> Result<(), Error> {
        let too_long =
            || Error::Limit { what: "file size", found: u64::MAX, limit: i64::MAX.cast_unsigned() };
        let total = self.total.checked_add(piece.len()).filter(|total| i64::try_from(*total).is_ok());
        self.total = total.ok_or_else(too_long)?;
        if let Piece::Data { len, .. } = piece {
            self.allocated += len;
        }
        Ok(())
    }
}

/// Number of chunks from which on a file is worth an offset table.
pub(super) const LONG_LIST: usize = 128;
/// Chunks between two remembered offsets.
const STEP: u32 = 64;
/// Offset tables that are kept: those of the files used last.
const KEPT: usize = 64;

/// The offsets of every [`STEP`]th chunk of a file.
#[derive(Debug)]
struct Offsets {
    starts: Vec<u64>,
    size: Size,
}

/// Reads chunk lists and remembers offsets of long ones.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    recent: Mutex<VecDeque<(u32, Arc<Offsets>)>>,
}

impl Chunks {
    /// Length of the file with these chunks.
    pub(super) fn size(&self, tables: &Tables, data: &[u8], chunks: &Range<u32>) -> Result<Size, Error> {
        if chunks.len() >= LONG_LIST {
            return Ok(self.offsets(tables, data, chunks)?.size);
        }
        let mut size = Size::default();
        for number in chunks.clone() {
            size.add(piece(tables, data, number)?)?;
        }
        Ok(size)
    }

    /// The first chunk to look at for `offset`, and the offset at which it begins.
    pub(super) fn seek(
        &self,
        tables: &Tables,
        data: &[u8],
        chunks: &Range<u32>,
        offset: u64,
    ) -> Result<(u32, u64), Error> {
        if chunks.len() < LONG_LIST {
            return Ok((chunks.start, 0));
        }
        let offsets = self.offsets(tables, data, chunks)?;
        let at = offsets.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let start = offsets.starts.get(at).copied().unwrap_or_default();
        let skipped = u32::try_from(at).unwrap_or_default().saturating_mul(STEP);
        Ok((chunks.start.saturating_add(skipped), start))
    }

    fn offsets(&self, tables: &Tables, data: &[u8], chunks: &Range<u32>) -> Result<Arc<Offsets>, Error> {
        if let Some(offsets) = self.recall(chunks.start) {
            return Ok(offsets);
        }
        let mut offsets = Offsets { starts: Vec::new(), size: Size::default() };
        for number in chunks.clone() {
            if (number - chunks.start).is_multiple_of(STEP) {
                offsets.starts.push(offsets.size.total);
            }
            offsets.size.add(piece(tables, data, number)?)?;
        }
        let offsets = Arc::new(offsets);
        let mut recent = self.recent.lock();
        recent.push_front((chunks.start, Arc::clone(&offsets)));
        recent.truncate(KEPT);
        Ok(offsets)
    }

    fn recall(&self, start: u32) -> Option<Arc<Offsets>> {
        let mut recent = self.recent.lock();
        let at = recent.iter().position(|(key, _)| *key == start)?;
        let found = recent.remove(at)?;
        let offsets = Arc::clone(&found.1);
        recent.push_front(found);
        Some(offsets)
    }
}

/// Reads chunk `number`.
pub(super) fn piece(tables: &Tables, data: &[u8], number: u32) -> Result<Piece, Error> {
    let block = tables.chunk_block.at32(data, number, "chunk")?;
    let offset = tables.chunk_offset.at32(data, number, "chunk")?;
    let size = tables.chunk_size.at32(data, number, "chunk")?;
    if tables.hole_block != Some(block) {
        return Ok(Piece::Data { block, offset, len: u64::from(size) });
    }
    if offset == chunk::OFFSET_OF_LARGE_HOLE {
        return Ok(Piece::Hole { len: tables.large_holes.at(data, size, "large hole")? });
    }
    // Cannot overflow: the block size is at most 2^30.
    Ok(Piece::Hole { len: u64::from(size) * tables.block_size + u64::from(offset) })
}
