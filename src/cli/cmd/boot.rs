//! `fim-boot`.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::settings;
use crate::{cli::Outcome, config::Boot};

/// The program that runs when an image is started without a verb.
///
/// Stored arguments stand before those of the caller. Without a stored program it is bash.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim boot app.flatimage set python3 -q")]
pub struct BootArgs {
    /// The image.
    image: PathBuf,
    /// What to do.
    #[command(subcommand)]
    action: BootAction,
}

/// What to do with the boot command.
#[derive(Subcommand, Debug)]
pub enum BootAction {
    /// Stores a program and its arguments.
    #[command(after_help = "Example: app.flatimage fim-boot set python3 -q")]
    Set {
        /// Name or path of the program, and its arguments.
        #[arg(
            required = true,
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "CMD [ARG…]"
        )]
        command: Vec<OsString>,
    },
    /// Prints what is stored, as JSON.
    #[command(after_help = "Example: app.flatimage fim-boot show")]
    Show {
        /// As JSON, which it is anyway.
        #[arg(long)]
        json: bool,
    },
    /// Goes back to bash.
    #[command(after_help = "Example: app.flatimage fim-boot clear")]
    Clear,
}

/// Carries the command out.
///
/// # Errors
///
/// The image cannot be read or changed.
pub fn run(args: &BootArgs) -> Outcome {
    match &args.action {
        BootAction::Set { command } => {
            let mut words = command.iter().map(|word| settings::text(word)).collect::<Result<Vec<_>, _>>()?;
            let program = words.remove(0);
            settings::change(&args.image, |settings| {
                settings.boot = Some(Boot { program, args: words });
                Ok(())
            })?;
        }
        BootAction::Show { json: _ } => {
            let boot = settings::read(&args.image)?.boot.unwrap_or_default();
            // the spaces are part of what scripts compare
            settings::line(format!(
                "{{\"args\": {}, \"program\": {}}}",
                spaced(&boot.args)?,
                serde_json::to_string(&boot.program)?
            ))?;
        }
        BootAction::Clear => settings::change(&args.image, |settings| {
            settings.boot = None;
            Ok(())
        })?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A JSON array with a space behind each comma.
fn spaced(words: &[String]) -> Result<String, serde_json::Error> {
    let words = words.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    Ok(format!("[{}]", words.join(", ")))
}
