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

use super::errno::Errno;

/// The signals of one set: they no longer interrupt but wait to be read. Blocked before the first thread is started they
/// are so for all threads; dropped, the thread's mask is as before.
#[derive(Debug)]
pub struct Signals {
    queue: SignalFd,
    before: SigSet,
}

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Which one.
    pub signal: Signal,
    /// Whether the terminal sent it: then the whole foreground group has got it too.
    pub by_terminal: bool,
}

impl Signals {
    /// Blocks `signals` and opens a descriptor that is readable when one of them arrives.
    ///
    /// # Errors
    ///
    /// What sigprocmask(2) and signalfd(2) say.
    pub fn block(signals: &[Signal]) -> io::Result<Self> {
        let set: SigSet = signals.iter().copied().collect();
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let queue = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { queue, before })
    }

    /// The next signal that has come, if there is one.
    ///
    /// # Errors
    ///
    /// What read(2) says.
    pub fn next(&self) -> io::Result<Option<Received>> {
        let Some(info) = self.queue.read_signal()? else { return Ok(None) };
        let signal = i32::try_from(info.ssi_signo).map_err(|_| Errno::EINVAL).and_then(Signal::try_from)?;
        Ok(Some(Received { signal, by_terminal: info.ssi_code == libc::SI_KERNEL }))
    }

    /// The mask as it was, for programs that are started.
    #[must_use]
    pub const fn before(&self) -> &SigSet {
        &self.before
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Restoring a mask that sigprocmask(2) itself gave cannot fail.
        let _ = self.before.thread_set_mask();
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

/// The signal with this number or name, with or without `SIG`, in any case.
#[must_use]
pub fn by_name(text: &str) -> Option<Signal> {
    if let Ok(number) = text.parse() {
        return from_number(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    format!("SIG{name}").parse().ok()
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
        for text in ["TERM", "sigterm", "15"] {
            assert_eq!(by_name(text), Some(Signal::SIGTERM), "{text}");
        }
        assert_eq!(by_name("x"), None);
    }

    #[test]
    fn a_signal_waits_to_be_read() {
        let signals = Signals::block(&[Signal::SIGUSR2]).unwrap();
        assert_eq!(signals.next().unwrap(), None);
        nix::sys::signal::raise(Signal::SIGUSR2).unwrap();
        let received = Received { signal: Signal::SIGUSR2, by_terminal: false };
        assert_eq!(signals.next().unwrap(), Some(received));
    }
}
