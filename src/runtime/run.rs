//! A run: from the image to the exit status of its program.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{
    facts::facts,
    host::{CasefoldChoice, Host},
    plan::{self, Command},
    policy::{PolicyError, policies},
    server::{Duty, Lease, Merger, Place, ServerError, join_or_start},
    site::Site,
    stack::CachePlan,
    tools::ToolsError,
};
use crate::{
    config::OverlayKind,
    fuse,
    image::ImageError,
    instance::{
        self, Instance, InstanceId, accounts, bashrc,
        dirs::DirsError,
        logs::{self, Files, Verbosity},
    },
    sandbox::{
        self, Bwrap, Cause, Engine, Inputs, Plan, Rights, Role, SandboxError, Stage, Stdio, Verdict, What,
    },
    sys::{
        errno::Errno,
        inherit,
        own_dir::OwnDirError,
        process::{self, Ended},
        signal::{Signal, Signals},
    },
};

/// Signals of the caller that the program gets in our stead; without their being blocked they would stop or end us and
/// leave the terminal as it is.
const PASSED_ON: [Signal; 12] = [
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
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A package manager without the users it needs.
    #[error(
        "cannot run {program} as an unprivileged root: it owns files by several users, and only yours is there"
    )]
    SeveralUsers {
        /// The program.
        program: String,
    },
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
            Self::SeveralUsers { .. } => Some("run it as root, or with sudo"),
            Self::Dirs(_) | Self::OwnDir(_) => {
                Some("set FIM_DIR_GLOBAL or FIM_DIR_DATA to a directory of yours")
            }
            Self::OnlyEngine { .. } => Some("use: fim-overlay set auto, or FIM_OVERLAY=fuse"),
            Self::Server(ServerError::Running) => Some("end its other instances first"),
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
    warn: &dyn Fn(&str),
) -> Result<Finished, RunError> {
    logs::install(Verbosity { level: host.choices.log, stderr: host.choices.debug });
    let stdio = Stdio::of(stdio)?;
    let ground = Ground::lay(host, request)?;
    let place = Place::new(&ground.site.app, ground.site.key);
    let mut lease = ground.join(host, request, &place)?;
    let outcome = ground.run_inside(host, request, &lease, &place, stdio, warn);
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
    let site = Site::find(host, &request.image)?;
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
        let site = Site::find(host, &request.image)?;
        let role = if host.choices.root { Role::Root } else { request.role };
        let program = request.command.arguments(site.image.settings(), Path::new(""));
        if let Some(program) = program.first()
            && plan::needs_several_users(role, host.ids.uid, program)
        {
            return Err(RunError::SeveralUsers { program: program.to_string_lossy().into_owned() });
        }
        if let Err(error) = instance::sweep(&site.app) {
            tracing::warn!(%error, "cannot look for what killed instances have left");
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
        let duty = Duty {
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
        warn: &dyn Fn(&str),
    ) -> Result<Finished, RunError> {
        let instance = self.furnish(host, place)?;
        let engine = EngineFile::find()?;
        let seat = Seat { path: instance.path(), id: lease.id, pid: process::id() };
        let plan = plan_of(host, request, &self.site, self.role, &seat, &engine)?;
        if let Some(sandbox::Known { user, .. }) = &plan.known_user {
            // What an image without accounts of its own would get; the real files are made where its own are known.
            instance.write("passwd", &accounts::passwd_with(b"", user).unwrap_or_default())?;
            instance.write("group", &accounts::group_with(b"", &user.name, user.gid).unwrap_or_default())?;
        }
        for sentence in left_out(&plan) {
            tracing::warn!("{sentence}");
            warn(&sentence);
        }
        let signals = Signals::block(&PASSED_ON)
            .map_err(|source| RunError::Step { step: "take over the signals", source })?;
        let sandbox = sandbox::spawn(
            &plan,
            &Stage {
                namespaces: Some(&lease.namespaces),
                root: &lease.mount,
                mount: &instance.mount(),
                layers: (&lease.layers, &instance.layers()),
                instance: instance.path(),
                bwrap: &self.bwrap,
            },
        )?;
        let verdict = sandbox::attend(sandbox, &plan, stdio, Some(lease.as_fd()), &signals, None)?;
        tracing::info!(?verdict, "the program has ended");
        Ok(finished(verdict, plan.program.arguments.first().map_or(OsStr::new(""), OsString::as_os_str)))
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
        let fuse = instance.logs().join("fuse");
        if let Err(error) = std::os::unix::fs::symlink(place.logs(), &fuse) {
            tracing::warn!(%error, "cannot link the logs of the file server");
        }
        tracing::info!(image = %self.site.image.path().display(), role = ?self.role, "start");
        Ok(instance)
    }
}

/// What a run is called.
struct Seat<'a> {
    /// `FIM_DIR_INSTANCE`.
    path: &'a Path,
    /// Its number.
    id: InstanceId,
    /// Its process.
    pid: i32,
}

