//! Making processes: fork(2) for roles of our own, and programs that die with their parent.
#![expect(unsafe_code, reason = "fork, _exit and what runs between fork and exec have no safe wrapper")]

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Child, Command},
};

use nix::{
    sys::{
        signal::{SigSet, Signal},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid},
};

use super::errno::Errno;

/// Which of the two processes the caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that was there before, with the id of its child.
    Parent(u32),
    /// The new one.
    Child,
}

/// Makes a copy of the calling process, which must have one thread.
///
/// # Errors
///
/// `EBUSY` where there is more than one thread (locks that another one holds would stay locked for ever in the copy),
/// else what fork(2) says.
pub fn fork() -> Result<Side, Errno> {
    let threads = fs::read_dir("/proc/self/task").map_err(|error| errno_of(&error))?.count();
    if threads != 1 {
        return Err(Errno::EBUSY);
    }
    // SAFETY: fork(2) leaves the child with the calling thread only, so that it must not wait for what another thread
    // holds; there was no other one a line above, and only this thread could have made one since.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(child.as_raw().unsigned_abs())),
        ForkResult::Child => Ok(Side::Child),
    }
}

/// Makes a copy of the calling process that lives on by itself: in a session of its own that it does not lead, nobody's
/// child, in `/`, its standard descriptors on `/dev/null`. The parent has nothing to wait for.
///
/// # Errors
///
/// As [`fork`].
pub fn detach() -> Result<Side, Errno> {
    match fork()? {
        Side::Parent(between) => {
            let pid = i32::try_from(between).map_err(|_| Errno::ESRCH)?;
            waitpid(Pid::from_raw(pid), None)?;
            Ok(Side::Parent(between))
        }
        Side::Child => {
            // A process in between leads the session and ends: who does not lead one never gets a terminal.
            let outcome = nix::unistd::setsid().and_then(|_| fork());
            match outcome {
                Ok(Side::Child) => {
                    become_quiet()?;
                    Ok(Side::Child)
                }
                Ok(Side::Parent(_)) => leave(0),
                Err(_) => leave(1),
            }
        }
    }
}

/// Ends a process that [`fork`] made, at once: nothing is flushed or run that its parent will flush or run.
pub fn leave(status: i32) -> ! {
    // SAFETY: _exit(2) has no condition; it does not return and runs no destructor.
    unsafe { libc::_exit(status) }
}

/// Makes the calling process, which must not lead a process group, the leader of a session of its own: signals of the
/// terminal no longer reach it.
///
/// # Errors
///
/// What setsid(2) says.
pub fn lead_session() -> Result<(), Errno> {
    nix::unistd::setsid().map(|_| ())
}

/// The effective user and group id.
#[must_use]
pub fn own_ids() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

/// Sends a signal to a child that has not been waited for.
///
/// # Errors
///
/// What kill(2) says.
pub fn send(child: u32, signal: Signal) -> Result<(), Errno> {
    let pid = i32::try_from(child).map_err(|_| Errno::ESRCH)?;
    nix::sys::signal::kill(Pid::from_raw(pid), signal)
}

/// Starts `command` with the signal mask `mask`; it gets SIGKILL when the calling thread ends.
///
/// # Errors
///
/// What fork(2) and execve(2) say.
pub fn spawn_bound(command: &mut Command, mask: &SigSet) -> io::Result<Child> {
    let (mask, parent) = (*mask, Pid::this());
    let prepare = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if Pid::parent() != parent {
            // The parent ended before prctl(2): its death will not be told any more.
            return Err(Errno::ESRCH.into());
        }
        mask.thread_set_mask()?;
        Ok(())
    };
    // SAFETY: pre_exec asks that its closure calls only async-signal-safe functions and touches no memory that another
    // thread may have left half-changed. prctl, getppid and pthread_sigmask are such; the captured values are copies;
    // an errno as an io::Error does not allocate.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}

/// A descriptor that becomes readable when the process ends; it stands for this very process also when its id is
/// used again.
///
/// # Errors
///
/// What pidfd_open(2) says: `ESRCH` where there is none.
pub fn watch(pid: u32) -> Result<OwnedFd, Errno> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or(Errno::ESRCH)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        .map_err(|errno| Errno::from_raw(errno.raw_os_error()))
}

fn become_quiet() -> Result<(), Errno> {
    nix::unistd::chdir("/")?;
    let null =
        fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(|error| errno_of(&error))?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
