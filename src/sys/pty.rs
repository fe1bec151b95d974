//! Terminals: opening a pair, raw mode that is undone, size, who is in the foreground.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
};

use rustix::{
    process::{Pid, getpgrp, ioctl_tiocsctty},
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{self, OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp},
};

/// Both ends of a new terminal.
#[derive(Debug)]
pub struct Pair {
    /// The end of whoever shows the terminal.
    pub master: OwnedFd,
    /// The end of the programs.
    pub slave: OwnedFd,
}

impl Pair {
    /// Opens a new terminal of the `devpts` at `/dev/pts`. It becomes nobody's controlling terminal.
    ///
    /// # Errors
    ///
    /// What opening `/dev/ptmx` says.
    pub fn open() -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        Ok(Self { master, slave })
    }
}

/// Whether a descriptor is a terminal.
#[must_use]
pub fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    isatty(fd)
}

/// Makes `slave` the controlling terminal of the calling process, which leads a session without one.
///
/// # Errors
///
/// What `TIOCSCTTY` says.
pub fn take_control(slave: BorrowedFd<'_>) -> io::Result<()> {
    Ok(ioctl_tiocsctty(slave)?)
}

/// Puts a process group of our session into the foreground. The caller has `SIGTTOU` blocked.
///
/// # Errors
///
/// What tcsetpgrp(3) says.
pub fn set_foreground(slave: BorrowedFd<'_>, group: i32) -> io::Result<()> {
    let group = Pid::from_raw(group).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(tcsetpgrp(slave, group)?)
}

/// Whether the calling process is in the foreground of this terminal. One that controls no session of ours has no
/// foreground that could exclude us.
#[must_use]
pub fn in_foreground(terminal: BorrowedFd<'_>) -> bool {
    tcgetpgrp(terminal).map_or(true, |group| group == getpgrp())
}

/// Gives one terminal the size of another.
///
/// # Errors
///
/// What `TIOCGWINSZ` and `TIOCSWINSZ` say.
pub fn copy_size(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    Ok(termios::tcsetwinsize(to, termios::tcgetwinsize(from)?)?)
}

/// The size of a terminal in rows and columns.
///
/// # Errors
///
/// What `TIOCGWINSZ` says.
pub fn size(terminal: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let size = termios::tcgetwinsize(terminal)?;
    Ok((size.ws_row, size.ws_col))
}

/// Sets the size of a terminal in rows and columns; the programs in its foreground are told.
///
/// # Errors
///
/// What `TIOCSWINSZ` says.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(termios::tcsetwinsize(terminal, size)?)
}

/// Gives one terminal the modes of another: erase character, UTF-8 input and the like.
///
/// # Errors
///
/// What tcgetattr(3) and tcsetattr(3) say.
pub fn copy_modes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    Ok(tcsetattr(to, OptionalActions::Now, &tcgetattr(from)?)?)
}

/// Leaves what programs write to a terminal as it is, line ends included.
///
/// # Errors
///
/// What tcgetattr(3) and tcsetattr(3) say.
pub fn pass_output(terminal: BorrowedFd<'_>) -> io::Result<()> {
    let mut modes = tcgetattr(terminal)?;
    modes.output_modes.remove(termios::OutputModes::OPOST);
    Ok(tcsetattr(terminal, OptionalActions::Now, &modes)?)
}

/// A terminal in raw mode; dropping this brings its former modes back.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    former: Termios,
}

impl RawMode {
    /// Switches to raw mode: every byte typed is passed on, Ctrl-C and Ctrl-Z included.
    ///
    /// # Errors
    ///
    /// What tcgetattr(3) and tcsetattr(3) say.
    pub fn enter(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        let former = tcgetattr(terminal)?;
        let mut raw = former.clone();
        raw.make_raw();
        let terminal = terminal.try_clone_to_owned()?;
        tcsetattr(&terminal, OptionalActions::Drain, &raw)?;
        Ok(Self { terminal, former })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no modes.
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.former);
    }
}

/// Opens the terminal behind a descriptor once more, without blocking: the flag of the caller's own descriptor,
/// which other processes share, stays as it is.
///
/// # Errors
///
/// What open(2) says, for instance where the terminal belongs to another user.
pub fn reopen_without_blocking(terminal: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", terminal.as_fd().as_raw_fd());
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    Ok(file.into())
}

/// Makes reading and writing return at once where they would wait. For a descriptor that nobody else uses.
///
/// # Errors
///
/// What fcntl(2) says.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}

/// What a read or a write has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing, for now.
    Nothing,
    /// The terminal is gone.
    HungUp,
}

/// Reads what is there.
#[must_use]
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Moved {
    moved(rustix::io::read(fd, buffer))
}

/// Writes what there is room for.
#[must_use]
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Moved {
    moved(rustix::io::write(fd, bytes))
}

fn moved(result: rustix::io::Result<usize>) -> Moved {
    match result {
        Ok(0) => Moved::HungUp,
        Ok(count) => Moved::Bytes(count),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Moved::Nothing,
        Err(_) => Moved::HungUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_mode_is_undone() {
        let pair = Pair::open().unwrap();
        let before = tcgetattr(&pair.slave).unwrap().local_modes;
        {
            let _raw = RawMode::enter(pair.slave.as_fd()).unwrap();
            assert_ne!(tcgetattr(&pair.slave).unwrap().local_modes, before);
        }
        assert_eq!(tcgetattr(&pair.slave).unwrap().local_modes, before);
    }

    #[test]
    fn size_is_copied() {
        let (one, two) = (Pair::open().unwrap(), Pair::open().unwrap());
        set_size(one.master.as_fd(), 33, 111).unwrap();
        copy_size(one.slave.as_fd(), two.master.as_fd()).unwrap();
        assert_eq!(size(two.slave.as_fd()).unwrap(), (33, 111));
    }

    #[test]
    fn a_file_is_no_terminal() {
        assert!(!is_terminal(File::open("/dev/null").unwrap().as_fd()));
        assert!(is_terminal(Pair::open().unwrap().slave.as_fd()));
    }
}
