//! What is worth decoding before somebody asks for it. Pure.
//!
//! Files lie in blocks in the order in which they were packed, so that whoever reads a long file, or all files, walks
//! through the blocks one after the other; how his reads are ordered inside a block does not matter here, only how
//! much of what was decoded for him he asked for.
//!
//! | what was seen of a block | what is done |
//! | --- | --- |
//! | much of what was decoded has been asked for | a worker decodes the rest |
//! | most of it is decoded, or readers came back for more several times | the same: its decoder and payload are freed |
//! | a good part was asked for, and of the block before it as well | the blocks behind it are loaded |
//!
//! Small reads at random places of a big archive fulfil none of these: what they pay is what they need.

use std::ops::Range;

/// Asked bytes from which on a block can count as walked through: fewer are one file among many.
const LEAST_ASKED: u64 = 256 << 10;

/// A block that came back to its decoder this often is used all over.
const MANY_TURNS: u32 = 4;

/// A block counts as walked through when one part in this many was asked for.
const WALKED_SHARE: u64 = 8;

/// Blocks ahead may take one part in this many of the cache.
const AHEAD_SHARE: usize = 4;

/// What is known of a block when a reader was served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Bytes that were asked for, repetitions included, before this read.
    pub(super) asked_before: u64,
    /// The same with this read.
    pub(super) asked: u64,
    /// Bytes that are decoded.
    pub(super) published: usize,
    /// Bytes that it has when all is decoded.
    pub(super) capacity: usize,
    /// How often a reader had more of it decoded.
    pub(super) turns: u32,
    /// Bytes that the cache can take before somebody has to go.
    pub(super) room: usize,
}

impl Seen {
    /// Whether the rest of the block is worth decoding now.
    pub(super) fn is_worth_finishing(self) -> bool {
        let published = self.published as u64;
        let asked_for = self.asked >= LEAST_ASKED && self.asked >= published / 2;
        let nearly = published >= self.capacity as u64 / 4 * 3;
        // What nobody asked for is not worth what somebody may ask for.
        let has_room = self.capacity.saturating_sub(self.published) <= self.room;
        nearly || has_room && (asked_for || self.turns >= MANY_TURNS)
    }

    /// Whether this read made the block one that somebody walks through.
    pub(super) fn begins_walk(self) -> bool {
        let bound = walked_from(self.capacity);
        self.asked_before < bound && self.asked >= bound
    }
}

/// Whether somebody walks, or walked, through a block of this length.
pub(super) fn is_walked(asked: u64, capacity: usize) -> bool {
    asked >= walked_from(capacity)
}

fn walked_from(capacity: usize) -> u64 {
    (capacity as u64 / WALKED_SHARE).max(1)
}

/// The blocks to load while somebody walks through `block`, which has `len` bytes: as many as there are workers, as
/// far as a cache of `max_bytes` that has `room` left can hold them.
pub(super) fn ahead(block: u32, len: usize, workers: usize, max_bytes: usize, room: usize) -> Range<u32> {
    let blocks = (max_bytes / AHEAD_SHARE).min(room) / len.max(1);
    let count = u32::try_from(blocks.min(workers)).unwrap_or(u32::MAX);
    let first = block.saturating_add(1);
    first..first.saturating_add(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: usize = 16 << 20;

    fn seen(asked: u64, published: usize, turns: u32) -> Seen {
        Seen {
            asked_before: asked.saturating_sub(1 << 17),
            asked,
            published,
            capacity: CAPACITY,
            turns,
            room: CAPACITY,
        }
    }

    #[test]
    fn walks_are_finished_and_bites_are_not() {
        for (asked, published, turns, expected) in [
            (4_096, 9 << 20, 1, false),
            (3 * 4_096, 9 << 20, 3, false),
            (100_000, 128 << 10, 1, false),
            (300_000, 1 << 20, 1, false),
            (600_000, 1 << 20, 2, true),
            (4_096, 13 << 20, 1, true),
            (4 * 4_096, 5 << 20, 4, true),
        ] {
            assert_eq!(seen(asked, published, turns).is_worth_finishing(), expected, "{asked} {published}");
        }
        // In a full cache only what frees more than it takes.
        let full = |published| Seen { room: 1 << 20, ..seen(600_000, published, 5) };
        assert!(!full(1 << 20).is_worth_finishing());
        assert!(full(13 << 20).is_worth_finishing());
    }

    #[test]
    fn a_walk_begins_once() {
        let walk: Vec<u64> =
            (1..200).map(|read| read << 17).filter(|asked| seen(*asked, CAPACITY, 1).begins_walk()).collect();
        assert_eq!(walk, [2 << 20]);
        assert!(is_walked(2 << 20, CAPACITY) && !is_walked((2 << 20) - 1, CAPACITY));
    }

    #[test]
    fn blocks_ahead_are_bounded_by_workers_and_by_the_cache() {
        let empty = |len, workers, bytes| ahead(7, len, workers, bytes, bytes);
        assert_eq!(empty(CAPACITY, 2, 256 << 20), 8..10);
        assert_eq!(empty(CAPACITY, 8, 64 << 20), 8..9);
        assert_eq!(empty(CAPACITY, 8, 32 << 20), 8..8);
        assert_eq!(ahead(7, CAPACITY, 8, 256 << 20, 2 * CAPACITY), 8..10);
        assert_eq!(ahead(u32::MAX, 0, 2, 1 << 20, 1 << 20), u32::MAX..u32::MAX);
    }
}
