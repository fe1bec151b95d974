//! `fim-instance`: running instances of an image.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand};

mod logs;
mod stats;

use logs::LogsArgs;
use stats::StatsArgs;

use super::{
    exec::exit_code,
    own::{OwnArgs, pairs},
    ps::table,
    settings,
};
use crate::{
    cli::{Failure, Outcome},
    config::Scripts,
    instance::state::{Found, Name, Registry},
    runtime::{
        host::Host,
        instances::{self, EnterRequest, StartRequest, StopRequest},
        run::Options,
    },
    sandbox::{self, Role},
    sys::{inherit, pty, signal},
};

/// Running instances of an image.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim instance app.flatimage exec 0 echo hello")]
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
    #[command(after_help = "Example: app.flatimage fim-instance list --table")]
    List(ListArgs),
    /// Runs a program in an instance; without one, prints the variables that the instance was started with.
    #[command(after_help = "Example: app.flatimage fim-instance exec web ls -l /srv")]
    Exec(EnterArgs),
    /// Starts an instance in the background; with a program it lives as long as that, else until it is stopped.
    #[command(after_help = "Example: app.flatimage fim-instance start web -- httpd -f")]
    Start(StartArgs),
    /// Ends instances: the stop script, then a signal, and SIGKILL when they take too long.
    #[command(after_help = "Example: app.flatimage fim-instance stop web --timeout 5")]
    Stop(StopArgs),
    /// Prints what a background instance has written.
    #[command(after_help = "Example: app.flatimage fim-instance logs web --tail 20")]
    Logs(LogsArgs),
    /// Prints what instances take: processor, memory, devices, processes; every second.
    Stats(StatsArgs),
    /// Waits until an instance has ended, and ends with its status.
    #[command(after_help = "Example: app.flatimage fim-instance wait web")]
    Wait {
        /// The instance.
        instance: String,
    },
    /// Prints what is known of an instance, as JSON.
    #[command(after_help = "Example: app.flatimage fim-instance inspect web")]
    Inspect {
        /// The instance, or the last one that was called so.
        instance: String,
        /// As JSON, which it is anyway.
        #[arg(long)]
        json: bool,
    },
    /// Gives a running instance another name.
    #[command(after_help = "Example: app.flatimage fim-instance rename 0 web")]
    Rename {
        /// The instance.
        instance: String,
        /// Its new name.
        name: String,
    },
    /// A login shell in an instance.
    #[command(after_help = "Example: app.flatimage fim-instance shell web")]
    Shell {
        /// The instance.
        instance: String,
    },
    /// The scripts that run when background instances start and stop.
    #[command(after_help = "Example: app.flatimage fim-instance script set start run.sh")]
    Script {
        /// What to do.
        #[command(subcommand)]
        action: ScriptAction,
    },
}

/// What to do with the scripts of an image.
#[derive(Subcommand, Debug)]
pub enum ScriptAction {
    /// Stores a script.
    #[command(after_help = "Example: app.flatimage fim-instance script set start run.sh")]
    Set {
        /// start or stop.
        which: String,
        /// The file with the script; `-` or nothing is stdin.
        file: Option<PathBuf>,
    },
    /// Prints a script.
    #[command(after_help = "Example: app.flatimage fim-instance script show start")]
    Show {
        /// start or stop.
        which: String,
    },
    /// Removes a script.
    #[command(after_help = "Example: app.flatimage fim-instance script clear stop")]
    Clear {
        /// start or stop.
        which: String,
    },
}

/// How an instance is started.
#[derive(Args, Debug)]
#[command(
    after_help = "Example: fim instance app.flatimage start web --bind ~/site:/var/www:ro --memory 512M -- httpd -f"
)]
pub struct StartArgs {
    /// Its name: letters, digits, `.`, `_` and `-`.
    name: String,
    /// What it gets.
    #[command(flatten)]
    own: OwnArgs,
    /// What a variable is for, K=TEXT.
    #[arg(long, value_name = "K=TEXT")]
    note: Vec<String>,
    /// As root inside.
    #[arg(long)]
    root: bool,
    /// A file for the process id.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// The program and its arguments, behind `--`.
    #[arg(last = true, value_name = "PROG [ARG]")]
    command: Vec<OsString>,
}

/// How instances are ended.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim instance app.flatimage stop 'web-*' --timeout 30")]
pub struct StopArgs {
    /// Ids, names, beginnings of names, or patterns with `*` and `?`.
    #[arg(required_unless_present = "all")]
    instances: Vec<String>,
    /// All instances of the image.
    #[arg(long, conflicts_with = "instances")]
    all: bool,
    /// The signal, by name or number.
    #[arg(short, long, default_value = "TERM")]
    signal: String,
    /// Seconds until SIGKILL.
    #[arg(short, long, default_value_t = 10)]
    timeout: u64,
    /// Kills at once.
    #[arg(short, long)]
    force: bool,
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
#[command(after_help = "Example: fim instance app.flatimage exec --user root web apt list")]
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
    if let InstanceAction::Script { action } = &args.action {
        return script(&args.image, action);
    }
    let registry = instances::of_image(&host, &args.image)?;
    match args.action {
        InstanceAction::List(list) => show(&registry, &list),
        InstanceAction::Exec(enter) => exec(&host, &registry, enter),
        InstanceAction::Start(start) => begin(&host, args.image, start),
        InstanceAction::Stop(stop) => end(&registry, &args.image, stop),
        InstanceAction::Logs(args) => logs::show(&registry, &args),
        InstanceAction::Stats(args) => stats::show(&registry, &args),
        InstanceAction::Wait { instance } => {
            let status = instances::wait(&registry, &instance)?;
            status.map(ExitCode::from).ok_or_else(|| {
                Failure::new(format!("cannot tell how instance {instance} ended: it was killed"))
            })
        }
        InstanceAction::Inspect { instance, json: _ } => {
            let found = registry.find_or_ended(&instance)?;
            settings::line(serde_json::to_string_pretty(&found.state)?)?;
            Ok(ExitCode::SUCCESS)
        }
        InstanceAction::Rename { instance, name } => {
            registry.rename(&instance, name_of(&name)?)?;
            Ok(ExitCode::SUCCESS)
        }
        InstanceAction::Shell { instance } => exec(&host, &registry, shell(instance)),
        InstanceAction::Script { .. } => Ok(ExitCode::SUCCESS),
    }
}

