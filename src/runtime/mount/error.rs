//! Why a mount could not be made or kept.

use std::{ffi::OsString, io, path::PathBuf};

use thiserror::Error;

use crate::{
    causes::one_line,
    fuse,
    runtime::{profile::ProfileError, stack},
    sys::{errno::Errno, fusermount, namespace},
};

/// Why a mount could not be made or kept.
#[derive(Debug, Error)]
pub enum Error {
    /// The stack cannot be opened.
    #[error(transparent)]
    Stack(#[from] stack::Error),
    /// The FUSE device cannot be opened.
    #[error("cannot open /dev/fuse")]
    Device(#[source] io::Error),
    /// mount(2) refused.
    #[error("cannot mount on {target}")]
    Mount {
        /// The directory.
        target: PathBuf,
        /// What the host said.
        source: Errno,
    },
    /// fusermount3 refused.
    #[error("cannot mount on {target}")]
    Helper {
        /// The directory.
        target: PathBuf,
        /// What it said.
        source: fusermount::Error,
    },
    /// What was recorded cannot be written.
    #[error(transparent)]
    Record(#[from] ProfileError),
    /// The server ended without writing what it recorded.
    #[error("cannot write the access profile {0}: the server failed at its end")]
    Unrecorded(PathBuf),
    /// A private namespace is refused.
    #[error(transparent)]
    Namespace(#[from] namespace::Error),
    /// The session cannot be started or broke off.
    #[error(transparent)]
    Session(#[from] fuse::Error),
    /// A process, pipe or signal descriptor is refused.
    #[error("cannot {op}")]
    Process {
        /// What was being done.
        op: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// The server said why it gave up.
    #[error("{0}")]
    Server(String),
    /// The server ended without a word.
    #[error("cannot mount on {0}: its server died while starting")]
    Died(PathBuf),
    /// The command cannot be started.
    #[error("cannot run {}", program.display())]
    Command {
        /// The program.
        program: OsString,
        /// What the host said.
        source: io::Error,
    },
}

impl Error {
    /// What the user can do about it, where we know it.
    #[must_use]
    pub fn cure(&self) -> Option<&'static str> {
        match self {
            Self::Device(error) => match error.kind() {
                io::ErrorKind::NotFound => Some("load the kernel module: modprobe fuse"),
                io::ErrorKind::PermissionDenied => Some("let users open it: chmod 0666 /dev/fuse"),
                _ => None,
            },
            Self::Helper { source: fusermount::Error::Missing, .. } => Some("install the package fuse3"),
            Self::Helper { source: fusermount::Error::Refused(said), .. } if said.contains("allow_other") => {
                Some("write user_allow_other into /etc/fuse.conf")
            }
            Self::Mount { source: Errno::ENOTCONN, .. } => {
                Some("a dead mount lies there: fim umount it first")
            }
            Self::Namespace(namespace::Error::Unshare(Errno::EPERM | Errno::ENOSPC)) => Some(
                "allow user namespaces: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone",
            ),
            _ => None,
        }
    }

    /// Whether the command to run was not found (127) or cannot be executed (126), as shells tell it.
    #[must_use]
    pub fn command_status(&self) -> Option<u8> {
        match self {
            Self::Command { source, .. } if source.kind() == io::ErrorKind::NotFound => Some(127),
            Self::Command { .. } => Some(126),
            _ => None,
        }
    }
}

/// An error with its causes and cure, as a front repeats it.
pub(super) fn told(error: &Error) -> String {
    let text = one_line(error);
    match error.cure() {
        Some(cure) => format!("{text} ({cure})"),
        None => text,
    }
}
