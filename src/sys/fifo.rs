//! Named pipes: announcements between processes that share nothing but a directory.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, fstat, mknodat, openat},
    io::Errno,
};

/// Most bytes that are written as one, whoever else writes (`PIPE_BUF`).
pub const WHOLE: usize = 4096;

/// Makes a named pipe for its owner alone.
///
/// # Errors
///
/// What mknod(2) says.
pub fn make(path: &std::path::Path) -> io::Result<()> {
    Ok(mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?)
}

/// Opens a named pipe of a directory for reading, without waiting. It is kept open for writing as well: that nobody
/// writes at the moment is not the end of it.
///
/// # Errors
///
/// What openat(2) says; `EINVAL` where it is no named pipe.
pub fn open_to_read(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    open(directory, name, OFlags::RDWR)
}

/// Opens a named pipe of a directory for writing, without waiting.
///
/// # Errors
///
/// `ENXIO` where nobody reads it, `EINVAL` where it is no named pipe, else what openat(2) says.
pub fn open_to_write(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    open(directory, name, OFlags::WRONLY)
}

fn open(directory: BorrowedFd<'_>, name: &str, how: OFlags) -> io::Result<OwnedFd> {
    let flags = how | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fifo = openat(directory, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&fifo)?.st_mode) != FileType::Fifo {
        return Err(Errno::INVAL.into());
    }
    Ok(fifo)
}

/// Writes bytes as one, or not at all.
///
/// # Errors
///
/// `EMSGSIZE` where they are more than [`WHOLE`], `EAGAIN` where the reader is behind, else what write(2) says.
pub fn write_whole(fifo: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() > WHOLE {
        return Err(Errno::MSGSIZE.into());
    }
    rustix::io::write(fifo, bytes)?;
    Ok(())
}

/// Reads what is there; `None` where nothing is.
///
/// # Errors
///
/// What read(2) says.
pub fn read(fifo: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match rustix::io::read(&fifo, &mut *buffer) {
            Ok(count) => return Ok(Some(count)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
