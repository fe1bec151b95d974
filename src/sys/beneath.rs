//! Directory entries by directory descriptor and one name: never by path, never through a symlink.
//!
//! Every function takes a single component, so that neither `PATH_MAX` nor a symlink planted by somebody else
//! matters. The empty name stands for the descriptor itself where that is said.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RawDir, StatxFlags, Timespec, Timestamps},
    io,
};

pub use rustix::fs::{RenameFlags, Statx};

use super::errno::Errno;

/// Size of the buffer of one getdents64(2) call, in bytes.
const DIR_BUFFER_LEN: usize = 32 * 1024;

/// Turns an error number of `rustix` into ours.
pub(super) fn errno(error: io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// What an open is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFor {
    /// Naming the object only (`O_PATH`).
    Path,
    /// Reading its contents.
    Read,
    /// Reading and writing its contents.
    Write,
    /// Listing a directory.
    List,
}

impl OpenFor {
    fn flags(self) -> OFlags {
        let base = OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match self {
            Self::Path => base | OFlags::PATH,
            Self::Read => base | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
            Self::Write => base | OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY,
            Self::List => base | OFlags::RDONLY | OFlags::DIRECTORY,
        }
    }
}

/// Opens a directory by path: the door from a setting to descriptors. Follows symlinks.
///
/// # Errors
///
/// What open(2) said.
pub fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CLOEXEC | OFlags::PATH | OFlags::DIRECTORY;
    rustix::fs::open(path, flags, Mode::empty()).map_err(errno)
}

/// Opens `name` in `dir`.
///
/// # Errors
///
/// What openat(2) said.
pub fn open(dir: BorrowedFd<'_>, name: &[u8], wanted: OpenFor) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, wanted.flags(), Mode::empty()).map_err(errno)
}

/// Opens once more what `fd` (which may be `O_PATH`) refers to.
///
/// # Errors
///
/// What openat(2) said; `ENOENT` where `/proc` is missing.
pub fn reopen(fd: BorrowedFd<'_>, wanted: OpenFor) -> Result<OwnedFd, Errno> {
    let flags = wanted.flags() - OFlags::NOFOLLOW;
    rustix::fs::open(ProcPath::new(fd).as_c_str(), flags, Mode::empty()).map_err(errno)
}

/// Opens the directory `fd` itself with an own position, for listing or syncing.
///
/// # Errors
///
/// What openat(2) said.
pub fn open_listing(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(fd, c".", OpenFor::List.flags(), Mode::empty()).map_err(errno)
}

/// Makes a regular file that must not exist and opens it for reading and writing.
///
/// # Errors
///
/// What openat(2) said.
pub fn create(dir: BorrowedFd<'_>, name: &[u8], perm: u16) -> Result<OwnedFd, Errno> {
    let flags = OpenFor::Write.flags() | OFlags::CREATE | OFlags::EXCL;
    rustix::fs::openat(dir, name, flags, mode(perm)).map_err(errno)
}

/// Attributes of `name` in `dir`, or of `dir` itself where `name` is empty.
///
/// # Errors
///
/// What statx(2) said.
pub fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Statx, Errno> {
    let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    if name.is_empty() {
        flags |= AtFlags::EMPTY_PATH;
    }
    rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME).map_err(errno)
}

/// When the object was made: seconds and nanoseconds, where the file system knows.
#[must_use]
pub fn birth_time(stat: &Statx) -> Option<(i64, u32)> {
    let known = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    known.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec))
}

/// Makes a directory.
///
/// # Errors
///
/// What mkdirat(2) said.
pub fn make_directory(dir: BorrowedFd<'_>, name: &[u8], perm: u16) -> Result<(), Errno> {
    rustix::fs::mkdirat(dir, name, mode(perm)).map_err(errno)
}

/// Makes a device, fifo or socket; `format` is the `S_IFMT` part of its mode.
///
/// # Errors
///
/// What mknodat(2) said.
pub fn make_node(
    dir: BorrowedFd<'_>,
    name: &[u8],
    format: u32,
    perm: u16,
    device: (u32, u32),
) -> Result<(), Errno> {
    let device = rustix::fs::makedev(device.0, device.1);
    rustix::fs::mknodat(dir, name, FileType::from_raw_mode(format), mode(perm), device).map_err(errno)
}

/// Makes a symlink.
///
/// # Errors
///
/// What symlinkat(2) said.
pub fn make_symlink(dir: BorrowedFd<'_>, name: &[u8], target: &[u8]) -> Result<(), Errno> {
    rustix::fs::symlinkat(target, dir, name).map_err(errno)
}

/// The target of the symlink `name`, or of the `O_PATH` descriptor `dir` where `name` is empty.
///
/// # Errors
///
/// What readlinkat(2) said.
pub fn read_link(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
    rustix::fs::readlinkat(dir, name, Vec::new()).map(std::ffi::CString::into_bytes).map_err(errno)
}

/// Makes one more name for what `fd` (which may be `O_PATH`) refers to.
///
/// # Errors
///
/// What linkat(2) said.
pub fn link(fd: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    rustix::fs::linkat(rustix::fs::CWD, ProcPath::new(fd).as_c_str(), dir, name, AtFlags::SYMLINK_FOLLOW)
        .map_err(errno)
}

/// Removes a name of something that is no directory.
///
/// # Errors
///
/// What unlinkat(2) said.
pub fn remove(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(errno)
}

/// Removes an empty directory.
///
/// # Errors
///
/// What unlinkat(2) said.
pub fn remove_directory(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(errno)
}

