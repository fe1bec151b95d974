//! Joining the namespaces of another process of ours.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

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
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        Ok(())
    }
}
