//! How much of each part of a block files refer to.
//!
//! A part of a block may belong to several files: equal files share their chunk lists, and the writer finds contents
//! again. The kernel asks for it once a file, so that it has been served as a whole only when each of them was read.

use std::ops::ControlFlow;

use super::{chunks::Piece, tree::Tree};
use crate::sys::block_memory::UNIT;

/// Units of an archive beyond which nothing is counted: 256 GiB of data, 16 MiB of counts.
const MAX_UNITS: usize = 1 << 22;

/// Referenced bytes of all units of all blocks.
#[derive(Debug)]
pub(super) struct References {
    /// Units of a block.
    per_block: usize,
    bytes: Box<[u32]>,
}

impl References {
    /// Counts, with a look at every file. `None` where that is too much, or not possible.
    pub(super) fn count(tree: &Tree, blocks: usize) -> Option<Self> {
        let per_block = usize::try_from(tree.tables().block_size).ok()?.div_ceil(UNIT);
        let units = blocks.checked_mul(per_block).filter(|units| *units <= MAX_UNITS)?;
        let mut bytes = vec![0_u32; units].into_boxed_slice();
        let mut add = |piece: Piece| {
            let Piece::Data { block, offset, len } = piece else { return };
            let (Ok(block), Ok(mut at), Ok(len)) =
                (usize::try_from(block), usize::try_from(offset), usize::try_from(len))
            else {
                return;
            };
            let end = at.saturating_add(len);
            while at < end {
                let next = end.min((at / UNIT + 1) * UNIT);
                if at / UNIT < per_block
                    && let Some(unit) = bytes.get_mut(block.saturating_mul(per_block) + at / UNIT)
                {
                    *unit = unit.saturating_add(u32::try_from(next - at).unwrap_or(u32::MAX));
                }
                at = next;
            }
        };
        for file in tree.files()? {
            let visited = tree.pieces(file, 0, &mut |_, piece| {
                add(piece);
                Ok(ControlFlow::Continue(()))
            });
            visited.ok()?;
        }
        Some(Self { per_block, bytes })
    }

    /// Referenced bytes of each unit of a block.
    pub(super) fn of(&self, block: u32) -> Option<&[u32]> {
        let start = usize::try_from(block).ok()?.checked_mul(self.per_block)?;
        self.bytes.get(start..start.checked_add(self.per_block)?)
    }
}
