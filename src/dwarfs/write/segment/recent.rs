//! The blocks that were filled last, and where to look in them for a window with a given hash.

use std::collections::VecDeque;

use super::super::options::Segmentation;

/// Places that are remembered for one hash.
const WAYS: usize = 2;
/// Bits of the filter for each place: of the hashes that are not there, one in so many passes.
const FILTER_BITS: usize = 16;

/// Where the windows of one block are.
struct Index {
    /// A bit for each hash that may be there. Small enough for a core's cache: every byte of the input asks it.
    filter: Box<[u64]>,
    /// Offsets of windows, one more each, [`WAYS`] for a hash; 0 is none.
    places: Box<[[u32; WAYS]]>,
}

impl Index {
    fn new(block_size: u32, segmentation: Segmentation) -> Self {
        let windows = (block_size as usize >> segmentation.step_bits()).next_power_of_two();
        let filter = vec![0; (windows * FILTER_BITS).div_ceil(64).next_power_of_two()];
        Self { filter: filter.into(), places: vec![[0; WAYS]; windows].into() }
    }

    #[inline]
    fn may_have(&self, hash: u64) -> bool {
        let (at, bit) = self.filter_place(hash);
        self.filter.get(at).is_some_and(|bits| bits & bit != 0)
    }

    fn filter_place(&self, hash: u64) -> (usize, u64) {
        let at = usize::try_from(hash >> 6).unwrap_or_default() & (self.filter.len() - 1);
        (at, 1 << (hash & 63))
    }

    fn bucket(&self, hash: u64) -> usize {
        usize::try_from(hash >> 32).unwrap_or_default() & (self.places.len() - 1)
    }

    /// Remembers a window. Who came first stays: it has the most behind it to match.
    fn insert(&mut self, hash: u64, offset: u32) {
        let (at, bit) = self.filter_place(hash);
        if let Some(bits) = self.filter.get_mut(at) {
            *bits |= bit;
        }
        let bucket = self.bucket(hash);
        let free = self.places.get_mut(bucket).and_then(|ways| ways.iter_mut().find(|place| **place == 0));
        if let Some(place) = free {
            *place = offset.saturating_add(1);
        }
    }

    fn find(&self, hash: u64) -> impl Iterator<Item = usize> {
        let ways = self.places.get(self.bucket(hash)).copied().unwrap_or_default();
        ways.into_iter().filter_map(|place| usize::try_from(place).ok()?.checked_sub(1))
    }

    fn clear(&mut self) {
        self.filter.fill(0);
        self.places.fill([0; WAYS]);
    }
}

/// A block that is full.
struct Past {
    number: u32,
    bytes: Vec<u8>,
    index: Index,
}

/// Contents that were found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// The block that has them.
    pub(super) block: u32,
    /// Where in it they begin.
    pub(super) offset: usize,
    /// How far before the window they begin.
    pub(super) before: usize,
    /// Their whole length.
    pub(super) len: usize,
}

/// What of the input may be matched: everything that has been read of a file and not been put anywhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sought<'a> {
    /// Bytes before the window.
    pub(super) before: &'a [u8],
    /// The window and what is behind it.
    pub(super) from_window: &'a [u8],
    /// Its hash.
    pub(super) hash: u64,
}

/// The block that is being filled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Current<'a> {
    pub(super) number: u32,
    pub(super) bytes: &'a [u8],
}

/// The recent blocks.
pub(super) struct Recent {
    segmentation: Segmentation,
    block_size: u32,
    current: Index,
    /// Oldest first.
    past: VecDeque<Past>,
}

impl Recent {
    pub(super) fn new(block_size: u32, segmentation: Segmentation) -> Self {
        let current = Index::new(block_size, segmentation);
        Self { segmentation, block_size, current, past: VecDeque::new() }
    }

    /// Whether it is worth asking [`find`](Self::find).
    #[inline]
    pub(super) fn may_have(&self, hash: u64) -> bool {
        self.current.may_have(hash) || self.past.iter().any(|past| past.index.may_have(hash))
    }

    /// Finds the longest match around a window.
    pub(super) fn find(&self, sought: Sought<'_>, current: Current<'_>) -> Option<Match> {
        let window = self.segmentation.window();
        let past = self.past.iter().map(|past| (past.number, past.bytes.as_slice(), &past.index));
        let all = std::iter::once((current.number, current.bytes, &self.current)).chain(past);
        all.flat_map(|(block, bytes, index)| {
            index.find(sought.hash).filter_map(move |at| extend(sought, block, bytes, at, window))
        })
        .max_by_key(|found| found.len)
    }

    /// Remembers a window of the current block.
    pub(super) fn insert(&mut self, hash: u64, offset: usize) {
        if let Ok(offset) = u32::try_from(offset) {
            self.current.insert(hash, offset);
        }
    }

    /// The bytes of a block that is still remembered, the current one not among them.
    pub(super) fn past(&self, number: u32) -> Option<&[u8]> {
        self.past.iter().find(|past| past.number == number).map(|past| past.bytes.as_slice())
    }

    /// The current block is full; another one becomes the current one.
    pub(super) fn turn(&mut self, full: Current<'_>) {
        let keep = usize::from(self.segmentation.lookback).saturating_sub(1);
        if keep == 0 {
            return self.current.clear();
        }
        let oldest = if self.past.len() >= keep { self.past.pop_front() } else { None };
        let (mut bytes, mut index) = match oldest {
            Some(past) => (past.bytes, past.index),
            None => (Vec::new(), Index::new(self.block_size, self.segmentation)),
        };
        bytes.clear();
        bytes.extend_from_slice(full.bytes);
        index.clear();
        let index = std::mem::replace(&mut self.current, index);
        self.past.push_back(Past { number: full.number, bytes, index });
    }
}

/// Compares a window with a place in a block, and extends what is equal to both sides.
fn extend(sought: Sought<'_>, block: u32, bytes: &[u8], at: usize, window: usize) -> Option<Match> {
    let (left, right) = bytes.split_at_checked(at)?;
    let forward = common_prefix(sought.from_window, right);
    if forward < window {
        return None;
    }
    let before = sought.before.iter().rev().zip(left.iter().rev()).take_while(|(a, b)| a == b).count();
    Some(Match { block, offset: at - before, before, len: before + forward })
}

/// Length of what two slices begin with alike.
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    /// Compared at a time: as many as the compiler turns into few instructions.
    const STRIDE: usize = 64;
    let strides = a.chunks_exact(STRIDE).zip(b.chunks_exact(STRIDE));
    let equal = strides.take_while(|(a, b)| a == b).count() * STRIDE;
    let rest = a.get(equal..).unwrap_or_default().iter().zip(b.get(equal..).unwrap_or_default());
    equal + rest.take_while(|(a, b)| a == b).count()
}
