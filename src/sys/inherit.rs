//! What a program inherits from the process that becomes it: descriptors.
#![expect(unsafe_code, reason = "close_range(2) and adopting a descriptor by number have no safe form")]

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open},
    sys::stat::Mode,
    unistd,
};

/// Puts descriptors in the places of stdin, stdout and stderr; they stay open over exec(2).
///
/// # Errors
///
/// What dup2(2) says.
pub fn set_stdio(stdio: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    // One of them may lie in the place of another: all are copied out of the way first.
    let mut copies = Vec::with_capacity(3);
    for fd in stdio {
        copies.push(copy_above_stdio(fd)?);
    }
    if let [input, output, error] = copies.as_slice() {
        unistd::dup2_stdin(input)?;
        unistd::dup2_stdout(output)?;
        unistd::dup2_stderr(error)?;
    }
    Ok(())
}

/// Puts `/dev/null` in the places of stdin, stdout and stderr.
///
/// # Errors
///
/// What open(2) and dup2(2) say.
pub fn silence() -> io::Result<()> {
    let null = null()?;
    set_stdio([null.as_fd(), null.as_fd(), null.as_fd()])
}

/// Opens `/dev/null` for both directions.
///
/// # Errors
///
/// What open(2) says.
pub fn null() -> io::Result<OwnedFd> {
    Ok(open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::empty())?)
}

/// Copies a descriptor to a number above stdin, stdout and stderr, closed on exec(2).
///
/// # Errors
///
/// What fcntl(2) says.
pub fn copy_above_stdio(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

/// Leaves a descriptor open over exec(2); returns its number, by which the new program finds it.
///
/// # Errors
///
/// What fcntl(2) says.
pub fn keep_over_exec(fd: BorrowedFd<'_>) -> io::Result<RawFd> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(fd.as_raw_fd())
}

/// Takes over a descriptor that the program which started this one left open, by its number. Called once for each
/// number, before anything else was opened.
///
/// # Errors
///
/// `EBADF` where the number is no open descriptor, or one of stdin, stdout and stderr.
pub fn adopt_fd(number: RawFd) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: the number is only handed to F_GETFD here, which fails with EBADF where nothing is open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_GETFD)?;
    // SAFETY: the descriptor is open, as F_GETFD has shown, and was left for this program by the one that became it;
    // by this function's contract nobody in this process has taken it over before.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(owned)
}

/// Closes every descriptor except stdin, stdout, stderr and those given: for the child side of a fork that keeps
/// nothing else of its parent.
///
/// # Errors
///
/// What close_range(2) says.
pub fn close_others(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut numbers: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    numbers.sort_unstable();
    let mut from: u32 = 3;
    for number in numbers {
        if number > from {
            close_range(from, number - 1)?;
        }
        from = from.max(number.saturating_add(1));
    }
    close_range(from, u32::MAX)
}

/// Has every descriptor but stdin, stdout and stderr close at exec(2). Without the kernel's help (before Linux 5.11)
/// those that were opened without that stay open.
pub fn close_rest_on_exec() {
    const ON_EXEC: libc::c_uint = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: descriptors stay as they are for whoever owns them; only their flags change.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, ON_EXEC) };
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: closing a descriptor is memory-safe; that no owner of one of them uses it afterwards is what the
    // callers ensure: they run in a freshly forked child that never returns to the code that owns them.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_numbers_cannot_be_adopted() {
        assert!(adopt_fd(1).is_err());
        assert!(adopt_fd(1_000_000).is_err());
    }
}