fn plan_of(
    host: &Host,
    request: &Request,
    site: &Site,
    role: Role,
    seat: &Seat<'_>,
    engine: &EngineFile,
) -> Result<Plan, RunError> {
    let settings = site.image.settings();
    let policies = policies(host)?;
    let limits: Vec<_> = policies.iter().flat_map(|policy| policy.limits_of(&settings.image_id)).collect();
    let rights = Rights::new(&settings.permissions, request.strict, &limits);
    let variables: Vec<(String, String)> =
        settings.environment.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok(Plan::new(&Inputs {
        role,
        user: &host.user,
        app: &site.app,
        instance: seat.path,
        instance_id: seat.id,
        pid: seat.pid,
        data: site.data.path(),
        layers: &site.data.layers(),
        image: site.image.path(),
        distribution: settings.labels.get("distribution").map_or("", String::as_str),
        engine: engine.engine(),
        hidden: &host.hidden,
        rights: &rights,
        unshare: &settings.unshare,
        binds: &settings.binds,
        facts: &facts(host, &rights),
        environment: &host.environment,
        pass_all: host.choices.pass_all,
        settings: &variables,
        directory: host.directory.as_deref(),
        command: &request.command.arguments(settings, &seat.path.join("bashrc")),
    })?)
}

/// What the image asks for and does not get: what the plan leaves out, and binds of places that are not there.
fn left_out(plan: &Plan) -> Vec<String> {
    let missing = plan.mounts.iter().filter_map(|mount| match (&mount.what, mount.cause) {
        (What::Bind { from, .. }, Cause::Bind(index)) => {
            let error = std::fs::metadata(from).err()?;
            Some(format!("left out bind {index}, {} to {}: {error}", from.display(), mount.to.display()))
        }
        _ => None,
    });
    plan.warnings.iter().cloned().chain(missing).collect()
}

/// The engine's own program, for process 1 inside.
enum EngineFile {
    At(PathBuf),
    /// A program in memory, or one whose file has been removed since; it has this number as long as this lives.
    Open {
        /// The number.
        number: i32,
        /// Keeps it open.
        _fd: OwnedFd,
    },
}

impl EngineFile {
    fn find() -> Result<Self, RunError> {
        let failed = |source| RunError::Step { step: "find the engine's own program", source };
        const SELF: &str = "/proc/self/exe";
        let path = std::fs::read_link(SELF).map_err(failed)?;
        if path.is_absolute() && same_file(&path, Path::new(SELF)) {
            return Ok(Self::At(path));
        }
        let fd = OwnedFd::from(std::fs::File::open(SELF).map_err(failed)?);
        let number = inherit::keep_over_exec(fd.as_fd()).map_err(failed)?;
        Ok(Self::Open { number, _fd: fd })
    }

    fn engine(&self) -> Engine<'_> {
        match self {
            Self::At(path) => Engine::At(path),
            Self::Open { number, .. } => Engine::Open(*number),
        }
    }
}

fn same_file(one: &Path, two: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (std::fs::metadata(one), std::fs::metadata(two)) {
        (Ok(one), Ok(two)) => (one.dev(), one.ino()) == (two.dev(), two.ino()),
        _ => false,
    }
}

/// The bubblewrap of an image: its program, or its loader with what comes before all other arguments.
fn embedded(words: Vec<OsString>) -> Option<Bwrap> {
    let mut words = words.into_iter();
    let program = PathBuf::from(words.next()?);
    Some(Bwrap::through(program, words.collect()))
}

fn finished(verdict: Verdict, program: &OsStr) -> Finished {
    match verdict {
        Verdict::Ended(ended @ (Ended::Exited(_) | Ended::Killed(_))) => Finished::Status(ended.status()),
        Verdict::NotStarted(errno) => {
            let errno = Errno::from_raw(errno);
            let status = if matches!(errno, Errno::ENOENT | Errno::ENOTDIR) { 127 } else { 126 };
            let program = program.to_string_lossy();
            let why = match errno {
                Errno::ENOENT => format!("cannot run {program}: not found in the image"),
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
            let finished = finished(Verdict::NotStarted(errno as i32), OsStr::new("x"));
            assert!(matches!(finished, Finished::NotStarted { status, .. } if status == expected), "{errno}");
        }
        assert_eq!(finished(Verdict::Ended(Ended::Killed(15)), OsStr::new("x")), Finished::Status(143));
    }
}
