//! `fim info`, and `fim-layer info`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{making::bytes, settings};
use crate::{
    cli::{Failure, Outcome},
    runtime::{
        browse::{Time, text},
        info::{self, ArchiveInfo, ImageInfo, Info},
    },
};

/// Says what an archive or an image is: its format, its sizes, how its blocks are stored, who made it.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim info rootfs.dwarfs")]
pub struct InfoArgs {
    /// An archive, or an image: then all archives in it.
    file: PathBuf,
    /// Where the archive begins in the file, in bytes.
    #[arg(long, value_name = "BYTES")]
    offset: Option<u64>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Carries the command out.
///
/// # Errors
///
/// The file is no archive and no image, or damaged.
pub fn run(args: &InfoArgs) -> Outcome {
    let info = info::info(&args.file, args.offset)?;
    if args.json {
        settings::json(&info)?;
    } else {
        settings::lines(match &info {
            Info::Image(image) => of_image(image),
            Info::Archive(archive) => of_archive(archive),
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells of layers, lowest first.
pub(super) fn tell(layers: &[ArchiveInfo], json: bool) -> Result<(), Failure> {
    if json {
        return settings::json(&layers);
    }
    settings::lines(layers.iter().enumerate().flat_map(|(index, layer)| {
        std::iter::once(format!("layer {index}"))
            .chain(of_archive(layer).into_iter().map(|line| format!("  {line}")))
    }))
}

fn of_image(image: &ImageInfo) -> Vec<String> {
    let mut lines = vec![
        format!("{}: image of {}", image.path.display(), bytes(image.size)),
        format!("id         {}", image.image_id),
        format!("program    {}", bytes(image.program)),
    ];
    if let Some(settings) = image.settings.as_object() {
        let stored = settings.iter().filter(|(name, _)| *name != "image_id");
        lines.extend(stored.map(|(name, value)| format!("{name:<10} {value}")));
    }
    for archive in &image.archives {
        lines.push(String::new());
        lines.extend(of_archive(archive));
    }
    lines
}

fn of_archive(archive: &ArchiveInfo) -> Vec<String> {
    let when = |seconds: u64| {
        let time = Time { seconds: i64::try_from(seconds).unwrap_or_default(), nanos: 0 };
        format!("{} UTC", text::minute(time))
    };
    let mut lines = vec![format!(
        "{}: DwarFS {} archive at offset {:#x}, {}",
        archive.path.display(),
        archive.format,
        archive.offset,
        bytes(archive.size)
    )];
    if let Some(known) = &archive.known {
        let kind = serde_json::to_value(&known.kind).unwrap_or_default();
        lines.push(format!("kind       {}", kind.as_str().unwrap_or_default()));
        lines.push(format!("added      {}", when(known.added)));
        if !known.message.is_empty() {
            lines.push(format!("message    {}", text::escaped(known.message.as_bytes())));
        }
        lines.push(format!("digest     {}", known.content));
    }
    lines.push(format!("contents   {} in {} objects", bytes(archive.contents), archive.inodes));
    if archive.allocated != archive.contents {
        lines.push(format!("allocated  {} without holes", bytes(archive.allocated)));
    }
    if let Some(permille) = archive.size.saturating_mul(1000).checked_div(archive.contents) {
        lines.push(format!("ratio      {}.{} %", permille / 10, permille % 10));
    }
    lines.push(format!("blocks     {} of at most {}", archive.blocks, bytes(archive.block_size)));
    for (name, method) in &archive.methods {
        lines.push(format!("  {name:<8} {} blocks, {}", method.blocks, bytes(method.stored)));
    }
    for (name, blocks) in &archive.categories {
        lines.push(format!("  for {}: {blocks} blocks", text::escaped(name.as_bytes())));
    }
    let time = archive.created.map_or_else(String::new, |seconds| format!(", {}", when(seconds)));
    lines.push(format!("writer     {}{time}", text::escaped(archive.writer.as_bytes())));
    for writing in &archive.history {
        let words = text::escaped(writing.arguments.join(" ").as_bytes());
        let time = writing.time.map_or_else(String::new, |seconds| format!(" {}", when(seconds)));
        lines.push(format!("written    by {}{time}: {words}", writing.version));
    }
    lines
}
