//! `fim gc`.

use std::process::ExitCode;

use clap::Args;

use super::settings;
use crate::{
    cli::{Failure, Outcome},
    runtime::{
        gc::{self, Leftover, Mode},
        host::Host,
    },
};

/// Removes what killed processes have left: directories, sockets, records beyond the last 20 of an image, dead mounts.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim gc --dry-run")]
pub struct GcArgs {
    /// Removes nothing, and prints what would be removed.
    #[arg(long)]
    dry_run: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Carries it out.
///
/// # Errors
///
/// Something cannot be looked at or removed; the rest is removed all the same.
pub fn run(args: &GcArgs) -> Outcome {
    let mode = if args.dry_run { Mode::List } else { Mode::Remove };
    let found = gc::collect(&Host::read()?, mode)?;
    if args.json {
        settings::json(&found.leftovers)?;
    } else {
        settings::lines(found.leftovers.iter().map(Leftover::line))?;
    }
    match found.failures.split_first() {
        None => Ok(ExitCode::SUCCESS),
        Some((first, [])) => Err(Failure::new(first)),
        Some((first, rest)) => Err(Failure::new(format!("{first} (and {} more)", rest.len()))),
    }
}
