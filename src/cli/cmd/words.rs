//! The verbs whose setting is a set of words: `fim-perms` and `fim-unshare`.

use std::{path::Path, process::ExitCode};

use clap::Subcommand;

use super::settings;
use crate::{
    cli::Outcome,
    config::{Settings, Word, WordSet},
};

/// What to do with the words.
#[derive(Subcommand, Debug)]
pub(super) enum WordAction {
    /// Adds words, divided by commas or spaces.
    #[command(after_help = "Example: app.flatimage fim-perms add home,network")]
    Add {
        /// The words; `all` stands for every one.
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Takes words away.
    #[command(after_help = "Example: app.flatimage fim-perms del network")]
    Del {
        /// The words; `all` stands for every one.
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Replaces what is stored.
    #[command(after_help = "Example: app.flatimage fim-unshare set ipc,uts")]
    Set {
        /// The words; `all` stands for every one.
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Prints what is stored, one word a line, sorted.
    #[command(after_help = "Example: app.flatimage fim-perms list --json")]
    List {
        /// As a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Takes everything away.
    #[command(after_help = "Example: app.flatimage fim-unshare clear")]
    Clear,
}

/// Carries an action out on the set that `field` finds in the settings.
pub(super) fn run<W: Word>(
    image: &Path,
    action: &WordAction,
    field: impl Fn(&mut Settings) -> &mut WordSet<W>,
) -> Outcome {
    let parse = |words: &[String]| WordSet::<W>::parse(words.iter().map(String::as_str));
    let change = |change: &dyn Fn(&mut WordSet<W>)| {
        settings::change(image, |settings| {
            change(field(settings));
            Ok(())
        })
    };
    match action {
        WordAction::Add { words } => {
            let words = parse(words)?;
            change(&|set| set.add(words.iter().copied()))?;
        }
        WordAction::Del { words } => {
            let words = parse(words)?;
            change(&|set| set.remove(words.iter().copied()))?;
        }
        WordAction::Set { words } => {
            let words = parse(words)?;
            change(&|set| set.set(words.iter().copied()))?;
        }
        WordAction::Clear => change(&WordSet::clear)?,
        WordAction::List { json } => {
            let mut stored = settings::read(image)?;
            let names = field(&mut stored).names();
            if *json { settings::json(&names)? } else { settings::lines(names)? }
        }
    }
    Ok(ExitCode::SUCCESS)
}
