//! Why a server cannot be started or joined.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::instance::wire::WireError;

/// Why a server cannot be started or joined.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The directory of the server.
    #[error("cannot use the directory {path} of the file server")]
    Place {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A step in the front.
    #[error("cannot {step}")]
    Step {
        /// Which one.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The server said why not.
    #[error("{why}")]
    Refused {
        /// Its words.
        why: String,
    },
    /// A server is there, and another one is needed.
    #[error("cannot record: the image is running, and what it has read before would be missing")]
    Running,
    /// The server ended without a word.
    #[error("cannot start the file server: it died")]
    Died,
    /// It speaks another language.
    #[error("cannot join the running file server of this image, which another build of the engine started")]
    Language(#[from] WireError),
}

impl ServerError {
    /// Makes the error of a step.
    pub(super) fn step(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Step { step, source }
    }
}
