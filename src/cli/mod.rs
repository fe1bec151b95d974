//! The command line: the only place that prints and exits.

pub mod cmd;
mod exit;
mod resolve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    Mount(cmd::mount::MountArgs),
    Umount(cmd::umount::UmountArgs),
}

/// Runs the program.
#[must_use]
#[expect(clippy::print_stderr, reason = "the one line that says what failed")]
pub fn main() -> ExitCode {
    let outcome = match Tool::parse().verb {
        Verb::Mount(args) => cmd::mount::run(args),
        Verb::Umount(args) => cmd::umount::run(&args),
    };
    outcome.unwrap_or_else(|failure| {
        eprintln!("fim: {failure}");
        ExitCode::from(ENGINE_ERROR)
    })
}
