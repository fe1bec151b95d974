//! `fim mount`: one process that opens a stack, mounts it and serves it until it is unmounted.
//!
//! ```text
//! foreground      fim ── open, mount, serve ── ready ──────────── signal or umount ── end
//! background      fim ── detach ─── wait for the report ── end
//!                          └─────── open, mount, serve ── report ── signal or umount ── end
//! with a command  fim ── private namespace ── fork ── wait for the report ── command ── its status
//!                                              └───── open, mount, serve ── report ── lease closed ── end
//! ```
//!
//! Processes part before the first thread starts. A signal unmounts, lazily where somebody still uses the mount: then
//! the server goes on for them; a second signal ends it at once. The lease is a pipe that the front holds: when the
//! front ends, in whatever way, the server of a command unmounts.

mod error;

use std::{
    ffi::{OsStr, OsString},
    io::{self, PipeReader, PipeWriter, Read as _, Write as _, pipe},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use error::told;
use serde::{Deserialize, Serialize};

use super::{
    profile::{Prefetcher, Recording},
    stack::{self, MountStack, StackPlan},
    stats,
};
use crate::{
    fuse::{self, Serving},
    layer::UpperError,
    sync::{Arc, thread},
    sys::{
        errno::Errno,
        fuse_dev, fusermount, inherit,
        mount::{self as sys_mount, Access, FuseMount, Unmount, Visitors},
        namespace,
        process::{self, Ended, Forked, Pidfd, Side},
        ready,
        signal::{Received, Signal, Signals},
        users::effective_ids,
    },
};

pub use crate::fuse::{Lists, Opens, Options as SessionOptions, WriteCache};
pub use error::Error;

/// Signals that unmount.
const ENDING: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Signals that a command's front gets in its stead.
const PASSED_ON: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// How long a command's front waits for a server whose mount was still in use.
const LEFTOVERS: Duration = Duration::from_secs(1);

/// How long a new mount waits for the server of the one before it.
const PREDECESSOR: Duration = Duration::from_secs(1);

/// Longest report of a server in bytes; a thousand layers with long paths fit.
const MAX_REPORT: u64 = 8 << 20;

/// A mount to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPlan {
    /// The directory to mount on, absolute.
    pub target: PathBuf,
    /// The source name that the table of mounts shows.
    pub source: OsString,
    /// What is mounted; its paths are absolute.
    pub stack: StackPlan,
    /// How it is mounted.
    pub way: Way,
    /// Who may enter it.
    pub visitors: Visitors,
    /// Whether device nodes can be opened.
    pub devices: bool,
    /// Whether suid and sgid bits have their effect.
    pub set_id: bool,
    /// How it is served.
    pub session: SessionOptions,
    /// How long it lives.
    pub life: Life,
}

/// How to mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By mount(2), in the caller's namespaces or in private ones.
    Direct,
    /// Through fusermount3.
    Helper,
}

/// How long a mount lives, and who waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// Until it is unmounted; the caller waits.
    Foreground,
    /// Until it is unmounted; the caller goes on when it answers.
    Background,
    /// As long as this command (program and arguments), in a private namespace that only the command sees.
    Command(Vec<OsString>),
}

impl Way {
    /// How a process with this user id mounts where everybody sees it.
    #[must_use]
    pub const fn of_user(uid: u32) -> Self {
        if uid == 0 { Self::Direct } else { Self::Helper }
    }
}

/// What was mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The directory it is mounted on.
    pub target: String,
    /// The source name that the table of mounts shows.
    pub source: String,
    /// The process that serves it.
    pub pid: u32,
    /// Whether nothing can be changed through it.
    pub read_only: bool,
    /// The layers, lowest first.
    pub layers: Vec<String>,
    /// The upper directory.
    pub upper: Option<String>,
}

/// Carries out a plan; `ready` is called when the mount answers, in the process that the user waits for.
///
/// Returns the exit status: the command's, else 0 after an orderly end.
///
/// # Errors
///
/// [`Error`] names the step that failed; nothing stays mounted.
pub fn run(plan: &MountPlan, ready: impl FnOnce(&Report)) -> Result<u8, Error> {
    match &plan.life {
        Life::Foreground => {
            let signals = take(&ENDING)?;
            let mut mounted = start(plan)?;
            ready(&plan.report());
            mounted.prefetch();
            mounted.attend(plan, &signals, None)?;
            Ok(0)
        }
        Life::Background => in_background(plan, ready),
        Life::Command(command) => with_command(plan, command, ready),
    }
}

impl MountPlan {
    fn report(&self) -> Report {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Report {
            target: text(&self.target),
            source: self.source.to_string_lossy().into_owned(),
            pid: std::process::id(),
            read_only: self.stack.upper.is_none(),
            layers: self.stack.layers.iter().map(|layer| text(layer.path())).collect(),
            upper: self.stack.upper.as_ref().map(|upper| text(&upper.root)),
        }
    }

