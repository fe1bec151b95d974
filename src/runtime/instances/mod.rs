//! What is done to running instances.
//!
//! - [`of_image`], [`everywhere`]: which instances there are, by their records alone.
//! - [`exec()`], [`exec_at`]: a program in a running instance, through its portal.
//! - [`start()`], [`stop()`], [`wait()`], [`logs()`]: background instances.
//! - [`Meter`]: what instances take.

mod enter;
mod logs;
mod reenter;
mod start;
mod stats;
mod stop;

pub use enter::{EnterRequest, exec, exec_at};
pub use logs::{LogsRequest, logs};
pub use start::{StartRequest, start, wait};
pub use stats::{Meter, Sample};
pub use stop::{StopRequest, Stopped, stop};

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{host::Host, run::RunError, site::Site};
use crate::{
    instance::{
        dirs,
        state::{self, Found, Registry, StateError},
    },
    sandbox::SandboxError,
    sys::own_dir::OwnDirError,
};

/// Why something could not be done to an instance.
#[derive(Debug, Error)]
pub enum InstanceError {
    /// The image.
    #[error(transparent)]
    Image(#[from] RunError),
    /// The records.
    #[error(transparent)]
    State(#[from] StateError),
    /// The directory for what does not outlive an instance.
    #[error(transparent)]
    OwnDir(#[from] OwnDirError),
    /// The conversation with the inside.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The inside does not answer.
    #[error("cannot reach the inside of instance {instance}")]
    Unreachable {
        /// Which one.
        instance: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nobody serves requests from inside.
    #[error("cannot start programs of the host: the image has not the permission portal")]
    NoPortal,
    /// A program of it could not be started.
    #[error("cannot start the instance: {why}")]
    NotStarted {
        /// Why.
        why: String,
    },
    /// A step on our own side.
    #[error("cannot {step}")]
    Step {
        /// Which one.
        step: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl InstanceError {
    pub(super) fn step(step: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Step { step, source }
    }
}

/// Where the records of all images are.
#[must_use]
pub fn base(host: &Host, global: &Path) -> PathBuf {
    state::base(host.variable("XDG_STATE_HOME").map(Path::new), &host.user.home, global)
}

/// The records of an image's instances.
///
/// # Errors
///
/// [`InstanceError`].
pub fn of_image(host: &Host, image: &Path) -> Result<Registry, InstanceError> {
    let site = Site::find(host, image)?;
    Ok(of_site(host, &site)?)
}

/// The same where the image has been found.
///
/// # Errors
///
/// [`StateError`].
pub fn of_site(host: &Host, site: &Site) -> Result<Registry, StateError> {
    let image_id = site.image.settings().image_id.to_string();
    Registry::open(&base(host, site.app.global()), &image_id, site.key)
}

/// The user's running instances of all images, in the order of their starts.
///
/// # Errors
///
/// [`InstanceError`].
pub fn everywhere(host: &Host) -> Result<Vec<Found>, InstanceError> {
    let global = dirs::choose_global(host.choices.global.as_deref())?;
    let mut found = Vec::new();
    for image in state::all_images(&base(host, global.path()))? {
        found.extend(image.living()?);
    }
    found.sort_by_key(|one| one.state.started);
    Ok(found)
}
