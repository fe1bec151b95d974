//! `fim-instance`: running instances of an image.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};

use super::{exec::exit_code, ps::table, settings};
use crate::{
    cli::{Failure, Outcome},
    instance::state::{Found, Registry},
    runtime::{
        host::Host,
        instances::{self, EnterRequest},
    },
    sandbox,
    sys::{inherit, pty},
};

/// Running instances of an image.
#[derive(Args, Debug)]
pub struct InstanceArgs {
    /// The image.
    image: PathBuf,
    /// What to do.
    #[command(subcommand)]
    action: InstanceAction,
}

/// What to do with instances.
#[derive(Subcommand, Debug)]
pub enum InstanceAction {
    /// Prints `id:pid` a line.
    List(ListArgs),
    /// Runs a program in an instance; without one, prints the variables that the instance was started with.
    Exec(EnterArgs),
}

/// How instances are listed.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// Those that have ended as well.
    #[arg(short, long)]
    all: bool,
    /// With the directories of their logs.
    #[arg(short, long)]
    long: bool,
    /// As a table.
    #[arg(long)]
    table: bool,
}

/// What to run in an instance.
#[derive(Args, Debug)]
pub struct EnterArgs {
    /// Does not wait for the program.
    #[arg(short, long)]
    detach: bool,
    /// A variable, K=V.
    #[arg(short, long, value_name = "K=V")]
    env: Vec<String>,
    /// As whom, by name or number.
    #[arg(short, long, default_value = "", hide_default_value = true)]
    user: OsString,
    /// The directory to start in.
    #[arg(short = 'w', long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// The instance, by id, name or the beginning of its name.
    instance: String,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROG [ARG]")]
    command: Vec<OsString>,
}

/// Carries it out.
///
/// # Errors
///
/// What the engine could not do; the program's own failures are exit statuses.
pub fn run(args: InstanceArgs) -> Outcome {
    let host = Host::read()?;
    let registry = instances::of_image(&host, &args.image)?;
    match args.action {
        InstanceAction::List(list) => show(&registry, &list),
        InstanceAction::Exec(enter) => exec(&host, &registry, enter),
    }
}

fn show(registry: &Registry, args: &ListArgs) -> Outcome {
    let found = if args.all { registry.all()? } else { registry.living()? };
    if args.json {
        settings::json(&found.iter().map(|one| &one.state).collect::<Vec<_>>())?;
    } else if args.table {
        settings::lines(table(&found, false))?;
    } else {
        settings::lines(found.iter().map(|one| line(one, args.long)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn line(one: &Found, is_long: bool) -> String {
    let short = format!("{}:{}", one.state.id, one.state.identity.pid);
    match (is_long, &one.process) {
        (false, _) => short,
        (true, Some(_)) => format!("{short}:{}", one.state.directory.join("logs").display()),
        (true, None) => format!("{short}:{}", one.path.display()),
    }
}

fn exec(host: &Host, registry: &Registry, args: EnterArgs) -> Outcome {
    if args.command.is_empty() {
        return show_environment(&registry.find(&args.instance)?);
    }
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let null = inherit::null()?;
    let stdio: [BorrowedFd<'_>; 3] = if args.detach {
        [null.as_fd(), null.as_fd(), null.as_fd()]
    } else {
        [input.as_fd(), output.as_fd(), error.as_fd()]
    };
    let mut environment = variables(&args.env)?;
    if stdio.iter().any(|fd| pty::is_terminal(*fd))
        && let Some(kind) = host.variable("TERM")
    {
        environment.entry("TERM".into()).or_insert_with(|| kind.to_owned());
    }
    let directories = args.cwd.into_iter().chain(host.directory.clone()).collect();
    let request = sandbox::Request {
        arguments: args.command,
        environment,
        directories,
        user: args.user,
        is_detached: args.detach,
    };
    let finished = instances::exec(registry, EnterRequest { instance: args.instance, request }, stdio)?;
    Ok(exit_code(finished))
}

/// Prints the variables of an instance, and what they are for.
fn show_environment(found: &Found) -> Outcome {
    let notes = &found.state.notes;
    settings::lines(found.state.env.iter().map(|(name, value)| match notes.get(name) {
        Some(note) => format!("{name}={value}  # {note}"),
        None => format!("{name}={value}"),
    }))?;
    Ok(ExitCode::SUCCESS)
}

/// `K=V` words as variables.
fn variables(words: &[String]) -> Result<BTreeMap<OsString, OsString>, Failure> {
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
            _ => Err(Failure::new(format!("cannot understand {word:?}")).cure("a variable is K=V")),
        })
        .collect()
}
