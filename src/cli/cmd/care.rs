//! How carefully the verbs that make archives go about it.

use std::process::ExitCode;

use clap::Args;

use crate::{
    cli::INPUTS_SKIPPED,
    dwarfs::write::{Summary, Unreadable},
    image::Depth,
};

/// What becomes of inputs that cannot be read, and how far the result is looked at.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Care {
    /// Leaves out what cannot be read or does not stop changing, tells it, and ends with status 3. Directories that
    /// cannot be read are archived empty.
    #[arg(long)]
    ignore_errors: bool,
    /// Reads everything back before the result gets its name: unpacks every block and follows every reference, beyond
    /// the checksums that are compared in any case.
    #[arg(long)]
    verify: bool,
}

impl Care {
    pub(super) const fn unreadable(self) -> Unreadable {
        if self.ignore_errors { Unreadable::LeaveOut } else { Unreadable::Refuse }
    }

    pub(super) const fn depth(self) -> Depth {
        if self.verify { Depth::Everything } else { Depth::Checksums }
    }
}

/// The exit status of work that was done.
pub(super) fn status(summary: &Summary) -> ExitCode {
    if summary.left_out > 0 { ExitCode::from(INPUTS_SKIPPED) } else { ExitCode::SUCCESS }
}
