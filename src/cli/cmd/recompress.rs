//! `fim archive recompress`.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use serde_json::json;

use super::{
    care::{self, Care},
    making::{self, Compression},
    settings,
};
use crate::{
    cli::{Failure, Outcome},
    dwarfs::{
        format::section::Compression as Stored,
        write::{Keep, Unreadable, WriteOptions, compression_of},
    },
    runtime::{
        create::Report,
        host::Host,
        recompress::{self, Blocks, Done, RecompressError, RecompressPlan},
    },
};

/// Compresses an archive anew, or packs its contents anew.
///
/// Blocks stay as they are cut, and the metadata stays as it is to the last byte: only codecs change. With --rebuild, and
/// with any of the options that say how blocks are cut, all contents are packed anew; names, owners, times, holes and
/// extended attributes stay.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim archive recompress app.dwarfs small.dwarfs --level 9\n         \
                                  fim archive recompress app.dwarfs fast.dwarfs -C lz4 --keep flac,ricepp,null\n         \
                                  fim archive recompress app.dwarfs app.dwarfs --rebuild --order profile:start.profile")]
pub struct RecompressArgs {
    /// The archive; of an image that has one only, that one.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The new archive. It may be the same file.
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Where in the file the archive begins, in bytes; otherwise it is looked for.
    #[arg(long, value_name = "N")]
    offset: Option<u64>,
    /// Packs all contents anew, as the level says.
    #[arg(long, conflicts_with = "keep")]
    rebuild: bool,
    /// Copies blocks that are compressed in one of these ways instead of unpacking them: null (stored), zstd, lzma, lz4,
    /// brotli, flac, ricepp; `same` (the codec that is asked for, whatever its level) or `none` [default: flac,ricepp and
    /// what is known to be incompressible].
    #[arg(long, value_name = "CODEC", value_delimiter = ',')]
    keep: Option<Vec<Kept>>,
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

/// A word for blocks that are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// None.
    None,
    /// What is compressed with the codec that is asked for.
    Same,
    /// What is compressed with this one.
    With(Stored),
}

/// The words, besides `none` and `same`.
const WORDS: [(&str, Stored); 7] = [
    ("null", Stored::None),
    ("zstd", Stored::Zstd),
    ("lzma", Stored::Lzma),
    ("lz4", Stored::Lz4),
    ("brotli", Stored::Brotli),
    ("flac", Stored::Flac),
    ("ricepp", Stored::Ricepp),
];

impl FromStr for Kept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => return Ok(Self::None),
            "same" => return Ok(Self::Same),
            _ => {}
        }
        let known = WORDS.iter().find(|(name, _)| *name == text).map(|(_, stored)| Self::With(*stored));
        let names = WORDS.map(|(name, _)| name).join(", ");
        known.ok_or_else(|| format!("expected {names}, same or none"))
    }
}

/// Carries the command out.
///
/// # Errors
///
/// The archive is damaged, or the new one cannot be written; nothing has changed then.
pub(super) fn run(args: &RecompressArgs, report: &dyn Report) -> Outcome {
    let (mut options, _) = args.compression.options(&Host::read()?)?;
    options.unreadable = args.care.unreadable();
    let blocks = args.blocks(&options)?;
    let mut plan = RecompressPlan {
        input: args.input.clone(),
        offset: args.offset,
        output: args.output.clone(),
        options,
        blocks,
        depth: args.care.depth(),
    };
    if plan.blocks != Blocks::Anew {
        let bits = recompress::block_size_bits(&plan).map_err(failed)?;
        args.compression.fit(&mut plan.options, bits);
    }
    let (done, time) = recompress::recompress(&plan, report).map_err(failed)?;
    report.done();
    match done {
        Done::Anew(summary) => {
            making::tell(&plan.output, summary.bytes_out, &summary, time, args.json)?;
            Ok(care::status(&summary))
        }
        Done::AsCut(done) if args.json => {
            settings::json(&json!({
                "path": plan.output,
                "size": done.bytes_out,
                "archive": done.bytes_out,
                "before": done.bytes_in,
                "blocks_copied": done.copied,
                "blocks_repacked": done.repacked,
                "seconds": time.as_secs_f64(),
            }))?;
            Ok(std::process::ExitCode::SUCCESS)
        }
        Done::AsCut(done) => {
            settings::line(format!(
                "{}: {} from {}, {} blocks compressed anew, {} copied, {:.1} s",
                plan.output.display(),
                making::bytes(done.bytes_out),
                making::bytes(done.bytes_in),
                done.repacked,
                done.copied,
                time.as_secs_f64()
            ))?;
            Ok(std::process::ExitCode::SUCCESS)
        }
    }
}

impl RecompressArgs {
    /// What becomes of the blocks.
    fn blocks(&self, options: &WriteOptions) -> Result<Blocks, Failure> {
        match (&self.keep, self.compression.recut()) {
            (Some(_), Some(part)) => {
                let words = format!("{part} packs everything anew, there is nothing for --keep to keep");
                Err(Failure::new(words).cure("leave one of them out"))
            }
            (_, Some(_)) => Ok(Blocks::Anew),
            _ if self.rebuild => Ok(Blocks::Anew),
            _ if options.unreadable == Unreadable::LeaveOut => {
                let words = "--ignore-errors leaves out files, and blocks are copied whole";
                Err(Failure::new(words).cure("add --rebuild"))
            }
            (None, None) => Ok(Blocks::AsCut(Keep::default())),
            (Some(words), None) => Ok(Blocks::AsCut(keep(words, options))),
        }
    }
}

fn keep(words: &[Kept], options: &WriteOptions) -> Keep {
    let codec = |word: &Kept| match word {
        Kept::None => None,
        Kept::Same => Some(compression_of(options.data)),
        Kept::With(stored) => Some(*stored),
    };
    Keep { codecs: words.iter().filter_map(codec).collect(), incompressible: !words.contains(&Kept::None) }
}

fn failed(error: RecompressError) -> Failure {
    let cure = error.cure();
    let failure = Failure::from(error);
    match cure {
        Some(cure) => failure.cure(cure),
        None => failure,
    }
}
