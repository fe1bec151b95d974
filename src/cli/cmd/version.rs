//! `fim-version`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use serde_json::json;

use super::settings;
use crate::{cli::Outcome, config::DISTRIBUTION_LABEL, image::ImageFile, runtime::tools};

/// Which engine this is, and what an image brings along.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim version app.flatimage deps")]
pub struct VersionArgs {
    /// The image; without one it is about the engine alone.
    image: Option<PathBuf>,
    /// How much to say [default: short].
    #[command(subcommand)]
    extent: Option<Extent>,
}

/// How much to say.
#[derive(Subcommand, Clone, Copy, Debug)]
pub enum Extent {
    /// The version.
    #[command(after_help = "Example: fim version app.flatimage short")]
    Short {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Version, commit, build time and distribution, as JSON.
    #[command(after_help = "Example: app.flatimage fim-version full")]
    Full {
        /// As JSON, which it is anyway.
        #[arg(long)]
        json: bool,
    },
    /// What is embedded in the image: packages, their sources and their licences, as JSON.
    #[command(after_help = "Example: app.flatimage fim-version deps")]
    Deps {
        /// As JSON, which it is anyway.
        #[arg(long)]
        json: bool,
    },
}

/// Carries the command out.
///
/// # Errors
///
/// The image cannot be read.
pub fn run(args: &VersionArgs) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    match args.extent.unwrap_or(Extent::Short { json: false }) {
        Extent::Short { json: false } => settings::line(version)?,
        Extent::Short { json: true } => settings::json(&json!({ "VERSION": version }))?,
        Extent::Full { .. } => {
            let image = args.image.as_ref().map(|path| settings::read(path)).transpose()?;
            let distribution = image.and_then(|settings| settings.labels.get(DISTRIBUTION_LABEL).cloned());
            settings::json(&json!({
                "VERSION": version,
                "COMMIT": env!("FIM_COMMIT"),
                "TIMESTAMP": env!("FIM_TIMESTAMP"),
                "DISTRIBUTION": distribution.unwrap_or_default(),
            }))?;
        }
        Extent::Deps { .. } => {
            let image = args.image.as_ref().map(ImageFile::open).transpose()?;
            let manifest = image.as_ref().map(tools::manifest).transpose()?.flatten();
            let packages = manifest.map(|manifest| manifest.packages).unwrap_or_default();
            settings::line(serde_json::to_string_pretty(&packages)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
