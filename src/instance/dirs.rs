//! Which directories there are, and whose they must be.
//!
//! ```text
//! /tmp/fim/                         FIM_DIR_GLOBAL
//! ├── app/{COMMIT}_{TIMESTAMP}/     FIM_DIR_APP
//! │   ├── bin/  sbin/               the engine's own programs
//! │   └── instance/{PID}/           FIM_DIR_INSTANCE: mount/ layers/ logs/ portal/, both first ones in its namespace only
//! ├── server/{KEY}/                 one a running server: lock  socket  mount/  layers/  logs/
//! └── run/host/                     inside a sandbox only
//!
//! {BINARY_DIR}/.{BINARY_NAME}.data/ FIM_DIR_DATA: tmp/ work/ root/ casefold/ layers/ recipes/
//! ```
//!
//! /tmp belongs to everybody: `FIM_DIR_GLOBAL` is used only if it is a directory of the calling user that nobody else
//! can write to.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::sys::{
    own_dir::{OwnDir, OwnDirError},
    tree::{DirFd, make_directory},
    users::effective_ids,
};

/// The place that is tried first.
const GLOBAL: &str = "/tmp/fim";

/// Name of this build.
const BUILD: &str = concat!(env!("FIM_COMMIT"), "_", env!("FIM_TIMESTAMP"));

/// Mode of directories that others may look into.
const SHARED: u32 = 0o755;
/// Mode of directories that are nobody else's business.
const PRIVATE: u32 = 0o700;

/// What is wrong with a directory of ours.
#[derive(Debug, Error)]
pub enum DirsError {
    /// It cannot be made or looked at.
    #[error("cannot make the directory {path}")]
    Make {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Chooses and makes `FIM_DIR_GLOBAL`: `asked` if the user named one, else `/tmp/fim` if it is ours, else
/// `/tmp/fim-UID`.
///
/// # Errors
///
/// The last choice is not ours either.
pub fn choose_global(asked: Option<&Path>) -> Result<OwnDir, OwnDirError> {
    if let Some(asked) = asked {
        return OwnDir::open_or_make(asked, SHARED);
    }
    OwnDir::open_or_make(Path::new(GLOBAL), SHARED).or_else(|error| {
        let own = PathBuf::from(format!("{GLOBAL}-{}", effective_ids().0));
        tracing::debug!(%error, own = %own.display(), "using a directory of our own");
        OwnDir::open_or_make(&own, SHARED)
    })
}

/// The directories of this build below `FIM_DIR_GLOBAL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppDirs {
    global: PathBuf,
    app: PathBuf,
}

impl AppDirs {
    /// Those below `global`, not made yet.
    #[must_use]
    pub fn new(global: PathBuf) -> Self {
        let app = global.join("app").join(BUILD);
        Self { global, app }
    }

    /// Makes them.
    ///
    /// # Errors
    ///
    /// [`DirsError`].
    pub fn create(&self) -> Result<(), DirsError> {
        for (path, mode) in [
            (self.global.join("app"), SHARED),
            (self.app.clone(), SHARED),
            (self.bin(), SHARED),
            (self.sbin(), SHARED),
            (self.instances(), SHARED),
            (self.servers(), PRIVATE),
        ] {
            make(&path, mode)?;
        }
        Ok(())
    }

    /// Makes and opens `FIM_DIR_APP`.
    ///
    /// # Errors
    ///
    /// It is not ours.
    pub fn open_app(&self) -> Result<OwnDir, OwnDirError> {
        OwnDir::open_or_make(&self.global, SHARED)?
            .child("app".as_ref(), SHARED)?
            .child(BUILD.as_ref(), SHARED)
    }

    /// Makes and opens `FIM_DIR_APP_BIN`.
    ///
    /// # Errors
    ///
    /// It is not ours.
    pub fn open_bin(&self) -> Result<OwnDir, OwnDirError> {
        self.open_app()?.child("bin".as_ref(), SHARED)
    }

    /// `FIM_DIR_GLOBAL`.
    #[must_use]
    pub fn global(&self) -> &Path {
        &self.global
    }

    /// `FIM_DIR_APP`.
    #[must_use]
    pub fn app(&self) -> &Path {
        &self.app
    }

    /// `FIM_DIR_APP_BIN`.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.app.join("bin")
    }

