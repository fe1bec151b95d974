//! The directory of one running container, and the removal of those whose container is gone.
//!
//! The holder keeps the directory's own lock (flock(2)): it goes with its process, whatever kills it, so that a
//! directory whose lock is free belongs to nobody, and neither a number used again nor a zombie is mistaken.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use super::dirs::{AppDirs, DirsError};
use crate::sys::{fifo, tree::DirFd};

/// How often somebody who sweeps may come between our steps before the place counts as gone.
const PATIENCE: u32 = 1000;

/// What an instance directory holds, beside its files.
const FOLDERS: [(&str, u32); 14] = [
    ("portal", 0o700),
    ("portal/daemon", 0o700),
    ("portal/dispatcher", 0o700),
    ("portal/dispatcher/host", 0o700),
    ("portal/dispatcher/guest", 0o700),
    ("logs", 0o700),
    ("logs/bwrap", 0o700),
    ("logs/daemon", 0o700),
    ("logs/daemon/host", 0o700),
    ("logs/daemon/guest", 0o700),
    ("logs/dispatcher", 0o700),
    ("logs/dispatcher/host", 0o700),
    ("mount", 0o755),
    ("layers", 0o755),
];

/// A link to the logs of its server, which tells whose instance it is.
pub const SERVER_LOGS: &str = "logs/fuse";

/// Its named pipes: what they are for is told in `portal`.
const FIFOS: [&str; 2] = ["portal/daemon/guest.fifo", "portal/daemon/host.fifo"];

/// The directory of this process's instance. Dropping it removes the directory.
#[derive(Debug)]
pub struct Instance {
    path: PathBuf,
    parent: DirFd,
    directory: DirFd,
    name: String,
}

impl Instance {
    /// Makes the directory of the process `pid`; whatever an earlier process of that number has left goes first.
    ///
    /// # Errors
    ///
    /// [`DirsError::Make`].
    pub fn create(dirs: &AppDirs, pid: i32) -> Result<Self, DirsError> {
        let name = pid.to_string();
        let path = dirs.instances().join(&name);
        let failed = |source| DirsError::Make { path: path.clone(), source };
        let parent = DirFd::open(&dirs.instances()).map_err(failed)?;
        let directory = make(&parent, &name).map_err(failed)?;
        for (folder, mode) in FOLDERS {
            make_folder(&path.join(folder), mode).map_err(failed)?;
        }
        for name in FIFOS {
            fifo::make(&path.join(name)).map_err(failed)?;
        }
        Ok(Self { path, parent, directory, name })
    }

    /// `FIM_DIR_INSTANCE`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the merged root appears, in the instance's own mount namespace.
    #[must_use]
    pub fn mount(&self) -> PathBuf {
        self.path.join("mount")
    }

    /// Where each layer appears by itself, in the same namespace.
    #[must_use]
    pub fn layers(&self) -> PathBuf {
        self.path.join("layers")
    }

    /// Where requests go in and out.
    #[must_use]
    pub fn portal(&self) -> PathBuf {
        self.path.join("portal")
    }

    /// Where its logs are.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Writes one of its files.
    ///
    /// # Errors
    ///
    /// [`DirsError::Make`].
    pub fn write(&self, name: &str, contents: &[u8]) -> Result<PathBuf, DirsError> {
        let path = self.path.join(name);
        fs::write(&path, contents).map_err(|source| DirsError::Make { path: path.clone(), source })?;
        Ok(path)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.directory.is_entry_of(&self.parent, &self.name)
            && let Err(error) = self.parent.remove(&self.name)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the instance directory");
        }
    }
}

/// Makes the directory and takes its lock, both before somebody who sweeps can take it for a leftover.
fn make(parent: &DirFd, name: &str) -> io::Result<DirFd> {
    for _ in 0..PATIENCE {
        parent.remove(name)?;
        let directory = match parent.ensure(name, 0o755) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if directory.lock(false)? && directory.is_entry_of(parent, name) {
            return Ok(directory);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().mode(mode).create(path)
}

/// Removes the directory of the process `pid`, which is known to be gone.
///
/// # Errors
///
/// What the system says.
pub fn remove_home(dirs: &AppDirs, pid: i32) -> io::Result<()> {
    // A process that got the number anew may have made its own meanwhile: its lock is taken.
    remove(&DirFd::open(&dirs.instances())?, pid.to_string().as_ref(), false).map(drop)
}

/// Removes the directory `name` as soon as its holder has ended. A holder that ends well removes it itself.
///
/// # Errors
///
/// What the system says.
pub fn remove_when_free(dirs: &AppDirs, name: &OsStr) -> io::Result<()> {
    remove(&DirFd::open(&dirs.instances())?, name, true).map(drop)
}

/// Names of the directories that `is_meant` picks.
///
/// # Errors
///
/// What the system says.
pub fn those(dirs: &AppDirs, is_meant: impl Fn(&Path) -> bool) -> io::Result<Vec<OsString>> {
    let instances = dirs.instances();
    let mut names = DirFd::open(&instances)?.names()?;
    names.retain(|name| is_meant(&instances.join(name)));
    Ok(names)
}

/// Removes a directory whose lock is free; whether it was.
fn remove(parent: &DirFd, name: &OsStr, wait: bool) -> io::Result<bool> {
    let directory = match parent.open_in(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    // Behind the lock it may be another one's that has the same name.
    if !directory.lock(wait)? || !directory.is_entry_of(parent, name) {
        return Ok(false);
    }
    parent.remove(name).map(|()| true)
}

/// Removes what instances have left that were killed together with their server.
///
/// # Errors
///
/// What the system says.
pub fn sweep(dirs: &AppDirs) -> io::Result<()> {
    for name in DirFd::open(&dirs.instances())?.names()? {
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            remove_home(dirs, pid)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs() -> (tempfile::TempDir, AppDirs) {
        let folder = tempfile::tempdir().unwrap();
        let dirs = AppDirs::new(folder.path().to_owned());
        dirs.create().unwrap();
        (folder, dirs)
    }

    #[test]
    fn the_directory_goes_with_its_holder() {
        let (_folder, dirs) = dirs();
        let instance = Instance::create(&dirs, 12).unwrap();
        instance.write("bashrc", b"x").unwrap();
        assert!(instance.mount().is_dir() && instance.logs().join("bwrap").is_dir());
        let path = instance.path().to_owned();
        drop(instance);
        assert!(!path.exists());
    }

    #[test]
    fn sweeping_takes_leftovers_only() {
        let (_folder, dirs) = dirs();
        let alive = Instance::create(&dirs, 12).unwrap();
        fs::create_dir_all(dirs.instances().join("13/logs")).unwrap();
        sweep(&dirs).unwrap();
        remove_home(&dirs, 12).unwrap();
        assert!(alive.path().exists());
        assert!(!dirs.instances().join("13").exists());
    }

    #[test]
    fn a_leftover_of_the_same_number_is_replaced() {
        let (_folder, dirs) = dirs();
        fs::create_dir_all(dirs.instances().join("12/mount/old")).unwrap();
        let instance = Instance::create(&dirs, 12).unwrap();
        assert!(!instance.mount().join("old").exists());
    }
}
