//! `fim tree`.

use std::ffi::OsString;

use clap::Args;

use super::looking::{self, Output, Source, Stop};
use crate::{
    cli::Outcome,
    runtime::browse::{BrowseError, FileKind, Found, Links, Object, Step, Tree, Walk},
};

/// Draws directories of an archive or image with all below them, without mounting it.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim tree -L 2 app.flatimage etc")]
pub struct TreeArgs {
    #[command(flatten)]
    source: Source,
    /// The directories; without any, the root.
    #[arg(value_name = "PATH")]
    paths: Vec<OsString>,
    /// Also names that begin with a dot.
    #[arg(short, long)]
    all: bool,
    /// No deeper than this.
    #[arg(short = 'L', long, value_name = "LEVEL")]
    level: Option<usize>,
    /// A line of JSON for each object, as `fim ls -R --json` prints them.
    #[arg(long)]
    json: bool,
}

/// How many directories and other objects were drawn.
#[derive(Default)]
struct Count {
    directories: u64,
    others: u64,
}

/// Carries the command out.
///
/// # Errors
///
/// The archive cannot be opened. A directory that cannot be listed is told, and those after it are drawn.
pub fn run(args: &TreeArgs) -> Outcome {
    looking::print(|output| {
        let tree = args.source.open()?;
        let mut count = Count::default();
        for path in looking::paths_or_root(&args.paths) {
            match start(&tree, path) {
                Ok(found) => draw(output, path, found, args, &mut count)?,
                Err(error) => output.complain(error)?,
            }
        }
        if !args.json {
            let word = |count, one, many| if count == 1 { one } else { many };
            let directories = word(count.directories, "directory", "directories");
            let others = word(count.others, "file", "files");
            let Count { directories: many, others: rest } = count;
            output.say(&format!("\n{many} {directories}, {rest} {others}\n"))?;
        }
        Ok(())
    })
}

fn start<'t>(tree: &'t Tree, path: &[u8]) -> Result<Found<'t>, BrowseError> {
    let found = tree.find(path, Links::Follow)?;
    match found.object.is_dir() {
        true => Ok(found),
        false => Err(BrowseError::NotADirectory { path: path.to_owned() }),
    }
}

fn draw(
    output: &mut Output,
    path: &[u8],
    found: Found<'_>,
    args: &TreeArgs,
    count: &mut Count,
) -> Result<(), Stop> {
    if !args.json {
        output.name(path)?;
        output.say("\n")?;
    }
    let mut walk = Walk::below(found, args.all || args.json);
    // For each level whether more of its entries follow.
    let mut more: Vec<bool> = Vec::new();
    while let Some(step) = walk.advance() {
        let (is_dir, depth) = match step {
            Step::Failed(error) => {
                output.complain(error)?;
                continue;
            }
            Step::Object { path, object, .. } if args.json => {
                match looking::describe(path, &object) {
                    Ok(entry) => output.json(&entry)?,
                    Err(error) => output.complain(error)?,
                }
                (object.is_dir(), more.len())
            }
            Step::Object { path, name, object, depth, is_last } => {
                more.truncate(depth);
                more.iter().try_for_each(|more| output.say(if *more { "│   " } else { "    " }))?;
                output.say(if is_last { "└── " } else { "├── " })?;
                more.push(!is_last);
                line(output, path, &name, &object)?;
                (object.is_dir(), depth)
            }
        };
        match is_dir {
            true => count.directories += 1,
            false => count.others += 1,
        }
        if args.level.is_some_and(|level| depth + 1 >= level) {
            walk.skip();
        }
    }
    Ok(())
}

fn line(output: &mut Output, path: &[u8], name: &[u8], object: &Object<'_>) -> Result<(), Stop> {
    output.name(name)?;
    if object.attr().kind == FileKind::Symlink {
        output.say(" -> ")?;
        match object.target(path) {
            Ok(target) => output.name(&target)?,
            Err(error) => output.complain(error)?,
        }
    }
    Ok(output.say("\n")?)
}
