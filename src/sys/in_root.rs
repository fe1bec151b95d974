//! Paths inside a root directory that belongs to somebody else.
//!
//! Whatever the tree holds, nothing here leaves it: the kernel resolves every path as if the root were `/`
//! (`RESOLVE_IN_ROOT`), so that an image's symlink to `/etc/shadow` means the image's own.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, open, openat, openat2, readlinkat, statat},
    io::Errno,
};

/// Most dangling symlinks that are followed while something is made, as in the kernel.
const MAX_LINKS: u32 = 40;

/// How often somebody else may come in between.
const PATIENCE: u32 = 64;

/// What a mount point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// Anything else.
    File,
}

/// A root directory, by descriptor.
#[derive(Debug)]
pub struct RootDir {
    fd: OwnedFd,
    path: PathBuf,
}

impl RootDir {
    /// Opens a root.
    ///
    /// # Errors
    ///
    /// What open(2) says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = path_of(fd.as_fd())?;
        Ok(Self { fd, path })
    }

    /// Reads a file, symlinks followed inside the root; `None` where there is none.
    ///
    /// # Errors
    ///
    /// `EFBIG` above `limit` bytes, else what open(2) and read(2) say.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let fd = match self.open_in(path, OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            other => other?,
        };
        if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        File::from(fd).take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > limit) {
            return Err(Errno::FBIG.into());
        }
        Ok(Some(bytes))
    }

    /// Whether a directory is there, symlinks followed inside the root.
    #[must_use]
    pub fn has_directory(&self, path: &Path) -> bool {
        self.open_in(path, OFlags::PATH | OFlags::DIRECTORY).is_ok()
    }

    /// Makes sure that `path` is there as a directory or as a file, and returns where it really lies: a path below
    /// the root without any symlink. What is missing is made, with the mode `new` for the last step and 0755 for
    /// those before it.
    ///
    /// # Errors
    ///
    /// `ENOTDIR` and `EISDIR` where something of the other kind is there, else what the system says.
    pub fn ensure(&self, path: &Path, kind: Kind, new: u32) -> io::Result<PathBuf> {
        for _ in 0..PATIENCE {
            match self.try_ensure(path, kind, new) {
                // Somebody else makes or moves the same thing at the same time.
                Err(error) if error.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// As [`ensure`](Self::ensure) for what is there already; makes nothing.
    ///
    /// # Errors
    ///
    /// `ENOENT` where it is not there, else as `ensure`.
    pub fn find(&self, path: &Path, kind: Kind) -> io::Result<PathBuf> {
        let found = self.open_in(path, OFlags::PATH)?;
        let is_directory = FileType::from_raw_mode(fstat(&found)?.st_mode) == FileType::Directory;
        match (kind, is_directory) {
            (Kind::Directory, false) => Err(Errno::NOTDIR.into()),
            (Kind::File, true) => Err(Errno::ISDIR.into()),
            _ => self.real(found.as_fd()),
        }
    }

    fn try_ensure(&self, path: &Path, kind: Kind, new: u32) -> io::Result<PathBuf> {
        let made = match kind {
            Kind::Directory => self.directory(path, Mode::from_raw_mode(new), MAX_LINKS)?,
            Kind::File => self.file(path, Mode::from_raw_mode(new), MAX_LINKS)?,
        };
        self.real(made.as_fd())
    }

    /// Where an object of this root really lies.
    fn real(&self, made: BorrowedFd<'_>) -> io::Result<PathBuf> {
        let real = path_of(made)?;
        let below = real.strip_prefix(&self.path).map_err(|_| io::Error::from(Errno::XDEV))?;
        self.confirm(below, made)?;
        Ok(Path::new("/").join(below))
    }

    /// The path names the object still, and without a symlink on the way.
    fn confirm(&self, below: &Path, object: BorrowedFd<'_>) -> io::Result<()> {
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let again =
            openat2(&self.fd, below, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
                .map_err(again)?;
        let (one, two) = (fstat(&again)?, fstat(object)?);
        if (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino) { Ok(()) } else { Err(Errno::AGAIN.into()) }
    }

    fn open_in(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            // EAGAIN: a rename elsewhere made the kernel unsure about a `..`; it asks to be asked again.
            match openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    fn directory(&self, path: &Path, mode: Mode, links: u32) -> io::Result<OwnedFd> {
        match self.open_in(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
        let (parent, name) = self.parent_of(path, links)?;
        match mkdirat(&parent, &name, mode) {
            Ok(()) => self.open_below(parent.as_fd(), &name, OFlags::DIRECTORY).map_err(again),
            Err(Errno::EXIST) => {
                let target = self.target(parent.as_fd(), &name, links)?;
                self.directory(&target, mode, links.saturating_sub(1))
            }
            Err(error) => Err(again(error)),
        }
    }

    fn file(&self, path: &Path, mode: Mode, links: u32) -> io::Result<OwnedFd> {
        match self.open_in(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
            Ok(fd) if FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::Directory => {
                return Err(Errno::ISDIR.into());
            }
            Ok(fd) => return Ok(fd),
        }
        let (parent, name) = self.parent_of(path, links)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&parent, &name, flags, mode) {
            Ok(_) => self.open_below(parent.as_fd(), &name, OFlags::empty()).map_err(again),
            Err(Errno::EXIST) => {
                let target = self.target(parent.as_fd(), &name, links)?;
                self.file(&target, mode, links.saturating_sub(1))
            }
            Err(error) => Err(again(error)),
        }
    }

    #[expect(clippy::unused_self, reason = "one of the family that opens beneath this root")]
    fn open_below(&self, parent: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        openat(parent, name, flags | OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }

    fn parent_of(&self, path: &Path, links: u32) -> io::Result<(OwnedFd, OsString)> {
        let path = lexical(path);
        let name = path.file_name().ok_or(Errno::NOENT)?.to_owned();
        let parent = path.parent().unwrap_or(Path::new("/"));
        Ok((self.directory(parent, Mode::from_raw_mode(0o755), links)?, name))
    }

    /// Where a dangling symlink points to, as a path from the root.
    fn target(&self, parent: BorrowedFd<'_>, name: &OsStr, links: u32) -> io::Result<PathBuf> {
        if links == 0 {
            return Err(Errno::LOOP.into());
        }
        let entry = match statat(parent, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Err(Errno::AGAIN.into()),
            other => other?,
        };
        if FileType::from_raw_mode(entry.st_mode) != FileType::Symlink {
            // Somebody made it between our two looks: the next one finds it.
            return Err(Errno::AGAIN.into());
        }
        let target = PathBuf::from(OsString::from_vec(readlinkat(parent, name, Vec::new())?.into_bytes()));
        let parent = path_of(parent)?;
        let below = parent.strip_prefix(&self.path).map_err(|_| io::Error::from(Errno::XDEV))?;
        Ok(lexical(&Path::new("/").join(below).join(target)))
    }
}

/// What was there a moment ago, or has just been made, has been taken away by somebody else: everything is looked at anew.
fn again(error: Errno) -> io::Error {
    if error == Errno::NOENT { Errno::AGAIN.into() } else { error.into() }
}

/// Takes `.` and `..` out by the letters; what is left begins at `/` and never climbs above it.
fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// The path of an open object as the kernel knows it.
fn path_of(fd: BorrowedFd<'_>) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, thread};

    use super::*;

    fn root() -> (tempfile::TempDir, RootDir) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("root/etc")).unwrap();
        fs::create_dir_all(folder.path().join("outside")).unwrap();
        let root = RootDir::open(&folder.path().join("root")).unwrap();
        (folder, root)
    }

    #[test]
    fn missing_directories_and_files_are_made() {
        let (folder, root) = root();
        assert_eq!(root.ensure(Path::new("/a/b/c"), Kind::Directory, 0o700).unwrap(), Path::new("/a/b/c"));
        assert!(folder.path().join("root/a/b/c").is_dir());
        assert_eq!(root.ensure(Path::new("/x/y"), Kind::File, 0o644).unwrap(), Path::new("/x/y"));
        assert!(folder.path().join("root/x/y").is_file());
        assert_eq!(root.ensure(Path::new("/"), Kind::Directory, 0o755).unwrap(), Path::new("/"));
    }

    #[test]
    fn symlinks_stay_inside() {
        let (folder, root) = root();
        let base = folder.path().join("root");
        symlink("/outside/../../../made", base.join("absolute")).unwrap();
        symlink("../../../../run/deep/resolv.conf", base.join("etc/resolv.conf")).unwrap();
        symlink(folder.path().join("outside"), base.join("escape")).unwrap();
        assert_eq!(
            root.ensure(Path::new("/etc/resolv.conf"), Kind::File, 0o644).unwrap(),
            Path::new("/run/deep/resolv.conf")
        );
        assert!(base.join("run/deep/resolv.conf").is_file());
        assert_eq!(
            root.ensure(Path::new("/absolute/d"), Kind::Directory, 0o755).unwrap(),
            Path::new("/made/d")
        );
        let inside = root.ensure(Path::new("/escape/file"), Kind::File, 0o644).unwrap();
        assert!(base.join(inside.strip_prefix("/").unwrap()).is_file());
        assert_eq!(fs::read_dir(folder.path().join("outside")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn several_may_make_the_same_at_once() {
        let (_folder, root) = root();
        for round in 0..50 {
            let path = format!("/a{round}/b/c");
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| root.ensure(Path::new(&path), Kind::Directory, 0o755).unwrap());
                    scope.spawn(|| {
                        root.ensure(&Path::new(&path).with_file_name("f"), Kind::File, 0o644).unwrap()
                    });
                }
            });
        }
    }

    #[test]
    fn what_somebody_removes_meanwhile_is_made_again() {
        let (folder, root) = root();
        let base = folder.path().join("root/a");
        let done = std::sync::atomic::AtomicBool::new(false);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(relaxed) {
                        let _ = fs::remove_file(base.join("b/f"));
                        let _ = fs::remove_dir(base.join("b"));
                        let _ = fs::remove_dir(&base);
                        // Whoever makes gets his turns, on however few cores.
                        thread::sleep(std::time::Duration::from_micros(20));
                    }
                });
            }
            let made: Vec<_> = (0..3000)
                .flat_map(|_| [("/a/b", Kind::Directory), ("/a/b/f", Kind::File)])
                .map(|(path, kind)| root.ensure(Path::new(path), kind, 0o755))
                .collect();
            done.store(true, relaxed);
            made.into_iter().for_each(|made| drop(made.unwrap()));
        });
    }

    #[test]
    fn loops_and_wrong_kinds_are_errors() {
        let (folder, root) = root();
        let base = folder.path().join("root");
        symlink("/two", base.join("one")).unwrap();
        symlink("/one", base.join("two")).unwrap();
        fs::write(base.join("plain"), "").unwrap();
        assert!(root.ensure(Path::new("/one"), Kind::File, 0o644).is_err());
        assert!(root.ensure(Path::new("/plain"), Kind::Directory, 0o755).is_err());
        assert!(root.ensure(Path::new("/etc"), Kind::File, 0o644).is_err());
        assert!(root.ensure(Path::new("/plain/below"), Kind::File, 0o644).is_err());
    }

    #[test]
    fn reading_is_bounded_and_stays_inside() {
        let (folder, root) = root();
        let base = folder.path().join("root");
        fs::write(folder.path().join("outside/secret"), "secret").unwrap();
        symlink("../../outside/secret", base.join("etc/passwd")).unwrap();
        fs::write(base.join("etc/group"), "0123456789").unwrap();
        assert_eq!(root.read(Path::new("/etc/passwd"), 100).unwrap(), None);
        assert_eq!(root.read(Path::new("/etc/group"), 10).unwrap().unwrap(), b"0123456789");
        assert!(root.read(Path::new("/etc/group"), 9).is_err());
        assert_eq!(root.read(Path::new("/etc"), 9).unwrap(), None);
    }
}
