//! Directories in shared places (`/tmp`) that are used only if they are ours.
//!
//! A directory is ours when it is a real directory (no link), its owner is the caller, and nobody else may write to
//! it. What lies in it can then only come from the caller, and every further step goes through its descriptor.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, CWD, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::users::effective_ids;

/// A directory that is ours.
#[derive(Debug)]
pub struct OwnDir {
    fd: OwnedFd,
    path: PathBuf,
}

/// A directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OwnDirError {
    /// The host refused.
    #[error("cannot use the directory {}", path.display())]
    Host {
        /// The directory.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// Something else has its name.
    #[error("cannot use {}: it is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// It belongs to somebody else.
    #[error("cannot use the directory {}: it belongs to user {owner}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
    },
    /// Others may write to it.
    #[error("cannot use the directory {}: others may write to it (mode {mode:o})", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl OwnDir {
    /// Opens a directory, or makes it with the permission bits `mode`.
    ///
    /// # Errors
    ///
    /// It is not ours, or the host refuses.
    pub fn open_or_make(path: &Path, mode: u32) -> Result<Self, OwnDirError> {
        Self::at(CWD, path.as_os_str(), path.to_owned(), mode)
    }

    /// The same for a directory within this one.
    ///
    /// # Errors
    ///
    /// As [`OwnDir::open_or_make`].
    pub fn child(&self, name: &OsStr, mode: u32) -> Result<Self, OwnDirError> {
        Self::at(self.fd.as_fd(), name, self.path.join(name), mode)
    }

    /// Where the directory was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether programs may be executed from it.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn may_execute(&self) -> io::Result<bool> {
        let flags = fs::fstatvfs(&self.fd)?.f_flag;
        Ok(!flags.contains(fs::StatVfsMountFlags::NOEXEC))
    }

    /// Opens a file of ours for reading: regular, ours, and nobody else may write it. Anything else is `None`.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn file(&self, name: &OsStr) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let stat = fs::fstat(&fd)?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok((regular && is_ours(&stat)).then(|| File::from(fd)))
    }

    /// Puts a file in place: written under a name of its own, then renamed.
    ///
    /// # Errors
    ///
    /// What the host or `fill` says; nothing stays then.
    pub fn put(&self, name: &OsStr, mode: u32, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        let draft = draft_name(name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = fs::openat(&self.fd, &*draft, flags, Mode::from_raw_mode(0o600));
        let fd = match made {
            Err(Errno::EXIST) => {
                // a process with our number died at this point once
                fs::unlinkat(&self.fd, &*draft, AtFlags::empty())?;
                fs::openat(&self.fd, &*draft, flags, Mode::from_raw_mode(0o600))?
            }
            other => other?,
        };
        let file = File::from(fd);
        let filled = fill(&file).and_then(|()| Ok(fs::fchmod(&file, Mode::from_raw_mode(mode))?));
        // Under its name it can be executed at once: nobody may have it open for writing any more then.
        drop(file);
        let done = filled.and_then(|()| Ok(fs::renameat(&self.fd, &*draft, &self.fd, name)?));
        if done.is_err() {
            let _ = fs::unlinkat(&self.fd, &*draft, AtFlags::empty());
        }
        done
    }

    /// Puts a symbolic link in place, in the same way. One that already leads to `target` is left alone.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn put_link(&self, name: &OsStr, target: &OsStr) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt as _;
        if fs::readlinkat(&self.fd, name, Vec::new()).is_ok_and(|found| found.as_bytes() == target.as_bytes())
        {
            return Ok(());
        }
        let draft = draft_name(name);
        match fs::symlinkat(target, &self.fd, &*draft) {
            Err(Errno::EXIST) => {
                fs::unlinkat(&self.fd, &*draft, AtFlags::empty())?;
                fs::symlinkat(target, &self.fd, &*draft)?;
            }
            other => other?,
        }
        Ok(fs::renameat(&self.fd, &*draft, &self.fd, name)?)
    }

    /// Whether there is a symbolic link that leads to `target`.
    #[must_use]
    pub fn has_link(&self, name: &OsStr, target: &OsStr) -> bool {
        fs::readlinkat(&self.fd, name, Vec::new()).is_ok_and(|found| found.as_bytes() == target.as_bytes())
    }

    fn at(parent: BorrowedFd<'_>, name: &OsStr, path: PathBuf, mode: u32) -> Result<Self, OwnDirError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        let made = match fs::mkdirat(parent, name, mode) {
            Ok(()) => true,
            // the parent may be read-only while the directory is there: opening tells
            Err(Errno::EXIST | Errno::ROFS | Errno::ACCESS) => false,
            Err(error) => return Err(OwnDirError::Host { path, source: error.into() }),
        };
        let fd = match fs::openat(parent, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(OwnDirError::NotADirectory { path }),
            Err(error) => {
                return Err(match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) if stat.st_uid != effective_ids().0 => {
                        OwnDirError::Foreign { path, owner: stat.st_uid }
                    }
                    _ => OwnDirError::Host { path, source: error.into() },
                });
            }
        };
        if made && let Err(error) = fs::fchmod(&fd, mode) {
            // the umask may have taken bits
            return Err(OwnDirError::Host { path, source: error.into() });
        }
        let stat = match fs::fstat(&fd) {
            Ok(stat) => stat,
            Err(error) => return Err(OwnDirError::Host { path, source: error.into() }),
        };
        if stat.st_uid != effective_ids().0 {
            return Err(OwnDirError::Foreign { path, owner: stat.st_uid });
        }
        if !is_ours(&stat) {
            return Err(OwnDirError::Open { path, mode: stat.st_mode & 0o7777 });
        }
        Ok(Self { fd, path })
    }
}

