//! The reference: a plain directory, changed by system calls.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use fim::casefold::{self, fold};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};

use crate::ops::{Answer, Errno, Op, Path, SLOTS, Side};

pub(crate) struct Native {
    root: PathBuf,
    held: [Option<OwnedFd>; SLOTS],
    /// How names are folded.
    pub(crate) casefold: Option<casefold::Mode>,
}

impl Native {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, held: [const { None }; SLOTS], casefold: None }
    }

    /// The spelling of `name` that is in `dir`; `name` where there is none.
    fn spelling(dir: &std::path::Path, name: &str, mode: casefold::Mode) -> String {
        if dir.join(name).symlink_metadata().is_ok() {
            return name.to_owned();
        }
        let key = fold(name.as_bytes(), mode);
        let entries = std::fs::read_dir(dir).into_iter().flatten();
        let mut names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.find(|other| fold(other.as_bytes(), mode) == key).unwrap_or_else(|| name.to_owned())
    }

    /// `op` with the names that are there.
    fn spelled(&self, op: &Op, mode: casefold::Mode) -> Op {
        let there = |path: &Path| {
            path.iter().fold(Vec::new(), |mut found: Path, name| {
                let dir = self.root.join(found.join("/"));
                found.push(Self::spelling(&dir, name, mode));
                found
            })
        };
        let mut op = op.clone();
        match &mut op {
            Op::HeldCreate(slot, name) => {
                if let Some(dir) = &self.held[*slot] {
                    *name = Self::spelling(std::path::Path::new(&proc(dir)), name, mode);
                }
            }
            Op::Rename(from, to, flags) => {
                let (asked, last) = (to.last().cloned().unwrap(), to.len() - 1);
                (*from, *to) = (there(from), there(to));
                if from == to && *flags != libc::RENAME_EXCHANGE {
                    // Its spelling alone changes.
                    to[last] = asked;
                }
            }
            op => op.paths_mut().into_iter().for_each(|path| *path = there(path)),
        }
        op
    }

    pub(crate) fn release_all(&mut self) {
        self.held = [const { None }; SLOTS];
    }

    fn path(&self, path: &Path) -> PathBuf {
        self.root.join(path.join("/"))
    }

    /// The parent, opened without following symlinks, as look-ups of single names go.
    fn parent(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let mut dir = rustix::fs::open(&self.root, flags, Mode::empty()).map_err(raw)?;
        for name in &path[..path.len() - 1] {
            dir = rustix::fs::openat(&dir, name.as_str(), flags, Mode::empty()).map_err(
                |error| match error {
                    rustix::io::Errno::LOOP => libc::ENOTDIR,
                    other => raw(other),
                },
            )?;
        }
        Ok(dir)
    }

    fn file(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let dir = self.parent(path)?;
        let name = path.last().unwrap().as_str();
        let kind =
            rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(raw)?.st_mode & libc::S_IFMT;
        match kind {
            libc::S_IFREG => rustix::fs::openat(&dir, name, flags, Mode::empty()).map_err(raw),
            libc::S_IFDIR => Err(libc::EISDIR),
            _ => Err(libc::EINVAL),
        }
    }

    /// A descriptor for naming the object.
    fn object(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let dir = self.parent(path)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        rustix::fs::openat(&dir, path.last().unwrap().as_str(), flags, Mode::empty()).map_err(raw)
    }

    fn held(&self, slot: usize) -> Result<&OwnedFd, Errno> {
        self.held[slot].as_ref().ok_or(libc::EBADF)
    }

    fn held_file(&self, slot: usize) -> Result<OwnedFd, Errno> {
        let fd = self.held(slot)?;
        let kind = rustix::fs::fstat(fd).map_err(raw)?.st_mode & libc::S_IFMT;
        match kind {
            libc::S_IFREG => rustix::fs::open(proc(fd), OFlags::RDWR, Mode::empty()).map_err(raw),
            libc::S_IFDIR => Err(libc::EISDIR),
            _ => Err(libc::EINVAL),
        }
    }
}