    fn mount(&self) -> FuseMount<'_> {
        FuseMount {
            target: &self.target,
            source: &self.source,
            access: if self.stack.upper.is_none() { Access::ReadOnly } else { Access::ReadWrite },
            visitors: self.visitors,
            devices: self.devices,
            set_id: self.set_id,
        }
    }
}

/// What a server tells its front through a pipe, once.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    Ready(Report),
    Failed(String),
}

fn in_background(plan: &MountPlan, ready: impl FnOnce(&Report)) -> Result<u8, Error> {
    let (hear, say) = pipe().map_err(failed("make a pipe"))?;
    match process::leave_behind().map_err(failed("start the server"))? {
        Side::Original => {
            drop(say);
            ready(&listen(plan, hear)?);
            Ok(0)
        }
        Side::Copy => {
            drop(hear);
            inherit::silence().map_err(failed("leave the terminal"))?;
            process::change_dir(Path::new("/")).map_err(failed("leave the working directory"))?;
            let signals = take(&ENDING)?;
            announce(plan, say)?.attend(plan, &signals, None)?;
            Ok(0)
        }
    }
}

fn with_command(plan: &MountPlan, command: &[OsString], ready: impl FnOnce(&Report)) -> Result<u8, Error> {
    // Resolved again after mounting: the working directory may be the mount point, or lie below it.
    let directory = std::env::current_dir().map_err(failed("find the working directory"))?;
    namespace::enter_private()?;
    let (hear, say) = pipe().map_err(failed("make a pipe"))?;
    let (lease, hold) = pipe().map_err(failed("make a pipe"))?;
    match process::fork().map_err(failed("start the server"))? {
        Forked::Parent(server) => {
            drop((say, lease));
            let signals = take(&PASSED_ON)?;
            let outcome = listen(plan, hear).and_then(|report| {
                ready(&report);
                follow(command, &directory, &signals)
            });
            let parted = part_from(plan, server);
            drop(hold);
            // Why it did not begin says more than how it ended.
            let status = outcome?;
            parted.map(|()| shell_status(status))
        }
        Forked::Child => {
            drop((hear, hold));
            process::new_session();
            let signals = take(&ENDING)?;
            let status = announce(plan, say).and_then(|mounted| mounted.attend(plan, &signals, Some(lease)));
            process::end(u8::from(status.is_err()))
        }
    }
}

/// A mount that answers.
struct Mounted {
    serving: Serving,
    prefetcher: Option<Prefetcher>,
    recording: Option<Arc<Recording>>,
}

/// Opens, mounts and serves; from then on the mount answers.
fn start(plan: &MountPlan) -> Result<Mounted, Error> {
    let stack = open_stack(plan)?;
    let figures = stats::figures(&stack);
    let MountStack { overlay, notices, prefetcher, recording, .. } = stack;
    let device = mount(plan)?;
    let serving =
        fuse::serve_with(overlay, device, plan.session, notices, Some(figures)).inspect_err(|_| {
            // The session's error is the one to tell; a mount without a server can go in any way.
            let _ = unmount(plan, Unmount::Lazy);
        })?;
    Ok(Mounted { serving, prefetcher, recording })
}

/// Opens the stack. The server of a mount that has just gone may hold the work directory for a moment longer.
fn open_stack(plan: &MountPlan) -> Result<MountStack, Error> {
    let deadline = Instant::now() + PREDECESSOR;
    loop {
        match MountStack::open(&plan.stack) {
            Err(stack::Error::Upper(UpperError::InUse { .. })) if Instant::now() < deadline => {
                thread::sleep(PREDECESSOR / 200);
            }
            opened => return Ok(opened?),
        }
    }
}

/// As [`start`], telling the front what came of it.
fn announce(plan: &MountPlan, mut say: PipeWriter) -> Result<Mounted, Error> {
    let mut started = start(plan);
    let word = match &started {
        Ok(_) => Word::Ready(plan.report()),
        Err(error) => Word::Failed(told(error)),
    };
    // A front that has gone is the lease's business, not ours.
    let _ = serde_json::to_vec(&word).map(|bytes| say.write_all(&bytes));
    // The front goes on when it hears no more.
    drop(say);
    if let Ok(mounted) = &mut started {
        mounted.prefetch();
    }
    started
}

fn listen(plan: &MountPlan, hear: PipeReader) -> Result<Report, Error> {
    let mut bytes = Vec::new();
    hear.take(MAX_REPORT).read_to_end(&mut bytes).map_err(failed("hear from the server"))?;
    match serde_json::from_slice(&bytes) {
        Ok(Word::Ready(report)) => Ok(report),
        Ok(Word::Failed(text)) => Err(Error::Server(text)),
        Err(_) => Err(Error::Died(plan.target.clone())),
    }
}

