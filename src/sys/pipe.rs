//! Pipes.

use std::os::fd::OwnedFd;

use super::errno::Errno;

/// A pipe, closed on exec: the end to read from and the end to write to.
///
/// # Errors
///
/// What pipe2(2) says.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
}
