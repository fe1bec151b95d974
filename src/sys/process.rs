//! Processes: forking, watching by pidfd, becoming another program or starting one.
//!
//! A pidfd names one process for ever; a number may be another process by the time it is used. So whoever watches or
//! signals a process holds its [`Pidfd`].
#![expect(
    unsafe_code,
    reason = "fork(2), signal(2), _exit(2) and what runs between fork and exec have no safe form"
)]

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::Command,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::SigSet,
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::{self, ForkResult, Pid},
};
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use super::signal::Signal;

/// A process, named for ever.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Opens the process with this number. The caller knows that the number is still that process's: it is its
    /// parent, or the process itself.
    ///
    /// # Errors
    ///
    /// What pidfd_open(2) says.
    pub fn open(pid: i32) -> io::Result<Self> {
        let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self(pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Opens a program that was started and has not been waited for.
    ///
    /// # Errors
    ///
    /// What pidfd_open(2) says.
    pub fn of_program(program: &std::process::Child) -> io::Result<Self> {
        Self::open(i32::try_from(program.id()).map_err(io::Error::other)?)
    }

    /// Opens the calling process.
    ///
    /// # Errors
    ///
    /// What pidfd_open(2) says.
    pub fn own() -> io::Result<Self> {
        Self::open(id())
    }

    /// Takes over a descriptor that another process sent.
    #[must_use]
    pub const fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The descriptor, to be given to another process.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sends a signal; a process that is gone is no error.
    ///
    /// # Errors
    ///
    /// What pidfd_send_signal(2) says.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let signal =
            rustix::process::Signal::from_named_raw(signal as i32).ok_or(io::ErrorKind::InvalidInput)?;
        match pidfd_send_signal(&self.0, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Pidfd {
    /// Readable as soon as the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It called exit(2) with this status.
    Exited(u8),
    /// A signal killed it.
    Killed(u8),
}

impl Ended {
    /// The exit status that a shell shows: 128 + n for a signal.
    #[must_use]
    pub const fn status(self) -> u8 {
        match self {
            Self::Exited(status) => status,
            Self::Killed(signal) => 128_u8.wrapping_add(signal),
        }
    }
}

/// What a child did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is gone and has been reaped.
    Ended(Ended),
    /// A signal stopped it.
    Stopped,
    /// It goes on after a stop.
    Continued,
}

/// A child process of ours, not reaped yet.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: Pidfd,
}

impl Child {
    /// Its number.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Its name for ever.
    #[must_use]
    pub const fn pidfd(&self) -> &Pidfd {
        &self.pidfd
    }

    /// Waits until it has ended, and reaps it.
    ///
    /// # Errors
    ///
    /// What waitid(2) says.
    pub fn wait(self) -> io::Result<Ended> {
        loop {
            match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED) {
                Ok(status) => {
                    if let Some((_, Change::Ended(ended))) = change_of(status) {
                        return Ok(ended);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Which side of a fork(2) one is on.
#[derive(Debug)]
pub enum Forked {
    /// The process that called; the new one is its child.
    Parent(Child),
    /// The new process.
    Child,
}

/// Makes a copy of the calling process, which must have one thread.
///
/// # Errors
///
/// `EBUSY` where there is more than one thread (locks that another one holds would stay locked for ever in the copy),
/// else what fork(2) says.
pub fn fork() -> io::Result<Forked> {
    if !is_alone()? {
        return Err(Errno::EBUSY.into());
    }
    // SAFETY: fork(2) leaves the child with the calling thread only, so that it must not wait for what another thread
    // holds; there was no other one a line above, and only this thread could have made one since.
    match unsafe { unistd::fork() }? {
        ForkResult::Child => Ok(Forked::Child),
        ForkResult::Parent { child } => {
            Ok(Forked::Parent(Child { pid: child, pidfd: Pidfd::open(child.as_raw())? }))
        }
    }
}

/// Whether the process has one thread.
fn is_alone() -> io::Result<bool> {
    // Memory cannot be parted from another thread; for a thread that is alone this does nothing (unshare(2)).
    match unshare(CloneFlags::CLONE_VM) {
        Ok(()) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        // A sandbox may forbid the call altogether.
        Err(_) => Ok(fs::read_dir("/proc/self/task")?.count() == 1),
    }
}

/// Which of the two processes behind [`detach`] one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The process that called.
    Original,
    /// The new process.
    Copy,
}

/// Makes a copy of the calling process, which must have one thread, that lives on by itself: nobody's child, in a
/// session of its own. The original has nothing to wait for.
///
/// # Errors
///
/// As [`fork`].
pub fn detach() -> io::Result<Side> {
    match fork()? {
        Forked::Parent(between) => match between.wait()? {
            Ended::Exited(0) => Ok(Side::Original),
            Ended::Exited(errno) => Err(io::Error::from_raw_os_error(errno.into())),
            Ended::Killed(_) => Err(Errno::EINTR.into()),
        },
        Forked::Child => {
            // The process in between leads the session and ends: who does not lead one never gets a terminal.
            new_session();
            match fork() {
                Ok(Forked::Child) => Ok(Side::Copy),
                Ok(Forked::Parent(_)) => end(0),
                Err(error) => {
                    end(error.raw_os_error().and_then(|errno| u8::try_from(errno).ok()).unwrap_or(u8::MAX))
                }
            }
        }
    }
}

/// As [`detach`] for a caller that ends soon, which leaves the copy to be nobody's child: half the work. Until then the
/// copy is a child of the caller, and it leads its session: it must not open terminals.
///
/// # Errors
///
/// As [`fork`].
pub fn leave_behind() -> io::Result<Side> {
    match fork()? {
        Forked::Parent(_) => Ok(Side::Original),
        Forked::Child => {
            new_session();
            Ok(Side::Copy)
        }
    }
}

/// Starts `command` with the signal mask `mask`; it gets SIGKILL when the calling thread ends.
///
/// # Errors
///
/// What fork(2) and execve(2) say.
pub fn spawn_bound(command: &mut Command, mask: &SigSet) -> io::Result<std::process::Child> {
    let (mask, parent) = (*mask, id());
    let prepare = move || {
        die_with_parent(parent)?;
        mask.thread_set_mask()?;
        Ok(())
    };
    // SAFETY: pre_exec asks that its closure calls only async-signal-safe functions and touches no memory that another
    // thread may have left half-changed. prctl, getppid and pthread_sigmask are such; the captured values are copies;
    // an errno as an io::Error does not allocate.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}

/// Reports what happened to one of our children, if anything did, without waiting. `Err(ECHILD)`: there is none.
///
/// # Errors
///
/// What waitpid(2) says.
pub fn next_change() -> io::Result<Option<(i32, Change)>> {
    let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED | WaitPidFlag::WCONTINUED;
    let status = waitpid(None, Some(flags))?;
    Ok(change_of(status).map(|(pid, change)| (pid.as_raw(), change)))
}

fn change_of(status: WaitStatus) -> Option<(Pid, Change)> {
    let low = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
    match status {
        WaitStatus::Exited(pid, status) => Some((pid, Change::Ended(Ended::Exited(low(status))))),
        WaitStatus::Signaled(pid, signal, _) => Some((pid, Change::Ended(Ended::Killed(low(signal as i32))))),
        WaitStatus::Stopped(pid, _) => Some((pid, Change::Stopped)),
        WaitStatus::Continued(pid) => Some((pid, Change::Continued)),
        _ => None,
    }
}

/// Becomes another program with exactly these arguments (the first is its name for itself) and this environment.
/// Signals that the engine has blocked are open again and SIGPIPE kills again. Returns only what went wrong.
///
/// `program` without a slash is searched in the `PATH` of `environment`.
#[must_use]
pub fn exec(
    program: &OsStr,
    arguments: &[OsString],
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> io::Error {
    let mut command = Command::new(program);
    if let Some((name, rest)) = arguments.split_first() {
        command.arg0(name).args(rest);
    }
    if let Err(error) = open_signals() {
        return error;
    }
    command.env_clear().envs(environment).exec()
}

/// Opens all signals, and undoes what Rust's start-up has done to SIGPIPE.
fn open_signals() -> io::Result<()> {
    use nix::sys::signal::{SigHandler, SigmaskHow, signal, sigprocmask};
    // SAFETY: SIG_DFL is no handler, so that no code of ours can run in a signal's context.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

/// Number of the calling process.
#[must_use]
pub fn id() -> i32 {
    unistd::getpid().as_raw()
}

/// Ends the calling process at once, without running anybody's clean-up: for the child side of a fork.
pub fn end(status: u8) -> ! {
    // SAFETY: _exit(2) has no conditions.
    unsafe { libc::_exit(i32::from(status)) }
}

/// Asks the kernel to kill this process when the thread that made it ends.
///
/// # Errors
///
/// `ESRCH` where the parent is gone already, else what prctl(2) says.
pub fn die_with_parent(parent: i32) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if unistd::getppid().as_raw() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
}

/// Hides memory and descriptors of this process from other processes of the same user.
///
/// # Errors
///
/// What prctl(2) says.
pub fn hide_from_peers() -> io::Result<()> {
    Ok(prctl::set_dumpable(false)?)
}

/// Starts a session of its own: no terminal, no process group of anybody else. One that leads a session already
/// stays as it is.
pub fn new_session() {
    // The only failure is EPERM for a process that leads its group already: nothing to do then.
    let _ = unistd::setsid();
}

/// Makes `pid` (0: the calling process) the leader of a process group of its own.
///
/// # Errors
///
/// What setpgid(2) says.
pub fn new_group(pid: i32) -> io::Result<()> {
    Ok(unistd::setpgid(Pid::from_raw(pid), Pid::from_raw(0))?)
}

/// Sends a signal to a whole process group; one that is gone is no error.
///
/// # Errors
///
/// What killpg(2) says.
pub fn signal_group(group: i32, signal: Signal) -> io::Result<()> {
    match nix::sys::signal::killpg(Pid::from_raw(group), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sends a signal to every process that can be reached, except to itself: for process 1 of a pid namespace, where
/// that is everybody else in it.
///
/// # Errors
///
/// `EPERM` where the caller is not process 1.
pub fn signal_everybody(signal: Signal) -> io::Result<()> {
    if id() != 1 {
        return Err(Errno::EPERM.into());
    }
    match nix::sys::signal::kill(Pid::from_raw(-1), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Changes the working directory of the process.
///
/// # Errors
///
/// What chdir(2) says.
pub fn change_dir(path: &Path) -> io::Result<()> {
    Ok(unistd::chdir(path)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _, pipe};

    use super::*;

    #[test]
    fn a_killed_process_counts_from_128() {
        assert_eq!(Ended::Exited(3).status(), 3);
        assert_eq!(Ended::Killed(9).status(), 137);
    }

    #[test]
    fn fork_is_refused_where_there_are_threads() {
        let (mut reader, mut writer) = pipe().unwrap();
        let waiter = std::thread::spawn(move || reader.read(&mut [0]).unwrap());
        assert_eq!(fork().unwrap_err().raw_os_error(), Some(libc::EBUSY));
        writer.write_all(b"x").unwrap();
        waiter.join().unwrap();
    }

    #[test]
    fn a_pidfd_signals_its_process() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = Pidfd::open(i32::try_from(child.id()).unwrap()).unwrap();
        pidfd.signal(Signal::SIGKILL).unwrap();
        assert!(!child.wait().unwrap().success());
        pidfd.signal(Signal::SIGKILL).unwrap();
    }
}
