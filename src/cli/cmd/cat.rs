//! `fim cat`.

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _};

use clap::Args;

use super::looking::{self, Source, Stop};
use crate::{
    cli::Outcome,
    runtime::browse::{BrowseError, Links},
};

/// Prints files of an archive or image, one after the other, without mounting it.
///
/// Symlinks are followed inside the archive.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim cat app.flatimage etc/os-release")]
pub struct CatArgs {
    #[command(flatten)]
    source: Source,
    /// The files.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<OsString>,
}

/// Carries the command out.
///
/// # Errors
///
/// The archive cannot be opened. A file that cannot be printed is told, and those after it are printed.
pub fn run(args: &CatArgs) -> Outcome {
    looking::print(|output| {
        let tree = args.source.open()?;
        for file in &args.files {
            let path = file.as_bytes();
            let printed = tree
                .find(path, Links::Follow)
                .and_then(|found| found.object.contents(path, &mut |bytes| output.bytes(bytes)));
            match printed {
                Ok(()) => {}
                Err(error @ BrowseError::Write { .. }) => return Err(Stop::Tree(error)),
                Err(error) => output.complain(error)?,
            }
        }
        Ok(())
    })
}
