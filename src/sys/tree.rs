//! Directories of our own in places that others can write to: made, checked, locked and removed by descriptor.

use std::{
    ffi::{CStr, OsStr},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, fchmod, flock, fstat, mkdir, mkdirat, open,
        openat, unlinkat,
    },
    io::Errno,
};

/// Directories nested deeper than this are not removed; ours have five levels.
const MAX_DEPTH: u32 = 64;

/// An open directory.
#[derive(Debug)]
pub struct DirFd(OwnedFd);

impl DirFd {
    /// Opens a directory; a symlink in the last place is refused.
    ///
    /// # Errors
    ///
    /// `ENOTDIR` or `ELOOP` for anything else, else what open(2) says.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(open(path, FLAGS, Mode::empty())?))
    }

    /// Opens a directory in this one; never follows a symlink.
    ///
    /// # Errors
    ///
    /// What openat(2) says.
    pub fn open_in(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        Ok(Self(openat(&self.0, name.as_ref(), FLAGS, Mode::empty())?))
    }

    /// Makes a directory in this one, or opens the one that is there.
    ///
    /// # Errors
    ///
    /// What mkdirat(2) and openat(2) say.
    pub fn ensure(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<Self> {
        match mkdirat(&self.0, name.as_ref(), Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => self.open_in(name),
            Err(error) => Err(error.into()),
        }
    }

    /// Names of all entries.
    ///
    /// # Errors
    ///
    /// What getdents64(2) says.
    pub fn names(&self) -> io::Result<Vec<std::ffi::OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            if !is_dot(entry.file_name()) {
                names.push(OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
            }
        }
        Ok(names)
    }

    /// Removes an entry with everything in it; one that is not there is no error. Symlinks are removed, not followed,
    /// and file systems mounted below are left alone.
    ///
    /// # Errors
    ///
    /// What unlinkat(2) says, `ELOOP` for trees that are too deep.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        remove(self.0.as_fd(), name.as_ref(), MAX_DEPTH)
    }

    /// Renames an entry of this directory to an entry of `to`, which must not be there.
    ///
    /// # Errors
    ///
    /// `EEXIST`, else what renameat2(2) says.
    pub fn rename(&self, name: impl AsRef<OsStr>, to: &Self, new_name: impl AsRef<OsStr>) -> io::Result<()> {
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.0, name.as_ref(), &to.0, new_name.as_ref(), flags) {
            // Some file systems do not know the flag; our callers hold a lock over both names.
            Err(Errno::INVAL) => Ok(rustix::fs::renameat(&self.0, name.as_ref(), &to.0, new_name.as_ref())?),
            other => Ok(other?),
        }
    }

    /// Puts a small file in place, for its owner alone: readers find the old one or the new one, whole.
    ///
    /// # Errors
    ///
    /// What writing and renaming say; the old file is there still.
    pub fn put(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let draft = format!("{name}.{}", super::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = std::fs::File::from(openat(&self.0, &draft, flags, Mode::from_raw_mode(0o600))?);
        let done = io::Write::write_all(&mut &file, contents)
            .and_then(|()| Ok(rustix::fs::renameat(&self.0, &draft, &self.0, name)?));
        if done.is_err() {
            let _ = unlinkat(&self.0, &draft, AtFlags::empty());
        }
        done
    }

    /// Reads a small regular file; `None` where there is none.
    ///
    /// # Errors
    ///
    /// `EFBIG` where it has more than `limit` bytes, else what openat(2) and read(2) say.
    pub fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.0, name, flags, Mode::empty()) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut contents = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, limit + 1), &mut contents)?;
        if u64::try_from(contents.len()).is_ok_and(|length| length > limit) {
            return Err(Errno::FBIG.into());
        }
        Ok(Some(contents))
    }

    /// Opens a file for appending, made for its owner alone where it is missing.
    ///
    /// # Errors
    ///
    /// What openat(2) says.
    pub fn append(&self, name: &str) -> io::Result<std::fs::File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.0, name, flags, Mode::from_raw_mode(0o600))?.into())
    }

    /// Copies the regular files of this directory and of those in it into `to`, which they are made in, until `budget`
    /// bytes are copied; empty ones are left out, and so is what is no regular file.
    ///
    /// # Errors
    ///
    /// What reading and writing say.
    pub fn copy_files(&self, to: &Self, budget: u64) -> io::Result<()> {
        self.copy_below(to, &mut { budget }, MAX_DEPTH)
    }

    fn copy_below(&self, to: &Self, budget: &mut u64, depth: u32) -> io::Result<()> {
        let Some(depth) = depth.checked_sub(1) else { return Err(Errno::LOOP.into()) };
        for name in self.names()? {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(entry) = openat(&self.0, &name, flags, Mode::empty()) else { continue };
            let status = fstat(&entry)?;
            match FileType::from_raw_mode(status.st_mode) {
                FileType::Directory => {
                    let from = Self(entry);
                    if !from.is_bare()? {
                        from.copy_below(&to.ensure(&name, 0o700)?, budget, depth)?;
                    }
                }
                FileType::RegularFile if status.st_size > 0 => {
                    let mut from = io::Read::take(std::fs::File::from(entry), *budget);
                    let mut copy = to.append(&name.to_string_lossy())?;
                    *budget = budget.saturating_sub(io::copy(&mut from, &mut copy)?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether nothing but bare directories is below.
    fn is_bare(&self) -> io::Result<bool> {
        for name in self.names()? {
            match self.open_in(&name) {
                Ok(below) if below.is_bare()? => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Takes the lock of the directory itself: it goes with the descriptor, whatever kills the holder. `false` where
    /// somebody else holds it and `wait` is not set.
    ///
    /// # Errors
    ///
    /// What flock(2) says.
    pub fn lock(&self, wait: bool) -> io::Result<bool> {
        lock(self.0.as_fd(), wait)
    }

    /// Device and inode number.
    ///
    /// # Errors
    ///
    /// What fstat(2) says.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let status = fstat(&self.0)?;
        Ok((status.st_dev, status.st_ino))
    }

    /// Whether the entry `name` of `parent` is still this directory.
    #[must_use]
    pub fn is_entry_of(&self, parent: &Self, name: impl AsRef<OsStr>) -> bool {
        parent.open_in(name).and_then(|there| there.identity()).ok() == self.identity().ok()
    }
}

impl AsFd for DirFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// Makes a directory where there is nothing, with exactly these permission bits.
///
/// # Errors
///
/// What mkdir(2) and open(2) say; that something is there is no error.
pub fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode);
    match mkdir(path, mode) {
        // The umask may have taken bits.
        Ok(()) => Ok(fchmod(open(path, FLAGS, Mode::empty())?, mode)?),
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Checks that the caller may make entries in a directory.
///
/// # Errors
///
/// `EACCES`, `EROFS`, else what faccessat(2) says.
pub fn may_write(path: &Path) -> io::Result<()> {
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    Ok(rustix::fs::accessat(rustix::fs::CWD, path, access, AtFlags::EACCESS)?)
}

/// Whether an open object is a directory.
#[must_use]
pub fn is_directory(object: BorrowedFd<'_>) -> bool {
    fstat(object).is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::Directory)
}

/// Takes the lock of an open file; `false` where somebody else holds it and `wait` is not set.
///
/// # Errors
///
/// What flock(2) says.
pub fn lock(file: BorrowedFd<'_>, wait: bool) -> io::Result<bool> {
    let operation =
        if wait { FlockOperation::LockExclusive } else { FlockOperation::NonBlockingLockExclusive };
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

fn remove(parent: BorrowedFd<'_>, name: &OsStr, depth: u32) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let Some(depth) = depth.checked_sub(1) else { return Err(Errno::LOOP.into()) };
    let directory = match openat(parent, name, FLAGS, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    if fstat(&directory)?.st_dev == fstat(parent)?.st_dev {
        empty(directory.as_fd(), depth)?;
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn empty(directory: BorrowedFd<'_>, depth: u32) -> io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if is_dot(entry.file_name()) {
            continue;
        }
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if entry.file_type() == FileType::Directory {
            remove(directory, name, depth)?;
        } else {
            unlinkat(directory, name, AtFlags::empty()).or_else(|error| match error {
                Errno::NOENT => Ok(()),
                other => Err(other),
            })?;
        }
    }
    Ok(())
}

fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_tree_is_removed_without_following_symlinks() {
        let folder = tempfile::tempdir().unwrap();
        let keep = folder.path().join("keep");
        fs::create_dir(&keep).unwrap();
        fs::write(keep.join("file"), "x").unwrap();
        fs::create_dir_all(folder.path().join("gone/a/b")).unwrap();
        fs::write(folder.path().join("gone/a/b/c"), "x").unwrap();
        std::os::unix::fs::symlink(&keep, folder.path().join("gone/link")).unwrap();
        let directory = DirFd::open(folder.path()).unwrap();
        directory.remove("gone").unwrap();
        directory.remove("gone").unwrap();
        assert_eq!(directory.names().unwrap(), ["keep"]);
        assert!(keep.join("file").exists());
    }

    #[test]
    fn a_directory_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        make_directory(&path, 0o777).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777, "whatever the umask");
        make_directory(&path, 0o700).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777, "left alone");
    }

    #[test]
    fn a_lock_goes_with_its_descriptor() {
        let folder = tempfile::tempdir().unwrap();
        let one = DirFd::open(folder.path()).unwrap();
        let two = DirFd::open(folder.path()).unwrap();
        assert!(one.lock(false).unwrap());
        assert!(!two.lock(false).unwrap());
        drop(one);
        assert!(two.lock(false).unwrap());
    }
}
