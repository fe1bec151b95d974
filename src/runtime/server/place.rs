//! The directory of one server, and its lock.
//!
//! ```text
//! FIM_DIR_GLOBAL/server/{KEY}/   its own flock(2): starting, joining and ending
//! ├── socket                     where fronts connect
//! ├── mount/                     the merged root, in the server's namespace
//! ├── layers/                    each layer by itself, there as well
//! └── logs/
//! ```

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
};

use super::{ServerError, message::LIMIT};
use crate::{
    instance::{ServerKey, dirs::AppDirs},
    sys::{
        scm::{Channel, Listener},
        tree::DirFd,
    },
};

/// How often a server may end between our look and our step before the place counts as gone.
const PATIENCE: u32 = 1000;

const SOCKET: &str = "socket";
const MOUNT: &str = "mount";
const LAYERS: &str = "layers";
const LOGS: &str = "logs";

/// Where a server is.
#[derive(Clone, Debug)]
pub struct Place {
    servers: PathBuf,
    name: String,
}

impl Place {
    /// The place of the server with this key.
    #[must_use]
    pub fn new(dirs: &AppDirs, key: ServerKey) -> Self {
        Self { servers: dirs.servers(), name: key.to_string() }
    }

    /// The place of the server whose key is `text`; none where that is no key.
    #[must_use]
    pub fn of_text(dirs: &AppDirs, text: &str) -> Option<Self> {
        ServerKey::is_text(text).then(|| Self { servers: dirs.servers(), name: text.to_owned() })
    }

    /// The place with this path; none for what can be none.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        Some(Self { servers: path.parent()?.to_owned(), name: name.to_owned() })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.servers.join(&self.name)
    }

    /// Where its logs are.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path().join(LOGS)
    }

    /// Where the merged root is mounted.
    #[must_use]
    pub fn mount(&self) -> PathBuf {
        self.path().join(MOUNT)
    }

    /// Where each layer is by itself.
    #[must_use]
    pub fn layers(&self) -> PathBuf {
        self.path().join(LAYERS)
    }

    /// Makes the directory where it is missing and takes its lock; waits for whoever holds it.
    pub(super) fn lock(&self) -> Result<Locked, ServerError> {
        let failed = |source| ServerError::Place { path: self.path(), source };
        let servers = DirFd::open(&self.servers).map_err(failed)?;
        for _ in 0..PATIENCE {
            let directory = match servers.ensure(&self.name, 0o700) {
                // The server that was here ended between our two steps.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(failed)?,
            };
            directory.lock(true).map_err(failed)?;
            if directory.is_entry_of(&servers, &self.name) {
                return Ok(Locked { servers, directory, name: self.name.clone() });
            }
        }
        Err(failed(io::ErrorKind::NotFound.into()))
    }

    /// Whether no server is here, nor about to be; what a killed one has left is removed on the way.
    ///
    /// # Errors
    ///
    /// [`ServerError::Place`].
    pub fn is_over(&self) -> Result<bool, ServerError> {
        let failed = |source| ServerError::Place { path: self.path(), source };
        let servers = DirFd::open(&self.servers).map_err(failed)?;
        let directory = match servers.open_in(&self.name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            other => other.map_err(failed)?,
        };
        // Whoever starts or ends holds the lock.
        if !directory.lock(false).map_err(failed)? {
            return Ok(false);
        }
        let locked = Locked { servers, directory, name: self.name.clone() };
        if locked.connect().is_ok() {
            return Ok(false);
        }
        locked.remove().map(|()| true).map_err(failed)
    }

    /// Removes the directory of a server that was killed, unless another one is there by now.
    ///
    /// # Errors
    ///
    /// [`ServerError::Place`].
    pub fn clean_up(&self) -> Result<(), ServerError> {
        self.clean_up_after(|| ())
    }

    /// As [`clean_up`](Self::clean_up); `look` is called before where nobody serves, and nobody can begin to.
    ///
    /// # Errors
    ///
    /// [`ServerError::Place`].
    pub fn clean_up_after(&self, look: impl FnOnce()) -> Result<(), ServerError> {
        if !self.path().exists() {
            // It has ended well; the lock would make its directory anew.
            look();
            return Ok(());
        }
        let locked = self.lock()?;
        if locked.connect().is_ok() {
            return Ok(());
        }
        look();
        locked.remove().map_err(|source| ServerError::Place { path: self.path(), source })
    }

    fn path_of(&self, name: &str) -> PathBuf {
        Path::new(&self.servers).join(&self.name).join(name)
    }
}

/// The directory of a server, locked. The lock goes with this.
#[derive(Debug)]
pub struct Locked {
    servers: DirFd,
    directory: DirFd,
    name: String,
}

impl Locked {
    /// Connects to the server that is here.
    pub(super) fn connect(&self) -> io::Result<Channel> {
        Channel::connect(self.directory.as_fd(), SOCKET, LIMIT)
    }

    /// Takes away what a killed server has left, and makes room for a new one.
    pub(super) fn make_room(&self, place: &Place) -> Result<(), ServerError> {
        self.directory
            .remove(SOCKET)
            .and_then(|()| self.directory.ensure(MOUNT, 0o755))
            .and_then(|_| self.directory.ensure(LAYERS, 0o755))
            .and_then(|_| self.directory.ensure(LOGS, 0o700))
            .map(drop)
            .map_err(|source| ServerError::Place { path: place.path_of(""), source })
    }

    /// Begins to listen here.
    pub(super) fn listen(&self) -> io::Result<Listener> {
        Listener::bind(self.directory.as_fd(), SOCKET, LIMIT)
    }

    /// Goes without having started a server: the directory was made for the lock only.
    ///
    /// # Errors
    ///
    /// What the host said to removing it.
    pub fn leave(self) -> io::Result<()> {
        self.remove()
    }

    /// Removes the directory; whoever waits for its lock makes a new one.
    pub(super) fn remove(&self) -> io::Result<()> {
        self.servers.remove(&self.name)
    }

    /// Descriptors of this.
    pub(super) fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.servers.as_fd(), self.directory.as_fd()]
    }
}