impl Side for Native {
    fn apply(&mut self, op: &Op) -> Result<Answer, Errno> {
        let spelled = self.casefold.map(|mode| self.spelled(op, mode));
        match spelled.as_ref().unwrap_or(op) {
            Op::Create(path, perm) => {
                let dir = self.parent(path)?;
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
                let fd = rustix::fs::openat(&dir, last(path), flags, Mode::empty()).map_err(raw)?;
                rustix::fs::fchmod(fd, mode(*perm)).map_err(raw)?;
            }
            Op::Mkdir(path, perm) => {
                let dir = self.parent(path)?;
                let inherits =
                    rustix::fs::statat(&dir, "", AtFlags::EMPTY_PATH).map_err(raw)?.st_mode & 0o2000;
                rustix::fs::mkdirat(&dir, last(path), Mode::empty()).map_err(raw)?;
                let perm = *perm | u16::try_from(inherits).unwrap();
                rustix::fs::chmodat(&dir, last(path), mode(perm), AtFlags::empty()).map_err(raw)?;
            }
            Op::Symlink(path, target) => {
                rustix::fs::symlinkat(target.as_str(), self.parent(path)?, last(path)).map_err(raw)?;
            }
            Op::Fifo(path) => {
                rustix::fs::mknodat(self.parent(path)?, last(path), FileType::Fifo, mode(0o600), 0)
                    .map_err(raw)?;
            }
            Op::Whiteout(path) => {
                self.parent(path)?;
                return Err(libc::EPERM);
            }
            Op::Unlink(path) => {
                rustix::fs::unlinkat(self.parent(path)?, last(path), AtFlags::empty()).map_err(raw)?;
            }
            Op::Rmdir(path) => {
                rustix::fs::unlinkat(self.parent(path)?, last(path), AtFlags::REMOVEDIR).map_err(raw)?;
            }
            Op::Rename(from, to, flags) => {
                let flags = rustix::fs::RenameFlags::from_bits_retain(*flags);
                let (old, new) = (self.parent(from)?, self.parent(to)?);
                if flags == rustix::fs::RenameFlags::WHITEOUT {
                    return Err(libc::EINVAL);
                }
                rustix::fs::renameat_with(old, last(from), new, last(to), flags).map_err(raw)?;
            }
            Op::Link(from, to) => {
                let (object, dir) = (self.object(from)?, self.parent(to)?);
                let kind = rustix::fs::fstat(&object).map_err(raw)?.st_mode & libc::S_IFMT;
                if kind == libc::S_IFDIR {
                    return Err(libc::EPERM);
                }
                rustix::fs::linkat(CWD, proc(&object), dir, last(to), AtFlags::SYMLINK_FOLLOW)
                    .map_err(raw)?;
            }
            Op::Write(path, offset, byte, len) => {
                let fd = self.file(path, OFlags::RDWR)?;
                rustix::io::pwrite(&fd, &vec![*byte; *len], *offset).map_err(raw)?;
            }
            Op::Read(path) => return Ok(Answer::Bytes(read_all(&self.file(path, OFlags::RDONLY)?))),
            Op::Truncate(path, len) => {
                rustix::fs::ftruncate(self.file(path, OFlags::RDWR)?, *len).map_err(raw)?;
            }
            Op::Punch(path, offset, len) => {
                let fd = self.file(path, OFlags::RDWR)?;
                let mode = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(fd, mode, *offset, *len).map_err(raw)?;
            }
            Op::Allocate(path, mode, offset, len) => {
                let fd = self.file(path, OFlags::RDWR)?;
                let mode = rustix::fs::FallocateFlags::from_bits(*mode).unwrap();
                rustix::fs::fallocate(fd, mode, *offset, *len).map_err(raw)?;
            }
            Op::Chmod(path, perm) => {
                let object = self.object(path)?;
                rustix::fs::chmod(proc(&object), mode(*perm)).map_err(raw)?;
            }
            Op::Touch(path, seconds) => {
                let time = rustix::fs::Timespec { tv_sec: *seconds, tv_nsec: 1 };
                let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
                rustix::fs::utimensat(self.parent(path)?, last(path), &times, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(raw)?;
            }
            Op::SetXattr(path, value, flags) => {
                let flags = rustix::fs::XattrFlags::from_bits_retain(*flags);
                rustix::fs::setxattr(proc(&self.object(path)?), "user.x", value, flags).map_err(raw)?;
            }
            Op::RemoveXattr(path) => {
                match rustix::fs::removexattr(proc(&self.object(path)?), "user.x") {
                    // Objects that take no attributes have none to remove.
                    Err(rustix::io::Errno::PERM) => return Err(libc::ENODATA),
                    other => other.map_err(raw)?,
                }
            }
            Op::Stat(path) => return stat(&self.object(path)?),
            Op::Readlink(path) => {
                let object = self.object(path)?;
                let target = rustix::fs::readlinkat(&object, "", Vec::new()).map_err(|_| libc::EINVAL)?;
                return Ok(Answer::Bytes(target.into_bytes()));
            }
            Op::CopyRange(from, to, len) => {
                let from = self.file(from, OFlags::RDONLY)?;
                self.file(to, OFlags::RDONLY)?;
                if same(&from, &self.object(to)?) {
                    return Err(libc::EBUSY);
                }
                let to = self.file(to, OFlags::RDWR)?;
                let content = read_all(&from);
                let len = content.len().min(usize::try_from(*len).unwrap());
                rustix::io::pwrite(&to, &content[..len], 0).map_err(raw)?;
            }
            Op::Hold(slot, path) => self.held[*slot] = Some(self.object(path)?),
            Op::HeldWrite(slot, offset, len) => {
                rustix::io::pwrite(self.held_file(*slot)?, &vec![b'h'; *len], *offset).map_err(raw)?;
            }
            Op::HeldTruncate(slot, len) => {
                rustix::fs::ftruncate(self.held_file(*slot)?, *len).map_err(raw)?;
            }
            Op::HeldStat(slot) => return stat(self.held(*slot)?),
            Op::HeldCreate(slot, name) => {
                let dir = self.held(*slot)?;
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
                let fd = rustix::fs::openat(dir, name.as_str(), flags, Mode::empty()).map_err(raw)?;
                rustix::fs::fchmod(fd, mode(0o644)).map_err(raw)?;
            }
            Op::Release(slot) => self.held[*slot] = None,
            Op::Fsync(path) => {
                self.object(path)?;
            }
            Op::Check | Op::Commit | Op::Remount => {}
        }
        let _ = self.path(&Vec::new());
        Ok(Answer::Done)
    }
}

fn stat(fd: &OwnedFd) -> Result<Answer, Errno> {
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map_err(raw)?;
    let kind = u32::from(stat.stx_mode) & libc::S_IFMT;
    let is_dir = kind == libc::S_IFDIR;
    let links = if is_dir { u32::from(stat.stx_nlink > 0) } else { stat.stx_nlink };
    let size = if is_dir { 0 } else { stat.stx_size };
    Ok(Answer::Stat(kind, stat.stx_mode & 0o7777, links, size))
}

fn read_all(fd: &OwnedFd) -> Vec<u8> {
    let mut content = vec![0; 1 << 16];
    let len = rustix::io::pread(fd, &mut content[..], 0).unwrap();
    content.truncate(len);
    content
}

fn same(a: &OwnedFd, b: &OwnedFd) -> bool {
    rustix::fs::fstat(a).unwrap().st_ino == rustix::fs::fstat(b).unwrap().st_ino
}

fn proc(fd: &OwnedFd) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

fn last(path: &Path) -> &str {
    path.last().unwrap()
}

fn mode(perm: u16) -> Mode {
    Mode::from_raw_mode(perm.into())
}

fn raw(error: rustix::io::Errno) -> Errno {
    error.raw_os_error()
}
