//! The block cache: decoded blocks of all archives of the process.
//!
//! ```text
//! shard = hash of (archive, block)      16 of them, a lock each: key -> block
//! block   decoded from front to back by those who ask, readable as far as it is       block.rs
//! served  what of a block has been handed out, and goes first                          served.rs
//! keep    who is evicted when there is too much; one lock, taken when blocks come and go   keep.rs
//! workers decode what nobody waits for, and let go of what nobody uses                workers.rs
//! ledger  bytes of all blocks: what is decoded, payloads and decoders of what is not yet
//! ```
//!
//! A hit costs the lock of one shard and no allocation. No lock of the cache is held while something is read or
//! decoded. A failure goes to all who ask; it is kept only where a part of the block can be read.

mod block;
mod keep;
mod served;
mod workers;

#[cfg(test)]
mod tests;

use std::{fmt, num::NonZeroUsize, ops::Range, time::Duration};

use hashbrown::HashMap;

pub(super) use self::block::{Opened, Origin};
use self::{
    block::{Attendant, Block, Turn},
    keep::Keep,
    served::Taken,
    workers::{IDLE, Job, Workers},
};
use super::{
    codec,
    prefetch::{self, Next, Seen},
};
use crate::{
    dwarfs::Error,
    pinned::Slice,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        thread,
    },
    sys::cores,
};

/// Number of shards: some times more than threads that serve requests.
const SHARDS: usize = 16;

/// What profiles ask for may fill this part of the bound, in percent: the rest is for those who read meanwhile.
const WARM_PERCENT: usize = 75;

/// Beyond one part in this many of the bound what has been served is given back: so much is worth keeping for those
/// who ask again although the kernel had it.
const SERVED_SHARE: usize = 3;

/// The name of a block among all archives of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The archive, by the number that [`BlockCache::register`] gave it.
    pub(super) archive: u64,
    /// The block's number in it.
    pub(super) block: u32,
}

/// Who decodes what nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// Nobody, unless [`Archive::prefetch`](super::Archive::prefetch) is called: no thread is started.
    OnDemand,
    /// Threads that finish blocks in use, load blocks ahead of sequential readers, and free what is not used.
    Always,
}

/// What a cache may take and do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// Bytes that it keeps at most. What is being read is pinned beyond that.
    pub max_bytes: usize,
    /// Threads that work in the background, at most.
    pub threads: NonZeroUsize,
    /// What they do.
    pub background: Background,
    /// After this time without use blocks are let go; they are kept at most twice as long.
    pub idle: Duration,
}

impl CacheOptions {
    /// A cache that does only what it is asked, for commands that read a little and end.
    #[must_use]
    pub fn quiet(max_bytes: usize) -> Self {
        Self { max_bytes, threads: cores::count(), background: Background::OnDemand, idle: IDLE }
    }

    /// A cache that works in the background, for servers.
    #[must_use]
    pub fn serving(max_bytes: usize, threads: Option<NonZeroUsize>) -> Self {
        let quiet = Self::quiet(max_bytes);
        Self { threads: threads.unwrap_or(quiet.threads), background: Background::Always, ..quiet }
    }
}

/// Figures of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheFigures {
    /// Bytes in use.
    pub used: usize,
    /// Blocks that are kept.
    pub blocks: usize,
    /// Bytes that it keeps at most.
    pub bound: usize,
    /// How many blocks were opened so far, repetitions counted.
    pub opened: u64,
    /// How often a part of a block was asked for.
    pub asked: u64,
    /// How often it was not there yet.
    pub missed: u64,
    /// Bytes that were decompressed, ahead of readers as well.
    pub decoded: u64,
}

/// Decoded blocks, shared by all archives that were opened with it.
pub struct BlockCache {
    shards: [Mutex<HashMap<Key, Arc<Block>>>; SHARDS],
    keep: Mutex<Keep>,
    ledger: Ledger,
    options: CacheOptions,
    workers: Arc<Workers>,
    me: Weak<Self>,
    /// Readers that decode just now.
    decoding: AtomicUsize,
    next_archive: AtomicU64,
}

/// What all blocks take.
#[derive(Debug, Default)]
struct Ledger {
    used: AtomicUsize,
    /// Bytes that came in so far: the clock by which the cache tells the time.
    clock: AtomicU64,
    opened: AtomicU64,
    asked: AtomicU64,
    missed: AtomicU64,
    decoded: AtomicU64,
}

