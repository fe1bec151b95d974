//! Processes: forking, watching by pidfd, and becoming another program.
//!
//! A pidfd names one process for ever; a number may be another process by the time it is used. So whoever watches or
//! signals a process holds its [`Pidfd`].
#![expect(
    unsafe_code,
    reason = "fork(2), close_range(2) and adopting a descriptor by number have no safe form"
)]

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::Command,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open},
    sys::{
        prctl,
        stat::Mode,
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

/// Makes a copy of the calling process, which must have one thread only.
///
/// # Errors
///
/// `EBUSY` where there is more than one thread, else what fork(2) says.
pub fn fork() -> io::Result<Forked> {
    if fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        return Err(Errno::EBUSY.into());
    }
    // SAFETY: fork(2) asks that the child of a process with several threads calls only async-signal-safe functions;
    // there is one thread, as was checked above, so no lock can be held by a thread that the child lacks.
    match unsafe { unistd::fork() }? {
        ForkResult::Child => Ok(Forked::Child),
        ForkResult::Parent { child } => {
            Ok(Forked::Parent(Child { pid: child, pidfd: Pidfd::open(child.as_raw())? }))
        }
    }
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
    use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, signal, sigprocmask};
    // SAFETY: SIG_DFL is no handler, so that no code of ours can run in a signal's context.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

/// Number of the calling process.
#[must_use]
pub fn id() -> i32 {
    unistd::getpid().as_raw()
}

/// Number of the parent of the calling process; 0 where it lives in an outer pid namespace.
#[must_use]
pub fn parent_id() -> i32 {
    unistd::getppid().as_raw()
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

/// Lets this process open as many files as it may ask for.
///
/// # Errors
///
/// What setrlimit(2) says.
pub fn raise_file_limit() -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Changes the working directory of the process.
///
/// # Errors
///
/// What chdir(2) says.
pub fn change_dir(path: &Path) -> io::Result<()> {
    Ok(unistd::chdir(path)?)
}

/// Opens `/dev/null` for both directions.
///
/// # Errors
///
/// What open(2) says.
pub fn null() -> io::Result<OwnedFd> {
    Ok(open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::empty())?)
}

/// Makes a file in memory that holds `bytes`, to be read from its start.
///
/// # Errors
///
/// What memfd_create(2) and write(2) say.
pub fn file_in_memory(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::{Seek as _, Write as _};
    let fd = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = fs::File::from(fd);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

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

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: closing a descriptor is memory-safe; that no owner of one of them uses it afterwards is what the
    // callers ensure: they run in a freshly forked child that never returns to the code that owns them.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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

    #[test]
    fn closed_numbers_cannot_be_adopted() {
        assert!(adopt_fd(1).is_err());
        assert!(adopt_fd(1_000_000).is_err());
    }
}
