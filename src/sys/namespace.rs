//! User and mount namespaces: making private ones, and joining those of another process of ours.
//!
//! A private mount namespace hides our mounts from everybody outside and lets the kernel clean up with its last
//! process. Without privileges it needs a user namespace of its own, in which the caller's uid and gid are mapped to
//! themselves: mapped to 0 instead, programs inside would see another owner, and bubblewrap could not map back.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    sched::{CloneFlags, setns, unshare},
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
        unshare(CloneFlags::CLONE_NEWNS).map_err(Error::Unshare)?;
    } else {
        let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
        unshare(flags).map_err(Error::Unshare)?;
        // The kernel takes a gid map from the unprivileged only after setgroups has been given up (user_namespaces(7)).
        fs::write("/proc/self/setgroups", "deny").map_err(Error::Map)?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).map_err(Error::Map)?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).map_err(Error::Map)?;
    }
    mount::make_root_slave().map_err(Error::Propagation)
}

/// The namespaces in which a server has its mount.
#[derive(Debug)]
pub struct Namespaces {
    mount: OwnedFd,
    user: Option<OwnedFd>,
}

/// Whether a server has a user namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// It is root in the user namespace of its caller.
    Root,
    /// It has made a user namespace of its own.
    OwnUserNamespace,
}

impl Namespaces {
    /// Those of the calling process.
    ///
    /// # Errors
    ///
    /// What opening `/proc/self/ns` says.
    pub fn own(privilege: Privilege) -> io::Result<Self> {
        let open = |name: &str| File::open(format!("/proc/self/ns/{name}")).map(OwnedFd::from);
        let user = match privilege {
            Privilege::Root => None,
            Privilege::OwnUserNamespace => Some(open("user")?),
        };
        Ok(Self { mount: open("mnt")?, user })
    }

    /// Descriptors to send to another process: the mount namespace first.
    #[must_use]
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(self.mount.as_fd()).chain(self.user.as_ref().map(OwnedFd::as_fd)).collect()
    }

    /// What [`fds`](Self::fds) has sent.
    #[must_use]
    pub const fn from_fds(mount: OwnedFd, user: Option<OwnedFd>) -> Self {
        Self { mount, user }
    }

    /// Moves the calling process, which has one thread, into a private copy of the mount namespace: what it mounts
    /// shows to nobody else. The working directory is `/` then.
    ///
    /// # Errors
    ///
    /// What setns(2), unshare(2) and mount(2) say.
    pub fn enter_copy(&self) -> io::Result<()> {
        if let Some(user) = &self.user {
            setns(user, CloneFlags::CLONE_NEWUSER)?;
        }
        setns(&self.mount, CloneFlags::CLONE_NEWNS)?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        Ok(mount::make_root_private()?)
    }
}
