//! A run: from the image to the exit status of its program.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io::{self, PipeWriter},
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
};

use thiserror::Error;

mod outfit;
mod record;

use outfit::{EngineFile, Seat, left_out, plan_of};
use record::{end_of, given, keep_logs, keep_output, wait_for};

use super::{
    host::{CasefoldChoice, Host},
    plan::Command,
    policy::PolicyError,
    server::{Duty, Lease, Merger, Place, ServerError, join_or_start},
    site::{Site, Upper},
    stack::CachePlan,
    tools::ToolsError,
};
use crate::{
    config::{Bind, OverlayKind},
    fuse,
    image::ImageError,
    instance::{
        self, Instance, InstanceId, accounts, bashrc,
        dirs::DirsError,
        group::{Group, GroupError, Quota},
        logs::{self, Files, Verbosity},
        state::{Name, Registered, StateError},
    },
    portal::{Announcements, Wall},
    sandbox::{self, Bwrap, Plan, Role, SandboxError, Stage, Stdio, Verdict},
    sys::{
        errno::Errno,
        inherit,
        own_dir::OwnDirError,
        process::{self, Ended},
        signal::{Signal, Signals},
        tree::DirFd,
    },
};

/// Where a program of an image is looked for.
pub(super) const IN_THE_IMAGE: &str = "in the image";

/// Signals of the caller that the program gets in our stead; without their being blocked they would stop or end us and
/// leave the terminal as it is.
pub(super) const PASSED_ON: [Signal; 12] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGALRM,
    Signal::SIGXCPU,
    Signal::SIGPWR,
];

