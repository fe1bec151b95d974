//! Waiting for several descriptors at once.

use std::{
    io,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

/// What to wait for on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read, or the end.
    Read,
    /// Room to write.
    Write,
    /// Both.
    ReadWrite,
    /// Only that the other side is gone.
    HangUp,
}

/// What a descriptor is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Reading will not block; it may report the end or an error.
    pub read: bool,
    /// Writing will not block; it may report an error.
    pub write: bool,
    /// The other side is gone, or the descriptor is broken.
    pub hung_up: bool,
}

/// Waits until a descriptor is ready, or until `deadline`; then none is. The answers stand in the order of `fds`.
///
/// # Errors
///
/// What poll(2) says; an interruption is no error.
pub fn wait(fds: &[(BorrowedFd<'_>, Interest)], deadline: Option<Instant>) -> io::Result<Vec<Ready>> {
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|(fd, interest)| PollFd::from_borrowed_fd(*fd, flags_of(*interest))).collect();
    loop {
        let timeout = deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(polled.iter().map(|fd| ready_of(fd.revents())).collect())
}

/// Waits until one of `fds` can be read or has hung up, and returns its place among them; `None` where `deadline` has
/// passed first.
///
/// # Errors
///
/// As [`wait`].
pub fn first_readable(fds: &[BorrowedFd<'_>], deadline: Option<Instant>) -> io::Result<Option<usize>> {
    let waited: Vec<_> = fds.iter().map(|fd| (*fd, Interest::Read)).collect();
    Ok(wait(&waited, deadline)?.iter().position(|ready| ready.read))
}

fn flags_of(interest: Interest) -> PollFlags {
    match interest {
        Interest::Read => PollFlags::IN,
        Interest::Write => PollFlags::OUT,
        Interest::ReadWrite => PollFlags::IN | PollFlags::OUT,
        Interest::HangUp => PollFlags::empty(),
    }
}

fn ready_of(flags: PollFlags) -> Ready {
    let hung_up = flags.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
    Ready {
        read: hung_up || flags.contains(PollFlags::IN),
        write: flags.intersects(PollFlags::OUT | PollFlags::ERR | PollFlags::NVAL),
        hung_up,
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).unwrap_or(Timespec { tv_sec: i64::from(i32::MAX), tv_nsec: 0 })
}
