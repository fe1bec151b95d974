//! Mounting kernel overlayfs.

use std::{
    ffi::OsStr,
    os::fd::{AsRawFd as _, BorrowedFd},
    path::Path,
};

use nix::{
    mount::{MsFlags, mount},
    sys::statvfs::{FsFlags, statvfs},
};

use super::{
    errno::Errno,
    mount::{Unmount, unmount},
};

/// A mount of kernel overlayfs to be made. Its directories are given by descriptors: no path needs escaping, and none
/// can be too long.
#[derive(Clone, Copy, Debug)]
pub struct OverlayMount<'a> {
    /// The directory to mount on.
    pub target: &'a Path,
    /// The source name that the table of mounts shows.
    pub source: &'a OsStr,
    /// The one lower directory.
    pub lower: BorrowedFd<'a>,
    /// The upper directory.
    pub upper: BorrowedFd<'a>,
    /// The work directory, on the file system of the upper one.
    pub work: BorrowedFd<'a>,
    /// Whether device nodes can be opened.
    pub devices: bool,
    /// Whether suid and sgid bits have their effect.
    pub set_id: bool,
}

/// Mounts it so that marks are attributes that everybody can set (`userxattr`, Linux 5.11), with nothing that needs file
/// handles of the layers below.
///
/// # Errors
///
/// What mount(2) says: `EINVAL` where the file system cannot be an upper; `EROFS` where the kernel would mount it
/// read-only, because the work directory cannot be used.
pub fn mount_overlay(overlay: &OverlayMount<'_>) -> Result<(), Errno> {
    let path = |fd: BorrowedFd<'_>| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let data = format!(
        "lowerdir={},upperdir={},workdir={},userxattr,index=off,xino=off",
        path(overlay.lower),
        path(overlay.upper),
        path(overlay.work)
    );
    let mut flags = MsFlags::empty();
    flags.set(MsFlags::MS_NODEV, !overlay.devices);
    flags.set(MsFlags::MS_NOSUID, !overlay.set_id);
    mount(Some(overlay.source), overlay.target, Some("overlay"), flags, Some(data.as_str()))?;
    if statvfs(overlay.target)?.flags().contains(FsFlags::ST_RDONLY) {
        unmount(overlay.target, Unmount::Lazy)?;
        return Err(Errno::EROFS);
    }
    Ok(())
}
