//! The error of the file-system storeys: an errno for the kernel with what was being done for the log.

use std::{error, fmt};

use super::{Errno, NameError};

/// Short for results of the file-system storeys.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed file-system operation.
///
/// The errno goes to the program; the operation and the source go to the log. An errno that the host gave is passed
/// on as it is.
#[derive(Debug)]
pub struct Error {
    errno: Errno,
    op: &'static str,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

impl Error {
    /// An error that the rules of the file system produce (no cause below).
    #[must_use]
    pub const fn new(errno: Errno, op: &'static str) -> Self {
        Self { errno, op, source: None }
    }

    /// An error with its cause.
    #[must_use]
    pub fn with_source(
        errno: Errno,
        op: &'static str,
        source: impl Into<Box<dyn error::Error + Send + Sync>>,
    ) -> Self {
        Self { errno, op, source: Some(source.into()) }
    }

    /// What the program gets.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        self.errno
    }

    /// What was being done, as a verb phrase.
    #[must_use]
    pub const fn op(&self) -> &'static str {
        self.op
    }

    /// Whether the failure is an ordinary answer (no such entry, permission, no data) and not worth a warning.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        self.source.is_none() && self.errno != Errno::EIO
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.op, self.errno)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn error::Error + 'static))
    }
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        let errno = match error {
            NameError::TooLong => Errno::ENAMETOOLONG,
            NameError::Invalid => Errno::EINVAL,
        };
        Self::new(errno, "use the name")
    }
}
