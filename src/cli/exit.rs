//! How a run ends: the status of the program that ran, or one line on stderr and 125.

use std::{error::Error, fmt, process::ExitCode};

use crate::causes::one_line;

/// Exit status of every error of the engine.
pub const ENGINE_ERROR: u8 = 125;
/// The work was done, but inputs were skipped on request.
pub const INPUTS_SKIPPED: u8 = 3;

/// What a command returns: its exit status, or why it failed.
pub type Outcome = Result<ExitCode, Failure>;

/// Why a command failed, in one line: what failed, on what, and the cure where we know one.
pub struct Failure {
    message: String,
    cure: Option<String>,
}

impl Failure {
    /// A failure that the command line itself finds.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), cure: None }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }
}

impl<E: Error> From<E> for Failure {
    /// The error with its causes.
    fn from(error: E) -> Self {
        Self::new(one_line(&error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        self.cure.as_ref().map_or(Ok(()), |cure| write!(f, " ({cure})"))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open layer 2")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_failure_is_one_line_with_causes_and_cure() {
        let failure =
            Failure::from(Outer(io::Error::other("checksum\nmismatch"))).cure("run fim-layer verify");
        assert_eq!(failure.to_string(), "cannot open layer 2: checksum mismatch (run fim-layer verify)");
    }
}
