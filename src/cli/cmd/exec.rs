//! `fim exec IMAGE PROG [ARG…]`: a program over the merged root, as the calling user.

use std::{
    ffi::OsString,
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use super::{desktop, notify, own::OwnArgs, settings};
use crate::{
    cli::{Failure, Outcome},
    image::ImageFile,
    runtime::{
        host::Host,
        plan::Command,
        run::{self, Finished, Request, RunError, Witness},
    },
    sandbox::{Plan, Role, explain},
};

/// How a program is run.
#[derive(Args, Clone, Debug, Default)]
pub struct RunOptions {
    /// Writes to FILE which files are read, in the order of their first reads: an access profile, for `fim-layer
    /// profile set`. The image must not be running.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// What it gets.
    #[command(flatten)]
    pub own: OwnArgs,
    /// Gives the program nothing but the permissions that the image names: no network, no view of the host.
    #[arg(long)]
    pub strict: bool,
    /// Runs nothing: prints each mount, variable and namespace of the sandbox, and why it is there.
    #[arg(long)]
    pub dry_run: bool,
    /// Prints it as JSON.
    #[arg(long, requires = "dry_run")]
    pub json: bool,
}

/// Runs a program of an image as the calling user.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim exec app.flatimage --strict --dry-run id")]
pub struct ExecArgs {
    /// The image.
    pub image: PathBuf,
    /// How it is run.
    #[command(flatten)]
    pub options: RunOptions,
    /// The program, by name or path, and its arguments.
    #[arg(
        required_unless_present = "dry_run",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PROG [ARG]"
    )]
    pub command: Vec<OsString>,
}

/// Carries it out.
///
/// # Errors
///
/// What the engine could not do; the program's own failures are exit statuses.
pub fn run(args: ExecArgs) -> Outcome {
    launch(args.image, Command::Given(args.command), Role::User, &args.options)
}

/// What the desktop hears of a start.
fn greet(host: &Host, image: &Path) {
    // What is wrong with an image is told by the run.
    if let Ok(opened) = ImageFile::open(image) {
        notify::tell(image, opened.settings());
        desktop::follow(host, image, opened.settings());
    }
}

/// Runs a command of an image: what exec, root and run have in common.
#[expect(clippy::print_stderr, reason = "why a program could not be started, and what it does not get")]
pub(super) fn launch(image: PathBuf, command: Command, role: Role, options: &RunOptions) -> Outcome {
    let host = Host::read()?;
    // The server has another working directory.
    let record = options.record.as_deref().map(std::path::absolute).transpose()?;
    let request =
        Request { image, command, role, strict: options.strict, record, options: options.own.options()? };
    let warn = |sentence: &str| eprintln!("fim: {sentence}");
    if options.dry_run {
        let (plan, left_out) = run::dry_run(&host, &request).map_err(failure)?;
        left_out.iter().for_each(|sentence| warn(sentence));
        return print(&plan, options.json);
    }
    greet(&host, &request.image);
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let stdio = [input.as_fd(), output.as_fd(), error.as_fd()];
    run::run(&host, &request, stdio, Witness { warn: &warn, started: None }).map(exit_code).map_err(failure)
}

/// An error with its cure.
pub(super) fn failure(error: RunError) -> Failure {
    let cure = error.cure();
    let failure = Failure::from(error);
    match cure {
        Some(cure) => failure.cure(cure),
        None => failure,
    }
}

/// Prints what a sandbox would be.
fn print(plan: &Plan, as_json: bool) -> Outcome {
    let rows = explain(plan);
    if as_json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                json!({
                    "subject": row.subject.name(),
                    "name": row.name,
                    "what": row.what,
                    "reason": row.cause.to_string(),
                    "permission": row.permission(),
                })
            })
            .collect();
        settings::json(&rows)?;
    } else {
        settings::lines(rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The exit status of a program, with the reason where it could not be started.
#[expect(clippy::print_stderr, reason = "why a program could not be started")]
pub(super) fn exit_code(finished: Finished) -> ExitCode {
    match finished {
        Finished::Status(status) => ExitCode::from(status),
        Finished::NotStarted { status, why } => {
            eprintln!("fim: {why}");
            ExitCode::from(status)
        }
    }
}
