//! The tables that say which pieces of which blocks make up each file.

use std::collections::HashMap;

use super::inodes::Inodes;
use crate::dwarfs::{
    format::metadata::{DEFAULT_MIN_CHUNK_COUNT, chunk::OFFSET_OF_LARGE_HOLE},
    write::{
        error::WriteError,
        segment::{Piece, Segmented},
    },
};

/// The chunk tables.
///
/// A hole is a chunk of the block behind the last one. Its length is `size * block size + offset`, or, where that
/// does not fit, in a table of its own.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// Block, offset and size.
    pub(super) chunks: Vec<[u32; 3]>,
    /// First chunk of each file, and the end of the last one's.
    pub(super) table: Vec<u32>,
    /// Number that stands for a hole, if there is any.
    pub(super) hole_block: Option<u32>,
    pub(super) large_holes: Vec<u64>,
    /// Sizes of files with so many chunks that adding them up takes long, by number in `table`.
    pub(super) sizes: Vec<(u32, u64)>,
    /// The same without holes, of files that have some.
    pub(super) allocated_sizes: Vec<(u32, u64)>,
    /// Size of all data, each block's once for each file that uses it.
    pub(super) sums: Vec<Sum>,
}

/// Size of a file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) size: u64,
    pub(super) allocated: u64,
}

impl Chunks {
    pub(super) fn new(files: &Segmented, inodes: &Inodes, block_size: u32) -> Result<Self, WriteError> {
        let mut chunks = Self { table: vec![0], ..Self::default() };
        let mut large = HashMap::new();
        for file in inodes.contents.iter().filter_map(|index| files.files.get(*index)) {
            let number = u32::try_from(chunks.sums.len()).map_err(|_| TOO_MANY)?;
            let mut sum = Sum::default();
            let pieces = files.pieces.get(file.pieces.clone()).unwrap_or_default();
            for piece in pieces {
                sum.size += chunks.add(piece, files.blocks, block_size, &mut large)?;
                if let Piece::Data { size, .. } = piece {
                    sum.allocated += u64::from(*size);
                }
            }
            if pieces.len() as u64 >= DEFAULT_MIN_CHUNK_COUNT {
                chunks.sizes.push((number, sum.size));
                if sum.allocated != sum.size {
                    chunks.allocated_sizes.push((number, sum.allocated));
                }
            }
            chunks.sums.push(sum);
            chunks.table.push(u32::try_from(chunks.chunks.len()).map_err(|_| TOO_MANY)?);
        }
        Ok(chunks)
    }

    /// Adds a piece and returns its length.
    fn add(
        &mut self,
        piece: &Piece,
        blocks: u32,
        block_size: u32,
        large: &mut HashMap<u64, u32>,
    ) -> Result<u64, WriteError> {
        match *piece {
            Piece::Data { block, offset, size } => {
                self.chunks.push([block, offset, size]);
                Ok(u64::from(size))
            }
            Piece::Hole { size } => {
                self.hole_block = Some(blocks);
                let unit = u64::from(block_size);
                let chunk = match (u32::try_from(size % unit), u32::try_from(size / unit)) {
                    (Ok(offset), Ok(count)) => [blocks, offset, count],
                    _ => [blocks, OFFSET_OF_LARGE_HOLE, self.large_hole(size, large)?],
                };
                self.chunks.push(chunk);
                Ok(size)
            }
        }
    }

    fn large_hole(&mut self, size: u64, large: &mut HashMap<u64, u32>) -> Result<u32, WriteError> {
        if let Some(known) = large.get(&size) {
            return Ok(*known);
        }
        let number = u32::try_from(self.large_holes.len()).map_err(|_| TOO_MANY)?;
        self.large_holes.push(size);
        large.insert(size, number);
        Ok(number)
    }
}

const TOO_MANY: WriteError = WriteError::TooMany { what: "chunks" };
