//! User and mount namespaces.
//!
//! A private mount namespace hides our mounts from everybody outside and lets the kernel clean up with its last
//! process. Without privileges it needs a user namespace of its own, in which the caller's uid and gid are mapped to
//! themselves: mapped to 0 instead, programs inside would see another owner, and bubblewrap could not map back.

use std::{fs, io};

use nix::{
    sched::CloneFlags,
    unistd::{getegid, geteuid},
};
use thiserror::Error;

use super::{errno::Errno, mount};

/// What failed while entering a private namespace.
#[derive(Debug, Error)]
pub enum Error {
    /// unshare(2).
    #[error("cannot make a private namespace")]
    Unshare(#[source] Errno),
    /// Writing `setgroups`, `uid_map` or `gid_map`.
    #[error("cannot map the own ids into the new user namespace")]
    Map(#[source] io::Error),
    /// Making `/` a slave of the mounts outside.
    #[error("cannot make the mounts private")]
    Propagation(#[source] Errno),
}

/// Moves the calling process, which must have one thread, into a private mount namespace; where it is not root into
/// a user namespace of its own as well, in which it has all capabilities until it executes something.
///
/// # Errors
///
/// [`Error`]: `EPERM` where user namespaces are forbidden, `ENOSPC` where there are too many, `EINVAL` with threads.
pub fn enter_private() -> Result<(), Error> {
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(Error::Unshare)?;
    } else {
        let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
        nix::sched::unshare(flags).map_err(Error::Unshare)?;
        // The kernel takes a gid map from the unprivileged only after setgroups has been given up (user_namespaces(7)).
        fs::write("/proc/self/setgroups", "deny").map_err(Error::Map)?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).map_err(Error::Map)?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).map_err(Error::Map)?;
    }
    mount::make_root_slave().map_err(Error::Propagation)
}
