//! Reading a tree for an archive: everything beneath one directory, nothing behind a link.
//!
//! A path is resolved by the kernel in one step that follows no symlink and leaves neither the root nor, through
//! magic links, the file system's own tree. Opening never blocks (a named pipe) and never runs a device's code:
//! only what has been seen to be a directory or regular file is opened, and it is looked at again afterwards.

use std::{
    ffi::CString,
    io,
    ops::Range,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{self, AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags},
    io::Errno,
};

use super::{beneath, data, errno};

/// What `statx` says of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Device and inode number.
    pub identity: (u64, u64),
    /// Number of the mount it was found on.
    pub mount: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Space in units of 512 bytes.
    pub blocks: u64,
    /// Major and minor number of a device node.
    pub rdev: (u32, u32),
    /// Last access: seconds and nanoseconds.
    pub atime: (i64, u32),
    /// Last change of content.
    pub mtime: (i64, u32),
    /// Last change of attributes.
    pub ctime: (i64, u32),
    /// When it was made, where the file system knows.
    pub btime: Option<(i64, u32)>,
}

impl From<Statx> for Stat {
    fn from(stat: Statx) -> Self {
        let time = |time: fs::StatxTimestamp| (time.tv_sec, time.tv_nsec);
        Self {
            identity: (fs::makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino),
            mount: stat.stx_mnt_id,
            mode: u32::from(stat.stx_mode),
            nlink: stat.stx_nlink,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
            atime: time(stat.stx_atime),
            mtime: time(stat.stx_mtime),
            ctime: time(stat.stx_ctime),
            btime: (stat.stx_mask & StatxFlags::BTIME.bits() != 0).then(|| time(stat.stx_btime)),
        }
    }
}

/// What is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
}

/// Opens the directory that is to be the root; links on the way to it are followed.
///
/// # Errors
/// Passes on what the host says.
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(fs::open(path, flags, Mode::empty())?)
}

/// Opens `path` (relative, of any length, empty for the root itself) beneath `root`.
///
/// # Errors
/// Passes on what the host says: `ELOOP` for a symlink on the way, `EXDEV` for a way out.
pub fn open_beneath(root: BorrowedFd<'_>, path: &[u8], kind: Kind) -> io::Result<OwnedFd> {
    let flags = match kind {
        Kind::Directory => OFlags::DIRECTORY | OFlags::RDONLY,
        Kind::File => OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK,
    };
    let (parent, rest) = open_long_parents(root, path)?;
    let at = parent.as_ref().map_or(root, |parent| parent.as_fd());
    let rest = if rest.is_empty() { b"." } else { rest };
    // Reading shall not change when something was last read; only its owner may ask for that.
    match resolve(at, rest, flags | OFlags::NOATIME) {
        Err(error) if error == Errno::PERM => Ok(resolve(at, rest, flags)?),
        result => Ok(result?),
    }
}

/// Longest path that the kernel takes in one call, without its NUL.
const PATH_LEN: usize = 4_095;

/// Opens as much of a path as is needed for the rest to fit one call.
fn open_long_parents<'a>(
    root: BorrowedFd<'_>,
    mut path: &'a [u8],
) -> io::Result<(Option<OwnedFd>, &'a [u8])> {
    let mut parent: Option<OwnedFd> = None;
    while path.len() > PATH_LEN {
        let slash = path.iter().take(PATH_LEN).rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?;
        let (head, tail) = path.split_at(slash);
        let at = parent.as_ref().map_or(root, |parent| parent.as_fd());
        parent = Some(resolve(at, head, OFlags::DIRECTORY | OFlags::PATH)?);
        path = tail.strip_prefix(b"/").unwrap_or(tail);
    }
    Ok((parent, path))
}

fn resolve(at: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // EAGAIN: something on the way was renamed meanwhile, so that the kernel could not tell that it stayed beneath.
    for _ in 0..RENAME_RETRIES {
        match fs::openat2(at, path, flags, Mode::empty(), beneath) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// How often a path is resolved again because of renames on the way.
const RENAME_RETRIES: u32 = 32;

/// Looks at an open file.
///
/// # Errors
/// Passes on what the host says.
pub fn stat(fd: BorrowedFd<'_>) -> io::Result<Stat> {
    Ok(fs::statx(fd, c"", AtFlags::EMPTY_PATH, FIELDS)?.into())
}

/// Looks at an entry of a directory, not at what it may link to.
///
/// # Errors
/// Passes on what the host says.
pub fn stat_at(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    Ok(fs::statx(directory, name, flags, FIELDS)?.into())
}

const FIELDS: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::MNT_ID).union(StatxFlags::BTIME);

/// Lists a directory, without itself and its parent, in no order.
///
/// # Errors
/// Passes on what the host says.
pub fn list(directory: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    beneath::list(directory, |entry| names.push(entry.name.to_vec()))?;
    Ok(names)
}

/// Reads extended attributes; keeps its buffers from one object to the next.
#[derive(Debug)]
pub struct XattrReader {
    names: Vec<u8>,
    value: Vec<u8>,
}

/// The kernel's limits on the list of names and on a value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 1 << 16;

impl Default for XattrReader {
    fn default() -> Self {
        Self { names: vec![0; XATTR_MAX], value: vec![0; XATTR_MAX] }
    }
}

impl XattrReader {
    /// Returns those attributes of an entry of `directory` (of itself, if `name` is empty) whose names are `wanted`.
    /// A file system without attributes has none.
    ///
    /// # Errors
    /// Passes on what the host says.
    pub fn read(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        wanted: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let path = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name].concat();
        let path = CString::new(path).map_err(|_| Errno::INVAL)?;
        let len = match fs::llistxattr(&path, self.names.as_mut_slice()) {
            Err(Errno::NOTSUP) => 0,
            result => result?,
        };
        let mut found = Vec::new();
        for name in self.names.get(..len).unwrap_or_default().split(|byte| *byte == 0) {
            if name.is_empty() || !wanted(name) {
                continue;
            }
            match fs::lgetxattr(&path, name, self.value.as_mut_slice()) {
                Ok(len) => {
                    found.push((name.to_vec(), self.value.get(..len).unwrap_or_default().to_vec()));
                }
                // Removed since it was listed.
                Err(Errno::NODATA) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }
}

/// Finds the ranges of a file of `size` bytes that hold data, or `None` where all of it may.
///
/// # Errors
/// Passes on what the host says.
pub fn data_ranges(file: BorrowedFd<'_>, size: u64) -> io::Result<Option<Vec<Range<u64>>>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match data::seek_data(file, at) {
            Ok(start) if start >= size => break,
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(errno::Errno::ENXIO) => break,
            // A file system that knows no holes.
            Err(errno::Errno::EINVAL | errno::Errno::EOPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let end = match data::seek_hole(file, start) {
            Ok(end) if end > start => end.min(size),
            // The file shrank meanwhile; its reader will notice.
            Ok(_) | Err(errno::Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        ranges.push(start..end);
        at = end;
    }
    let whole = matches!(ranges.as_slice(), [all] if *all == (0..size));
    Ok(if whole || size == 0 { None } else { Some(ranges) })
}
