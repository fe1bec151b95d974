//! Counts the jumps into each region. Approximate and without a lock: every READ comes by.

use super::Region;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Regions that are watched at a time; two that share a slot drive each other out.
const SLOTS: usize = 64;

/// Jumps after which counting starts again: reads that come still are of pages that the kernel has dropped, and after
/// many of them it is worth filling the region once more.
const AGAIN: u32 = 256;

/// The regions of the last small reads.
#[derive(Debug)]
pub(super) struct Watch {
    slots: [Slot; SLOTS],
}

#[derive(Debug, Default)]
struct Slot {
    /// What region this is about, mixed; 0 for none.
    region: AtomicU64,
    jumps: AtomicU32,
    /// Where the last read ended: the next one in order is no jump.
    end: AtomicU64,
}

impl Default for Watch {
    fn default() -> Self {
        Self { slots: std::array::from_fn(|_| Slot::default()) }
    }
}

impl Watch {
    /// Notes a small read; returns the number of jumps into the region if it was one.
    pub(super) fn note(&self, region: Region, offset: u64, len: usize) -> Option<u32> {
        let (slot, mixed) = self.slot(region)?;
        if slot.region.load(Ordering::Relaxed) != mixed {
            // The one read of a small file, most often.
            if offset == 0 {
                return None;
            }
            slot.region.store(mixed, Ordering::Relaxed);
            slot.jumps.store(0, Ordering::Relaxed);
            slot.end.store(u64::MAX, Ordering::Relaxed);
        }
        let end = offset.saturating_add(len as u64);
        if slot.end.swap(end, Ordering::Relaxed) == offset {
            return None;
        }
        let jumps = slot.jumps.fetch_add(1, Ordering::Relaxed) + 1;
        if jumps >= AGAIN {
            slot.jumps.store(0, Ordering::Relaxed);
        }
        Some(jumps)
    }

    /// The region was filled: what comes from now on counts as after that.
    pub(super) fn start_again(&self, region: Region) {
        if let Some((slot, mixed)) = self.slot(region)
            && slot.region.load(Ordering::Relaxed) == mixed
        {
            slot.jumps.store(super::ENOUGH, Ordering::Relaxed);
        }
    }

    fn slot(&self, region: Region) -> Option<(&Slot, u64)> {
        let mixed =
            (region.ino.get().rotate_left(32) ^ region.number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let at = usize::try_from(mixed >> 32).unwrap_or_default() % SLOTS;
        Some((self.slots.get(at)?, mixed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fuse::fill::ENOUGH, vfs::Ino};

    fn region(ino: u64) -> Region {
        Region { ino: Ino::new(ino), number: 3 }
    }

    #[test]
    fn jumps_are_counted_and_order_is_not() {
        let watch = Watch::default();
        assert_eq!(watch.note(region(5), 4_096, 4_096), Some(1));
        for page in 2..1_000 {
            assert_eq!(watch.note(region(5), page * 4_096, 4_096), None);
        }
        for jump in 2..AGAIN {
            assert_eq!(watch.note(region(5), u64::from(jump) * 40_960, 4_096), Some(jump));
        }
        assert_eq!(watch.note(region(5), 0, 4_096), Some(AGAIN));
        assert_eq!(watch.note(region(5), 40_960, 4_096), Some(1));
    }

    #[test]
    fn small_files_drive_nobody_out() {
        let watch = Watch::default();
        assert_eq!(watch.note(region(5), 8_192, 4_096), Some(1));
        for ino in 6..1_000 {
            assert_eq!(watch.note(region(ino), 0, 4_096), None);
        }
        assert_eq!(watch.note(region(5), 40_960, 4_096), Some(2));
    }

    #[test]
    fn a_region_that_was_filled_is_not_filled_at_once_again() {
        let watch = Watch::default();
        for jump in 0..AGAIN - 2 {
            watch.note(region(5), 4_096 + u64::from(jump) * 40_960, 4_096);
        }
        watch.start_again(region(5));
        assert_eq!(watch.note(region(5), 4_096, 4_096), Some(ENOUGH + 1));
    }
}
