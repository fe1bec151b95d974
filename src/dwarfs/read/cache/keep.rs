//! Who stays in the cache.
//!
//! ```text
//! new ──► probation ──► out
//!           │    ▲
//!  used     ▼    │ too many
//!  again  protected
//! ```
//!
//! Two queues in the order of arrival. What comes in new is on probation: when room is needed, the oldest there goes,
//! unless it was used again; then it is protected. The protected may take half of the bound: beyond it the oldest of
//! them goes back on probation, unless it was used again since. So one pass through a big archive, which uses
//! everything once, drives out what was used once and leaves alone what is used again and again. A block that comes
//! back soon after it was let go is protected at once, if there is room: who goes round through more than the cache
//! holds finds a part of it.
//!
//! Before anybody goes, what has been served already of a whole block is given back (`served.rs`).
//!
//! Readers take a block in many small bites. Bites that follow each other, with little else coming in between, are
//! one use: "again" counts only when a quarter of the bound has come in since the last bite that counted.

use std::collections::VecDeque;

use super::block::Block;
use crate::sync::{Arc, atomic::Ordering};

/// The protected may take one part in this many of the bound.
const PROTECTED_SHARE: usize = 2;

/// Bites are one use while less than one part in this many of the bound has come in.
const BITE_SHARE: u64 = 4;

/// The queues.
#[derive(Debug, Default)]
pub(super) struct Keep {
    probation: VecDeque<Arc<Block>>,
    /// Each with its weight when it came in.
    protected: VecDeque<(Arc<Block>, usize)>,
    protected_weight: usize,
}

/// Notes a use of a block at a time of the cache's clock.
pub(super) fn touch(block: &Block, now: u64, max_bytes: usize) {
    let uses = &block.uses;
    if !uses.recently.load(Ordering::Relaxed) {
        uses.recently.store(true, Ordering::Relaxed);
    }
    if now.saturating_sub(uses.touched.load(Ordering::Relaxed)) > max_bytes as u64 / BITE_SHARE {
        uses.touched.store(now, Ordering::Relaxed);
        uses.again.store(true, Ordering::Relaxed);
    }
}

impl Keep {
    /// Number of blocks.
    pub(super) fn len(&self) -> usize {
        self.probation.len() + self.protected.len()
    }

    /// Takes a new block in; `returning` if it was let go not long ago.
    pub(super) fn admit(&mut self, block: Arc<Block>, returning: bool, max_bytes: usize) {
        let fits = self.protected_weight.saturating_add(block.weight()) <= max_bytes / PROTECTED_SHARE;
        if returning && fits {
            self.protect(block);
        } else {
            self.probation.push_back(block);
        }
    }

    /// Takes out the block that is missed least. Blocks at which somebody works stay.
    pub(super) fn evict(&mut self, max_bytes: usize) -> Option<Arc<Block>> {
        self.demote(max_bytes / PROTECTED_SHARE);
        for _ in 0..self.probation.len() {
            let block = self.probation.pop_front()?;
            if block.is_busy() {
                self.probation.push_back(block);
            } else if block.uses.again.swap(false, Ordering::Relaxed) {
                self.protect(block);
            } else {
                return Some(block);
            }
        }
        // Two rounds: the first may only take marks away.
        for _ in 0..2 * self.protected.len() {
            let (block, weight) = self.protected.pop_front()?;
            if block.is_busy() || block.uses.again.swap(false, Ordering::Relaxed) {
                self.protected.push_back((block, weight));
            } else {
                self.protected_weight = self.protected_weight.saturating_sub(weight);
                return Some(block);
            }
        }
        None
    }

    /// Takes out all blocks for which `out` says so.
    pub(super) fn remove(&mut self, out: &mut dyn FnMut(&Arc<Block>) -> bool) -> Vec<Arc<Block>> {
        let mut removed = Vec::new();
        let mut take = |block: &Arc<Block>| {
            let goes = out(block);
            if goes {
                removed.push(Arc::clone(block));
            }
            !goes
        };
        self.probation.retain(&mut take);
        self.protected.retain(|(block, _)| take(block));
        self.protected_weight = self.protected.iter().map(|(_, weight)| weight).sum();
        removed
    }

    /// The blocks of which much could be given back, those first that would go first.
    pub(super) fn ripe(&mut self) -> impl Iterator<Item = &mut Arc<Block>> {
        let protected = self.protected.iter_mut().map(|(block, _)| block);
        self.probation.iter_mut().chain(protected).filter(|block| block.is_ripe())
    }

    fn protect(&mut self, block: Arc<Block>) {
        let weight = block.weight();
        self.protected_weight = self.protected_weight.saturating_add(weight);
        self.protected.push_back((block, weight));
    }

    /// Sends the oldest of the protected back while they are too many.
    fn demote(&mut self, bound: usize) {
        for _ in 0..self.protected.len() {
            if self.protected_weight <= bound {
                return;
            }
            let Some((block, weight)) = self.protected.pop_front() else { return };
            if block.uses.again.swap(false, Ordering::Relaxed) {
                self.protected.push_back((block, weight));
            } else {
                self.protected_weight = self.protected_weight.saturating_sub(weight);
                self.probation.push_back(block);
            }
        }
    }
}