fn name_of(name: &str) -> Result<Name, Failure> {
    Name::new(name).ok_or_else(|| {
        Failure::new(format!("cannot call an instance {name:?}"))
            .cure("a name has letters, digits, '.', '_' and '-', and is no number")
    })
}

/// A login shell: the one that the instance names, else the one that is there.
fn shell(instance: String) -> EnterArgs {
    let script = "if [ -x \"$SHELL\" ]; then exec \"$SHELL\" -l; else exec /bin/sh -l; fi";
    EnterArgs {
        detach: false,
        env: Vec::new(),
        user: OsString::new(),
        cwd: None,
        instance,
        command: ["/bin/sh", "-c", script].map(OsString::from).into(),
    }
}

#[expect(clippy::print_stderr, reason = "what a program does not get")]
fn begin(host: &Host, image: PathBuf, args: StartArgs) -> Outcome {
    let options = Options {
        name: Some(name_of(&args.name)?),
        notes: pairs(&args.note)?,
        background: true,
        ..args.own.options()?
    };
    let role = if args.root { Role::Root } else { Role::User };
    let request = StartRequest { image, command: args.command, role, options, pid_file: args.pid_file };
    instances::start(host, request, &|sentence| eprintln!("fim: {sentence}"))?;
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "what went wrong on the way")]
fn end(registry: &Registry, image: &Path, args: StopArgs) -> Outcome {
    let signal = signal::by_name(&args.signal)
        .ok_or_else(|| Failure::new(format!("cannot understand the signal {:?}", args.signal)))?;
    let request = StopRequest {
        wanted: args.instances,
        signal,
        timeout: Duration::from_secs(args.timeout),
        force: args.force,
        script: settings::read(image)?.scripts.stop,
    };
    let stopped = instances::stop(registry, &request)?;
    if stopped.is_empty() {
        return Err(Failure::new("cannot stop anything: no instance of the image runs"));
    }
    for one in &stopped {
        if let Some(complaint) = &one.complaint {
            eprintln!("fim: the stop script of {} failed: {complaint}", one.instance);
        }
    }
    settings::lines(stopped.iter().map(|one| {
        let how = if one.killed { "killed" } else { "stopped" };
        format!("{how} {}", one.instance)
    }))?;
    Ok(ExitCode::SUCCESS)
}

fn script(image: &Path, action: &ScriptAction) -> Outcome {
    let (which, text) = match action {
        ScriptAction::Set { which, file } => {
            let text = match file.as_deref().filter(|file| *file != Path::new("-")) {
                Some(file) => std::fs::read_to_string(file)?,
                None => io::read_to_string(io::stdin())?,
            };
            Scripts::check(&text)?;
            (which, Some(Some(text)))
        }
        ScriptAction::Show { which } => (which, None),
        ScriptAction::Clear { which } => (which, Some(None)),
    };
    let is_start = match which.to_ascii_lowercase().as_str() {
        "start" => true,
        "stop" => false,
        _ => return Err(Failure::new(format!("cannot understand {which:?}: it is start or stop"))),
    };
    match text {
        Some(text) => settings::change(image, |settings| {
            let scripts = &mut settings.scripts;
            *(if is_start { &mut scripts.start } else { &mut scripts.stop }) = text;
            Ok(())
        })?,
        None => {
            let Scripts { start, stop } = settings::read(image)?.scripts;
            if let Some(text) = if is_start { start } else { stop } {
                settings::line(text.trim_end_matches('\n'))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
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

/// Where an instance is looked for.
enum Among<'a> {
    /// Those of an image.
    Image(&'a Registry),
    /// All of the user.
    All,
}

/// Runs a program in the instance at an address, `instance://[IMAGE_ID/]NAME`.
pub(super) fn exec_at(address: String, env: Vec<String>, user: OsString, command: Vec<OsString>) -> Outcome {
    let args = EnterArgs { detach: false, env, user, cwd: None, instance: address, command };
    enter(&Host::read()?, &Among::All, args)
}

fn exec(host: &Host, registry: &Registry, args: EnterArgs) -> Outcome {
    if args.command.is_empty() {
        return show_environment(&registry.find(&args.instance)?);
    }
    enter(host, &Among::Image(registry), args)
}

fn enter(host: &Host, among: &Among<'_>, args: EnterArgs) -> Outcome {
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let null = inherit::null()?;
    let stdio: [BorrowedFd<'_>; 3] = if args.detach {
        [null.as_fd(), null.as_fd(), null.as_fd()]
    } else {
        [input.as_fd(), output.as_fd(), error.as_fd()]
    };
    let mut environment: BTreeMap<OsString, OsString> =
        pairs(&args.env)?.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
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
    let request = EnterRequest { instance: args.instance, request };
    let finished = match among {
        Among::Image(registry) => instances::exec(registry, request, stdio)?,
        Among::All => instances::exec_at(host, request, stdio)?,
    };
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
