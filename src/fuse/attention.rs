//! Waiting for the next request awake, for a moment.
//!
//! Whoever sent a request mostly sends the next one some microseconds after its answer. A session thread that has gone to
//! sleep by then must be woken, on a CPU that has gone to sleep as well: that takes longer than most requests. So one
//! thread that has just answered looks for the next request before it goes to read it:
//!
//! ```text
//!   read -> call -> answer -> look ... look -> read       (a request came: nobody slept)
//!                              '---- 25 µs ----> read     (none came: asleep, as without it)
//! ```
//!
//! The price is CPU time where no request follows soon. It is bounded: one thread looks at a time, and after some misses
//! in a row only few answers are followed by a look. On a single CPU the one who is to send it could not run: no look.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use crate::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    sys::{cores, fuse_dev},
};

/// How long a look lasts: longer than most programs need between two calls, not longer than going to sleep and being
/// woken costs in all.
const LOOK: Duration = Duration::from_micros(25);

/// Misses in a row after which looking stops to be the rule.
const PATIENCE: u32 = 4;

/// One of so many answers is followed by a look then.
const SELDOM: u32 = 32;

/// Looks for requests on behalf of all threads of a session.
#[derive(Debug)]
pub(super) struct Attention {
    /// The device, for looking only; `None` where nobody looks.
    device: Option<OwnedFd>,
    /// Somebody looks.
    looking: AtomicBool,
    /// Answers that were not followed by a request in time since the last one that was.
    misses: AtomicU32,
}

/// Looks for the next request when it is dropped, which is after the answer.
#[derive(Debug)]
#[must_use = "it has to live until the request is answered"]
pub(super) struct Next<'a>(&'a Attention);

impl Attention {
    /// Looks at `device`, or never where there is none to look at or no second CPU.
    pub(super) fn new(device: Option<OwnedFd>) -> Self {
        let others_run = cores::count().get() > 1;
        Self {
            device: device.filter(|_| others_run),
            looking: AtomicBool::new(false),
            misses: AtomicU32::new(0),
        }
    }

    /// What to hold while a request is answered.
    pub(super) fn next(&self) -> Next<'_> {
        Next(self)
    }

    fn look(&self) {
        let Some(device) = &self.device else { return };
        let misses = self.misses.load(Ordering::Relaxed);
        if !is_due(misses) {
            self.misses.store(misses.wrapping_add(1).max(PATIENCE), Ordering::Relaxed);
            return;
        }
        if self.looking.swap(true, Ordering::Relaxed) {
            return;
        }
        let start = Instant::now();
        let came = loop {
            if fuse_dev::has_request(device.as_fd()) {
                break true;
            }
            if start.elapsed() >= LOOK {
                break false;
            }
        };
        self.looking.store(false, Ordering::Relaxed);
        self.misses.store(if came { 0 } else { misses.wrapping_add(1) }, Ordering::Relaxed);
    }
}

impl Drop for Next<'_> {
    fn drop(&mut self) {
        self.0.look();
    }
}

/// Whether an answer is followed by a look after so many misses.
const fn is_due(misses: u32) -> bool {
    misses < PATIENCE || misses.is_multiple_of(SELDOM)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn attention() -> (Attention, std::io::PipeWriter) {
        let (reader, writer) = std::io::pipe().unwrap();
        let attention = Attention {
            device: Some(reader.into()),
            looking: AtomicBool::new(false),
            misses: AtomicU32::new(0),
        };
        (attention, writer)
    }

    #[test]
    fn looking_becomes_seldom_when_nothing_comes() {
        let (attention, _writer) = attention();
        let start = Instant::now();
        let mut looks = 0;
        for _ in 0..10 * SELDOM {
            looks += u32::from(is_due(attention.misses.load(Ordering::Relaxed)));
            drop(attention.next());
        }
        assert!((PATIENCE + 9..PATIENCE + 12).contains(&looks), "{looks} looks");
        assert!(start.elapsed() >= LOOK * PATIENCE);
    }

    #[test]
    fn a_request_makes_looking_the_rule_again() {
        let (attention, mut writer) = attention();
        attention.misses.store(SELDOM, Ordering::Relaxed);
        writer.write_all(b"request").unwrap();
        drop(attention.next());
        assert_eq!(attention.misses.load(Ordering::Relaxed), 0);
        assert!(!attention.looking.load(Ordering::Relaxed));
    }

    #[test]
    fn one_looks_at_a_time() {
        let (attention, _writer) = attention();
        attention.looking.store(true, Ordering::Relaxed);
        drop(attention.next());
        assert_eq!(attention.misses.load(Ordering::Relaxed), 0, "it has not looked");
    }
}
