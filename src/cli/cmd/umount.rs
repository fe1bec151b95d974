//! `fim umount`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{
    cli::Outcome,
    runtime::{
        mount::Way,
        unmount::{self, Gone},
    },
    sys::users::effective_ids,
};

/// Unmounts what fim has mounted on a directory, and waits until its server has written everything and gone.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim umount /mnt")]
pub struct UmountArgs {
    /// The directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Carries the command out.
///
/// # Errors
///
/// A [`Failure`](crate::cli::Failure) says what could not be unmounted.
pub fn run(args: &UmountArgs) -> Outcome {
    if unmount::run(&args.directory, Way::of_user(effective_ids().0))? == Gone::OutOfSight {
        note(args);
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "a remark, not a failure")]
fn note(args: &UmountArgs) {
    eprintln!("fim: {} is still in use: its server ends with its last user", args.directory.display());
}