/// Renames.
///
/// # Errors
///
/// What renameat2(2) said.
pub fn rename(
    from: (BorrowedFd<'_>, &[u8]),
    to: (BorrowedFd<'_>, &[u8]),
    flags: RenameFlags,
) -> Result<(), Errno> {
    rustix::fs::renameat_with(from.0, from.1, to.0, to.1, flags).map_err(errno)
}

/// Sets permission bits of what `fd` (which may be `O_PATH`) refers to.
///
/// # Errors
///
/// What chmod(2) said.
pub fn set_perm(fd: BorrowedFd<'_>, perm: u16) -> Result<(), Errno> {
    rustix::fs::chmod(ProcPath::new(fd).as_c_str(), mode(perm)).map_err(errno)
}

/// Sets owner and group of `name` in `dir`, or of `dir` itself where `name` is empty.
///
/// # Errors
///
/// What fchownat(2) said; `EINVAL` for the id that means "no change".
pub fn set_owner(dir: BorrowedFd<'_>, name: &[u8], uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        return Err(Errno::EINVAL);
    }
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    let (uid, gid) = (uid.map(rustix::fs::Uid::from_raw), gid.map(rustix::fs::Gid::from_raw));
    rustix::fs::chownat(dir, name, uid, gid, flags).map_err(errno)
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeChange {
    /// Leave it.
    Keep,
    /// The current time.
    Now,
    /// Seconds and nanoseconds.
    At(i64, u32),
}

impl TimeChange {
    fn timespec(self) -> Timespec {
        let (tv_sec, tv_nsec) = match self {
            Self::Keep => (0, rustix::fs::UTIME_OMIT),
            Self::Now => (0, rustix::fs::UTIME_NOW),
            Self::At(seconds, nanos) => (seconds, nanos.into()),
        };
        Timespec { tv_sec, tv_nsec }
    }
}

/// Sets access and modification times of `name` in `dir`, or of `dir` itself where `name` is empty.
///
/// # Errors
///
/// What utimensat(2) said.
pub fn set_times(
    dir: BorrowedFd<'_>,
    name: &[u8],
    access: TimeChange,
    modification: TimeChange,
) -> Result<(), Errno> {
    let times = Timestamps { last_access: access.timespec(), last_modification: modification.timespec() };
    rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH).map_err(errno)
}

/// One entry of a host directory.
#[derive(Clone, Copy, Debug)]
pub struct HostEntry<'a> {
    /// Its name; `.` and `..` are left out.
    pub name: &'a [u8],
    /// The `S_IFMT` bits, 0 where the file system does not say.
    pub format: u32,
}

/// Lists the directory behind `listing`, a descriptor of [`open_listing`], from its position to its end.
///
/// # Errors
///
/// What getdents64(2) said.
pub fn list(listing: BorrowedFd<'_>, mut visit: impl FnMut(HostEntry<'_>)) -> Result<(), Errno> {
    let mut buffer = Vec::with_capacity(DIR_BUFFER_LEN);
    let mut entries = RawDir::new(listing, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(errno)?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let format = match entry.file_type() {
            FileType::Unknown => 0,
            kind => kind.as_raw_mode(),
        };
        visit(HostEntry { name, format });
    }
    Ok(())
}

fn mode(perm: u16) -> Mode {
    Mode::from_raw_mode(u32::from(perm) & 0o7777)
}

/// Length of `/proc/self/fd/` with the longest number and a NUL.
const PROC_PATH_LEN: usize = 32;

/// The path by which a descriptor's object is reached through `/proc`, without an allocation.
pub(super) struct ProcPath {
    bytes: [u8; PROC_PATH_LEN],
}

impl ProcPath {
    pub(super) fn new(fd: impl AsFd) -> Self {
        use std::io::Write as _;
        use std::os::fd::AsRawFd as _;
        let mut bytes = [0; PROC_PATH_LEN];
        // 14 bytes and at most 10 digits: always fits, with a NUL behind it.
        let _ = write!(&mut bytes[..], "/proc/self/fd/{}", fd.as_fd().as_raw_fd());
        Self { bytes }
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_symlink_is_named_and_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = open_directory(scratch.path()).unwrap();
        make_symlink(dir.as_fd(), b"link", b"nowhere").unwrap();
        let fd = open(dir.as_fd(), b"link", OpenFor::Path).unwrap();
        assert_eq!(read_link(fd.as_fd(), b"").unwrap(), b"nowhere");
        assert_eq!(open(dir.as_fd(), b"link", OpenFor::Read).unwrap_err(), Errno::ELOOP);
        link(fd.as_fd(), dir.as_fd(), b"other").unwrap();
        assert_eq!(read_link(dir.as_fd(), b"other").unwrap(), b"nowhere");
        set_times(fd.as_fd(), b"", TimeChange::Keep, TimeChange::At(-5, 7)).unwrap();
        let stat = stat(dir.as_fd(), b"link").unwrap();
        assert_eq!((stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec, stat.stx_nlink), (-5, 7, 2));
    }

    #[test]
    fn listing_skips_the_dots_and_tells_kinds() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = open_directory(scratch.path()).unwrap();
        make_directory(dir.as_fd(), b"sub", 0o755).unwrap();
        create(dir.as_fd(), b"file", 0o600).unwrap();
        let mut found = Vec::new();
        let listing = open_listing(dir.as_fd()).unwrap();
        list(listing.as_fd(), |entry| found.push((entry.name.to_vec(), entry.format))).unwrap();
        found.sort();
        assert_eq!(found, [(b"file".to_vec(), libc::S_IFREG), (b"sub".to_vec(), libc::S_IFDIR)]);
    }
}
