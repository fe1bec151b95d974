//! What another process sees: its root, its working directory, its descriptors, its memory.
//!
//! Paths are resolved as the other process would: from its root and its directory. Links of `/proc` that lead to other
//! processes are not followed, for we may be permitted more of them than it is.

use std::{
    fs::File,
    io::Read as _,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::FileExt as _,
    },
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, fstat, open, openat, openat2},
    process::{chroot, fchdir},
};

use super::{beneath::errno, errno::Errno};

/// Longest path that the kernel takes, its NUL included.
const PATH_MAX: usize = 4096;

/// Most bytes of a file about a process that are read.
const MAX_STATE: u64 = 64 << 10;

/// A process: its number, and when it began, which no other of this number has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it began, in ticks since the machine did.
    pub start: u64,
}

/// A process or thread, by its directory in `/proc`.
#[derive(Debug)]
pub struct Task {
    dir: OwnedFd,
}

impl Task {
    /// Opens it. Whether it is still the one that was meant, the caller finds out afterwards.
    ///
    /// # Errors
    ///
    /// What open(2) says; `ENOENT` where it is gone.
    pub fn open(pid: u32) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { dir: open(format!("/proc/{pid}"), flags, Mode::empty()).map_err(errno)? })
    }

    /// Its root.
    ///
    /// # Errors
    ///
    /// What openat(2) says.
    pub fn root(&self) -> Result<OwnedFd, Errno> {
        self.link("root")
    }

    /// Its working directory.
    ///
    /// # Errors
    ///
    /// What openat(2) says.
    pub fn directory(&self) -> Result<OwnedFd, Errno> {
        self.link("cwd")
    }

    /// What its descriptor `number` refers to.
    ///
    /// # Errors
    ///
    /// `EBADF` where it has none of this number, else what openat(2) says.
    pub fn descriptor(&self, number: i32) -> Result<OwnedFd, Errno> {
        match self.link(&format!("fd/{number}")) {
            Err(Errno::ENOENT) => Err(Errno::EBADF),
            other => other,
        }
    }

    /// Its memory.
    ///
    /// # Errors
    ///
    /// What openat(2) says: `EACCES` where we may not trace it.
    pub fn memory(&self) -> Result<Memory, Errno> {
        let fd = openat(&self.dir, "mem", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(errno)?;
        Ok(Memory(File::from(fd)))
    }

    /// Permission bits that its new files do not get.
    ///
    /// # Errors
    ///
    /// What reading its status says.
    pub fn umask(&self) -> Result<u16, Errno> {
        let status = self.text("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        line.and_then(|text| u16::from_str_radix(text.trim(), 8).ok()).ok_or(Errno::EIO)
    }

    /// Which process it is, for ever, and its parent's number.
    ///
    /// # Errors
    ///
    /// What reading its state says.
    pub fn process(&self) -> Result<(Process, u32), Errno> {
        let number = |text: Option<&str>| -> Result<u32, Errno> {
            text.and_then(|text| text.trim().parse().ok()).ok_or(Errno::EIO)
        };
        let status = self.text("status")?;
        let line = |name| status.lines().find_map(|line: &str| line.strip_prefix(name));
        let (pid, parent) = (number(line("Tgid:"))?, number(line("PPid:"))?);
        // The leader's, whichever thread this is; behind the name, which can be anything.
        let state = if Some(pid) == line("Pid:").and_then(|text| text.trim().parse().ok()) {
            self.text("stat")?
        } else {
            Self::open(pid)?.text("stat")?
        };
        let fields = state.rsplit(')').next().unwrap_or_default();
        let start = fields.split_whitespace().nth(19).and_then(|text| text.parse().ok()).ok_or(Errno::EIO)?;
        Ok((Process { pid, start }, parent))
    }

    fn text(&self, name: &str) -> Result<String, Errno> {
        let fd = openat(&self.dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(errno)?;
        let mut bytes = Vec::new();
        File::from(fd).take(MAX_STATE).read_to_end(&mut bytes).map_err(|_| Errno::EIO)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn link(&self, name: &str) -> Result<OwnedFd, Errno> {
        openat(&self.dir, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(errno)
    }
}

/// The memory of a process, which stays that process's whatever becomes of its number.
#[derive(Debug)]
pub struct Memory(File);

impl Memory {
    /// The path at `address`, without its NUL.
    ///
    /// # Errors
    ///
    /// `EFAULT` where there is nothing, `ENAMETOOLONG` where it has no end.
    pub fn path(&self, address: u64) -> Result<Vec<u8>, Errno> {
        let mut path = vec![0; PATH_MAX];
        let mut len = 0;
        while let Some(rest) = path.get_mut(len..).filter(|rest| !rest.is_empty()) {
            let at = address.checked_add(len as u64).ok_or(Errno::EFAULT)?;
            // Up to the end of a page: the next one need not be there.
            let page = 4096 - usize::try_from(at % 4096).unwrap_or(0);
            let want = page.min(rest.len());
            let read = rest.get_mut(..want).map_or(Ok(0), |part| self.0.read_at(part, at));
            let read = read.ok().filter(|read| *read > 0).ok_or(Errno::EFAULT)?;
            let end = rest.get(..read).and_then(|part| part.iter().position(|byte| *byte == 0));
            if let Some(end) = end {
                path.truncate(len + end);
                return Ok(path);
            }
            len += read;
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// `count` numbers of 32 bits at `address`.
    ///
    /// # Errors
    ///
    /// `EFAULT` where there are none.
    pub fn numbers(&self, address: u64, count: usize) -> Result<Vec<u32>, Errno> {
        let mut bytes = vec![0; count.saturating_mul(4)];
        self.0.read_exact_at(&mut bytes, address).map_err(|_| Errno::EFAULT)?;
        Ok(bytes.as_chunks().0.iter().map(|chunk| u32::from_ne_bytes(*chunk)).collect())
    }

    /// Writes `bytes` to `address`.
    ///
    /// # Errors
    ///
    /// `EFAULT` where they cannot be written.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.0.write_all_at(bytes, address).map_err(|_| Errno::EFAULT)
    }
}

/// Our own root, to resolve paths from other roots and to come back.
#[derive(Debug)]
pub struct Ground {
    root: OwnedFd,
    /// Its device and inode number.
    id: (u64, u64),
}

impl Ground {
    /// Takes the present root.
    ///
    /// # Errors
    ///
    /// What open(2) and fstat(2) say.
    pub fn here() -> Result<Self, Errno> {
        let root =
            open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(errno)?;
        let id = identity(root.as_fd())?;
        Ok(Self { root, id })
    }

    /// The file system of the root.
    #[must_use]
    pub const fn device(&self) -> u64 {
        self.id.0
    }

    /// Opens `path` from `base` as a process with this `root` would, without rights to more than its attributes.
    ///
    /// # Errors
    ///
    /// What openat2(2) says; `ELOOP` also for a link of `/proc` that is not a name.
    pub fn resolve(
        &self,
        root: BorrowedFd<'_>,
        base: BorrowedFd<'_>,
        path: &[u8],
        follow: bool,
    ) -> Result<OwnedFd, Errno> {
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        flags.set(OFlags::NOFOLLOW, !follow);
        let act = || openat2(base, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS).map_err(errno);
        if identity(root)? == self.id {
            return act();
        }
        fchdir(root).map_err(errno)?;
        let result = chroot(".").map_err(errno).and_then(|()| act());
        // What was opened stays open; from any other root than ours everything would be wrong.
        if fchdir(&self.root).is_err() || chroot(".").is_err() {
            super::process::end(1);
        }
        result
    }
}

/// Device and inode number.
///
/// # Errors
///
/// What fstat(2) says.
pub fn identity(fd: BorrowedFd<'_>) -> Result<(u64, u64), Errno> {
    let stat = fstat(fd).map_err(errno)?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn own() -> Task {
        Task::open(std::process::id()).unwrap()
    }

    #[test]
    fn paths_are_read_where_they_end_and_nowhere_else() {
        let memory = own().memory().unwrap();
        let address = |bytes: &[u8]| bytes.as_ptr() as usize as u64;
        let text = b"/a/b\0c";
        assert_eq!(memory.path(address(text)).unwrap(), b"/a/b");
        let endless = vec![b'x'; 2 * PATH_MAX];
        assert_eq!(memory.path(address(&endless)), Err(Errno::ENAMETOOLONG));
        assert_eq!(memory.path(8), Err(Errno::EFAULT));
        assert_eq!(memory.path(u64::MAX - 4), Err(Errno::EFAULT));
    }

    #[test]
    fn paths_are_resolved_without_links_of_processes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        symlink("file", folder.path().join("link")).unwrap();
        let ground = Ground::here().unwrap();
        let task = own();
        let root = task.root().unwrap();
        let base = open(folder.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let at = |path: &[u8], follow| {
            ground.resolve(root.as_fd(), base.as_fd(), path, follow).and_then(|fd| identity(fd.as_fd()))
        };
        assert_eq!(at(b"link", true), at(b"file", false));
        assert_ne!(at(b"link", false), at(b"file", false));
        assert_eq!(at(b"/proc/self/root/tmp", true), Err(Errno::ELOOP));
        assert_eq!(at(b"none", true), Err(Errno::ENOENT));
        assert_eq!(task.descriptor(9999).unwrap_err(), Errno::EBADF);
        assert!(task.umask().unwrap() <= 0o777);
        assert_eq!(task.process().unwrap().0.pid, std::process::id());
        assert_eq!(Task::open(1).unwrap().process().unwrap().1, 0);
    }
}