/// Why a program of an image could not be run.
#[derive(Debug, Error)]
pub enum RunError {
    /// The image is not there.
    #[error("cannot open the image {path}")]
    Image {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The image is damaged, or none.
    #[error(transparent)]
    ImageFile(#[from] ImageError),
    /// The limits.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// An upper that was asked for.
    #[error("cannot use the upper {path}")]
    Upper {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A layer that was asked for.
    #[error("cannot read the layers in {path}")]
    Layers {
        /// Where they should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory of ours.
    #[error(transparent)]
    Dirs(#[from] DirsError),
    /// The programs that the image carries.
    #[error(transparent)]
    Tools(#[from] ToolsError),
    /// Where they are put.
    #[error(transparent)]
    OwnDir(#[from] OwnDirError),
    /// What the user lets images have.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The record of the instance.
    #[error(transparent)]
    State(#[from] StateError),
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Kernel overlayfs is asked for, and something that it has not.
    #[error("cannot {what} with kernel overlayfs")]
    OnlyEngine {
        /// What it cannot do.
        what: &'static str,
    },
    /// A signal descriptor, or the engine's own file.
    #[error("cannot {step}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl RunError {
    /// What the user can do about it, where we know it.
    #[must_use]
    pub fn cure(&self) -> Option<&'static str> {
        match self {
            Self::Dirs(_) | Self::OwnDir(_) => {
                Some("set FIM_DIR_GLOBAL or FIM_DIR_DATA to a directory of yours")
            }
            Self::OnlyEngine { .. } => Some("use: fim-overlay set auto, or FIM_OVERLAY=fuse"),
            Self::Server(ServerError::Running) => Some("end its other instances first"),
            Self::Group(GroupError::NotHere { .. }) => Some(
                "run it as root, or where a group is delegated to you: systemd-run --user --scope -p Delegate=yes",
            ),
            Self::Policy(_) => Some("correct it, or move it away"),
            Self::Sandbox(SandboxError::Identity { .. }) => Some("use: fim-env set, or fim-env del"),
            Self::Sandbox(SandboxError::NoBwrap) => Some("install bubblewrap, or set FIM_BWRAP"),
            _ => None,
        }
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Request {
    /// The image.
    pub image: PathBuf,
    /// The program.
    pub command: Command,
    /// As whom.
    pub role: Role,
    /// Whether it runs under deny-all, whatever the image says.
    pub strict: bool,
    /// The file to which what is read of the image's files is recorded; absolute.
    pub record: Option<PathBuf>,
    /// What the instance gets beside.
    pub options: Options,
}

/// What an instance gets at its start, and keeps for every program that is started in it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Its name.
    pub name: Option<Name>,
    /// Variables over those of the image.
    pub env: BTreeMap<String, String>,
    /// What they are for.
    pub notes: BTreeMap<String, String>,
    /// Places of the host that are shown inside.
    pub binds: Vec<Bind>,
    /// Layers above all others, lowest first.
    pub layers: Vec<PathBuf>,
    /// Which upper it has.
    pub upper: Upper,
    /// What it may take at most.
    pub quota: Quota,
    /// Whether nobody waits for it.
    pub background: bool,
}

/// Who is told how a start goes on.
pub struct Witness<'a> {
    /// Hears what the program does not get, in sentences.
    pub warn: &'a dyn Fn(&str),
    /// Gets a byte when the program runs.
    pub started: Option<PipeWriter>,
}

impl std::fmt::Debug for Witness<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Witness").field("started", &self.started).finish_non_exhaustive()
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finished {
    /// The program ended with this exit status.
    Status(u8),
    /// The program could not be started: 127 or 126, and why.
    NotStarted {
        /// The exit status.
        status: u8,
        /// The sentence for the user.
        why: String,
    },
}

/// Runs a program over the merged root of an image and waits for its end. The calling process has one thread. `stdio` is
/// what the program gets as stdin, stdout and stderr; `warn` takes sentences about what the image asks for and does not
/// get.
///
/// # Errors
///
/// [`RunError`]; nothing of the run is left then.
pub fn run(
    host: &Host,
    request: &Request,
    stdio: [BorrowedFd<'_>; 3],
    witness: Witness<'_>,
) -> Result<Finished, RunError> {
    logs::install(Verbosity { level: host.choices.log, stderr: host.choices.debug });
    let stdio = Stdio::of(stdio)?;
    let ground = Ground::lay(host, request)?;
    let place = Place::new(&ground.site.app, ground.site.server);
    let mut lease = ground.join(host, request, &place)?;
    let outcome = ground.run_inside(host, request, &lease, &place, stdio, witness);
    let outcome = outcome.and_then(|finished| match request.record {
        Some(_) => Ok(lease.save().map(|()| finished)?),
        None => Ok(finished),
    });
    drop(lease);
    if matches!(outcome, Err(RunError::Sandbox(SandboxError::ServerGone))) {
        // It cannot do it itself any more.
        place.clean_up()?;
    }
    outcome
}

/// Makes the plan of a run, and runs nothing. The second value says what is left out.
///
/// # Errors
///
/// As [`run`].
pub fn dry_run(host: &Host, request: &Request) -> Result<(Plan, Vec<String>), RunError> {
    let site = Site::find(host, &request.image)?.with(&request.options.layers, &request.options.upper)?;
    let role = if host.choices.root { Role::Root } else { request.role };
    // What the run would be called is not known before it runs.
    let pid = process::id();
    let seat = Seat { path: &site.app.instances().join(pid.to_string()), id: InstanceId::new(0), pid };
    let engine = EngineFile::find()?;
    let plan = plan_of(host, request, &site, role, &seat, &engine)?;
    let left_out = left_out(&plan);
    Ok((plan, left_out))
}

/// Everything that stands before the server is asked.
struct Ground {
    site: Site,
    role: Role,
    bwrap: Bwrap,
}

impl Ground {
    fn lay(host: &Host, request: &Request) -> Result<Self, RunError> {
        let site = Site::find(host, &request.image)?.with(&request.options.layers, &request.options.upper)?;
        let role = if host.choices.root { Role::Root } else { request.role };
        if let Err(error) = instance::sweep(&site.app) {
            tracing::warn!(%error, "cannot look for what killed instances have left");
        }
        if let Err(error) = site.sweep() {
            tracing::warn!(%error, "cannot look for what killed servers have left");
        }
        let embedded = site.tools()?.bwrap.and_then(embedded);
        let bwrap = Bwrap::choose(host.choices.bwrap.as_deref(), embedded, host.variable("PATH"))?;
        bwrap.check(site.app.app())?;
        Ok(Self { site, role, bwrap })
    }

    fn join(&self, host: &Host, request: &Request, place: &Place) -> Result<Lease, RunError> {
        let mut stack = self.site.stack();
        stack.cache = CachePlan::of(&host.choices);
        stack.record.clone_from(&request.record);
        let mut session = fuse::Options::default();
        session.threads = host.choices.threads.unwrap_or(session.threads);
        let ephemeral = self.site.ephemeral();
        let named: Vec<String> =
            self.site.named.iter().map(|layer| layer.to_string_lossy().into_owned()).collect();
        let duty = Duty {
            layers: named.join(":"),
            ephemeral: ephemeral.as_deref(),
            stack: &stack,
            merger: self.merger(host)?,
            source: self.site.image.path().file_name().unwrap_or(OsStr::new("fim")),
            session,
            casefold: self.site.casefold.to_string(),
            fresh: request.record.is_some(),
            dirs: &self.site.app,
        };
        Ok(join_or_start(place, process::id(), &duty)?)
    }

    /// Who merges the upper with the layers, as the user asks for, else the image.
    fn merger(&self, host: &Host) -> Result<Merger, RunError> {
        let settings = self.site.image.settings();
        let folds = match host.choices.casefold {
            Some(choice) => choice != CasefoldChoice::Off,
            None => settings.casefold.on,
        };
        match host.choices.overlay.unwrap_or(settings.overlay) {
            OverlayKind::Kernel if folds => Err(RunError::OnlyEngine { what: "fold case" }),
            OverlayKind::Kernel => Ok(Merger::Kernel),
            OverlayKind::Auto if folds => {
                tracing::info!("the engine merges the upper itself: kernel overlayfs does not fold case");
                Ok(Merger::Engine)
            }
            OverlayKind::Auto => Ok(Merger::KernelIfAble),
            OverlayKind::Fuse => Ok(Merger::Engine),
        }
    }

    fn run_inside(
        &self,
        host: &Host,
        request: &Request,
        lease: &Lease,
        place: &Place,
        stdio: Stdio<'_>,
        witness: Witness<'_>,
    ) -> Result<Finished, RunError> {
        let instance = self.furnish(host, place)?;
        // Whoever asks before process 1 listens is heard when it does.
        let _door = open_door(&instance.portal())?;
        let group = self.group(request)?;
        let record = self.register(host, request, &instance, group.as_ref())?;
        let furnished = Furnished { instance: &instance, record: record.as_ref(), group: group.as_ref() };
        let outcome = self.run_program(host, request, lease, &furnished, stdio, witness);
        tracing::info!(?outcome, "the program has ended");
        drop(group);
        if let Some(record) = &record {
            keep_logs(record, &instance);
            if let Err(error) = record.end(end_of(&outcome)) {
                tracing::warn!(%error, "the end of the instance is not on record");
            }
        }
        let (verdict, program) = outcome?;
        Ok(finished(verdict, &program, IN_THE_IMAGE))
    }

    /// Runs the program to its end; its name is returned as well.
    fn run_program(
        &self,
        host: &Host,
        request: &Request,
        lease: &Lease,
        furnished: &Furnished<'_>,
        stdio: Stdio<'_>,
        witness: Witness<'_>,
    ) -> Result<(Verdict, OsString), RunError> {
        let Furnished { instance, record, group } = *furnished;
        let engine = EngineFile::find()?;
        let id = record.map_or(lease.id, Registered::id);
        let seat = Seat { path: instance.path(), id, pid: process::id() };
        let plan = plan_of(host, request, &self.site, self.role, &seat, &engine)?;
        if let Some(sandbox::Known { user, .. }) = &plan.known_user {
            // What an image without accounts of its own would get; the real files are made where its own are known.
            instance.write("passwd", &accounts::passwd_with(b"", user).unwrap_or_default())?;
            instance.write("group", &accounts::group_with(b"", &user.name, user.gid).unwrap_or_default())?;
        }
        for sentence in left_out(&plan) {
            tracing::warn!("{sentence}");
            (witness.warn)(&sentence);
        }
        if plan.starts_on_host {
            self.offer_the_host(host, instance)?;
        }
        let signals = Signals::block(&PASSED_ON)
            .map_err(|source| RunError::Step { step: "take over the signals", source })?;
        let stage = Stage {
            namespaces: Some(&lease.namespaces),
            root: &lease.mount,
            mount: &instance.mount(),
            layers: (&lease.layers, &instance.layers()),
            instance: instance.path(),
            bwrap: &self.bwrap,
            group,
        };
        let kept = match record {
            Some(record) if request.options.background => Some(keep_output(record)?),
            _ => None,
        };
        let stdio = match &kept {
            Some(([out, err], _)) => {
                let null =
                    inherit::null().map_err(|source| RunError::Step { step: "open /dev/null", source })?;
                given([null.as_fd(), out.as_fd(), err.as_fd()])?
            }
            None => stdio,
        };
        // Nobody but the program is to have the pipes open.
        let keeper = kept.map(|(_, keeper)| keeper);
        let verdict = sandbox::spawn(&plan, &stage).and_then(|sandbox| {
            sandbox::attend(sandbox, &plan, stdio, Some(lease.as_fd()), &signals, witness.started)
        });
        if let Some(keeper) = keeper {
            wait_for(&keeper);
        }
        let verdict = verdict?;
        Ok((verdict, plan.program.arguments.first().cloned().unwrap_or_default()))
    }

    /// Starts the host daemon, and puts the name in place by which programs inside call it.
    fn offer_the_host(&self, host: &Host, instance: &Instance) -> Result<(), RunError> {
        let failed = |source| RunError::Step { step: "start the host daemon of the portal", source };
        // The link leads somewhere inside only: to the engine's own program, which is what it is called.
        let engine = self.site.app.runtime().join("fim_init");
        self.site.app.open_bin()?.put_link("fim_portal".as_ref(), engine.as_os_str()).map_err(failed)?;
        super::portal::start_daemon(host, instance.path()).map(drop).map_err(failed)
    }

    /// Makes the instance's directory.
    fn furnish(&self, host: &Host, place: &Place) -> Result<Instance, RunError> {
        let instance = Instance::create(&self.site.app, process::id())?;
        logs::write_to(&instance.logs(), Files::Boot);
        let prompt = self.site.image.settings().environment.get("PS1");
        instance.write("bashrc", bashrc::text(prompt, self.site.image.path()).as_bytes())?;
        let user = &host.user;
        instance.write("passwd", &accounts::passwd_with(b"", user).unwrap_or_default())?;
        instance.write("group", &accounts::group_with(b"", &user.name, user.gid).unwrap_or_default())?;
        let fuse = instance.path().join(instance::SERVER_LOGS);
        if let Err(error) = std::os::unix::fs::symlink(place.logs(), &fuse) {
            tracing::warn!(%error, "cannot link the logs of the file server");
        }
        tracing::info!(image = %self.site.image.path().display(), role = ?self.role, "start");
        Ok(instance)
    }
}

/// What an instance has when its program is started.
#[derive(Clone, Copy)]
struct Furnished<'a> {
    instance: &'a Instance,
    record: Option<&'a Registered>,
    group: Option<&'a Group>,
}

/// A reader of requests that reads nothing: the pipe keeps what is written as long as somebody has it open.
fn open_door(portal: &Path) -> Result<Announcements, RunError> {
    DirFd::open(&portal.join("daemon"))
        .and_then(|daemon| Announcements::open(daemon.as_fd(), Wall::Guest.fifo()))
        .map_err(|source| RunError::Step { step: "open the portal of the instance", source })
}

/// The bubblewrap of an image: its program, or its loader with what comes before all other arguments.
fn embedded(words: Vec<OsString>) -> Option<Bwrap> {
    let mut words = words.into_iter();
    let program = PathBuf::from(words.next()?);
    Some(Bwrap::through(program, words.collect()))
}

pub(super) fn finished(verdict: Verdict, program: &OsStr, place: &str) -> Finished {
    match verdict {
        Verdict::Ended(ended @ (Ended::Exited(_) | Ended::Killed(_))) => Finished::Status(ended.status()),
        Verdict::NotStarted(errno) => {
            let errno = Errno::from_raw(errno);
            let status = if matches!(errno, Errno::ENOENT | Errno::ENOTDIR) { 127 } else { 126 };
            let program = program.to_string_lossy();
            let why = match errno {
                Errno::ENOENT => format!("cannot run {program}: not found {place}"),
                errno => format!("cannot run {program}: {}", errno.desc()),
            };
            Finished::NotStarted { status, why }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_cannot_start_is_126_or_127() {
        for (errno, expected) in
            [(Errno::ENOENT, 127), (Errno::ENOTDIR, 127), (Errno::EACCES, 126), (Errno::ENOEXEC, 126)]
        {
            let finished = finished(Verdict::NotStarted(errno as i32), OsStr::new("x"), IN_THE_IMAGE);
            assert!(matches!(finished, Finished::NotStarted { status, .. } if status == expected), "{errno}");
        }
        assert_eq!(
            finished(Verdict::Ended(Ended::Killed(15)), OsStr::new("x"), IN_THE_IMAGE),
            Finished::Status(143)
        );
    }
}
