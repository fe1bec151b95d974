//! Why a program could not be run inside.

use std::{ffi::OsString, io, path::PathBuf};

use thiserror::Error;

use crate::instance::wire::WireError;

/// Why a program could not be run inside.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// There is no bubblewrap.
    #[error("cannot find bubblewrap: neither FIM_BWRAP, the image nor PATH has it")]
    NoBwrap,
    /// bubblewrap is there but does not work.
    #[error("cannot use bubblewrap {path}: {cause}")]
    BwrapBroken {
        /// Which one.
        path: PathBuf,
        /// What it said, or what is missing.
        cause: String,
    },
    /// The image's environment names somebody who cannot be.
    #[error("cannot run as {name}={value:?}, which the image sets: expected {expected}")]
    Identity {
        /// The variable.
        name: &'static str,
        /// Its value, expanded.
        value: OsString,
        /// What it may be.
        expected: &'static str,
    },
    /// A step before bubblewrap takes over.
    #[error("cannot {step}")]
    Step {
        /// Which one.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A mount point.
    #[error("cannot make the mount point {path} in the merged root")]
    MountPoint {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The sandbox ended before its process 1 could speak.
    #[error("cannot start the sandbox: {cause}")]
    NotStarted {
        /// What was said on the way.
        cause: String,
    },
    /// One of stdin, stdout and stderr is a directory, through which a program could leave the sandbox.
    #[error("cannot pass {name} into the sandbox: it is a directory")]
    DirectoryAsStdio {
        /// Which one.
        name: &'static str,
    },
    /// Process 1 inside said something without a meaning.
    #[error("cannot understand the process inside the sandbox")]
    Message(#[from] WireError),
    /// The sandbox ended without saying how its program had ended.
    #[error("cannot tell how the program ended: the sandbox was killed")]
    Lost,
    /// The server of the files is gone, and the sandbox with it.
    #[error("cannot go on: the process that serves the files has ended")]
    ServerGone,
}

impl SandboxError {
    /// Makes the error of a step.
    pub(crate) fn step(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Step { step, source }
    }
}
