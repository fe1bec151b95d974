//! `fim upgrade`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{making, settings};
use crate::{
    cli::Outcome,
    runtime::{
        create::Report,
        rewrite::{self, Upgraded},
    },
};

/// Puts this engine into an image, in place of the one that is there.
///
/// Settings, layers and the image's data directory stay as they are. The new file takes the old one's place in one step;
/// what runs from the old one goes on with it until it ends.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim upgrade app.flatimage")]
pub struct UpgradeArgs {
    /// The image.
    image: PathBuf,
}

/// Carries the command out.
///
/// # Errors
///
/// The image cannot be read or replaced; it is then as it was.
pub fn run(args: &UpgradeArgs, report: &dyn Report) -> Outcome {
    let upgraded = rewrite::upgrade(&args.image, &mut making::copying(report, "copying the layers"))?;
    report.done();
    if upgraded == Upgraded::Already {
        settings::line("the image has this engine already")?;
    }
    Ok(ExitCode::SUCCESS)
}
