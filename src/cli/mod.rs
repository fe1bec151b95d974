//! The command line: the only place that prints and exits.

pub mod cmd;
mod exit;
mod resolve;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{image::runtime_copy, sandbox::guest};

pub use exit::{ENGINE_ERROR, Failure, INPUTS_SKIPPED, Outcome};

/// Packs a Linux root into one executable file, and serves stacks of archives and directories.
#[derive(Parser, Debug)]
#[command(name = "fim")]
struct Tool {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Exec(cmd::exec::ExecArgs),
    Root(cmd::root::RootArgs),
    Run(cmd::run::RunArgs),
    Mount(cmd::mount::MountArgs),
    Umount(cmd::umount::UmountArgs),
}

/// Runs the program.
#[must_use]
#[expect(clippy::print_stderr, reason = "the one line that says what failed")]
pub fn main() -> ExitCode {
    let outcome = role().unwrap_or_else(tool);
    outcome.unwrap_or_else(|failure| {
        eprintln!("fim: {failure}");
        ExitCode::from(ENGINE_ERROR)
    })
}

/// Plays the role that the program's own name asks for, if it is one.
fn role() -> Option<Outcome> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = Path::new(arguments.first()?).file_name()?;
    (name == "fim_init").then(|| guest::run(&arguments).map(|()| ExitCode::SUCCESS).map_err(Failure::from))
}

fn tool() -> Outcome {
    let global = std::env::var_os("FIM_DIR_GLOBAL").map(PathBuf::from);
    let started = runtime_copy::start(std::env::args_os().collect(), global.as_deref())?;
    let mut arguments = resolve::tool_arguments(&started.arguments, started.image.as_deref());
    resolve::lower_sub_words(&Tool::command(), &mut arguments);
    match Tool::parse_from(arguments).verb {
        Verb::Exec(args) => cmd::exec::run(args),
        Verb::Root(args) => cmd::root::run(args),
        Verb::Run(args) => cmd::run::run(args),
        Verb::Mount(args) => cmd::mount::run(args),
        Verb::Umount(args) => cmd::umount::run(&args),
    }
}