impl Ledger {
    /// A block takes `to` bytes now instead of `from`.
    fn adjust(&self, from: usize, to: usize) {
        if to > from {
            self.used.fetch_add(to - from, Ordering::Relaxed);
            self.clock.fetch_add((to - from) as u64, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(from - to, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// A reader asked for a part of a block, and got it in this way.
    fn asked(&self, turn: Turn) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if turn == Turn::Decoded {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn decoded(&self, bytes: usize) {
        self.decoded.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache")
            .field("options", &self.options)
            .field("figures", &self.figures())
            .finish_non_exhaustive()
    }
}

impl BlockCache {
    /// Makes a quiet cache that keeps at most `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: usize) -> Arc<Self> {
        Self::with(CacheOptions::quiet(max_bytes))
    }

    /// Makes a cache.
    #[must_use]
    pub fn with(options: CacheOptions) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            keep: Mutex::default(),
            ledger: Ledger::default(),
            options,
            workers: Workers::new(options.threads.get(), options.idle),
            me: Weak::clone(me),
            decoding: AtomicUsize::new(0),
            next_archive: AtomicU64::new(0),
        })
    }

    /// Bytes in use: decoded blocks, and what the decoders of incomplete ones hold.
    #[must_use]
    pub fn used(&self) -> usize {
        self.ledger.used.load(Ordering::Relaxed)
    }

    /// What the cache holds and did.
    #[must_use]
    pub fn figures(&self) -> CacheFigures {
        CacheFigures {
            used: self.used(),
            blocks: self.keep.lock().len(),
            bound: self.options.max_bytes,
            opened: self.ledger.opened.load(Ordering::Relaxed),
            asked: self.ledger.asked.load(Ordering::Relaxed),
            missed: self.ledger.missed.load(Ordering::Relaxed),
            decoded: self.ledger.decoded.load(Ordering::Relaxed),
        }
    }

    /// Forgets all blocks; those that are pinned live on until they are let go.
    pub fn clear(&self) {
        self.remove_where(&mut |_| true);
    }

    /// A number for one more archive.
    pub(super) fn register(&self) -> u64 {
        self.next_archive.fetch_add(1, Ordering::Relaxed)
    }

    /// Forgets the blocks of an archive that is gone.
    pub(super) fn unregister(&self, archive: u64) {
        self.workers.forget(archive);
        self.remove_where(&mut |block| block.key.archive == archive);
    }

    /// Returns a range of a block, which is decoded as far as needed. `next` tells at most so many blocks that the
    /// reader comes to behind this one.
    pub(super) fn slice(
        &self,
        key: Key,
        origin: &Arc<dyn Origin>,
        range: Range<usize>,
        next: &dyn Fn(usize) -> Next,
    ) -> Result<Slice, Error> {
        loop {
            if let Some(slice) = self.try_slice(key, origin, range.clone(), next)? {
                return Ok(slice);
            }
        }
    }

    /// As [`slice`](Self::slice); `None` where the block had been given back in part, and is gone now.
    fn try_slice(
        &self,
        key: Key,
        origin: &Arc<dyn Origin>,
        range: Range<usize>,
        next: &dyn Fn(usize) -> Next,
    ) -> Result<Option<Slice>, Error> {
        let block = self.find(key, origin);
        keep::touch(&block, self.ledger.now(), self.options.max_bytes);
        let len = range.len() as u64;
        let asked_before = block.uses.asked.fetch_add(len, Ordering::Relaxed);
        match block.reach(range.end, &self.ledger, &Reader(self)) {
            Ok(turn) => {
                self.ledger.asked(turn);
                if self.options.background == Background::Always {
                    self.look_ahead(&block, turn, asked_before, len, next);
                }
                let (taken, slice) = Arc::clone(&block).slice(range);
                match taken {
                    Taken::Whole => {}
                    Taken::Ripened => {
                        self.count_references(&block.origin);
                        self.give_back();
                    }
                    Taken::Gone => {
                        self.drop_block(&block);
                        return Ok(None);
                    }
                }
                Ok(Some(slice))
            }
            Err(error) => {
                // Trying again may help, and there is nothing to lose.
                if block.published() == 0 || was_abandoned(&error) {
                    self.drop_block(&block);
                }
                Err(error)
            }
        }
    }

    /// Loads blocks in the background, in this order, as long as there is room.
    pub(super) fn prefetch(&self, blocks: impl Iterator<Item = workers::Named>) {
        self.workers.push(&self.me, blocks.map(Job::Warm));
    }

    /// The block of this name, which may not have been opened yet.
    fn find(&self, key: Key, origin: &Arc<dyn Origin>) -> Arc<Block> {
        let new = {
            let mut shard = self.shard(key).lock();
            if let Some(block) = shard.get(&key) {
                return Arc::clone(block);
            }
            let new = Arc::new(Block::new(key, Arc::clone(origin)));
            shard.insert(key, Arc::clone(&new));
            new
        };
        let now = self.ledger.now();
        new.uses.touched.store(now, Ordering::Relaxed);
        let left = origin.left(key.block).map_or(0, |left| left.load(Ordering::Relaxed));
        let returning = left != 0 && now.saturating_sub(left) < self.options.max_bytes as u64;
        self.keep.lock().admit(Arc::clone(&new), returning, self.options.max_bytes);
        if self.options.background == Background::Always {
            self.workers.attend(&self.me);
        }
        new
    }

    /// Has the references of an archive counted, when it takes so much that some of it is to be given back.
    fn count_references(&self, origin: &Arc<dyn Origin>) {
        if self.options.background == Background::Always
            && self.used() > self.options.max_bytes / SERVED_SHARE
            && origin.wants_count()
        {
            self.workers.push(&self.me, [Job::Count(Arc::clone(origin))]);
        }
    }

    /// Bytes that can come in before somebody has to go.
    fn room(&self) -> usize {
        self.options.max_bytes.saturating_sub(self.used())
    }

    /// Whether a block is there, and what was asked of it.
    fn peek(&self, key: Key) -> Option<Arc<Block>> {
        self.shard(key).lock().get(&key).map(Arc::clone)
    }

    /// The shard of a key. Neighbouring blocks get different shards.
    fn shard(&self, key: Key) -> &Mutex<HashMap<Key, Arc<Block>>> {
        let mixed = (u64::from(key.block) ^ key.archive.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let at = usize::try_from(mixed >> 60).unwrap_or_default();
        let [first, ..] = &self.shards;
        self.shards.get(at % SHARDS).unwrap_or(first)
    }

    /// Gives the workers what a reader's doing makes worth doing.
    fn look_ahead(
        &self,
        block: &Arc<Block>,
        turn: Turn,
        asked_before: u64,
        len: u64,
        next: &dyn Fn(usize) -> Next,
    ) {
        let mut seen = Seen {
            asked_before,
            asked: asked_before + len,
            published: block.published(),
            capacity: block.capacity(),
            turns: 0,
            room: self.room(),
        };
        if turn == Turn::Decoded {
            seen.turns = block.uses.turns.fetch_add(1, Ordering::Relaxed) + 1;
            if seen.is_worth_finishing()
                && block.is_resting()
                && !block.uses.finishing.swap(true, Ordering::Relaxed)
            {
                self.workers.push(&self.me, [Job::Finish(Arc::clone(block))]);
            }
        }
        if seen.begins_walk() {
            let (workers, max_bytes) = (self.workers.most(), self.options.max_bytes);
            let count = prefetch::ahead(seen.capacity, workers, max_bytes, seen.room);
            match next(count) {
                Next::These(blocks) => self.load_ahead(block, blocks.into_iter()),
                Next::InArchive if self.was_walked_before(block.key) => {
                    self.load_ahead(block, prefetch::behind(block.key.block, count));
                }
                Next::InArchive => {}
            }
        }
    }

    /// Has other blocks of the same archive loaded, unless they are there.
    fn load_ahead(&self, block: &Arc<Block>, others: impl Iterator<Item = u32>) {
        let keys = others.map(|other| Key { block: other, ..block.key });
        let missing = keys.filter(|key| self.peek(*key).is_none());
        self.workers.push(&self.me, missing.map(|key| Job::Ahead((key, Arc::clone(&block.origin)))));
    }

    /// Whether the block before this one was walked through as well; before the first one nobody can have been.
    fn was_walked_before(&self, key: Key) -> bool {
        let Some(before) = key.block.checked_sub(1) else { return true };
        self.peek(Key { block: before, ..key }).is_some_and(|block| {
            prefetch::is_walked(block.uses.asked.load(Ordering::Relaxed), block.capacity())
        })
    }

    /// Does a worker's job.
    fn carry_out(&self, job: Job) {
        let block = match job {
            Job::Finish(block) if block.is_kept() => block,
            Job::Warm(_) if self.used() > self.options.max_bytes / 100 * WARM_PERCENT => {
                return self.workers.forget_warm();
            }
            Job::Count(origin) => return origin.count_references(),
            Job::Ahead((_, origin)) if origin.longest() > self.room() => return,
            Job::Ahead((key, origin)) | Job::Warm((key, origin)) if self.peek(key).is_none() => {
                self.find(key, &origin)
            }
            _ => return,
        };
        block.proceed(&self.ledger, &Helper(self));
        block.uses.finishing.store(false, Ordering::Relaxed);
        self.make_room();
        if block.is_settled() && block.published() == 0 {
            self.drop_block(&block);
        }
    }

    /// Gives back what was served while there is much of it.
    fn give_back(&self) {
        while self.used() > self.options.max_bytes / SERVED_SHARE && self.thin() {}
    }

    /// Brings the cache within its bound: gives back what was served, or evicts blocks.
    fn make_room(&self) {
        while self.used() > self.options.max_bytes {
            if self.thin() {
                continue;
            }
            let Some(block) = self.keep.lock().evict(self.options.max_bytes) else { return };
            self.let_go(&block);
        }
    }

    /// Gives back what has been served of the first block that nobody looks at. Returns whether there was one.
    fn thin(&self) -> bool {
        let mut keep = self.keep.lock();
        keep.ripe().any(|kept| {
            let mut shard = self.shard(kept.key).lock();
            let key = kept.key;
            // What the shard holds is let go for a moment, so that it can be seen whether somebody else has the block.
            // Nobody can find it meanwhile.
            if shard.get(&key).is_none_or(|found| !Arc::ptr_eq(found, kept)) {
                return false;
            }
            shard.remove(&key);
            let thinned = Arc::get_mut(kept).is_some_and(|block| block.thin(&self.ledger));
            shard.insert(key, Arc::clone(kept));
            thinned
        })
    }

    /// Lets go of all that was not used since the last sweep.
    fn sweep(&self) {
        self.remove_where(&mut |block| {
            !block.uses.recently.swap(false, Ordering::Relaxed) && !block.is_busy()
        });
        codec::shrink();
    }

    fn is_empty(&self) -> bool {
        self.keep.lock().len() == 0
    }

    fn remove_where(&self, out: &mut dyn FnMut(&Arc<Block>) -> bool) {
        let removed = self.keep.lock().remove(out);
        for block in removed {
            self.let_go(&block);
        }
    }

    fn drop_block(&self, block: &Arc<Block>) {
        self.remove_where(&mut |other| Arc::ptr_eq(other, block));
    }

    /// Takes a block that is out of the queues out of its shard as well.
    fn let_go(&self, block: &Arc<Block>) {
        block.discharge(&self.ledger);
        let mut shard = self.shard(block.key).lock();
        if shard.get(&block.key).is_some_and(|kept| Arc::ptr_eq(kept, block)) {
            shard.remove(&block.key);
        }
    }
}

impl Drop for BlockCache {
    fn drop(&mut self) {
        self.workers.close();
    }
}

/// Whether a block is not damaged: who was at it came to grief for another reason.
fn was_abandoned(error: &Error) -> bool {
    match error {
        Error::Abandoned => true,
        Error::Shared(shared) => was_abandoned(shared),
        _ => false,
    }
}

/// A reader who decodes what he needs.
struct Reader<'a>(&'a BlockCache);

impl Attendant for Reader<'_> {
    fn begins(&self) {
        self.0.decoding.fetch_add(1, Ordering::Relaxed);
    }

    fn stepped(&self, _block: &Block) -> bool {
        self.0.make_room();
        true
    }

    fn ends(&self) {
        self.0.decoding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A worker who decodes for nobody in particular.
struct Helper<'a>(&'a BlockCache);

impl Attendant for Helper<'_> {
    fn stepped(&self, block: &Block) -> bool {
        self.0.make_room();
        // Where readers could use all cores, they come first.
        if self.0.decoding.load(Ordering::Relaxed) >= self.0.workers.most() {
            thread::yield_now();
        }
        block.is_kept()
    }
}
