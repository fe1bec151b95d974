//! The command line: the only place that prints and exits.

mod exit;
mod resolve;

use std::process::ExitCode;

pub use exit::{ENGINE_ERROR, Failure, INPUTS_SKIPPED, Outcome};

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
