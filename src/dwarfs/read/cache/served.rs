//! What of a block has been handed out already.
//!
//! Whoever reads through the kernel reads once: the kernel keeps what it got. So when room is needed, the parts of a
//! block that have been served as a whole go first, and what nobody has asked for yet stays. A block of which
//! something was given back still serves the rest; who asks for what is gone has it decoded anew.
//!
//! Bytes are counted a unit of the memory; that a byte is asked for twice before its neighbours are makes a unit
//! count as served too early, which costs time and nothing else.

use std::ops::Range;

use crate::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    sys::block_memory::UNIT,
};

/// Units that are worth the trouble: less is given back only with the whole block.
const RIPE: u32 = 16;

/// A unit that was given back.
const GONE: u32 = u32::MAX;

/// The count of each unit of a block.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// Bytes of each unit that were handed out, or [`GONE`].
    units: OnceLock<Box<[AtomicU32]>>,
    /// Units that have been served and not been given back.
    ripe: AtomicU32,
    /// Whether any unit is gone.
    thinned: AtomicBool,
}

impl Served {
    /// The block may become so long.
    pub(super) fn begin(&self, capacity: usize) {
        self.units.get_or_init(|| (0..capacity.div_ceil(UNIT)).map(|_| AtomicU32::new(0)).collect());
    }

    /// Notes that a range is handed out; false where some of it is gone.
    pub(super) fn take(&self, range: &Range<usize>) -> bool {
        let Some(units) = self.units.get() else { return true };
        let numbers = range.start / UNIT..range.end.div_ceil(UNIT);
        let Some(touched) = units.get(numbers.clone()) else { return true };
        if self.thinned.load(Ordering::Acquire)
            && touched.iter().any(|unit| unit.load(Ordering::Relaxed) == GONE)
        {
            return false;
        }
        for (number, unit) in numbers.zip(touched) {
            let start = range.start.max(number * UNIT);
            let end = range.end.min((number + 1) * UNIT);
            let more = u32::try_from(end.saturating_sub(start)).unwrap_or_default();
            let before = unit.fetch_add(more, Ordering::Relaxed);
            let whole = u32::try_from(UNIT).unwrap_or_default();
            if before < whole && before.saturating_add(more) >= whole {
                self.ripe.fetch_add(1, Ordering::Relaxed);
            }
        }
        true
    }

    /// Whether giving back is worth it.
    pub(super) fn is_ripe(&self) -> bool {
        self.ripe.load(Ordering::Relaxed) >= RIPE
    }

    /// Takes out all runs of units that were served: the first of each, and how many they are.
    pub(super) fn withdraw(&mut self) -> impl Iterator<Item = (usize, usize)> {
        *self.ripe.get_mut() = 0;
        *self.thinned.get_mut() = true;
        let units = self.units.get_mut().map(|units| &mut **units).unwrap_or_default();
        let whole = u32::try_from(UNIT).unwrap_or_default();
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (number, unit) in units.iter_mut().enumerate() {
            let count = unit.get_mut();
            if *count < whole || *count == GONE {
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