fn mount(plan: &MountPlan) -> Result<OwnedFd, Error> {
    let target = || plan.target.clone();
    if sys_mount::is_dead(&plan.target) {
        return Err(Error::Mount { target: target(), source: Errno::ENOTCONN });
    }
    match plan.way {
        Way::Direct => {
            let device = fuse_dev::open().map_err(Error::Device)?;
            let (uid, gid) = effective_ids();
            sys_mount::mount_fuse(&plan.mount(), device.as_fd(), uid, gid)
                .map_err(|source| Error::Mount { target: target(), source })?;
            Ok(device)
        }
        Way::Helper => {
            fusermount::mount(&plan.mount()).map_err(|source| Error::Helper { target: target(), source })
        }
    }
}

impl Mounted {
    /// Begins to bring in what the access profile names; the mount has answered already.
    fn prefetch(&mut self) {
        if let Some(prefetcher) = self.prefetcher.take() {
            prefetcher.begin();
        }
    }

    /// Waits for the end of the mount, and writes what was recorded, whatever the end was.
    fn attend(self, plan: &MountPlan, signals: &Signals, lease: Option<PipeReader>) -> Result<(), Error> {
        let ended = attend(plan, self.serving, signals, lease);
        let saved = self.recording.map_or(Ok(()), |recording| recording.save());
        ended.and(saved.map_err(Error::from))
    }
}

/// Waits for the end of the mount; a signal or the end of the lease brings it about.
fn attend(
    plan: &MountPlan,
    serving: Serving,
    signals: &Signals,
    mut lease: Option<PipeReader>,
) -> Result<(), Error> {
    let mut leaving = false;
    loop {
        let mut watched: Vec<BorrowedFd<'_>> = vec![serving.ended(), signals.as_fd()];
        watched.extend(lease.as_ref().map(|lease| lease.as_fd()));
        match ready::first_readable(&watched, None).map_err(failed("wait for the mount"))? {
            Some(0) => return Ok(serving.wait()?),
            Some(1) if signals.next().map_err(failed("read a signal"))?.is_none() => {}
            // The second signal: whoever still uses the mount gets ENOTCONN when this process ends.
            Some(1) if leaving => return Ok(()),
            Some(found) => {
                if found == 2 {
                    lease = None;
                }
                leaving = true;
                leave(plan);
            }
            None => {}
        }
    }
}

/// Unmounts, lazily where somebody uses the mount. Nothing is there to unmount where somebody else was faster.
fn leave(plan: &MountPlan) {
    if let Err(error) = unmount(plan, Unmount::Unused).or_else(|_| unmount(plan, Unmount::Lazy)) {
        tracing::debug!("{error}");
    }
}

/// Unmounts what the command used and waits for the server, so that what it holds back is on the disk. Something that
/// the command left running may use the mount for longer: the server stays for it, and we do not.
fn part_from(plan: &MountPlan, server: process::Child) -> Result<(), Error> {
    let deadline = unmount(plan, Unmount::Unused).is_err().then(|| {
        leave(plan);
        Instant::now() + LEFTOVERS
    });
    let ended = ready::first_readable(&[server.pidfd().as_fd()], deadline);
    let ended = ended.map_err(failed("wait for the server"))?.is_some();
    if let Some(path) = plan.stack.record.as_ref().filter(|_| ended)
        && server.wait().map_err(failed("wait for the server"))? != Ended::Exited(0)
    {
        return Err(Error::Unrecorded(path.clone()));
    }
    Ok(())
}

fn unmount(plan: &MountPlan, how: Unmount) -> Result<(), Error> {
    let target = || plan.target.clone();
    match plan.way {
        Way::Direct => {
            sys_mount::unmount(&plan.target, how).map_err(|source| Error::Mount { target: target(), source })
        }
        Way::Helper => fusermount::unmount(&plan.target, how != Unmount::Unused)
            .map_err(|source| Error::Helper { target: target(), source }),
    }
}

/// Runs the command to its end, passing signals on to it.
fn follow(command: &[OsString], directory: &Path, signals: &Signals) -> Result<ExitStatus, Error> {
    let (program, arguments) = command
        .split_first()
        .map_or((OsStr::new("true"), &[][..]), |(program, rest)| (program.as_os_str(), rest));
    let mut child =
        process::spawn_bound(Command::new(program).args(arguments).current_dir(directory), signals.before())
            .map_err(|source| Error::Command { program: program.to_owned(), source })?;
    let ended = Pidfd::of_program(&child).map_err(failed("watch the command"))?;
    while ready::first_readable(&[ended.as_fd(), signals.as_fd()], None)
        .map_err(failed("wait for the command"))?
        != Some(0)
    {
        if let Some(Received { signal, by_terminal: false }) =
            signals.next().map_err(failed("read a signal"))?
        {
            // It ends by itself in this very moment, or it gets the signal.
            let _ = ended.signal(signal);
        }
    }
    child.wait().map_err(failed("wait for the command"))
}

fn take(signals: &[Signal]) -> Result<Signals, Error> {
    Signals::block(signals).map_err(failed("take signals"))
}

/// The exit status as a shell gives it: 128 and the signal's number where a signal ended the program.
fn shell_status(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}

fn failed(op: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Process { op, source }
}
