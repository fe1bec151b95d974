//! Who the calling process is.

use std::io;

use nix::unistd;

/// Ids of the calling process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

impl Ids {
    /// Asks the kernel.
    ///
    /// # Errors
    ///
    /// What getgroups(2) says.
    pub fn of_caller() -> io::Result<Self> {
        Ok(Self {
            uid: unistd::geteuid().as_raw(),
            gid: unistd::getegid().as_raw(),
            groups: unistd::getgroups()?.into_iter().map(unistd::Gid::as_raw).collect(),
        })
    }
}
