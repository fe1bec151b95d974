//! A program in a running instance.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    time::{Duration, Instant},
};

use super::{InstanceError, everywhere, reenter::reenter};
use crate::{
    instance::state::{Found, Registry, StateError, choose},
    portal::{Rendezvous, Wall},
    runtime::host::Host,
    runtime::run::{Finished, IN_THE_IMAGE, PASSED_ON, finished},
    sandbox::{self, Request, Stdio, guest::HOST_LIMIT},
    sys::{errno::Errno, signal::Signals},
};

/// How long process 1 inside has to answer, before we go inside without it: it is woken by the request, and does nothing
/// else for long.
const PATIENCE: Duration = Duration::from_secs(3);

/// What to run where.
#[derive(Clone, Debug)]
pub struct EnterRequest {
    /// The instance: id, name, or the unique beginning of a name.
    pub instance: String,
    /// What to run.
    pub request: Request,
}

/// Runs a program in a running instance and waits for its end. The calling process has one thread.
///
/// # Errors
///
/// [`InstanceError`].
pub fn exec(
    registry: &Registry,
    wanted: EnterRequest,
    stdio: [BorrowedFd<'_>; 3],
) -> Result<Finished, InstanceError> {
    let found = registry.find(&wanted.instance)?;
    enter(&found, wanted.request, stdio)
}

/// The same for an instance of any image of the user, by its address.
///
/// # Errors
///
/// [`InstanceError`].
pub fn exec_at(
    host: &Host,
    wanted: EnterRequest,
    stdio: [BorrowedFd<'_>; 3],
) -> Result<Finished, InstanceError> {
    let found = choose(everywhere(host)?, &wanted.instance)?;
    enter(&found, wanted.request, stdio)
}

/// The same where the instance has been found.
///
/// # Errors
///
/// [`InstanceError`].
pub(super) fn enter(
    found: &Found,
    request: Request,
    stdio: [BorrowedFd<'_>; 3],
) -> Result<Finished, InstanceError> {
    let stdio = Stdio::of(stdio)?;
    let Some(process) = &found.process else {
        return Err(StateError::NotFound { word: found.state.key() }.into());
    };
    let portal = found.state.directory.join("portal");
    let signals = Signals::block(&PASSED_ON).map_err(InstanceError::step("take over the signals"))?;
    let channel = connect(&portal, process.as_fd())
        .or_else(|error| if is_silence(&error) { reenter(&found.state) } else { Err(error) })
        .map_err(|source| InstanceError::Unreachable { instance: found.state.key(), source })?;
    let program = request.arguments.first().cloned().unwrap_or_default();
    let verdict = sandbox::enter(channel, request, stdio, process.as_fd(), &signals)?;
    Ok(finished(verdict, &program, IN_THE_IMAGE))
}

fn connect(portal: &Path, life: BorrowedFd<'_>) -> std::io::Result<crate::sys::scm::Channel> {
    let rendezvous = Rendezvous::announce(portal, Wall::Guest, HOST_LIMIT)?;
    rendezvous.wait(life, Instant::now() + PATIENCE)
}

/// Whether process 1 is there and does not answer: it does not come, or does not read.
fn is_silence(error: &std::io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    error.kind() == std::io::ErrorKind::TimedOut || matches!(errno, Some(Errno::EAGAIN | Errno::ENXIO))
}
