//! The block cache: decoded blocks of all archives of the process.
//!
//! ```text
//! shard = hash of (archive, block)      16 of them, a lock each
//!   slots   key -> Loading(flight) | Ready(block, was it used again)
//!   clock   keys in the order of their loading
//! used      bytes of all ready blocks   one atomic
//! ```
//!
//! A block is decoded by the first who asks; whoever asks meanwhile waits for the same flight. A failure goes to all
//! of them and is not kept. What is too much is evicted by second chance (CLOCK), shard after shard in turn: a block
//! that was asked for again since the hand passed stays. A hit costs one short lock and no allocation.

use std::{collections::VecDeque, fmt, ops::Range};

use hashbrown::HashMap;

use crate::{
    dwarfs::Error,
    pinned::{Pinned, Slice},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// Number of shards: some times more than threads that serve requests.
const SHARDS: usize = 16;

/// A decoded block. Its bytes are written once, before anybody sees it.
pub(super) struct Block {
    bytes: Vec<u8>,
}

impl Block {
    /// Takes over the bytes.
    pub(super) const fn new(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// Length in bytes.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Pins a range, which must lie within the block.
    pub(super) fn slice(self: Arc<Self>, range: Range<usize>) -> Slice {
        Slice::new(self, range)
    }
}

impl Pinned for Block {
    fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} bytes)", self.len())
    }
}

/// The name of a block among all archives of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The archive, by the number that [`BlockCache::register`] gave it.
    pub(super) archive: u64,
    /// The block's number in it.
    pub(super) block: u32,
}

/// The outcome of loading a block, as everybody who waited gets it.
type Outcome = Result<Arc<Block>, Arc<Error>>;

/// A block that somebody is loading.
#[derive(Debug, Default)]
struct Flight {
    outcome: Mutex<Option<Outcome>>,
    landed: Condvar,
}

#[derive(Debug)]
enum Slot {
    Loading(Arc<Flight>),
    Ready { block: Arc<Block>, again: bool },
}

#[derive(Debug, Default)]
struct Shard {
    slots: HashMap<Key, Slot>,
    clock: VecDeque<Key>,
}

