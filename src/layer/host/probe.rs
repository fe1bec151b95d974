//! What the file system of an upper must be able to do, tried out when it is opened.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
};

use thiserror::Error;

use crate::sys::{
    beneath::{self, OpenFor, RenameFlags},
    errno::Errno,
    xattr,
};

/// Why a directory cannot be an upper.
#[derive(Debug, Error)]
pub enum UpperError {
    /// The directory or its work directory cannot be opened or prepared.
    #[error("cannot {op} {}: {errno}", path.display())]
    Prepare {
        /// What was being done.
        op: &'static str,
        /// On which directory.
        path: PathBuf,
        /// What the host said.
        errno: Errno,
    },
    /// Renaming from the work directory would not work.
    #[error("{} and its work directory {} are on different file systems", upper.display(), work.display())]
    DifferentFileSystems {
        /// The directory.
        upper: PathBuf,
        /// Its work directory.
        work: PathBuf,
    },
    /// Another process writes to it.
    #[error("{} is in use by another process", work.display())]
    InUse {
        /// The work directory that is locked.
        work: PathBuf,
    },
    /// The file system lacks something.
    #[error("the file system of {} cannot {ability} ({errno}); use a directory on ext4, xfs, btrfs or tmpfs", path.display())]
    Unable {
        /// What it cannot do.
        ability: &'static str,
        /// The directory.
        path: PathBuf,
        /// What the host said.
        errno: Errno,
    },
}

/// A step of the trial.
type Step = (&'static str, fn(BorrowedFd<'_>) -> Result<(), Errno>);

/// The steps, in an order in which each finds what those before it made.
const STEPS: [Step; 4] = [
    ("make whiteouts (character device 0:0)", |work| {
        beneath::make_node(work, b"probe-a", libc::S_IFCHR, 0, (0, 0))
    }),
    ("store user extended attributes", |work| {
        beneath::make_directory(work, b"probe-b", 0o700)?;
        let fd = beneath::open(work, b"probe-b", OpenFor::Path)?;
        xattr::set(fd.as_fd(), b"user.fim.probe", b"y", 0)
    }),
    ("exchange two names", |work| {
        beneath::rename((work, b"probe-a"), (work, b"probe-b"), RenameFlags::EXCHANGE)
    }),
    ("leave a whiteout at a rename", |work| {
        beneath::rename((work, b"probe-a"), (work, b"probe-c"), RenameFlags::WHITEOUT)
    }),
];

/// Tries everything out in `work`, which is empty and becomes empty again.
pub(super) fn probe(work: BorrowedFd<'_>) -> Result<(), (&'static str, Errno)> {
    let mut result = Ok(());
    for (ability, step) in STEPS {
        match step(work) {
            Ok(()) => {}
            // A full one is opened all the same, so that it can be emptied.
            Err(Errno::ENOSPC | Errno::EDQUOT) => break,
            Err(errno) => {
                result = Err((ability, errno));
                break;
            }
        }
    }
    for name in [b"probe-a", b"probe-b", b"probe-c"] {
        if beneath::remove(work, name) == Err(Errno::EISDIR) {
            let _ = beneath::remove_directory(work, name);
        }
    }
    result
}
