//! What of a source cannot be read: it ends the work, or is left out and told.

use super::{error::WriteError, progress::Progress};
use crate::sync::atomic::{AtomicU64, Ordering};

/// What becomes of an archive of which something cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unreadable {
    /// It is not made.
    #[default]
    Refuse,
    /// It is made without the files, and with empty directories, that cannot be read.
    LeaveOut,
}

/// Decides on each failure to read something. Asked from several threads.
#[derive(Debug)]
pub struct Faults<'a> {
    unreadable: Unreadable,
    progress: &'a dyn Progress,
    left_out: AtomicU64,
}

impl<'a> Faults<'a> {
    /// Nothing has failed yet. `progress` hears of what is left out.
    #[must_use]
    pub fn new(unreadable: Unreadable, progress: &'a dyn Progress) -> Self {
        Self { unreadable, progress, left_out: AtomicU64::new(0) }
    }

    /// Takes note of a failure: what it is about is to be left out.
    ///
    /// # Errors
    /// Gives the failure back where it is to end the work, and where it is about more than one object of the source.
    pub fn leave_out(&self, error: WriteError) -> Result<(), WriteError> {
        let is_of_one = matches!(error, WriteError::Source { .. } | WriteError::Changed { .. });
        if self.unreadable == Unreadable::Refuse || !is_of_one {
            return Err(error);
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        self.progress.left_out(&error);
        Ok(())
    }

    /// How much has been left out.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}
