//! `fim create`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{
    care::{self, Care},
    making::{self, Compression},
};
use crate::{
    cli::Outcome,
    runtime::{
        create::{self, CreatePlan, From, Report},
        host::Host,
    },
};

/// Makes an image: one executable file with a root file system in it.
///
/// The root is taken from a directory, from a tar file (plain, gzip, xz or zstd), or made of Debian packages with
/// mmdebstrap; or layers and settings of a FlatImage 2 file are taken over. The static bash and busybox and the bubblewrap of this machine go in as well, if they are there.
#[derive(Args, Debug)]
#[command(
    after_help = "Example: fim create -o debian.flatimage --from debian:bookworm --include python3,git"
)]
pub struct CreateArgs {
    /// The image [default: named after the source, in the current directory].
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// What the root is made from: a directory, a tar file, debian:SUITE, or a FlatImage 2 file.
    #[arg(long, value_name = "DIR|TAR|debian:SUITE|FILE.flatimage")]
    from: String,
    /// Debian packages beyond the minimum, divided by commas.
    #[arg(long, value_name = "PACKAGE", value_delimiter = ',')]
    include: Vec<String>,
    /// Where Debian packages come from.
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Looks for the tools below this directory before it looks on this machine.
    #[arg(long, value_name = "DIR", conflicts_with = "no_tools")]
    tools: Option<PathBuf>,
    /// Makes the image without bubblewrap, bash and busybox of its own.
    #[arg(long)]
    no_tools: bool,
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
/// The source cannot be read, or the image not be written; nothing is there under its name then.
pub fn run(args: &CreateArgs, report: &dyn Report) -> Outcome {
    let (mut options, created) = args.compression.options(&Host::read()?)?;
    options.unreadable = args.care.unreadable();
    let from = From::parse(&args.from, args.include.clone(), args.mirror.clone())?;
    let output = args.output.clone().unwrap_or_else(|| default_output(&from));
    let tool_roots = if args.no_tools {
        Vec::new()
    } else {
        args.tools.iter().cloned().chain([PathBuf::from("/")]).collect()
    };
    let plan = CreatePlan { from, output, options, depth: args.care.depth(), tool_roots, created };
    let made = create::create(&plan, report)?;
    report.done();
    making::tell(&plan.output, made.length, &made.summary, made.time, args.json)?;
    Ok(care::status(&made.summary))
}

/// `NAME.flatimage` in the current directory.
fn default_output(from: &From) -> PathBuf {
    let name = match from {
        From::Directory(path) | From::Tar(path) | From::FlatImage(path) => {
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let name = name.split(".tar").next().unwrap_or_default();
            // Never the name of the file that is taken over.
            name.strip_suffix(".flatimage").map_or_else(|| name.to_owned(), |name| format!("{name}-fim"))
        }
        From::Debian(_) => "debian".to_owned(),
    };
    let name = if name.is_empty() { "root".to_owned() } else { name };
    Path::new(&name).with_extension("flatimage")
}
