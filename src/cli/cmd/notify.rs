//! `fim-notify`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::settings;
use crate::cli::Outcome;

/// Whether the desktop is told when an image starts.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim notify app.flatimage on")]
pub struct NotifyArgs {
    /// The image.
    image: PathBuf,
    /// What to do.
    #[command(subcommand)]
    action: NotifyAction,
}

/// What to do with the notice.
#[derive(Subcommand, Debug)]
pub enum NotifyAction {
    /// The desktop is told, through notify-send of the host.
    #[command(after_help = "Example: app.flatimage fim-notify on")]
    On,
    /// Nobody is told.
    #[command(after_help = "Example: app.flatimage fim-notify off")]
    Off,
    /// Prints on or off.
    #[command(after_help = "Example: app.flatimage fim-notify show --json")]
    Show {
        /// As JSON: true or false.
        #[arg(long)]
        json: bool,
    },
}

/// Carries the command out.
///
/// # Errors
///
/// The image cannot be read or changed.
pub fn run(args: &NotifyArgs) -> Outcome {
    let notify = match &args.action {
        NotifyAction::On => true,
        NotifyAction::Off => false,
        NotifyAction::Show { json } => {
            let stored = settings::read(&args.image)?.notify;
            if *json {
                settings::json(&stored)?;
            } else {
                settings::line(if stored { "on" } else { "off" })?;
            }
            return Ok(ExitCode::SUCCESS);
        }
    };
    settings::change(&args.image, |settings| {
        settings.notify = notify;
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
