//! `fim-remote`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::settings;
use crate::{cli::Outcome, config};

/// Where the recipes of an image come from.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim remote app.flatimage set https://example.org/recipes")]
pub struct RemoteArgs {
    /// The image.
    image: PathBuf,
    /// What to do.
    #[command(subcommand)]
    action: RemoteAction,
}

/// What to do with the address.
#[derive(Subcommand, Debug)]
pub enum RemoteAction {
    /// Stores the address: recipes are at URL/DISTRIBUTION/latest/NAME.json.
    #[command(after_help = "Example: app.flatimage fim-remote set https://example.org/recipes")]
    Set {
        /// It begins with http:// or https://.
        url: String,
    },
    /// Prints the address; nothing where there is none.
    #[command(after_help = "Example: app.flatimage fim-remote show")]
    Show {
        /// As JSON: a text, or null.
        #[arg(long)]
        json: bool,
    },
    /// Forgets the address.
    #[command(after_help = "Example: app.flatimage fim-remote clear")]
    Clear,
}

/// Carries the command out.
///
/// # Errors
///
/// Not an address, or the image cannot be read or changed.
pub fn run(args: &RemoteArgs) -> Outcome {
    let remote = match &args.action {
        RemoteAction::Set { url } => Some(config::remote_address(url)?),
        RemoteAction::Clear => None,
        RemoteAction::Show { json } => {
            let stored = settings::read(&args.image)?.remote;
            if *json {
                settings::json(&stored)?;
            } else {
                settings::lines(stored)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
    };
    settings::change(&args.image, |settings| {
        settings.remote = remote;
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
