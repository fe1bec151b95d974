//! Waiting for descriptors.

use std::{os::fd::BorrowedFd, time::Duration};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::errno::Errno;

/// Waits until one of `descriptors` can be read or has hung up, and returns its index; `None` when `timeout` has
/// passed first.
///
/// # Errors
///
/// What poll(2) says; interruptions are waited over.
pub fn readable(descriptors: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Result<Option<usize>, Errno> {
    let timeout = timeout
        .map_or(PollTimeout::NONE, |timeout| PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX));
    let mut polled: Vec<_> = descriptors.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    loop {
        match nix::poll::poll(&mut polled, timeout) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => return Ok(polled.iter().position(|fd| fd.any().unwrap_or(false))),
        }
    }
}
