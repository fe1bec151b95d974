//! `fim-notify`.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use clap::{Args, Subcommand};

use super::settings;
use crate::{
    cli::Outcome,
    config::Settings,
    sys::{
        inherit,
        process::{self, Side},
    },
};

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

/// Tells the desktop that an image starts, if it is to be told. A desktop that cannot be told is no reason not to start.
pub(super) fn tell(image: &Path, stored: &Settings) {
    if !stored.notify {
        return;
    }
    let file = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = stored.desktop.as_ref().map_or(file, |desktop| desktop.name.clone());
    // Nobody waits for it: it is left behind with nothing of ours.
    if let Ok(Side::Copy) = process::detach() {
        let _ = inherit::silence();
        let quiet = || Stdio::null();
        let mut teller = Command::new("notify-send");
        teller.args(["--app-name=fim", "--", &format!("{name} starts")]);
        let told = teller.stdin(quiet()).stdout(quiet()).stderr(quiet()).status();
        process::end(u8::from(told.is_err()));
    }
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
