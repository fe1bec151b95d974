//! `fim exec IMAGE PROG [ARG…]`: a program over the merged root, as the calling user.

use std::{
    ffi::OsString,
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use super::{desktop, notify};
use crate::{
    cli::{Failure, Outcome},
    image::ImageFile,
    runtime::{
        host::Host,
        plan::Command,
        run::{self, Finished, Request},
    },
    sandbox::Role,
};

/// Runs a program of an image as the calling user.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim exec app.flatimage ls -l /")]
pub struct ExecArgs {
    /// The image.
    pub image: PathBuf,
    /// Writes to FILE which files are read, in the order of their first reads: an access profile, for `fim-layer
    /// profile set`. The image must not be running.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// The program, by name or path, and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROG [ARG]")]
    pub command: Vec<OsString>,
}

/// Carries it out.
///
/// # Errors
///
/// What the engine could not do; the program's own failures are exit statuses.
pub fn run(args: ExecArgs) -> Outcome {
    launch(args.image, Command::Given(args.command), Role::User, args.record.as_deref())
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
#[expect(clippy::print_stderr, reason = "why a program could not be started")]
pub(super) fn launch(image: PathBuf, command: Command, role: Role, record: Option<&Path>) -> Outcome {
    let host = Host::read()?;
    greet(&host, &image);
    // The server has another working directory.
    let record = record.map(std::path::absolute).transpose()?;
    let request = Request { image, command, role, record };
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    match run::run(&host, &request, [input.as_fd(), output.as_fd(), error.as_fd()]) {
        Ok(Finished::Status(status)) => Ok(ExitCode::from(status)),
        Ok(Finished::NotStarted { status, why }) => {
            eprintln!("fim: {why}");
            Ok(ExitCode::from(status))
        }
        Err(error) => {
            let cure = error.cure();
            let failure = Failure::from(error);
            Err(match cure {
                Some(cure) => failure.cure(cure),
                None => failure,
            })
        }
    }
}
