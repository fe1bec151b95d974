//! The command line: the only place that prints and exits.

pub mod cmd;
mod complete;
mod exit;
mod progress;
mod resolve;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{
    Args as _, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, error::ErrorKind,
};

use crate::{image::runtime_copy, runtime::janitor, sandbox::guest};
use progress::Terminal;

pub use exit::{ENGINE_ERROR, Failure, INPUTS_SKIPPED, Outcome};

/// Packs a Linux root into one executable file, and serves stacks of archives and directories.
#[derive(Parser, Debug)]
#[command(name = "fim", version, disable_help_subcommand = true)]
struct Tool {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Create(cmd::create::CreateArgs),
    Upgrade(cmd::upgrade::UpgradeArgs),
    Archive(cmd::archive::ArchiveArgs),
    Layer(cmd::layer::LayerArgs),
    Check(cmd::check::CheckArgs),
    Info(cmd::info::InfoArgs),
    Bench(cmd::bench::BenchArgs),
    Exec(cmd::exec::ExecArgs),
    Root(cmd::root::RootArgs),
    Run(cmd::run::RunArgs),
    Instance(cmd::instance::InstanceArgs),
    Ps(cmd::ps::PsArgs),
    Gc(cmd::gc::GcArgs),
    Mount(cmd::mount::MountArgs),
    Umount(cmd::umount::UmountArgs),
    Stats(cmd::stats::StatsArgs),
    Ls(cmd::ls::LsArgs),
    Cat(cmd::cat::CatArgs),
    Cp(cmd::cp::CpArgs),
    Tree(cmd::tree::TreeArgs),
    Stat(cmd::stat::StatArgs),
    Boot(cmd::boot::BootArgs),
    Env(cmd::env::EnvArgs),
    Perms(cmd::perms::PermsArgs),
    Unshare(cmd::unshare::UnshareArgs),
    Overlay(cmd::overlay::OverlayArgs),
    Bind(cmd::bind::BindArgs),
    Casefold(cmd::casefold::CasefoldArgs),
    Notify(cmd::notify::NotifyArgs),
    Desktop(cmd::desktop::DesktopArgs),
    Remote(cmd::remote::RemoteArgs),
    Recipe(cmd::recipe::RecipeArgs),
    Version(cmd::version::VersionArgs),
    Help(cmd::help::HelpArgs),
    Doctor(cmd::doctor::DoctorArgs),
    Completions(cmd::completions::CompletionsArgs),
    Complete(cmd::completions::CompleteArgs),
    Man(cmd::man::ManArgs),
}

/// The whole command line: every verb with its sub-words, options and help.
#[must_use]
pub fn command() -> Command {
    Tool::command()
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
    if cmd::mount_helper::is_called(name) {
        return Some(cmd::mount_helper::run(&arguments));
    }
    if name == cmd::portal::NAME {
        return Some(cmd::portal::run(&arguments));
    }
    if name == janitor::NAME {
        return Some(janitor::run(&arguments).map(|()| ExitCode::SUCCESS).map_err(Failure::from));
    }
    (name == "fim_init").then(|| guest::run(&arguments).map(|()| ExitCode::SUCCESS).map_err(Failure::from))
}

