//! `fim cp`.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf, process::ExitCode};

use clap::Args;

use super::looking::Source;
use crate::{
    cli::{Failure, Outcome},
    runtime::{
        browse::{self, CopyPlan},
        create::Report,
    },
};

/// Copies out of an archive or image without mounting it.
///
/// Permissions, times, hard links, holes and extended attributes are kept, owners too as root. Nothing is written
/// outside of DEST: symlinks in it are replaced, never followed.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim cp -r app.flatimage etc/apt usr/share/doc /tmp/out")]
pub struct CpArgs {
    #[command(flatten)]
    source: Source,
    /// What to copy; a directory to copy it into, or its new name.
    #[arg(value_name = "PATH|DEST", num_args = 2.., required = true)]
    places: Vec<OsString>,
    /// Directories with all below them, symlinks as such.
    #[arg(short, long)]
    recursive: bool,
}

/// Carries the command out.
///
/// # Errors
///
/// A source is not there, the destination cannot be used, or something could not be copied.
pub fn run(args: &CpArgs, report: &dyn Report) -> Outcome {
    let mut places = args.places.clone();
    let destination = places.pop().map(PathBuf::from).unwrap_or_default();
    let sources = places.into_iter().map(OsString::into_vec).collect();
    let tree = args.source.open()?;
    let plan = CopyPlan { sources, destination, recursive: args.recursive };
    let copied = browse::copy(&tree, &plan, report)?;
    report.done();
    match copied.failures {
        0 => Ok(ExitCode::SUCCESS),
        1 => Err(Failure::new("one object could not be copied")),
        many => Err(Failure::new(format!("{many} objects could not be copied"))),
    }
}
