//! `fim-help`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Command};

use super::settings;
use crate::cli::{Failure, Outcome};

/// Explains a verb, or all of them in short.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim help layer")]
pub struct HelpArgs {
    /// An image, which makes no difference, the verb, and its sub-words.
    #[arg(value_name = "[IMAGE] [TOPIC]", num_args = 0..=4)]
    words: Vec<PathBuf>,
}

/// Carries the command out; `tool` is the whole command line.
///
/// # Errors
///
/// There is no such verb.
pub fn run(args: &HelpArgs, tool: &Command) -> Outcome {
    let mut tool = tool.clone();
    tool.build();
    let topics = match args.words.split_first() {
        Some((image, rest)) if is_image(image) => rest,
        _ => args.words.as_slice(),
    };
    settings::line(descend(&mut tool, topics)?.render_long_help())?;
    Ok(ExitCode::SUCCESS)
}

/// The command that words lead to.
fn descend<'c>(command: &'c mut Command, topics: &[PathBuf]) -> Result<&'c mut Command, Failure> {
    let Some((topic, rest)) = topics.split_first() else { return Ok(command) };
    let word = topic.to_string_lossy().to_ascii_lowercase();
    let verb = word.strip_prefix("fim-").unwrap_or(&word);
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    let names = shown.map(Command::get_name).collect::<Vec<_>>().join(" ");
    match command.find_subcommand_mut(verb) {
        Some(next) => descend(next, rest),
        None => {
            let failure = Failure::new(format!("cannot explain {verb:?}: there is no such verb"));
            Err(if names.is_empty() { failure } else { failure.cure(format!("one of {names}")) })
        }
    }
}

/// Verbs are plain words, an image is given by a path.
fn is_image(word: &Path) -> bool {
    word.components().count() > 1 || word.is_file()
}
