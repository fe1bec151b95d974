//! The command line: the only place that prints and exits.

pub mod cmd;
mod exit;
mod resolve;

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use exit::{ENGINE_ERROR, Failure, INPUTS_SKIPPED, Outcome};

use crate::image::runtime_copy;

/// Packs a Linux root file system into one executable file and runs it anywhere.
#[derive(Parser, Debug)]
#[command(name = "fim", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Create(cmd::create::CreateArgs),
    Archive(cmd::archive::ArchiveArgs),
    Layer(cmd::layer::LayerArgs),
    Boot(cmd::boot::BootArgs),
    Env(cmd::env::EnvArgs),
    Perms(cmd::perms::PermsArgs),
    Unshare(cmd::unshare::UnshareArgs),
    Bind(cmd::bind::BindArgs),
    Version(cmd::version::VersionArgs),
    Help(cmd::help::HelpArgs),
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    match run() {
        Ok(status) => status,
        Err(failure) => {
            let _ = writeln!(std::io::stderr().lock(), "fim: {failure}");
            ExitCode::from(ENGINE_ERROR)
        }
    }
}

fn run() -> Outcome {
    let global = std::env::var_os("FIM_DIR_GLOBAL").map(PathBuf::from);
    let started = runtime_copy::start(std::env::args_os().collect(), global.as_deref())?;
    let mut arguments = resolve::tool_arguments(&started.arguments, started.image.as_deref());
    let tool = Cli::command();
    resolve::lower_sub_words(&tool, &mut arguments);
    let matches = match tool.clone().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return Ok(ExitCode::from(if error.use_stderr() { ENGINE_ERROR } else { 0 }));
        }
    };
    let report = cmd::Plain;
    match Cli::from_arg_matches(&matches)?.verb {
        Verb::Create(args) => cmd::create::run(&args, &report),
        Verb::Archive(args) => cmd::archive::run(&args, &report),
        Verb::Layer(args) => cmd::layer::run(&args, &report),
        Verb::Boot(args) => cmd::boot::run(&args),
        Verb::Env(args) => cmd::env::run(&args),
        Verb::Perms(args) => cmd::perms::run(&args),
        Verb::Unshare(args) => cmd::unshare::run(&args),
        Verb::Bind(args) => cmd::bind::run(&args),
        Verb::Version(args) => cmd::version::run(&args),
        Verb::Help(args) => cmd::help::run(&args, &tool),
    }
}
