//! Signals as messages on a descriptor.

use std::os::fd::{AsFd, BorrowedFd};

pub use nix::sys::signal::Signal;
use nix::sys::{
    signal::{SigSet, SigmaskHow},
    signalfd::{SfdFlags, SignalFd},
};

use super::errno::Errno;

/// A set of signals that no longer interrupt but wait to be read. Taken before the first thread is started it holds
/// for all of them; dropped, the thread's mask is as before.
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
    /// Takes `signals` over.
    ///
    /// # Errors
    ///
    /// What sigprocmask(2) or signalfd(2) say.
    pub fn take(signals: &[Signal]) -> Result<Self, Errno> {
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
    pub fn next(&self) -> Result<Option<Received>, Errno> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_waits_to_be_read() {
        let signals = Signals::take(&[Signal::SIGUSR2]).expect("signalfd");
        assert_eq!(signals.next(), Ok(None));
        nix::sys::signal::raise(Signal::SIGUSR2).expect("raise");
        assert_eq!(signals.next(), Ok(Some(Received { signal: Signal::SIGUSR2, by_terminal: false })));
    }
}
