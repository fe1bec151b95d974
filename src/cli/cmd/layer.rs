//! `fim-layer`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::{archive, archive::MakeArgs, making, settings};
use crate::{
    cli::Outcome,
    dwarfs::write::Phase,
    image::ImageFile,
    runtime::{create::Report, layer},
};

/// The layers of an image.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim layer app.flatimage add extras.layer --message 'fonts and themes'")]
pub struct LayerArgs {
    /// The image.
    image: PathBuf,
    /// What to do.
    #[command(subcommand)]
    action: LayerAction,
}

/// What to do with the layers.
#[derive(Subcommand, Debug)]
pub enum LayerAction {
    /// Archives a directory into a layer file.
    Create(MakeArgs),
    /// Verifies a layer file and appends it to the image.
    Add {
        /// The layer file: a DwarFS archive.
        file: PathBuf,
        /// A word about it.
        #[arg(short, long, default_value = "")]
        message: String,
    },
    /// Prints index:offset:size:path of each layer, lowest first.
    List {
        /// As a JSON array.
        #[arg(long)]
        json: bool,
    },
}

/// Carries the command out.
///
/// # Errors
///
/// A layer is damaged, or the image cannot be read or changed; it is then as it was.
pub fn run(args: &LayerArgs, report: &dyn Report) -> Outcome {
    match &args.action {
        LayerAction::Create(make) => archive::create(make, report)?,
        LayerAction::Add { file, message } => {
            let (_, created) = making::options()?;
            report.step("adding the layer");
            let mut before = 0;
            layer::add(&args.image, file, message, created, &mut |done, total| {
                if done < before || before == 0 {
                    report.begin(Phase::Compress, 0, total);
                    before = 0;
                }
                report.bytes_in(done.saturating_sub(before));
                before = done;
            })?;
        }
        LayerAction::List { json } => {
            let layers = layer::list(&ImageFile::open(&args.image)?);
            if *json {
                settings::json(&layers)?;
            } else {
                settings::lines(layers.iter().map(|layer| {
                    format!("{}:{}:{}:{}", layer.index, layer.offset, layer.size, layer.path.display())
                }))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