impl AsFd for OwnDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether the owner is the caller and nobody else may write.
fn is_ours(stat: &Stat) -> bool {
    stat.st_uid == effective_ids().0 && stat.st_mode & 0o022 == 0
}

/// A name that no other process uses.
fn draft_name(name: &OsStr) -> std::ffi::OsString {
    let mut draft = std::ffi::OsString::from(".");
    draft.push(name);
    draft.push(format!(".{}", std::process::id()));
    draft
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    #[test]
    fn only_directories_of_ours_are_used() {
        let place = tempfile::tempdir().unwrap();
        let made = OwnDir::open_or_make(&place.path().join("a"), 0o755).unwrap();
        assert!(OwnDir::open_or_make(made.path(), 0o755).is_ok(), "twice");
        std::fs::set_permissions(made.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            OwnDir::open_or_make(made.path(), 0o755),
            Err(OwnDirError::Open { mode: 0o777, .. })
        ));
        symlink(place.path(), place.path().join("link")).unwrap();
        let error = OwnDir::open_or_make(&place.path().join("link"), 0o755).unwrap_err();
        assert!(matches!(error, OwnDirError::NotADirectory { .. }), "{error}");
        if effective_ids().0 == 0 {
            let foreign = place.path().join("foreign");
            std::fs::create_dir(&foreign).unwrap();
            std::os::unix::fs::chown(&foreign, Some(1234), None).unwrap();
            let error = OwnDir::open_or_make(&foreign, 0o755).unwrap_err();
            assert!(matches!(error, OwnDirError::Foreign { owner: 1234, .. }), "{error}");
        } else {
            println!("skipped: a foreign directory (needs root)");
        }
    }

    #[test]
    fn files_are_put_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let dir = OwnDir::open_or_make(&place.path().join("a"), 0o700).unwrap();
        dir.put(name("x"), 0o755, |mut file| file.write_all(b"one")).unwrap();
        let failed = dir.put(name("x"), 0o755, |mut file| {
            file.write_all(b"two")?;
            Err(io::Error::other("broken"))
        });
        assert!(failed.is_err());
        let mut text = String::new();
        dir.file(name("x")).unwrap().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "one");
        dir.put_link(name("l"), name("x")).unwrap();
        dir.put_link(name("l"), name("y")).unwrap();
        assert!(dir.file(name("l")).unwrap().is_none(), "links are not followed");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no draft stays");
    }
}
