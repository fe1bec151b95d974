//! Signals as descriptors: blocked for the whole process and read in its poll loop, so that no code runs at a moment
//! that it did not choose.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use nix::sys::{
    signal::{SigSet, SigmaskHow, kill, sigprocmask},
    signalfd::{SfdFlags, SignalFd},
};
use nix::unistd::Pid;

pub use nix::sys::signal::Signal;

/// The signals of one set, blocked while this lives and read from here.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    previous: SigSet,
}

impl Signals {
    /// Blocks `signals` and opens a descriptor that is readable when one of them arrives.
    ///
    /// # Errors
    ///
    /// What sigprocmask(2) and signalfd(2) say.
    pub fn block(signals: &[Signal]) -> io::Result<Self> {
        let set: SigSet = signals.iter().copied().collect();
        let mut previous = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut previous))?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { fd, previous })
    }

    /// The next signal that has arrived, if any.
    ///
    /// # Errors
    ///
    /// What read(2) says.
    pub fn next(&self) -> io::Result<Option<Signal>> {
        let info = self.fd.read_signal()?;
        Ok(info
            .and_then(|info| i32::try_from(info.ssi_signo).ok())
            .and_then(|number| Signal::try_from(number).ok()))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Cannot fail with a mask that was in force before.
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.previous), None);
    }
}

/// Number of a signal, as in exit statuses and messages.
#[must_use]
pub fn number(signal: Signal) -> u8 {
    u8::try_from(signal as i32).unwrap_or(0)
}

/// The signal with this number.
#[must_use]
pub fn from_number(number: u8) -> Option<Signal> {
    Signal::try_from(i32::from(number)).ok()
}

/// How a process stops itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// As Ctrl-Z does; the kernel ignores it where no shell is there that could continue us.
    FromTerminal,
    /// Unconditionally.
    Always,
}

/// Stops the calling process, which has `SIGTSTP` blocked, until somebody continues it.
///
/// # Errors
///
/// What kill(2) and sigprocmask(2) say.
pub fn stop_self(how: Stop) -> io::Result<()> {
    match how {
        Stop::Always => kill(Pid::this(), Signal::SIGSTOP)?,
        Stop::FromTerminal => {
            let set = SigSet::from(Signal::SIGTSTP);
            kill(Pid::this(), Signal::SIGTSTP)?;
            // Here it takes effect: the call returns when we have been continued.
            sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&set), None)?;
            sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_both_ways() {
        for signal in Signal::iterator() {
            assert_eq!(from_number(number(signal)), Some(signal));
        }
        assert_eq!(from_number(0), None);
        assert_eq!(from_number(200), None);
    }
}
