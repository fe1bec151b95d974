//! Which face was called: all of them become one command line of the tool.
//!
//! | called as | becomes |
//! | --- | --- |
//! | `fim VERB …` | itself |
//! | `app.flatimage fim-VERB …` | `fim VERB app.flatimage …` |
//! | `app.flatimage …` | `fim run app.flatimage …` |
//! | argv\[0\] `fim-VERB` | `fim VERB …` |
//!
//! Sub-words (`fim-layer LIST`) are case-insensitive: they are lowered where the verb has such a sub-word.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use clap::Command;

/// Turns the arguments (argv\[0\] first) into those of the tool; `image` is the image that was started, if one was.
#[must_use]
pub(super) fn tool_arguments(arguments: &[OsString], image: Option<&Path>) -> Vec<OsString> {
    let (called, rest) =
        arguments.split_first().map_or((OsStr::new("fim"), &[][..]), |(name, rest)| (name, rest));
    let mut resolved = vec![OsString::from("fim")];
    match image {
        Some(image) => {
            let verb = rest.first().and_then(|word| verb_of(word));
            let used = usize::from(verb.is_some());
            resolved.push(verb.unwrap_or_else(|| OsString::from("run")));
            resolved.push(image.into());
            resolved.extend(rest.iter().skip(used).cloned());
        }
        None => {
            resolved.extend(Path::new(called).file_name().and_then(verb_of));
            resolved.extend(rest.iter().cloned());
        }
    }
    resolved
}

/// `fim-VERB` → `VERB`.
fn verb_of(word: &OsStr) -> Option<OsString> {
    let verb = word.as_bytes().strip_prefix(b"fim-")?;
    (!verb.is_empty()).then(|| OsStr::from_bytes(verb).to_ascii_lowercase())
}

/// Lowers the verb, and the sub-words behind it (with or without an image in between), where `tool` knows them so.
pub(super) fn lower_sub_words(tool: &Command, arguments: &mut [OsString]) {
    let Some(verb) = arguments.get_mut(1) else { return };
    lower_if_known(tool, verb);
    let Some(mut command) = tool.find_subcommand(&*verb) else { return };
    // How many words behind the last one may be the next: an image stands before the first only.
    let mut reach = 2;
    for word in arguments.iter_mut().skip(2) {
        if reach == 0 {
            return;
        }
        reach -= 1;
        if lower_if_known(command, word)
            && let Some(next) = command.find_subcommand(&*word)
        {
            (command, reach) = (next, 1);
        }
    }
}

fn lower_if_known(command: &Command, word: &mut OsString) -> bool {
    let lowered = word.to_ascii_lowercase();
    let known = command.find_subcommand(&lowered).is_some();
    if known {
        *word = lowered;
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn every_face_becomes_one_command_line() {
        for (called, image, expected) in [
            ("/usr/bin/fim mount a b", None, "fim mount a b"),
            ("fim-mount a b", None, "fim mount a b"),
            ("./app fim-exec id -u", Some("/x/app"), "fim exec /x/app id -u"),
            ("./app FIM-exec", Some("/x/app"), "fim run /x/app FIM-exec"),
            ("./app --version", Some("/x/app"), "fim run /x/app --version"),
            ("./app", Some("/x/app"), "fim run /x/app"),
            ("./app fim-", Some("/x/app"), "fim run /x/app fim-"),
        ] {
            assert_eq!(tool_arguments(&words(called), image.map(Path::new)), words(expected), "{called}");
        }
    }

    #[test]
    fn sub_words_are_lowered_where_they_are_known() {
        let tool = Command::new("fim")
            .subcommand(
                Command::new("layer")
                    .subcommand(Command::new("list"))
                    .subcommand(Command::new("profile").subcommand(Command::new("set"))),
            )
            .subcommand(Command::new("exec"));
        for (given, expected) in [
            ("fim LAYER x LIST", "fim layer x list"),
            ("fim layer x List LIST", "fim layer x list LIST"),
            ("fim exec x LIST", "fim exec x LIST"),
            ("fim layer x PROFILE Set SET", "fim layer x profile set SET"),
            ("fim layer x profile x SET", "fim layer x profile x SET"),
        ] {
            let mut arguments = words(given);
            lower_sub_words(&tool, &mut arguments);
            assert_eq!(arguments, words(expected));
        }
    }
}