/// Decoded blocks, shared by all archives that were opened with it.
pub struct BlockCache {
    shards: [Mutex<Shard>; SHARDS],
    max_bytes: usize,
    used: AtomicUsize,
    /// The shard at which the hand of the clock stands.
    hand: AtomicUsize,
    next_archive: AtomicU64,
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache")
            .field("max_bytes", &self.max_bytes)
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

impl BlockCache {
    /// Makes a cache that keeps at most `max_bytes` of decoded blocks. What is being read is pinned beyond that.
    #[must_use]
    pub fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            max_bytes,
            used: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
            next_archive: AtomicU64::new(0),
        })
    }

    /// Bytes of the blocks that are kept.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Forgets all blocks; those that are pinned live on until they are let go.
    pub fn clear(&self) {
        self.remove_where(|_| true);
    }

    /// A number for one more archive.
    pub(super) fn register(&self) -> u64 {
        self.next_archive.fetch_add(1, Ordering::Relaxed)
    }

    /// Forgets the blocks of an archive that is gone.
    pub(super) fn unregister(&self, archive: u64) {
        self.remove_where(|key| key.archive == archive);
    }

    /// Returns the block, loading it by `load` where it is not there; many who ask at once load it once.
    pub(super) fn get(
        &self,
        key: Key,
        load: impl FnOnce() -> Result<Block, Error>,
    ) -> Result<Arc<Block>, Error> {
        let shard = self.shard(key);
        let flight = {
            let mut shard = shard.lock();
            match shard.slots.get_mut(&key) {
                Some(Slot::Ready { block, again }) => {
                    *again = true;
                    return Ok(Arc::clone(block));
                }
                Some(Slot::Loading(flight)) => Err(Arc::clone(flight)),
                None => {
                    let flight = Arc::new(Flight::default());
                    shard.slots.insert(key, Slot::Loading(Arc::clone(&flight)));
                    Ok(flight)
                }
            }
        };
        match flight {
            Err(flight) => flight.wait(),
            Ok(flight) => {
                let pilot = Pilot { cache: self, key, flight, outcome: None };
                pilot.land(load().map(Arc::new))
            }
        }
    }

    /// Does something about a block once, however many ask for it at the same time.
    pub(super) fn once(&self, key: Key, work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let done = self.get(key, || work().map(|()| Block::new(Vec::new())));
        let mut shard = self.shard(key).lock();
        if let Some(Slot::Ready { .. }) = shard.slots.get(&key) {
            shard.slots.remove(&key);
        }
        done.map(|_| ())
    }

    /// The shard of a key. Neighbouring blocks get different shards.
    fn shard(&self, key: Key) -> &Mutex<Shard> {
        let mixed = (u64::from(key.block) ^ key.archive.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let at = usize::try_from(mixed >> 60).unwrap_or_default();
        let [first, ..] = &self.shards;
        self.shards.get(at % SHARDS).unwrap_or(first)
    }

    /// Evicts blocks until the cache is within its bounds; `newest` has just been loaded and stays.
    fn make_room(&self, newest: Key) {
        let mut idle = 0;
        // Two rounds: the first may only take marks away.
        while self.used() > self.max_bytes && idle < 2 * SHARDS {
            let at = self.hand.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let evicted = self.shards.get(at).is_some_and(|shard| {
                let block = shard.lock().evict_one(newest);
                if let Some(block) = &block {
                    self.used.fetch_sub(block.len(), Ordering::Relaxed);
                }
                block.is_some()
            });
            idle = if evicted { 0 } else { idle + 1 };
        }
    }

    fn remove_where(&self, remove: impl Fn(&Key) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let shard = &mut *shard;
            shard.slots.retain(|key, slot| match slot {
                Slot::Ready { block, .. } if remove(key) => {
                    self.used.fetch_sub(block.len(), Ordering::Relaxed);
                    false
                }
                _ => true,
            });
            let slots = &shard.slots;
            shard.clock.retain(|key| slots.contains_key(key));
        }
    }
}

impl Shard {
    /// Takes out the first block in the clock that was not used again since the hand passed.
    fn evict_one(&mut self, newest: Key) -> Option<Arc<Block>> {
        for _ in 0..self.clock.len() {
            let key = self.clock.pop_front()?;
            match self.slots.get_mut(&key) {
                Some(Slot::Ready { again, .. }) if *again || key == newest => {
                    *again = false;
                    self.clock.push_back(key);
                }
                Some(Slot::Ready { .. }) => {
                    if let Some(Slot::Ready { block, .. }) = self.slots.remove(&key) {
                        return Some(block);
                    }
                }
                Some(Slot::Loading(_)) | None => {}
            }
        }
        None
    }
}

impl Flight {
    fn wait(&self) -> Result<Arc<Block>, Error> {
        let mut outcome = self.outcome.lock();
        loop {
            match &*outcome {
                Some(Ok(block)) => return Ok(Arc::clone(block)),
                Some(Err(error)) => return Err(Error::Shared(Arc::clone(error))),
                None => self.landed.wait(&mut outcome),
            }
        }
    }
}

/// Whoever loads a block. However it ends, also by a panic, those who wait get an answer.
struct Pilot<'a> {
    cache: &'a BlockCache,
    key: Key,
    flight: Arc<Flight>,
    outcome: Option<Outcome>,
}

impl Pilot<'_> {
    fn land(mut self, loaded: Result<Arc<Block>, Error>) -> Result<Arc<Block>, Error> {
        let outcome = loaded.map_err(Arc::new);
        self.outcome = Some(outcome.clone());
        drop(self);
        outcome.map_err(|error| Arc::try_unwrap(error).unwrap_or_else(Error::Shared))
    }
}

