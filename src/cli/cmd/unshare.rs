//! `fim-unshare`.

use std::path::PathBuf;

use clap::Args;

use super::words::{self, WordAction};
use crate::cli::Outcome;

/// Which namespaces programs in an image get for themselves.
///
/// Words: all user ipc pid net uts cgroup. `pid`, and `user` where the caller is not root, are always unshared; the
/// list shows what is added.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim unshare app.flatimage add ipc,uts")]
pub struct UnshareArgs {
    /// The image.
    image: PathBuf,
    /// What to do.
    #[command(subcommand)]
    action: WordAction,
}

/// Carries the command out.
///
/// # Errors
///
/// An unknown word, or the image cannot be read or changed.
pub fn run(args: &UnshareArgs) -> Outcome {
    words::run(&args.image, &args.action, |settings| &mut settings.unshare)
}
