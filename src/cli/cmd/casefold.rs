//! `fim-casefold`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::settings;
use crate::{
    cli::Outcome,
    config::{Casefold, CasefoldMode},
};

/// Whether names that differ in case alone are one name in the root of an image.
///
/// Every name keeps its case. It takes effect with the next instance that is not there yet; FIM_CASEFOLD overrides it.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim casefold app.flatimage on --mode windows /home/me/.wine")]
pub struct CasefoldArgs {
    /// The image.
    image: PathBuf,
    /// What to do.
    #[command(subcommand)]
    action: CasefoldAction,
}

/// What to do with case folding.
#[derive(Subcommand, Debug)]
pub enum CasefoldAction {
    /// Folds names.
    #[command(after_help = "Example: app.flatimage fim-casefold on --mode windows /home/me/.wine")]
    On {
        /// Which names are one: unicode (full folding, accents in either form), windows (as NTFS) or ascii.
        #[arg(long, value_parser = CasefoldMode::parse, default_value_t = CasefoldMode::default())]
        mode: CasefoldMode,
        /// Only below these directories, named by absolute paths inside; everywhere where there are none.
        subtrees: Vec<String>,
    },
    /// Folds no names.
    #[command(after_help = "Example: app.flatimage fim-casefold off")]
    Off,
    /// Prints what is stored, as JSON.
    #[command(after_help = "Example: app.flatimage fim-casefold show")]
    Show {
        /// As JSON, which it is anyway.
        #[arg(long)]
        json: bool,
    },
}

/// Carries the command out.
///
/// # Errors
///
/// A subtree is no absolute path, or the image cannot be read or changed.
pub fn run(args: &CasefoldArgs) -> Outcome {
    let casefold = match &args.action {
        CasefoldAction::Show { .. } => {
            settings::json(&settings::read(&args.image)?.casefold)?;
            return Ok(ExitCode::SUCCESS);
        }
        CasefoldAction::On { mode, subtrees } => Casefold::new(*mode, subtrees)?,
        CasefoldAction::Off => Casefold::default(),
    };
    settings::change(&args.image, |settings| {
        settings.casefold = casefold;
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