impl Drop for Pilot<'_> {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| Err(Arc::new(Error::Abandoned)));
        let mut shard = self.cache.shard(self.key).lock();
        match &outcome {
            Ok(block) => {
                self.cache.used.fetch_add(block.len(), Ordering::Relaxed);
                shard.slots.insert(self.key, Slot::Ready { block: Arc::clone(block), again: false });
                // What takes no room is never evicted.
                if block.len() > 0 {
                    shard.clock.push_back(self.key);
                }
            }
            Err(_) => {
                shard.slots.remove(&self.key);
            }
        }
        drop(shard);
        *self.flight.outcome.lock() = Some(outcome);
        self.flight.landed.notify_all();
        self.cache.make_room(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::sync::thread;

    fn key(block: u32) -> Key {
        Key { archive: 1, block }
    }

    fn block(len: usize) -> Result<Block, Error> {
        Ok(Block::new(vec![7; len]))
    }

    #[test]
    fn many_who_ask_at_once_load_once() {
        let cache = BlockCache::new(1 << 20);
        let loads = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let load = || {
                        loads.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(std::time::Duration::from_millis(20));
                        block(100)
                    };
                    assert_eq!(cache.get(key(1), load).unwrap().len(), 100);
                });
            }
        });
        assert_eq!(loads.into_inner(), 1);
        assert_eq!(cache.used(), 100);
    }

    #[test]
    fn a_failure_goes_to_all_and_is_not_kept() {
        let cache = BlockCache::new(1 << 20);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let load = || {
                        thread::sleep(std::time::Duration::from_millis(20));
                        Err(Error::NotFound { offset: 3 })
                    };
                    let error = cache.get(key(1), load).unwrap_err();
                    assert!(error.to_string().contains("offset 0x3"), "{error}");
                });
            }
        });
        assert_eq!(cache.get(key(1), || block(5)).unwrap().len(), 5);
    }

    #[test]
    fn work_is_done_once_at_a_time_and_leaves_nothing() {
        let cache = BlockCache::new(1 << 20);
        let done = AtomicU32::new(0);
        let work = || {
            if done.load(Ordering::Relaxed) == 0 {
                thread::sleep(std::time::Duration::from_millis(20));
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| cache.once(key(1), work).unwrap());
            }
        });
        assert_eq!(done.load(Ordering::Relaxed), 1);
        assert!(cache.once(key(1), || Err(Error::NotFound { offset: 0 })).is_err());
        assert!(
            cache.shards.iter().all(|shard| shard.lock().slots.is_empty() && shard.lock().clock.is_empty())
        );
    }

    #[test]
    fn a_panic_leaves_nobody_waiting() {
        let cache = BlockCache::new(1 << 20);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cache.get(key(1), || panic!("in the loader")).map(|_| ())
        }));
        assert!(caught.is_err());
        assert_eq!(cache.get(key(1), || block(5)).unwrap().len(), 5);
    }

    #[test]
    fn the_bound_holds_and_what_is_used_stays() {
        let cache = BlockCache::new(1_000);
        for number in 0..100 {
            cache.get(key(number), || block(100)).unwrap();
            cache.get(key(0), || panic!("block 0 is used all the time and must stay")).unwrap();
            assert!(cache.used() <= 1_000, "{}", cache.used());
        }
        cache.unregister(2);
        assert!(cache.used() > 0);
        cache.unregister(1);
        assert_eq!(cache.used(), 0);
    }

    #[test]
    fn a_block_beyond_the_bound_is_still_served() {
        let cache = BlockCache::new(10);
        cache.get(key(1), || block(5)).unwrap();
        assert_eq!(cache.get(key(2), || block(100)).unwrap().len(), 100);
        assert_eq!(cache.used(), 100);
        assert_eq!(cache.get(key(3), || block(4)).unwrap().len(), 4);
        assert_eq!(cache.used(), 4);
    }

    #[test]
    fn pinned_slices_outlive_eviction() {
        let cache = BlockCache::new(10);
        let slice = cache.get(key(1), || block(8)).unwrap().slice(2..6);
        cache.clear();
        assert_eq!(cache.used(), 0);
        assert_eq!(slice.as_bytes(), [7; 4]);
    }
}
