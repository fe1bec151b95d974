//! The FUSE device and what the kernel tells about its connections.
//!
//! A connection has a number, the minor device number of its mount; the `fdinfo` of a descriptor of the device names
//! the connection it serves. It ends with its last mount, with its last descriptor, or by an aborting umount2(2).

use std::{
    fs, io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
};

/// Where the device is.
pub const PATH: &str = "/dev/fuse";

/// The number of a FUSE connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection(u32);

impl Connection {
    /// The connection of a mount with this minor device number.
    #[must_use]
    pub const fn of_device(minor: u32) -> Self {
        Self(minor)
    }

    /// The connection that `device` serves; `None` on older kernels.
    #[must_use]
    pub fn of_descriptor(device: BorrowedFd<'_>) -> Option<Self> {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", device.as_raw_fd())).ok()?;
        let number = info.lines().find_map(|line| line.strip_prefix("fuse_connection:\t"))?;
        number.parse().ok().map(Self)
    }

    /// Lets pages that wait to be written here be so many hundredths of what may wait in all; the kernel starts with one.
    ///
    /// # Errors
    ///
    /// `EACCES` for all but the root of the host, `EROFS` where `/sys` cannot be written.
    pub fn set_dirty_share(self, percent: u8) -> io::Result<()> {
        fs::write(format!("/sys/class/bdi/0:{}/max_ratio", self.0), percent.to_string())
    }

    /// The processes that hold a descriptor of this connection, as far as the caller may look; nobody on older kernels,
    /// whose `fdinfo` does not tell.
    #[must_use]
    pub fn servers(self) -> Vec<u32> {
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| self.is_served_by(*pid)).collect()
    }

    fn is_served_by(self, pid: u32) -> bool {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
        let wanted = format!("fuse_connection:\t{}", self.0);
        descriptors.flatten().any(|descriptor| {
            let target = fs::read_link(descriptor.path());
            target.is_ok_and(|target| target.ends_with("fuse"))
                && fs::read_to_string(process.join("fdinfo").join(descriptor.file_name()))
                    .is_ok_and(|info| info.lines().any(|line| line == wanted))
        })
    }
}

/// Opens the device.
///
/// # Errors
///
/// What open(2) says: `EACCES` where users may not, `ENOENT` where the kernel has no FUSE.
pub fn open() -> io::Result<OwnedFd> {
    Ok(fs::OpenOptions::new().read(true).write(true).open(PATH)?.into())
}
