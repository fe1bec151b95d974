//! How many descriptors stay open, and where they are closed.
//!
//! Nodes that have descriptors stand in a queue. When there are more descriptors than the limit, nodes are taken from
//! its front: one that was used since it was last looked at goes to the back again, another one loses its descriptors.
//! Pinned nodes lose nothing. Closing the last descriptor of a removed file frees its blocks, which takes time: a
//! thread of its own does that.

use std::{
    collections::VecDeque,
    fmt,
    os::fd::OwnedFd,
    sync::mpsc::{SyncSender, sync_channel},
    time::Duration,
};

use super::node::{Fds, HostNode};
use crate::{
    sync::{
        Arc, LazyLock, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
        thread,
    },
    sys::limit,
};

/// Most descriptors that the shared pool keeps open, whatever the process may have.
const SHARED_LIMIT: u64 = 16 * 1024;

/// Descriptors that wait for the closing thread at most; more are closed on the spot.
const CLOSING_BACKLOG: usize = 1024;

/// How long the closing thread lets descriptors come together once it has closed some.
const CLOSING_PAUSE: Duration = Duration::from_millis(2);

/// Bounds the open descriptors of any number of host trees.
pub struct FdPool {
    limit: usize,
    open: AtomicUsize,
    queue: Mutex<VecDeque<Weak<HostNode>>>,
    closer: Mutex<Option<SyncSender<Arc<OwnedFd>>>>,
}

impl FdPool {
    /// Makes a pool that keeps about `limit` descriptors open.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            open: AtomicUsize::new(0),
            queue: Mutex::new(VecDeque::new()),
            closer: Mutex::new(None),
        })
    }

    /// The pool of the process: half of what it may have open when the pool is first asked for.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        static SHARED: LazyLock<Arc<FdPool>> = LazyLock::new(|| {
            let limit = (limit::open_files() / 2).min(SHARED_LIMIT);
            FdPool::new(usize::try_from(limit).unwrap_or(64))
        });
        Arc::clone(&SHARED)
    }

    /// Number of descriptors that nodes hold.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts a descriptor that was just put into `fds` of `node`.
    pub(super) fn added(&self, node: &Arc<HostNode>, fds: &mut Fds) {
        self.open.fetch_add(1, Ordering::Relaxed);
        if !fds.queued && !fds.pinned {
            fds.queued = true;
            self.queue.lock().push_back(Arc::downgrade(node));
        }
    }

    /// Puts a node that is no longer pinned back into the queue.
    pub(super) fn requeue(&self, node: &Arc<HostNode>, fds: &mut Fds) {
        if !fds.queued {
            fds.queued = true;
            self.queue.lock().push_back(Arc::downgrade(node));
        }
    }

    /// Closes what is over the limit. The caller holds no lock of a node.
    pub(super) fn trim(&self) {
        // Twice around the queue at most: the first round may find everything used.
        let mut rounds = self.queue.lock().len() * 2;
        while self.open() > self.limit && rounds > 0 {
            rounds -= 1;
            let Some(node) = self.queue.lock().pop_front() else { return };
            let Some(node) = node.upgrade() else { continue };
            if node.take_touched() {
                self.queue.lock().push_back(Arc::downgrade(&node));
                continue;
            }
            let mut fds = node.fds.lock();
            fds.queued = false;
            if !fds.pinned {
                self.close(fds.take_all());
            }
        }
    }

    /// Closes descriptors that a node has given up, soon and elsewhere.
    pub(super) fn close(&self, fds: impl Iterator<Item = Arc<OwnedFd>>) {
        for fd in fds {
            self.open.fetch_sub(1, Ordering::Relaxed);
            let mut closer = self.closer.lock();
            let sender = closer.get_or_insert_with(start_closer);
            // Where the thread is behind or could not be started the descriptor comes back and is closed here.
            drop(sender.try_send(fd));
        }
    }
}

/// Starts the thread that closes; it ends when the pool is gone.
fn start_closer() -> SyncSender<Arc<OwnedFd>> {
    let (sender, receiver) = sync_channel(CLOSING_BACKLOG);
    let _ = thread::Builder::new().name("fim-close".to_owned()).spawn(move || {
        while let Ok(fd) = receiver.recv() {
            drop(fd);
            receiver.try_iter().for_each(drop);
            // Who sends while this thread waits has to wake it, which costs more than most closes.
            thread::sleep(CLOSING_PAUSE);
        }
    });
    sender
}

impl fmt::Debug for FdPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FdPool")
            .field("limit", &self.limit)
            .field("open", &self.open())
            .finish_non_exhaustive()
    }
}
