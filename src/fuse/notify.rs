//! Notices to the kernel: what it must forget.
//!
//! A notice takes locks in the kernel that the request being served may hold (the parent directory's), so it is
//! never sent by a session thread: the file system puts it into a queue, and a thread of its own sends it. The exception
//! are attributes: to forget them takes no lock, and is done before the request that changed them is answered.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt as _,
    time::{Duration, Instant},
};

use fuser::{INodeNo, Notifier};

use crate::{
    sync::{Arc, Condvar, Mutex, thread},
    vfs::{Ino, Invalidate},
};

/// How long a notice waits that is to come behind an answer: much longer than the kernel takes to act on one.
const AFTERWARDS: Duration = Duration::from_millis(10);

/// A notice that waits to be sent.
#[derive(Debug, PartialEq, Eq)]
enum Notice {
    Entry { parent: Ino, name: Box<[u8]> },
    Inode { ino: Ino, data: bool },
}

/// The queue of notices: handed to the file system when it is made, and to [`serve`](super::serve) later.
///
/// What is put in before the session serves waits for it; what is put in after it has ended is dropped, since there
/// is no kernel left that remembers anything.
#[derive(Debug, Default)]
pub struct Notices {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Notice>,
    /// Not before these moments, which come in order.
    later: VecDeque<(Instant, Notice)>,
    /// There from the start of the session to its end.
    notifier: Option<Notifier>,
    closed: bool,
}

impl Notices {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Starts the thread that sends; it ends after [`close`](Self::close).
    pub(super) fn start(self: &Arc<Self>, notifier: Notifier) -> io::Result<thread::JoinHandle<()>> {
        let notices = Arc::clone(self);
        self.state.lock().notifier = Some(notifier.clone());
        thread::Builder::new().name("fim-notices".to_owned()).spawn(move || {
            while let Some(notice) = notices.next() {
                send(&notifier, &notice);
            }
        })
    }

    /// Drops what waits and everything that comes.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting.clear();
        state.later.clear();
        state.notifier = None;
        self.changed.notify_all();
    }

    /// Waits for the next notice; `None` after [`close`](Self::close).
    fn next(&self) -> Option<Notice> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(notice) = state.waiting.pop_front() {
                return Some(notice);
            }
            match state.later.front() {
                Some((due, _)) if *due <= Instant::now() => {
                    return state.later.pop_front().map(|(_, notice)| notice);
                }
                Some((due, _)) => {
                    let due = *due;
                    self.changed.wait_until(&mut state, due);
                }
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// Takes a notice unless the same one is the last that waits.
    fn put(&self, notice: Notice) {
        let mut state = self.state.lock();
        if !state.closed && state.waiting.back() != Some(&notice) {
            state.waiting.push_back(notice);
            self.changed.notify_one();
        }
    }
}

impl Invalidate for Notices {
    fn entry(&self, parent: Ino, name: &[u8]) {
        self.put(Notice::Entry { parent, name: name.into() });
    }

    fn entry_afterwards(&self, parent: Ino, name: &[u8]) {
        let notice = Notice::Entry { parent, name: name.into() };
        let mut state = self.state.lock();
        if !state.closed {
            state.later.push_back((Instant::now() + AFTERWARDS, notice));
            self.changed.notify_one();
        }
    }

    fn inode(&self, ino: Ino, data: bool) {
        let notice = Notice::Inode { ino, data };
        let notifier = if data { None } else { self.state.lock().notifier.clone() };
        match notifier {
            Some(notifier) => send(&notifier, &notice),
            None => self.put(notice),
        }
    }
}

fn send(notifier: &Notifier, notice: &Notice) {
    let sent = match notice {
        Notice::Entry { parent, name } => {
            notifier.inval_entry(INodeNo(parent.get()), OsStr::from_bytes(name))
        }
        // Offset 0 and length 0 mean all pages, a negative offset attributes only (FUSE_NOTIFY_INVAL_INODE).
        Notice::Inode { ino, data } => {
            notifier.inval_inode(INodeNo(ino.get()), if *data { 0 } else { -1 }, 0)
        }
    };
    if let Err(error) = sent {
        // A kernel that knows neither the entry nor the inode any more has nothing to forget.
        tracing::debug!(?notice, "cannot tell the kernel to forget: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_keep_their_order_and_repeat_nothing() {
        let notices = Notices::new();
        notices.inode(Ino::new(7), true);
        notices.inode(Ino::new(7), true);
        notices.entry(Ino::ROOT, b"name");
        notices.inode(Ino::new(7), true);
        let expected = [
            Notice::Inode { ino: Ino::new(7), data: true },
            Notice::Entry { parent: Ino::ROOT, name: b"name".as_slice().into() },
            Notice::Inode { ino: Ino::new(7), data: true },
        ];
        for notice in expected {
            assert_eq!(notices.next(), Some(notice));
        }
        let before = Instant::now();
        notices.entry_afterwards(Ino::ROOT, b"later");
        notices.entry(Ino::ROOT, b"now");
        for name in [&b"now"[..], b"later"] {
            assert_eq!(notices.next(), Some(Notice::Entry { parent: Ino::ROOT, name: name.into() }));
        }
        assert!(before.elapsed() >= AFTERWARDS);
        notices.close();
        notices.inode(Ino::new(8), false);
        assert_eq!(notices.next(), None);
    }
}
