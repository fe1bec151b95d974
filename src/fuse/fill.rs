//! Fills the kernel's page cache where somebody reads small pieces here and there.
//!
//! The kernel reads ahead of whoever reads in order; who jumps about pays a message for each page. After some such
//! reads of one region of a file the rest of it is handed to the kernel unasked (FUSE_NOTIFY_STORE), so that the
//! following ones cost nothing. Only what nobody can change is handed out like that: read-only mounts.
//!
//! The kernel locks a page that somebody waits for, and storing it waits until his READ is answered. So it is never
//! done by a session thread, which might be the one to answer.

use std::{collections::VecDeque, io};

use fuser::{INodeNo, Notifier};

use crate::{
    sync::{Arc, Condvar, Mutex, thread},
    vfs::{FileSystem, Ino},
};

/// Longest read that counts as small: readers in order soon get longer ones.
const SMALL: usize = 16 << 10;

/// Length of a region: the usual block of an archive, all of which one small read may have decoded.
const REGION: u64 = 16 << 20;

/// Small reads of a region after which it is filled.
const ENOUGH: u32 = 16;

/// Regions that are watched at a time, those of the last small reads.
const WATCHED: usize = 8;

/// Regions that may wait to be filled.
const WAITING: usize = 8;

/// Bytes handed over in one message.
const PIECE: usize = 1 << 20;

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Region {
    ino: Ino,
    number: u64,
}

/// What is known of a region.
#[derive(Debug)]
struct Watch {
    region: Region,
    small: u32,
    /// Where the last read ended: the next one in order is no jump.
    end: u64,
}

/// The reads that were seen, and the regions to be filled.
#[derive(Debug, Default)]
pub(super) struct Fill {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The last one used in front.
    watched: VecDeque<Watch>,
    waiting: VecDeque<Region>,
    closed: bool,
}

impl Fill {
    /// Hears of a read. Nobody waits for it: a read that comes at the same time as another one is not counted.
    pub(super) fn note(&self, ino: Ino, offset: u64, len: usize) {
        if len > SMALL {
            return;
        }
        let region = Region { ino, number: offset / REGION };
        let Some(mut state) = self.state.try_lock() else { return };
        let known = state.watched.iter().position(|watch| watch.region == region);
        let mut watch = known.and_then(|at| state.watched.remove(at)).unwrap_or(Watch {
            region,
            small: 0,
            end: u64::MAX,
        });
        if watch.end != offset {
            watch.small += 1;
        }
        watch.end = offset.saturating_add(len as u64);
        if watch.small == ENOUGH && state.waiting.len() < WAITING {
            state.waiting.push_back(region);
            self.changed.notify_one();
        }
        // Reads that come still are of pages that the kernel has dropped; after many of them it is worth it again.
        if watch.small >= ENOUGH * ENOUGH {
            watch.small = 0;
        }
        state.watched.push_front(watch);
        state.watched.truncate(WATCHED);
    }

    /// Starts the thread that fills; it ends after [`close`](Self::close).
    pub(super) fn start(
        self: &Arc<Self>,
        fs: Arc<dyn FileSystem>,
        notifier: Notifier,
    ) -> io::Result<thread::JoinHandle<()>> {
        let fill = Arc::clone(self);
        thread::Builder::new().name("fim-fill".to_owned()).spawn(move || {
            while let Some(region) = fill.next() {
                fill.fill(&*fs, &notifier, region);
            }
        })
    }

    /// Drops what waits and everything that comes.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting.clear();
        self.changed.notify_all();
    }

    /// Waits for the next region; `None` after [`close`](Self::close).
    fn next(&self) -> Option<Region> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(region) = state.waiting.pop_front() {
                return Some(region);
            }
            self.changed.wait(&mut state);
        }
    }

    /// Hands a region over, as far as the file goes. What fails is asked for by whoever needs it, and fails there.
    fn fill(&self, fs: &dyn FileSystem, notifier: &Notifier, region: Region) {
        let start = region.number.saturating_mul(REGION);
        let mut at = start;
        while at < start.saturating_add(REGION) && !self.state.lock().closed {
            let Ok(data) = fs.read(region.ino, at, PIECE) else { return };
            if data.is_empty() || notifier.store(INodeNo(region.ino.get()), at, &data.contiguous()).is_err() {
                return;
            }
            at = at.saturating_add(data.len() as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(fill: &Fill) -> Vec<(u64, u64)> {
        let state = fill.state.lock();
        state.waiting.iter().map(|region| (region.ino.get(), region.number)).collect()
    }

    #[test]
    fn jumps_are_counted_and_order_is_not() {
        let fill = Fill::default();
        for page in 0..1_000 {
            fill.note(Ino::new(5), page * 4_096, 4_096);
        }
        assert_eq!(waiting(&fill), []);
        for page in 0..u64::from(ENOUGH) {
            assert_eq!(waiting(&fill), []);
            fill.note(Ino::new(5), REGION + page * 40_960, 4_096);
            fill.note(Ino::new(6), page * 40_960, 128 << 10);
        }
        assert_eq!(waiting(&fill), [(5, 1)]);
        // Once, until the kernel must have dropped it.
        for page in 0..u64::from(ENOUGH) * 2 {
            fill.note(Ino::new(5), REGION + page * 40_960, 4_096);
        }
        assert_eq!(waiting(&fill), [(5, 1)]);
    }

    #[test]
    fn what_is_watched_and_waits_is_bounded() {
        let fill = Fill::default();
        for ino in 1..100 {
            for page in 0..u64::from(ENOUGH) {
                fill.note(Ino::new(ino), page * 40_960, 4_096);
            }
        }
        assert_eq!(waiting(&fill).len(), WAITING);
        assert_eq!(fill.state.lock().watched.len(), WATCHED);
        fill.close();
        assert!(fill.next().is_none());
    }
}
