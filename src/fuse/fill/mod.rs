//! Fills the kernel's page cache where somebody reads small pieces here and there.
//!
//! The kernel reads ahead of whoever reads in order; who jumps about pays a message for each page. After some such
//! reads of one region of a file the rest of it is handed to the kernel unasked (FUSE_NOTIFY_STORE), so that the
//! following ones cost nothing. Only what nobody can change is handed out like that: read-only mounts.
//!
//! ```text
//! session thread:  small READ ──► watch.rs   is this a jump, and the how many-th of its region?
//!                      │               └─ enough ──► plan.rs   the region's pieces wait to be handed over
//!                      ├─ its piece will be handed over soon ──► left there, answered just before that
//!                      └─ else answered at once
//! fill threads:    the next piece: those that a READ waits for first, then in order
//! ```
//!
//! A message costs as much as handing over ten pages, and while the readers send messages there is no time for
//! handing over. So what is about to be handed over is not answered twice: a READ waits for its piece, which is the
//! next one then.
//!
//! Each jump may bring 1 MiB into the kernel's cache, no more: that costs less than decoding it did, and the kernel
//! drops what it needs the room for. Who reads a few pages of a big file gets a few pages.
//!
//! The kernel locks a page that somebody waits for, and storing it waits until his READ is answered. So it is never
//! done by a session thread, which might be the one to answer, and no READ is left with a piece that a fill thread
//! has begun.

mod plan;
mod watch;

use std::io;

use fuser::{INodeNo, Notifier, ReplyData};

use self::{
    plan::{Place, Plan},
    watch::Watch,
};
use super::reply::{self, Caller};
use crate::{
    pinned::Data,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
        thread,
    },
    vfs::{FileSystem, Ino},
};

/// Longest read that counts as small: readers in order soon get longer ones.
const SMALL: usize = 16 << 10;

/// Length of a region: the usual block of an archive, all of which one small read may have decoded.
const REGION: u64 = 16 << 20;

/// Jumps into a region after which it is filled: one for each of its MiB.
const ENOUGH: u32 = 16;

/// Bytes that are handed over in one message; so long a reader may wait for somebody else's piece.
const PIECE: u64 = 256 << 10;

/// Threads that hand over: two copy faster than one, and one goes on while the other waits for a block.
const THREADS: usize = 2;

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Region {
    ino: Ino,
    number: u64,
}

/// A READ that waits for its piece.
#[derive(Debug)]
struct Waiting {
    caller: Caller,
    offset: u64,
    len: usize,
    reply: ReplyData,
}

/// The reads that were seen, and what is to be handed over.
#[derive(Debug, Default)]
pub(super) struct Fill {
    watch: Watch,
    /// Whether the plan has anything: most reads need not look.
    active: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    plan: Plan<Waiting>,
    closed: bool,
}

impl Fill {
    /// Hears of a READ. Gives the reply back unless the READ was left here, to be answered soon.
    pub(super) fn hear(
        &self,
        caller: Caller,
        ino: Ino,
        offset: u64,
        len: usize,
        reply: ReplyData,
    ) -> Option<ReplyData> {
        if len > SMALL {
            return Some(reply);
        }
        let region = Region { ino, number: offset / REGION };
        if self.watch.note(region, offset, len) == Some(ENOUGH) {
            self.begin(region);
        }
        if !self.active.load(Ordering::Relaxed) {
            return Some(reply);
        }
        let end = offset.saturating_add(len as u64);
        let Some(place) = Place::of(region, offset, end) else { return Some(reply) };
        let mut state = self.state.lock();
        let refused = state.plan.leave(place, Waiting { caller, offset, len, reply }).err();
        if refused.is_none() {
            self.changed.notify_one();
        }
        refused.map(|waiting| waiting.reply)
    }

    fn begin(&self, region: Region) {
        let mut state = self.state.lock();
        if !state.closed && state.plan.begin(region) {
            self.active.store(true, Ordering::Relaxed);
            self.changed.notify_all();
        }
    }

    /// Starts the threads that fill; they end after [`close`](Self::close).
    pub(super) fn start(
        self: &Arc<Self>,
        fs: Arc<dyn FileSystem>,
        notifier: &Notifier,
    ) -> io::Result<Vec<thread::JoinHandle<()>>> {
        let start = move |number| {
            let (fill, fs, notifier) = (Arc::clone(self), Arc::clone(&fs), notifier.clone());
            thread::Builder::new()
                .name(format!("fim-fill-{number}"))
                .spawn(move || fill.work(&*fs, &notifier))
        };
        (0..THREADS).map(start).collect()
    }

    /// Drops what waits and everything that comes.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.plan = Plan::default();
        self.changed.notify_all();
    }

    fn work(&self, fs: &dyn FileSystem, notifier: &Notifier) {
        while let Some((place, waiting)) = self.next() {
            for read in waiting {
                let work = || fs.read(place.region.ino, read.offset, read.len);
                reply::answer_to(read.caller, read.reply, work, |reply, data| reply.data(&data.contiguous()));
            }
            self.hand_over(fs, notifier, place);
        }
    }

    /// Waits for the next piece, and for those who wait for it; `None` after [`close`](Self::close).
    fn next(&self) -> Option<(Place, Vec<Waiting>)> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(next) = state.plan.next() {
                return Some(next);
            }
            self.changed.wait(&mut state);
        }
    }

    /// Hands a piece over, as far as the file goes. What fails is asked for by whoever needs it, and fails there.
    fn hand_over(&self, fs: &dyn FileSystem, notifier: &Notifier, place: Place) {
        let len = usize::try_from(PIECE).unwrap_or(usize::MAX);
        let data = reply::guarded(|| fs.read(place.region.ino, place.start(), len)).unwrap_or_default();
        if !data.is_empty() {
            self.state.lock().plan.storing(1);
            store(notifier, place, &data);
            self.state.lock().plan.storing(-1);
        }
        let mut state = self.state.lock();
        if state.plan.done(place, data.len() < len) {
            self.watch.start_again(place.region);
        }
        self.active.store(!state.plan.is_empty(), Ordering::Relaxed);
    }
}

fn store(notifier: &Notifier, place: Place, data: &Data) {
    if let Err(error) = notifier.store(INodeNo(place.region.ino.get()), place.start(), &data.contiguous()) {
        tracing::debug!(?place, "cannot hand pages to the kernel: {error}");
    }
}
