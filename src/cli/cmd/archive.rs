//! `fim archive`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    care::{self, Care},
    making::{self, Compression},
    recompress::{self, RecompressArgs},
    squash::{self, SquashArgs},
};
use crate::{
    cli::Outcome,
    runtime::{create::Report, host::Host, layer},
};

/// Makes archives, of directories and of other archives.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim archive create rootfs rootfs.dwarfs\n         \
                              fim archive recompress rootfs.dwarfs small.dwarfs --level 9\n         \
                              fim archive squash base.layer fixes.layer merged.layer --base")]
pub struct ArchiveArgs {
    /// What to do.
    #[command(subcommand)]
    action: ArchiveAction,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum ArchiveAction {
    /// Archives a directory.
    #[command(after_help = "Example: fim archive create rootfs rootfs.dwarfs")]
    Create(MakeArgs),
    /// Compresses an archive anew, or packs its contents anew.
    Recompress(RecompressArgs),
    /// Makes one archive of several layers.
    Squash(SquashArgs),
}

/// A directory that becomes an archive.
#[derive(Args, Debug)]
pub struct MakeArgs {
    /// The directory.
    directory: PathBuf,
    /// The archive.
    file: PathBuf,
    /// How it is made.
    #[command(flatten)]
    compression: Compression,
    /// How carefully to go about it.
    #[command(flatten)]
    care: Care,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Carries the command out.
///
/// # Errors
///
/// The directory cannot be read, or the file not be written; nothing is there under its name then.
pub fn run(args: &ArchiveArgs, report: &dyn Report) -> Outcome {
    match &args.action {
        ArchiveAction::Create(make) => create(make, report),
        ArchiveAction::Recompress(args) => recompress::run(args, report),
        ArchiveAction::Squash(args) => squash::run(args, report),
    }
}

/// Archives a directory and says what was made.
pub(super) fn create(args: &MakeArgs, report: &dyn Report) -> Outcome {
    let (mut options, _) = args.compression.options(&Host::read()?)?;
    options.unreadable = args.care.unreadable();
    let made = layer::create(&args.directory, &args.file, &options, args.care.depth(), report)?;
    report.done();
    making::tell(&args.file, made.summary.bytes_out, &made.summary, made.time, args.json)?;
    Ok(care::status(&made.summary))
}