    /// `FIM_DIR_APP_SBIN`.
    #[must_use]
    pub fn sbin(&self) -> PathBuf {
        self.app.join("sbin")
    }

    /// Where the directories of the instances are.
    #[must_use]
    pub fn instances(&self) -> PathBuf {
        self.app.join("instance")
    }

    /// Where the directories of the servers are.
    #[must_use]
    pub fn servers(&self) -> PathBuf {
        self.global.join("server")
    }

    /// `FIM_DIR_RUNTIME`: there inside a sandbox only.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.global.join("run")
    }

    /// `FIM_DIR_RUNTIME_HOST`: there inside a sandbox only.
    #[must_use]
    pub fn runtime_host(&self) -> PathBuf {
        self.global.join("run/host")
    }
}

/// The directory where an image keeps what it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDirs {
    path: PathBuf,
}

impl DataDirs {
    /// The one beside the image: `.NAME.data`.
    #[must_use]
    pub fn beside(image: &Path) -> Self {
        let mut name = OsString::from(".");
        name.push(image.file_name().unwrap_or("fim".as_ref()));
        name.push(".data");
        Self { path: image.with_file_name(name) }
    }

    /// The one that the user named.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Makes it and what is in it.
    ///
    /// # Errors
    ///
    /// [`DirsError::Make`].
    pub fn create(&self) -> Result<(), DirsError> {
        std::fs::create_dir_all(&self.path)
            .map_err(|source| DirsError::Make { path: self.path.clone(), source })?;
        // The upper has the mode of the root that the programs see; work is where files wait unchecked.
        for (path, mode) in [
            (self.tmp(), PRIVATE),
            (self.work(), PRIVATE),
            (self.root(), SHARED),
            (self.path.join("casefold"), PRIVATE),
            (self.layers(), SHARED),
            (self.path.join("recipes"), SHARED),
        ] {
            make(&path, mode)?;
        }
        Ok(())
    }

    /// Device and inode number: what it is, whatever it is called.
    ///
    /// # Errors
    ///
    /// [`DirsError::Make`] where it cannot be opened.
    pub fn identity(&self) -> Result<(u64, u64), DirsError> {
        use std::os::unix::fs::MetadataExt as _;
        let status = std::fs::metadata(&self.path)
            .map_err(|source| DirsError::Make { path: self.path.clone(), source })?;
        Ok((status.dev(), status.ino()))
    }

    /// `FIM_DIR_DATA`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The upper.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.path.join("root")
    }

    /// Where files wait that are on their way elsewhere.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.path.join("tmp")
    }

    /// Where changes are staged.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// `FIM_DIR_LAYERS`.
    #[must_use]
    pub fn layers(&self) -> PathBuf {
        self.path.join("layers")
    }
}

fn make(path: &Path, mode: u32) -> Result<(), DirsError> {
    // What lies below a checked directory of ours was made by us.
    make_directory(path, mode).map_err(|source| DirsError::Make { path: path.to_owned(), source })
}

/// Opens a directory of ours.
///
/// # Errors
///
/// [`DirsError::Make`] where it cannot be opened.
pub fn open(path: &Path) -> Result<DirFd, DirsError> {
    DirFd::open(path).map_err(|source| DirsError::Make { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn the_data_directory_stands_beside_the_image() {
        assert_eq!(
            DataDirs::beside(Path::new("/x/app.flatimage")).path(),
            Path::new("/x/.app.flatimage.data")
        );
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fim");
        assert_eq!(choose_global(Some(&path)).unwrap().path(), path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o775)).unwrap();
        assert!(matches!(choose_global(Some(&path)), Err(OwnDirError::Open { mode: 0o775, .. })));
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink(folder.path(), &path).unwrap();
        assert!(matches!(choose_global(Some(&path)), Err(OwnDirError::NotADirectory { .. })));
    }

    #[test]
    fn all_directories_are_made_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let app = AppDirs::new(folder.path().to_owned());
        app.create().unwrap();
        app.create().unwrap();
        assert!(app.bin().is_dir() && app.instances().is_dir());
        let data = DataDirs::at(folder.path().join("a/b"));
        data.create().unwrap();
        assert!(data.root().is_dir() && data.layers().is_dir());
        data.identity().unwrap();
    }
}
