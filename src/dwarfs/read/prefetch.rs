//! What is worth decoding before somebody asks for it. Pure.
//!
//! Files lie in blocks in the order in which they were packed, so that whoever reads a long file, or all files, walks
//! through the blocks one after the other; how his reads are ordered inside a block does not matter here, only how
//! much of what was decoded for him he asked for.
//!
//! | what was seen of a block | what is done |
//! | --- | --- |
//! | much of what was decoded has been asked for | a worker decodes the rest |
//! | half of it is decoded, or a reader came back for more | the same: what is left costs no more than what was paid |
//! | a good part of it was asked for, and the file goes on in other blocks | those are loaded |
//! | the same of a file that ends here, and most of the block before it | the blocks behind it are loaded |
//!
//! So everybody who reads a long file has its next blocks loaded, also where several do at a time, and who reads all
//! files has those that come next in the archive. The end of a file that is longer than a block tells nothing of what
//! is read next.

use std::ops::Range;

use smallvec::SmallVec;

/// Asked bytes from which on a block can count as walked through: fewer are one file among many.
const LEAST_ASKED: u64 = 256 << 10;

/// A block that readers needed more of this often is used all over.
const MANY_TURNS: u32 = 2;

/// Blocks of a file that are looked at for those that come next: it may go to and fro between a few of them.
pub(super) const MOST_LOOKED_AT: usize = 64;

/// A walk through a block begins when one part in this many was asked for.
const BEGUN_SHARE: u64 = 8;

/// A block counts as walked through when one part in this many was asked for. Who jumps about in several blocks has
/// asked for as much of one as of the other when a walk through one seems to begin.
const WALKED_SHARE: u64 = 2;

/// Blocks ahead may take one part in this many of the cache.
const AHEAD_SHARE: usize = 4;

/// What somebody who walks through a block comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// What follows it in the archive.
    InArchive,
    /// These blocks.
    These(SmallVec<[u32; 4]>),
}

impl Next {
    /// Collects what a file comes to behind `block`: the blocks of its rest, each once, at most `most`; `is_long` if
    /// it is longer than a block so far.
    pub(super) fn of(block: u32, rest: impl Iterator<Item = u32>, most: usize, is_long: bool) -> Self {
        let mut blocks = SmallVec::new();
        for other in rest.take(MOST_LOOKED_AT) {
            if blocks.len() < most && other != block && !blocks.contains(&other) {
                blocks.push(other);
            }
        }
        if blocks.is_empty() && !is_long { Self::InArchive } else { Self::These(blocks) }
    }
}

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
        let (half, most) = (self.capacity as u64 / 2, self.capacity as u64 / 4 * 3);
        // What nobody asked for is not worth what somebody may ask for.
        let has_room = self.capacity.saturating_sub(self.published) <= self.room;
        published >= most || has_room && (asked_for || published >= half || self.turns >= MANY_TURNS)
    }

    /// Whether this read made the block one that somebody walks through.
    pub(super) fn begins_walk(self) -> bool {
        let bound = (self.capacity as u64 / BEGUN_SHARE).max(1);
        self.asked_before < bound && self.asked >= bound
    }
}

/// Whether somebody walks, or walked, through a block of this length.
pub(super) fn is_walked(asked: u64, capacity: usize) -> bool {
    asked >= (capacity as u64 / WALKED_SHARE).max(1)
}

/// How many blocks to load while somebody walks through one of `len` bytes: as many as there are workers, as far as a
/// cache of `max_bytes` that has `room` left can hold them.
pub(super) fn ahead(len: usize, workers: usize, max_bytes: usize, room: usize) -> usize {
    let blocks = (max_bytes / AHEAD_SHARE).min(room) / len.max(1);
    blocks.min(workers)
}

/// The `count` blocks behind `block`.
pub(super) fn behind(block: u32, count: usize) -> Range<u32> {
    let first = block.saturating_add(1);
    first..first.saturating_add(u32::try_from(count).unwrap_or(u32::MAX))
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
            (4_096, 7 << 20, 1, false),
            (4_096, 8 << 20, 1, true),
            (2 * 4_096, 3 << 20, 2, true),
            (100_000, 128 << 10, 1, false),
            (300_000, 1 << 20, 1, false),
            (600_000, 1 << 20, 1, true),
        ] {
            assert_eq!(seen(asked, published, turns).is_worth_finishing(), expected, "{asked} {published}");
        }
        // In a full cache only what frees more than it takes.
        let full = |published| Seen { room: 1 << 20, ..seen(600_000, published, 5) };
        assert!(!full(9 << 20).is_worth_finishing());
        assert!(full(13 << 20).is_worth_finishing());
    }

    #[test]
    fn a_file_that_goes_on_comes_first() {
        let of = |rest: &[u32], is_long| Next::of(7, rest.iter().copied(), 2, is_long);
        assert_eq!(of(&[7, 7], false), Next::InArchive);
        assert_eq!(of(&[], true), Next::These(SmallVec::new()));
        for is_long in [false, true] {
            assert_eq!(of(&[7, 3, 7, 3, 9, 11], is_long), Next::These(SmallVec::from_slice(&[3, 9])));
        }
    }

    #[test]
    fn a_walk_begins_once() {
        let walk: Vec<u64> =
            (1..200).map(|read| read << 17).filter(|asked| seen(*asked, CAPACITY, 1).begins_walk()).collect();
        assert_eq!(walk, [2 << 20]);
        assert!(is_walked(8 << 20, CAPACITY) && !is_walked((8 << 20) - 1, CAPACITY));
    }

    #[test]
    fn blocks_ahead_are_bounded_by_workers_and_by_the_cache() {
        let empty = |len, workers, bytes| ahead(len, workers, bytes, bytes);
        assert_eq!(empty(CAPACITY, 2, 256 << 20), 2);
        assert_eq!(empty(CAPACITY, 8, 64 << 20), 1);
        assert_eq!(empty(CAPACITY, 8, 32 << 20), 0);
        assert_eq!(ahead(CAPACITY, 8, 256 << 20, 2 * CAPACITY), 2);
        assert_eq!(behind(7, 2), 8..10);
        assert_eq!(behind(u32::MAX, 2), u32::MAX..u32::MAX);
    }
}
