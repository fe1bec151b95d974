//! `fim_portal PROG [ARG…]`, inside a sandbox: a program of the host.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::PathBuf,
};

use super::exec::exit_code;
use crate::{
    cli::{Failure, Outcome},
    runtime::{instances::InstanceError, portal},
    sandbox,
};

/// The name by which the role is called.
pub const NAME: &str = "fim_portal";

/// Runs a program of the host; `arguments` with the own name in front.
///
/// # Errors
///
/// What the engine could not do; the program's own failures are exit statuses.
pub fn run(arguments: &[OsString]) -> Outcome {
    let environment: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    let instance = environment
        .get(std::ffi::OsStr::new("FIM_DIR_INSTANCE"))
        .map(PathBuf::from)
        .ok_or_else(|| Failure::new("cannot find the host: fim_portal is for programs inside an image"))?;
    let command = arguments.get(1..).unwrap_or_default();
    if command.first().is_none_or(|program| program.is_empty()) {
        return Err(Failure::new("a word is missing from the command line").cure("fim_portal PROG [ARG…]"));
    }
    // What is large and of no use there does not travel.
    let environment =
        environment.into_iter().filter(|(name, _)| !name.as_bytes().starts_with(b"FIM_")).collect();
    let request = sandbox::Request {
        arguments: command.to_vec(),
        environment,
        directories: std::env::current_dir().into_iter().collect(),
        user: OsString::new(),
        is_detached: false,
    };
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    match portal::ask(&instance, request, [input.as_fd(), output.as_fd(), error.as_fd()]) {
        Ok(finished) => Ok(exit_code(finished)),
        Err(error @ InstanceError::NoPortal) => {
            Err(Failure::from(error).cure("fim-perms add portal, from outside"))
        }
        Err(error) => Err(error.into()),
    }
}
