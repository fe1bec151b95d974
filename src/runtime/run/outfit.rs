//! What a run is given: its plan, and the program that process 1 inside is.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use super::{Request, RunError};
use crate::{
    instance::InstanceId,
    runtime::{facts::facts, host::Host, policy::policies, site::Site},
    sandbox::{Cause, Engine, Inputs, Plan, Rights, Role, What},
    sys::inherit,
};

/// What a run is called.
pub(super) struct Seat<'a> {
    /// `FIM_DIR_INSTANCE`.
    pub(super) path: &'a Path,
    /// Its number.
    pub(super) id: InstanceId,
    /// Its process.
    pub(super) pid: i32,
}

/// Makes the plan of a run.
pub(super) fn plan_of(
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
    let own = request.options.env.iter().map(|(name, value)| (name.clone(), value.clone()));
    let variables: Vec<(String, String)> = settings
        .environment
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .chain(own)
        .collect();
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
        given: &request.options.binds,
        facts: &facts(host, &rights),
        environment: &host.environment,
        pass_all: host.choices.pass_all,
        settings: &variables,
        directory: host.directory.as_deref(),
        command: &request.command.arguments(settings, &seat.path.join("bashrc")),
    })?)
}

/// What the image asks for and does not get: what the plan leaves out, and binds of places that are not there.
pub(super) fn left_out(plan: &Plan) -> Vec<String> {
    let missing = plan.mounts.iter().filter_map(|mount| match (&mount.what, mount.cause) {
        (What::Bind { from, .. }, cause @ (Cause::Bind(_) | Cause::Given)) => {
            let error = std::fs::metadata(from).err()?;
            Some(format!("left out {}, {} to {}: {error}", cause.bind(), from.display(), mount.to.display()))
        }
        _ => None,
    });
    plan.warnings.iter().cloned().chain(missing).collect()
}

/// The engine's own program, for process 1 inside.
pub(super) enum EngineFile {
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
    /// Finds it.
    pub(super) fn find() -> Result<Self, RunError> {
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
