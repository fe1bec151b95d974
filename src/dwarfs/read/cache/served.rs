//! What of a block has been handed out already.
//!
//! Whoever reads through the kernel reads once: the kernel keeps what it got. So when room is needed, the parts of a
//! block that have been served as a whole go first, and what nobody has asked for yet stays. A block of which
//! something was given back still serves the rest; who asks for what is gone has it decoded anew.
//!
//! Bytes are counted a unit of the memory, and a unit has been served when all that files refer to in it was asked
//! for. That somebody asks for a byte twice makes it count too early, which costs time and nothing else.

use std::ops::Range;

use crate::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    sys::block_memory::UNIT,
};

/// Units that are worth the trouble: less is given back only with the whole block.
const RIPE: usize = 16;

/// After so many bytes it is worth looking whether something can be given back.
const LOOK: u64 = 1 << 20;

/// A unit that was given back.
const GONE: u32 = u32::MAX;

/// Beyond this nothing is counted, so that nothing becomes [`GONE`] by itself.
const ENOUGH: u32 = 1 << 31;

/// What became of taking a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Some of it was given back before.
    Gone,
    /// It is there.
    Whole,
    /// It is there, and much of the block has been handed out since this was said last.
    Ripened,
}

/// The count of each unit of a block.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// Bytes of each unit that were handed out, or [`GONE`].
    units: OnceLock<Box<[AtomicU32]>>,
    /// Bytes that were handed out in all.
    bytes: AtomicU64,
    /// Whether any unit is gone.
    thinned: AtomicBool,
}

impl Served {
    /// The block may become so long.
    pub(super) fn begin(&self, capacity: usize) {
        self.units.get_or_init(|| (0..capacity.div_ceil(UNIT)).map(|_| AtomicU32::new(0)).collect());
    }

    /// Notes that a range is handed out.
    pub(super) fn take(&self, range: &Range<usize>) -> Taken {
        let Some(units) = self.units.get() else { return Taken::Whole };
        let numbers = range.start / UNIT..range.end.div_ceil(UNIT);
        let Some(touched) = units.get(numbers.clone()) else { return Taken::Whole };
        if self.thinned.load(Ordering::Acquire)
            && touched.iter().any(|unit| unit.load(Ordering::Relaxed) == GONE)
        {
            return Taken::Gone;
        }
        for (number, unit) in numbers.zip(touched) {
            let start = range.start.max(number * UNIT);
            let end = range.end.min((number + 1) * UNIT);
            let more = u32::try_from(end.saturating_sub(start)).unwrap_or_default();
            if unit.load(Ordering::Relaxed) < ENOUGH {
                unit.fetch_add(more, Ordering::Relaxed);
            }
        }
        let len = range.len() as u64;
        let before = self.bytes.fetch_add(len, Ordering::Relaxed);
        if (before + len) / LOOK > before / LOOK { Taken::Ripened } else { Taken::Whole }
    }

    /// Whether giving back is worth it, where so many bytes of each unit are a whole one.
    pub(super) fn is_ripe(&self, whole: &[u32]) -> bool {
        let units = self.units.get().map(|units| &**units).unwrap_or_default();
        let served = units.iter().zip(whole).filter(|(unit, whole)| {
            let count = unit.load(Ordering::Relaxed);
            count != GONE && count >= **whole
        });
        served.count() >= RIPE
    }

    /// Takes out all runs of units that were served: the first of each, and how many they are.
    pub(super) fn withdraw(&mut self, whole: &[u32]) -> impl Iterator<Item = (usize, usize)> {
        *self.thinned.get_mut() = true;
        let units = self.units.get_mut().map(|units| &mut **units).unwrap_or_default();
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for ((number, unit), whole) in units.iter_mut().enumerate().zip(whole) {
            let count = unit.get_mut();
            if *count < *whole || *count == GONE {
                continue;
            }
            *count = GONE;
            match runs.last_mut() {
                Some((first, len)) if *first + *len == number => *len += 1,
                _ => runs.push((number, 1)),
            }
        }
        runs.into_iter()
    }
}
