//! `fim-overlay`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};

use super::{mount, settings};
use crate::{
    cli::{Failure, Outcome},
    config::OverlayKind,
    dwarfs::write::Phase,
    runtime::{
        commit,
        create::Report,
        export::{self, ExportError},
        host::Host,
        site::Site,
        stack::{LayerSource, StackPlan},
    },
};

/// Who merges the layers of an image with the upper directory, where its changes are.
///
/// fuse: the engine does everything (the default). kernel: the engine merges the layers, and kernel overlayfs adds the
/// upper directory: what programs write is as fast as on the host, but renaming a directory of a layer gives EXDEV, case
/// is not folded, and nothing can be committed while the image runs. auto: kernel where it works and nothing is asked for
/// that only fuse can do. Both leave the same upper directory.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim overlay app.flatimage set auto")]
pub struct OverlayArgs {
    /// The image.
    image: PathBuf,
    /// What to do.
    #[command(subcommand)]
    action: OverlayAction,
}

/// What to do with the overlay.
#[derive(Subcommand, Debug)]
pub enum OverlayAction {
    /// Stores who merges: fuse, kernel or auto. FlatImage's words bwrap, overlayfs and unionfs mean kernel, fuse and fuse.
    #[command(after_help = "Example: app.flatimage fim-overlay set auto")]
    Set {
        /// The word.
        #[arg(value_name = "fuse|kernel|auto")]
        kind: String,
    },
    /// Prints what is stored.
    #[command(after_help = "Example: app.flatimage fim-overlay show")]
    Show {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Turns what only this engine understands in the upper directory into plain files and directories, so that kernel
    /// overlayfs and fuse-overlayfs can mount it over the same layers. Nothing changes for programs.
    ///
    /// With --upper it is the upper directory of a `fim mount` with these words; IMAGE may be an archive or a directory
    /// then.
    #[command(after_help = "Example: app.flatimage fim-overlay export")]
    Export {
        /// The upper directory of a mount, in place of the image's own.
        #[arg(long, value_name = "DIR")]
        upper: Option<PathBuf>,
        /// Its scratch space [default: `.NAME.work` beside it].
        #[arg(long, value_name = "DIR", requires = "upper")]
        work: Option<PathBuf>,
        /// A further layer of the mount: an archive or a directory of the host.
        #[arg(long = "layer", value_name = "FILE|DIR", requires = "upper")]
        layers: Vec<PathBuf>,
    },
}

/// Carries the command out.
///
/// # Errors
///
/// An unknown word, the image cannot be read or changed, or the upper directory not be exported.
pub fn run(args: &OverlayArgs, report: &dyn Report) -> Outcome {
    match &args.action {
        OverlayAction::Set { kind } => {
            let kind = OverlayKind::parse(kind)?;
            settings::change(&args.image, |settings| {
                settings.overlay = kind;
                Ok(())
            })?;
        }
        OverlayAction::Show { json } => {
            let kind = settings::read(&args.image)?.overlay;
            if *json { settings::json(&kind)? } else { settings::line(kind.name())? }
        }
        OverlayAction::Export { upper, work, layers } => {
            let exported = match upper {
                Some(upper) => export_mount(&args.image, upper, work.as_deref(), layers, report)?,
                None => export_image(&args.image, report)?,
            };
            report.done();
            exported.map_err(failed)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn export_image(image: &Path, report: &dyn Report) -> Result<Result<(), ExportError>, Failure> {
    let host = Host::read()?;
    commit::become_able(host.ids.uid)?;
    let site = Site::find(&host, image)?;
    begin(report);
    Ok(export::export(&site, &mut || report.files(1)))
}

fn export_mount(
    image: &Path,
    upper: &Path,
    work: Option<&Path>,
    layers: &[PathBuf],
    report: &dyn Report,
) -> Result<Result<(), ExportError>, Failure> {
    let upper = mount::upper_plan(upper, work)?;
    let layers = std::iter::once(image).chain(layers.iter().map(PathBuf::as_path));
    let layers = layers.map(|layer| mount::existing(layer).map(LayerSource::Path));
    let stack =
        StackPlan { layers: layers.collect::<Result<_, _>>()?, upper: Some(upper), ..StackPlan::default() };
    commit::become_able(Host::read()?.ids.uid)?;
    begin(report);
    Ok(export::make_plain(&stack, &mut || report.files(1)))
}

fn begin(report: &dyn Report) {
    report.begin(Phase::Scan, 0, 0);
    report.step("exporting");
}

fn failed(error: ExportError) -> Failure {
    let cure = error.cure();
    let failure = Failure::from(error);
    match cure {
        Some(cure) => failure.cure(cure),
        None => failure,
    }
}
