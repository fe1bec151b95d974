//! `fim archive squash`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{
    making::{self, Compression},
    settings,
};
use crate::{
    cli::{Failure, Outcome},
    image::Depth,
    runtime::{
        create::Report,
        host::Host,
        squash::{Below, Layers, Replace, SquashError, Squashed},
    },
};

/// Makes one archive of several layers, lowest first, that looks as they did, one above the other.
///
/// What is deleted, hidden or moved of layers that are not named here stays so: the archive takes the place of its
/// layers in any stack. With --base nothing lies below, and no mark of a deletion is left. Blocks whose whole content
/// is still wanted are copied as they are.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim archive squash 001.layer 002.layer 003.layer merged.layer\n         \
                                  fim archive squash debian.dwarfs python.layer app.dwarfs --base")]
pub struct SquashArgs {
    /// The layers, lowest first (archives, or images, whose layers are all taken), and the new archive.
    #[arg(required = true, num_args = 2.., value_names = ["LAYER", "OUT"])]
    files: Vec<PathBuf>,
    /// The first layer is the base: nothing lies below it. Deletions are carried out and leave no mark.
    #[arg(long)]
    base: bool,
    /// Replaces OUT if it is there, even if it is one of the layers.
    #[arg(long)]
    force: bool,
    /// How what is packed anew is made.
    #[command(flatten)]
    compression: Compression,
    /// Reads everything back before the archive gets its name: unpacks every block and follows every reference, beyond
    /// the checksums that are compared in any case.
    #[arg(long)]
    verify: bool,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Carries the command out.
///
/// # Errors
///
/// A layer is damaged, or the archive cannot be written; nothing has changed then.
pub(super) fn run(args: &SquashArgs, report: &dyn Report) -> Outcome {
    let Some((output, layers)) = args.files.split_last().filter(|(_, layers)| !layers.is_empty()) else {
        return Err(Failure::new("a layer and the new archive must be named"));
    };
    if let Some(directory) = layers.iter().find(|path| path.is_dir()) {
        let words = format!("cannot squash {}: it is a directory", directory.display());
        return Err(Failure::new(words).cure("make an archive of it with fim archive create"));
    }
    let (mut options, _) = args.compression.options(&Host::read()?)?;
    let layers = Layers::open(layers).map_err(failed)?;
    let bits = layers.block_size_bits().max(options.block_size_bits);
    args.compression.fit(&mut options, bits);
    let replace = if args.force { Replace::Any } else { Replace::Never };
    let below = if args.base { Below::Nothing } else { Below::Perhaps };
    let depth = if args.verify { Depth::Everything } else { Depth::Checksums };
    let made = layers.squash(output, replace, below, &options, depth, report).map_err(failed)?;
    report.done();
    tell(output, &made, args.json)?;
    Ok(ExitCode::SUCCESS)
}

fn tell(output: &PathBuf, made: &Squashed, json: bool) -> Result<(), Failure> {
    let Squashed { reused, layers, marks, time } = made;
    let summary = &reused.summary;
    if json {
        return settings::json(&json!({
            "path": output,
            "size": summary.bytes_out,
            "archive": summary.bytes_out,
            "contents": summary.bytes_in,
            "layers": layers,
            "files": summary.files,
            "directories": summary.directories,
            "symlinks": summary.symlinks,
            "duplicates": summary.duplicates,
            "deletions_kept": marks.whiteouts,
            "marks_kept": marks.others,
            "blocks": reused.blocks,
            "blocks_copied": reused.copied,
            "bytes_copied": reused.copied_bytes,
            "bytes_packed": summary.bytes_packed,
            "seconds": time.as_secs_f64(),
        }));
    }
    let kept = match marks.whiteouts {
        0 => String::new(),
        count => format!(", {count} deletions kept for what lies below"),
    };
    settings::line(format!(
        "{}: {} of {layers} layers, {} files, {} of {} blocks copied, {} packed anew{kept}, {:.1} s",
        output.display(),
        making::bytes(summary.bytes_out),
        summary.files,
        reused.copied,
        reused.blocks,
        making::bytes(summary.bytes_packed),
        time.as_secs_f64()
    ))
}

fn failed(error: SquashError) -> Failure {
    let cure = error.cure();
    let failure = Failure::from(error);
    match cure {
        Some(cure) => failure.cure(cure),
        None => failure,
    }
}
