//! `fim-layer discard`: what has changed since the last commit is thrown away.
//!
//! The upper is renamed away as a whole, which is the step that counts, and an empty one is made in its place; then
//! what the work directory knows of it goes, too. Deleting the old tree comes last: a process that is killed over it
//! leaves it in the data directory's `tmp`, where the next discard finds it.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{
    server::{Place, ServerError, alone},
    site::Site,
};
use crate::layer::{HostUpper, UpperError};

/// Where the old upper waits for its end.
const HEAP: &str = "discarded";

/// Why the changes are still there.
#[derive(Debug, Error)]
pub enum DiscardError {
    /// The image runs.
    #[error("cannot throw away the changes of {}: it is running (end its programs first)", image.display())]
    Runs {
        /// The image.
        image: PathBuf,
    },
    /// Whether it runs cannot be found out.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The upper is in use, or cannot be.
    #[error("cannot throw away the changes")]
    Upper(#[from] UpperError),
    /// A step.
    #[error("cannot {action} {}", path.display())]
    Step {
        /// What was being done.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

/// Whether there is nothing to throw away, and nothing left of an earlier time.
#[must_use]
pub fn is_empty(site: &Site) -> bool {
    !site.data.tmp().join(HEAP).exists()
        && fs::read_dir(site.data.root()).is_ok_and(|mut entries| entries.next().is_none())
}

/// Throws the changes away. Nobody runs the image meanwhile.
///
/// # Errors
///
/// [`DiscardError`]; before the rename everything is as it was.
pub fn discard(site: &Site) -> Result<(), DiscardError> {
    let place = Place::new(&site.app, site.key);
    let Some(locked) = alone(&place)? else {
        return Err(DiscardError::Runs { image: site.image.path().to_owned() });
    };
    let done = throw_away(site);
    if let Err(error) = locked.leave() {
        tracing::warn!(%error, "cannot remove the place of a server that is not there");
    }
    done
}

fn throw_away(site: &Site) -> Result<(), DiscardError> {
    let (root, work, heap) = (site.data.root(), site.data.work(), site.data.tmp().join(HEAP));
    remove(&heap)?;
    fs::create_dir(&heap).map_err(step("make", &heap))?;
    {
        // A mount of the same upper has it locked, whoever serves it.
        let _lock = HostUpper::open(&root, &work)?.into_lock();
        let was = root.metadata().map_err(step("look at", &root))?;
        fs::rename(&root, heap.join("root")).map_err(step("move away", &root))?;
        fs::create_dir(&root).map_err(step("make", &root))?;
        fs::set_permissions(&root, Permissions::from_mode(was.mode() & 0o7777))
            .map_err(step("set the mode of", &root))?;
        // An owner that cannot be given was never there either.
        let _ = chown(&root, Some(was.uid()), Some(was.gid()));
        for name in ["index", "work"] {
            let from = work.join(name);
            match fs::rename(&from, heap.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(step("move away", &from)(error));
                }
                _ => {}
            }
        }
        sync(site.data.path())?;
    }
    remove(&heap)
}

fn remove(heap: &Path) -> Result<(), DiscardError> {
    match fs::remove_dir_all(heap) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A directory that its owner may not search keeps what is in it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(heap);
            fs::remove_dir_all(heap).map_err(step("remove", heap))
        }
        other => other.map_err(step("remove", heap)),
    }
}

/// Lets the owner into every directory of a tree.
fn open_up(directory: &Path) {
    let _ = fs::set_permissions(directory, Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

fn sync(directory: &Path) -> Result<(), DiscardError> {
    fs::File::open(directory).and_then(|opened| opened.sync_all()).map_err(step("sync", directory))
}

fn step(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiscardError + use<> {
    let path = path.to_owned();
    move |source| DiscardError::Step { action, path, source }
}
