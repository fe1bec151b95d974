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
pub struct HelpArgs {
    /// An image, which makes no difference, and the verb.
    #[arg(value_name = "[IMAGE] [TOPIC]", num_args = 0..=2)]
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
    let topic = match args.words.as_slice() {
        [] => None,
        [one] if is_image(one) => None,
        [one] => Some(one),
        [.., topic] => Some(topic),
    };
    let Some(topic) = topic else {
        settings::line(tool.render_long_help())?;
        return Ok(ExitCode::SUCCESS);
    };
    let word = topic.to_string_lossy().to_ascii_lowercase();
    let verb = word.strip_prefix("fim-").unwrap_or(&word);
    let names: Vec<String> = tool
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|verb| verb.get_name().to_owned())
        .collect();
    let Some(command) = tool.find_subcommand_mut(verb) else {
        let failure = Failure::new(format!("cannot explain {verb:?}: there is no such verb"));
        return Err(failure.cure(format!("one of {}", names.join(" "))));
    };
    settings::line(command.render_long_help())?;
    Ok(ExitCode::SUCCESS)
}

/// Verbs are plain words, an image is given by a path.
fn is_image(word: &Path) -> bool {
    word.components().count() > 1 || word.is_file()
}
