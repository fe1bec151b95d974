//! What went wrong, in one sentence. A benchmark has nothing to decide on an error but to print it.

use std::{fmt, path::Path};

/// The result of everything that can go wrong here.
pub type Result<T> = std::result::Result<T, Failure>;

/// One sentence: what failed, on what, why.
#[derive(Debug, Clone)]
pub struct Failure(String);

impl Failure {
    /// Makes a failure from a sentence.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// Turns an error into a sentence about a path.
pub fn cannot<E: fmt::Display>(what: &'static str, path: &Path) -> impl FnOnce(E) -> Failure {
    move |error| Failure::new(format!("cannot {what} {}: {error}", path.display()))
}
