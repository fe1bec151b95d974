//! `fim man`.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Args, Command};

use crate::cli::{Failure, Outcome};

/// Writes the manual: a page for the tool and one for each verb, `fim.1`, `fim-layer.1`, `fim-layer-add.1` and so on.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim man ~/.local/share/man/man1")]
pub struct ManArgs {
    /// The directory; it is made if it is not there.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Carries the command out; `tool` is the whole command line.
///
/// # Errors
///
/// The directory cannot be made or written.
pub fn run(args: &ManArgs, tool: &Command) -> Outcome {
    let directory = &args.directory;
    let failed = |error| Failure::new(format!("cannot write the manual to {}: {error}", directory.display()));
    fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(tool.clone(), directory).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}
