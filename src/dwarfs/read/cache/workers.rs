//! Threads that decode what nobody waits for: the rest of blocks that are in use, and blocks that will be asked for.
//!
//! ```text
//! finish   blocks of which much is used: their decoders and payloads are freed      first
//! ahead    blocks that a sequential reader comes to next
//! warm     blocks that an access profile asks for                                   last
//! ```
//!
//! They start when there is work and end after a while without. One stays as long as the cache holds anything: it
//! wakes once in [`IDLE`] and lets go of what was not used since; when nothing is left it ends as well, so that an
//! idle server wakes nobody.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use super::{
    BlockCache, Key,
    block::{Block, Origin},
};
use crate::sync::{Arc, Condvar, Mutex, Weak, atomic::Ordering, thread};

/// What was not used for this long is let go, and is kept at most twice as long.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// How long a thread waits for more work.
const LINGER: Duration = Duration::from_secs(3);

/// Blocks that wait to be finished, and blocks ahead, at most: more would be evicted before they are used.
const MOST_WAITING: usize = 64;

/// Blocks of profiles that wait at most.
const MOST_WARM: usize = 1 << 16;

/// A block by its name and where it comes from.
pub(super) type Named = (Key, Arc<dyn Origin>);

/// What a thread does next.
pub(super) enum Job {
    /// Decode the rest of a block.
    Finish(Arc<Block>),
    /// Load a block that a reader comes to next.
    Ahead(Named),
    /// Load a block as long as the cache has room.
    Warm(Named),
    /// Count what files refer to in the blocks of an archive.
    Count(Arc<dyn Origin>),
}

enum Next {
    Job(Job),
    Sweep,
}

/// The threads and what they have to do.
pub(super) struct Workers {
    state: Mutex<State>,
    wake: Condvar,
    most: usize,
    idle: Duration,
}

#[derive(Default)]
struct State {
    finish: VecDeque<Arc<Block>>,
    ahead: VecDeque<Named>,
    warm: VecDeque<Named>,
    count: Vec<Arc<dyn Origin>>,
    threads: usize,
    waiting: usize,
    closed: bool,
    swept: Option<Instant>,
}

impl Workers {
    /// Threads that come and go, at most `most` at a time.
    pub(super) fn new(most: usize, idle: Duration) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), wake: Condvar::new(), most, idle })
    }

    /// How many threads may run at a time.
    pub(super) const fn most(&self) -> usize {
        self.most
    }

    /// Gives jobs to the threads; what is too much is dropped.
    pub(super) fn push(self: &Arc<Self>, cache: &Weak<BlockCache>, jobs: impl IntoIterator<Item = Job>) {
        let mut state = self.state.lock();
        for job in jobs {
            match job {
                Job::Finish(block) if state.finish.len() >= MOST_WAITING => {
                    block.uses.finishing.store(false, Ordering::Relaxed);
                    continue;
                }
                Job::Finish(block) => state.finish.push_back(block),
                Job::Ahead(named) if state.ahead.len() < MOST_WAITING => state.ahead.push_back(named),
                Job::Warm(named) if state.warm.len() < MOST_WARM => state.warm.push_back(named),
                Job::Count(origin) => state.count.push(origin),
                _ => continue,
            }
            if state.waiting > 0 {
                self.wake.notify_one();
            } else if state.threads < self.most {
                self.spawn(&mut state, cache);
            }
        }
    }

    /// Sees to it that somebody looks after what is cached.
    pub(super) fn attend(self: &Arc<Self>, cache: &Weak<BlockCache>) {
        let mut state = self.state.lock();
        if state.threads == 0 {
            self.spawn(&mut state, cache);
        }
    }

    /// Drops the jobs of an archive that is gone.
    pub(super) fn forget(&self, archive: u64) {
        let mut state = self.state.lock();
        state.finish.retain(|block| block.key.archive != archive);
        state.ahead.retain(|(key, _)| key.archive != archive);
        state.warm.retain(|(key, _)| key.archive != archive);
    }

    /// Drops what profiles asked for.
    pub(super) fn forget_warm(&self) {
        self.state.lock().warm.clear();
    }

    /// Sends all threads home.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        *state = State { closed: true, threads: state.threads, waiting: state.waiting, ..State::default() };
        self.wake.notify_all();
    }

    fn spawn(self: &Arc<Self>, state: &mut State, cache: &Weak<BlockCache>) {
        let (workers, cache) = (Arc::clone(self), Weak::clone(cache));
        // Without a thread the jobs wait for the next attempt.
        if thread::Builder::new().name("fim-blocks".to_owned()).spawn(move || workers.work(&cache)).is_ok() {
            state.threads += 1;
        }
    }

    fn work(&self, cache: &Weak<BlockCache>) {
        let _counted = Counted(self);
        while let Some(next) = self.next() {
            let Some(cache) = cache.upgrade() else { return };
            match next {
                Next::Job(job) => cache.carry_out(job),
                Next::Sweep => {
                    cache.sweep();
                    if self.may_end(&cache) {
                        return;
                    }
                }
            }
        }
    }

    /// Waits for something to do; `None` is the end.
    fn next(&self) -> Option<Next> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.take() {
                return Some(Next::Job(job));
            }
            let since_sweep = state.swept.get_or_insert_with(Instant::now).elapsed();
            if state.threads == 1 && since_sweep >= self.idle {
                state.swept = Some(Instant::now());
                return Some(Next::Sweep);
            }
            let wait = if state.threads > 1 { LINGER } else { self.idle.saturating_sub(since_sweep) };
            state.waiting += 1;
            let timed_out = self.wake.wait_for(&mut state, wait).timed_out();
            state.waiting -= 1;
            if timed_out && state.threads > 1 && !state.has_work() {
                state.threads -= 1;
                return None;
            }
        }
    }

    /// Whether the last thread may end, because nothing is cached and nothing is to be done.
    fn may_end(&self, cache: &BlockCache) -> bool {
        let mut state = self.state.lock();
        let ends = state.threads == 1 && !state.has_work() && cache.is_empty();
        if ends {
            (state.threads, state.swept) = (0, None);
        }
        ends
    }

    /// How many threads there are.
    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        self.state.lock().threads
    }

    /// Whether all jobs are done.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        let state = self.state.lock();
        !state.has_work() && state.waiting == state.threads
    }
}

impl State {
    fn take(&mut self) -> Option<Job> {
        let finish = self.finish.pop_front().map(Job::Finish);
        let ahead = || self.ahead.pop_front().map(Job::Ahead);
        let count = || self.count.pop().map(Job::Count);
        finish.or_else(count).or_else(ahead).or_else(|| self.warm.pop_front().map(Job::Warm))
    }

    fn has_work(&self) -> bool {
        !(self.finish.is_empty() && self.ahead.is_empty() && self.warm.is_empty() && self.count.is_empty())
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("most", &self.most).finish_non_exhaustive()
    }
}

/// A thread that panics counts no longer; those that end are counted out where they decide to.
struct Counted<'a>(&'a Workers);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut state = self.0.state.lock();
            state.threads = state.threads.saturating_sub(1);
        }
    }
}
