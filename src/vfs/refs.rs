//! Reference counts of table entries that others may find while the last reference is given back.

use crate::sync::atomic::{AtomicU64, Ordering};

/// The count of an entry that is being taken out of its table: it never lives again.
const DEAD: u64 = u64::MAX;

/// A count whose way to zero is one atomic step: whoever finds the entry afterwards sees that it is dead.
///
/// So a table needs no lock around "count down, and remove at zero": [`release`](Self::release) tells exactly one
/// caller that it was the last, and [`try_retain`](Self::try_retain) refuses from that moment on.
#[derive(Debug)]
pub struct RefCount(AtomicU64);

impl RefCount {
    /// Starts with `count` references, at least one.
    #[must_use]
    pub const fn new(count: u64) -> Self {
        Self(AtomicU64::new(count))
    }

    /// Adds a reference; `false` where the entry is dead.
    #[must_use]
    pub fn try_retain(&self) -> bool {
        self.0
            .try_update(Ordering::AcqRel, Ordering::Acquire, |count| (count != DEAD).then(|| count + 1))
            .is_ok()
    }

    /// Whether the last reference has been given back.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.0.load(Ordering::Acquire) == DEAD
    }

    /// Gives `count` references back; `true` for the caller that gave the last one, who removes the entry.
    #[must_use]
    pub fn release(&self, count: u64) -> bool {
        let step = |held: u64| match held.saturating_sub(count) {
            _ if held == DEAD => None,
            0 => Some(DEAD),
            left => Some(left),
        };
        self.0.try_update(Ordering::AcqRel, Ordering::Acquire, step).is_ok_and(|held| held <= count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_release_kills_once() {
        let count = RefCount::new(1);
        assert!(count.try_retain());
        assert!(!count.release(1));
        assert!(count.release(5));
        assert!(!count.release(1));
        assert!(!count.try_retain());
    }
}
