//! `fim completions`: what makes a shell complete our command lines, and what it asks then.

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::{Args, Command, ValueEnum};

use super::settings;
use crate::{
    cli::{
        Outcome,
        complete::{self, Candidate, Live},
    },
    image::ImageFile,
};

/// Prints what makes a shell complete the words of fim: verbs, options, files, and what an image has at the moment (its
/// layers, its instances, its permissions).
///
/// Images by the name *.flatimage are completed as well; bash needs a `complete -F _fim NAME` for each.
#[derive(Args, Debug)]
#[command(
    after_help = "Example: fim completions bash > ~/.local/share/bash-completion/completions/fim\n         \
                        fim completions zsh > ~/.zfunc/_fim\n         \
                        fim completions fish > ~/.config/fish/completions/fim.fish"
)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum, ignore_case = true)]
    shell: Shell,
}

/// A shell that is known.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shell {
    /// GNU bash 4.4 or later.
    Bash,
    /// zsh 5 or later.
    Zsh,
    /// fish 3 or later.
    Fish,
}

const BASH: &str = r#"# completions of fim for bash
_fim() {
    local line files='' program=${COMP_WORDS[0]}
    [[ ${program##*/} == fim ]] || program=fim
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == :files ]]; then files=1; else COMPREPLY+=("${line%%$'\t'*}"); fi
    done < <("$program" complete -- "${COMP_WORDS[@]:0:COMP_CWORD+1}" 2>/dev/null)
    if [[ -n $files ]]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
    fi
}
complete -o nosort -F _fim fim
"#;

const ZSH: &str = r#"#compdef fim -P *.flatimage
# completions of fim for zsh
_fim() {
    local line files='' program=${words[1]}
    local -a found shown
    [[ ${program:t} == fim ]] || program=fim
    while IFS= read -r line; do
        if [[ $line == :files ]]; then files=1; continue; fi
        found+=("${line%%$'\t'*}")
        shown+=("${line/$'\t'/  -- }")
    done < <($program complete -- "${(@)words[1,CURRENT]}" 2>/dev/null)
    (( ${#found} )) && compadd -l -d shown -a found
    if [[ -n $files ]]; then _files; fi
}
if [[ ${funcstack[1]} == _fim ]]; then
    _fim "$@"
else
    compdef _fim fim
    compdef -p _fim '*.flatimage'
fi
"#;

const FISH: &str = r#"# completions of fim for fish
function __fim_complete
    set -l words (commandline -opc)
    set -l last (commandline -ct)
    set -l program fim
    test (basename -- $words[1]) = fim; and set program $words[1]
    for line in ($program complete -- $words "$last" 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path "$last"
        else
            echo $line
        end
    end
end
complete -c fim -f -a '(__fim_complete)'
"#;

/// Carries the command out.
///
/// # Errors
///
/// The output cannot be written.
pub fn run(args: &CompletionsArgs) -> Outcome {
    settings::line(match args.shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What a shell asks: the candidates for the last word, one a line with a tab before what it is; `:files` where files
/// fit as well.
#[derive(Args, Debug)]
#[command(hide = true, after_help = "Example: fim complete -- fim layer app.flatimage rm ''")]
pub struct CompleteArgs {
    /// The command line, from the program to the unfinished word.
    #[arg(last = true)]
    words: Vec<OsString>,
}

/// Answers a shell; `tool` is the whole command line.
///
/// # Errors
///
/// The output cannot be written.
pub fn answer(args: &CompleteArgs, tool: &Command) -> Outcome {
    let words: Vec<String> = args.words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let found = complete::complete(tool, &words, &Here);
    let words = found.words.into_iter().map(
        |Candidate { word, about }| {
            if about.is_empty() { word } else { format!("{word}\t{about}") }
        },
    );
    settings::lines(words.chain(found.files.then(|| ":files".to_owned())))?;
    Ok(ExitCode::SUCCESS)
}

/// This machine.
struct Here;

impl Here {
    /// What a listing verb of ours says as JSON: the shell asks for the same that the user would see.
    fn listed(arguments: &[&std::ffi::OsStr]) -> Vec<serde_json::Value> {
        let output = std::process::Command::new("/proc/self/exe").args(arguments).output();
        let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }
}

impl Live for Here {
    fn layers(&self, image: &Path) -> Vec<Candidate> {
        let Ok(image) = ImageFile::open(image) else { return Vec::new() };
        let layers = image.table().layers().enumerate();
        layers
            .map(|(index, layer)| Candidate {
                word: index.to_string(),
                about: format!("{} bytes {}", layer.length, layer.message),
            })
            .collect()
    }

    fn instances(&self, image: &Path) -> Vec<Candidate> {
        let image = std::path::absolute(image).unwrap_or_else(|_| image.to_owned());
        let words = ["instance".as_ref(), image.as_os_str(), "list".as_ref(), "--json".as_ref()];
        let listed = Self::listed(&words);
        listed
            .iter()
            .map(|entry| {
                let id = entry.get("id").map(ToString::to_string).unwrap_or_default();
                match entry.get("name").and_then(|name| name.as_str()) {
                    Some(name) => Candidate { word: name.to_owned(), about: format!("instance {id}") },
                    None => Candidate { word: id, about: "instance".to_owned() },
                }
            })
            .filter(|found| !found.word.is_empty())
            .collect()
    }

    fn words(&self, image: &Path, verb: &str) -> Vec<String> {
        let Ok(stored) = settings::read(image) else { return Vec::new() };
        let names = if verb == "perms" { stored.permissions.names() } else { stored.unshare.names() };
        names.into_iter().map(str::to_owned).collect()
    }

    fn variables(&self, image: &Path) -> Vec<String> {
        let Ok(stored) = settings::read(image) else { return Vec::new() };
        stored.environment.iter().map(|(name, _)| name.to_owned()).collect()
    }

    fn binds(&self, image: &Path) -> Vec<Candidate> {
        let Ok(stored) = settings::read(image) else { return Vec::new() };
        let binds = stored.binds.as_slice().iter().enumerate();
        binds
            .map(|(index, bind)| Candidate {
                word: index.to_string(),
                about: format!("{} -> {}", bind.source, bind.destination),
            })
            .collect()
    }

    fn is_image(&self, program: &Path) -> bool {
        ImageFile::open(program).is_ok()
    }
}