fn tool() -> Outcome {
    let global = std::env::var_os("FIM_DIR_GLOBAL").map(PathBuf::from);
    let started = runtime_copy::start(std::env::args_os().collect(), global.as_deref())?;
    let mut arguments = resolve::tool_arguments(&started.arguments, started.image.as_deref());
    if let Some(args) = mount_alone(&arguments) {
        return cmd::mount::run(args);
    }
    let tool = Tool::command();
    resolve::lower_sub_words(&tool, &mut arguments);
    let verb = match tool.clone().try_get_matches_from(&arguments) {
        Ok(matches) => Tool::from_arg_matches(&matches)?.verb,
        Err(error) if error.use_stderr() => return Err(misuse(&error)),
        Err(help) => {
            help.print()?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    match verb {
        Verb::Create(args) => cmd::create::run(&args, &Terminal::new()),
        Verb::Archive(args) => cmd::archive::run(&args, &Terminal::new()),
        Verb::Layer(args) => cmd::layer::run(&args, &Terminal::new()),
        Verb::Check(args) => cmd::check::run(&args, &Terminal::new()),
        Verb::Exec(args) => cmd::exec::run(args),
        Verb::Root(args) => cmd::root::run(args),
        Verb::Run(args) => cmd::run::run(args),
        Verb::Instance(args) => cmd::instance::run(args),
        Verb::Ps(args) => cmd::ps::run(&args),
        Verb::Gc(args) => cmd::gc::run(&args),
        Verb::Mount(args) => cmd::mount::run(args),
        Verb::Umount(args) => cmd::umount::run(&args),
        Verb::Ls(args) => cmd::ls::run(&args),
        Verb::Cat(args) => cmd::cat::run(&args),
        Verb::Cp(args) => cmd::cp::run(&args, &Terminal::new()),
        Verb::Tree(args) => cmd::tree::run(&args),
        Verb::Stat(args) => cmd::stat::run(&args),
        Verb::Boot(args) => cmd::boot::run(&args),
        Verb::Env(args) => cmd::env::run(&args),
        Verb::Perms(args) => cmd::perms::run(&args),
        Verb::Unshare(args) => cmd::unshare::run(&args),
        Verb::Overlay(args) => cmd::overlay::run(&args, &Terminal::new()),
        Verb::Bind(args) => cmd::bind::run(&args),
        Verb::Casefold(args) => cmd::casefold::run(&args),
        Verb::Notify(args) => cmd::notify::run(&args),
        Verb::Desktop(args) => cmd::desktop::run(&args),
        Verb::Remote(args) => cmd::remote::run(&args),
        Verb::Recipe(args) => cmd::recipe::run(args),
        Verb::Version(args) => cmd::version::run(&args),
        Verb::Help(args) => cmd::help::run(&args, &tool),
        Verb::Upgrade(args) => cmd::upgrade::run(&args, &Terminal::new()),
        Verb::Info(args) => cmd::info::run(&args),
        Verb::Bench(args) => cmd::bench::run(&args, &Terminal::new()),
        Verb::Stats(args) => cmd::stats::run(&args),
        Verb::Doctor(args) => cmd::doctor::run(&args),
        Verb::Completions(args) => cmd::completions::run(&args),
        Verb::Complete(args) => cmd::completions::answer(&args, &tool),
        Verb::Man(args) => cmd::man::run(&args, &tool),
    }
}

/// Reads a command line of `fim mount` without making all the other verbs, which would take as long as mounting.
/// `None` for other verbs and for what cannot be read, or asks for help: the whole tool has the words for that.
fn mount_alone(arguments: &[OsString]) -> Option<cmd::mount::MountArgs> {
    const VERB: &str = "mount";
    if !arguments.get(1)?.eq_ignore_ascii_case(VERB) {
        return None;
    }
    let verb = cmd::mount::MountArgs::augment_args(Command::new(VERB));
    let matches = verb.try_get_matches_from(arguments.get(1..)?).ok()?;
    cmd::mount::MountArgs::from_arg_matches(&matches).ok()
}

/// A command line that cannot be read, said in one line.
fn misuse(error: &clap::Error) -> Failure {
    let failure = if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        Failure::new("a word is missing from the command line")
    } else {
        let text = error.render().to_string();
        let said: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
        Failure::new(said.join(" ").trim_start_matches("error: "))
    };
    failure.cure("fim help explains the verbs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_is_read_alone_as_with_the_other_verbs() {
        let words = |text: &str| -> Vec<OsString> { text.split(' ').map(OsString::from).collect() };
        for text in [
            "fim mount --ro a b",
            "fim MOUNT -o threads=3,dev a b --json -f",
            "fim mount --layer x --upper y --work z m",
            "fim mount a b -- ls -l --ro",
        ] {
            let mut arguments = words(text);
            let alone = mount_alone(&arguments).expect(text);
            let tool = Tool::command();
            resolve::lower_sub_words(&tool, &mut arguments);
            let matches = tool.try_get_matches_from(&arguments).expect(text);
            let whole = Tool::from_arg_matches(&matches).expect(text).verb;
            assert_eq!(format!("{whole:?}"), format!("Mount({alone:?})"));
        }
        for text in ["fim", "fim mount", "fim mount --help", "fim mount --no-such a b", "fim ls a b"] {
            assert!(mount_alone(&words(text)).is_none(), "{text}");
        }
    }
}
