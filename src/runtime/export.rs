//! `fim-overlay export`: an upper that kernel overlayfs and fuse-overlayfs can open.

use std::time::{Duration, Instant};

use thiserror::Error;

use super::{
    server::{Place, ServerError, alone},
    site::Site,
    stack::{self, MountStack, StackPlan},
};
use crate::{overlay, sync::thread};

/// How long the server of a run that has just ended may take to leave.
const LEAVING: Duration = Duration::from_secs(1);

/// Why an upper was not exported.
#[derive(Debug, Error)]
pub enum ExportError {
    /// Somebody writes to it.
    #[error("cannot export the upper: the image is running")]
    Running,
    /// The place of its server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The stack cannot be opened.
    #[error(transparent)]
    Stack(#[from] stack::Error),
    /// An object cannot be exported.
    #[error(transparent)]
    Overlay(#[from] overlay::ExportError),
}

impl ExportError {
    /// What the user can do about it, where we know it.
    #[must_use]
    pub const fn cure(&self) -> Option<&'static str> {
        match self {
            Self::Running => Some("end its instances first"),
            Self::Overlay(_) => {
                Some("nothing is lost: the tree looks as before, and exporting again goes on")
            }
            _ => None,
        }
    }
}

/// Exports the upper of an image that does not run; calls `done` for each of its objects.
///
/// # Errors
///
/// [`ExportError`].
pub fn export(site: &Site, done: &mut dyn FnMut()) -> Result<(), ExportError> {
    let (place, start) = (Place::new(&site.app, site.key), Instant::now());
    let locked = loop {
        match alone(&place)? {
            Some(locked) => break locked,
            None if start.elapsed() < LEAVING => thread::sleep(Duration::from_millis(10)),
            None => return Err(ExportError::Running),
        }
    };
    let exported = make_plain(&site.stack(), done);
    if let Err(error) = locked.leave() {
        tracing::warn!(%error, "cannot remove the place of a server that is not there");
    }
    exported
}

/// Exports the upper of a stack that nobody serves.
///
/// # Errors
///
/// [`ExportError`].
pub fn make_plain(stack: &StackPlan, done: &mut dyn FnMut()) -> Result<(), ExportError> {
    // Reading it is no access that anybody wants to see recorded.
    let plan = StackPlan { record: None, profile: None, ..stack.clone() };
    Ok(MountStack::open(&plan)?.overlay.export(done)?)
}
