//! `fim root IMAGE PROG [ARG…]`: a program over the merged root, as uid 0.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

use super::exec::{RunOptions, launch};
use crate::{cli::Outcome, runtime::plan::Command, sandbox::Role};

/// Runs a program of an image as root.
#[derive(Args, Debug)]
#[command(after_help = "Example: app.flatimage fim-root apt-get update")]
pub struct RootArgs {
    /// The image.
    pub image: PathBuf,
    /// How it is run.
    #[command(flatten)]
    pub options: RunOptions,
    /// The program, by name or path, and its arguments.
    #[arg(
        required_unless_present = "dry_run",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PROG [ARG]"
    )]
    pub command: Vec<OsString>,
}

/// Carries it out.
///
/// # Errors
///
/// What the engine could not do; the program's own failures are exit statuses.
pub fn run(args: RootArgs) -> Outcome {
    launch(args.image, Command::Given(args.command), Role::Root, &args.options)
}
