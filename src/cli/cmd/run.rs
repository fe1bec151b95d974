//! `fim run IMAGE [ARG…]`: the boot command of an image.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

use super::exec::{RunOptions, launch};
use crate::{cli::Outcome, runtime::plan::Command, sandbox::Role};

/// Runs the boot command of an image.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim run app.flatimage --version")]
pub struct RunArgs {
    /// The image.
    pub image: PathBuf,
    /// Arguments behind the stored ones.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARG")]
    pub arguments: Vec<OsString>,
}

/// Carries it out.
///
/// # Errors
///
/// What the engine could not do; the program's own failures are exit statuses.
pub fn run(args: RunArgs) -> Outcome {
    launch(args.image, Command::Boot(args.arguments), Role::User, &RunOptions::default())
}
