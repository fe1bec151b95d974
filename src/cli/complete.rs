//! What can stand at the end of a command line: the shells ask (`cmd/completions.rs`), this answers.
//!
//! The tree of commands knows verbs, sub-words, options and closed lists. What only an image knows, its layers,
//! instances and stored words, is asked of [`Live`], so that walking the command line touches nothing itself.

use std::path::Path;

use clap::{Arg, Command, ValueHint};

use crate::config::{Namespace, Permission, Word};

/// Values that are in an image, or beside it, at this moment. What cannot be found out is nothing.
pub(super) trait Live {
    /// Numbers of the layers, and what they are.
    fn layers(&self, image: &Path) -> Vec<Candidate>;
    /// Names and ids of what runs.
    fn instances(&self, image: &Path) -> Vec<Candidate>;
    /// Words that are stored: of `perms` or `unshare`.
    fn words(&self, image: &Path, verb: &str) -> Vec<String>;
    /// Names of stored variables.
    fn variables(&self, image: &Path) -> Vec<String>;
    /// Numbers of the binds, and what they show.
    fn binds(&self, image: &Path) -> Vec<Candidate>;
    /// Whether this is an image.
    fn is_image(&self, program: &Path) -> bool;
}

/// Something that can stand there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The word.
    pub(super) word: String,
    /// A few words about it; may be empty.
    pub(super) about: String,
}

/// What can stand there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Candidates {
    /// Words that begin like the last one, sorted as they should be shown.
    pub(super) words: Vec<Candidate>,
    /// Whether names of files can stand there as well.
    pub(super) files: bool,
}

/// Completes a command line: `words` are the program, as it was called, and everything up to the unfinished word.
pub(super) fn complete(tool: &Command, words: &[String], live: &dyn Live) -> Candidates {
    let Some((program, rest)) = words.split_first() else { return Candidates::default() };
    let Some((unfinished, finished)) = rest.split_last() else { return Candidates::default() };
    let is_image = !program.ends_with("fim") && live.is_image(Path::new(program));
    if !is_image {
        let mut place = Place::new(tool);
        finished.iter().for_each(|word| place.pass(word));
        return place.candidates(unfinished, live);
    }
    // IMAGE fim-VERB … is fim VERB IMAGE …
    let Some((verb, further)) = finished.split_first() else {
        let verbs = visible(tool).filter(|verb| takes_image(verb));
        let words = verbs.map(|verb| candidate(format!("fim-{}", verb.get_name()), about(verb)));
        return Candidates { words: beginning(words.collect(), unfinished), files: true };
    };
    let Some(verb) = verb.strip_prefix("fim-") else {
        return Candidates { words: Vec::new(), files: true };
    };
    let mut place = Place::new(tool);
    [verb, program.as_str()].into_iter().for_each(|word| place.pass(word));
    further.iter().for_each(|word| place.pass(word));
    place.candidates(unfinished, live)
}

/// Where in the tree of commands a command line has come to.
struct Place<'t> {
    command: &'t Command,
    /// Names of the verb and its sub-words.
    path: Vec<&'t str>,
    /// Words that were neither options nor sub-words, since the last sub-word.
    taken: Vec<String>,
    /// The image, where a verb has been given one.
    image: Option<String>,
    /// The option whose value comes next.
    pending: Option<&'t Arg>,
    /// Behind `--`: no options and no sub-words any more.
    plain: bool,
}

impl<'t> Place<'t> {
    fn new(tool: &'t Command) -> Self {
        Self { command: tool, path: Vec::new(), taken: Vec::new(), image: None, pending: None, plain: false }
    }

    /// Goes past a word.
    fn pass(&mut self, word: &str) {
        if self.pending.take().is_some() {
            return;
        }
        if !self.plain && word == "--" {
            self.plain = true;
        } else if !self.plain && word.starts_with('-') && word.len() > 1 {
            if !word.contains('=') {
                self.pending = self.option(word).filter(|option| takes_value(option));
            }
        } else if let Some(next) = self.sub_word(word) {
            self.command = next;
            self.path.push(next.get_name());
            self.taken.clear();
        } else {
            if self.positional().is_some_and(|arg| arg.get_id() == "image") {
                self.image = Some(word.to_owned());
            }
            self.taken.push(word.to_owned());
        }
    }

    /// The sub-word that this is, where one may stand.
    fn sub_word(&self, word: &str) -> Option<&'t Command> {
        let lowered = word.to_ascii_lowercase();
        self.may_have_sub_word().then(|| self.command.find_subcommand(&lowered)).flatten()
    }

    /// An image stands before the first sub-word, nothing before the others.
    fn may_have_sub_word(&self) -> bool {
        let before = self.command.get_positionals().count();
        !self.plain && self.command.has_subcommands() && self.taken.len() >= before.min(1)
    }

    fn option(&self, word: &str) -> Option<&'t Arg> {
        let long = word.strip_prefix("--");
        let short = word.chars().nth(1);
        self.command.get_opts().find(|arg| match long {
            Some(name) => arg.get_long() == Some(name),
            None => arg.get_short() == short && arg.get_short().is_some(),
        })
    }

    /// What the next plain word is.
    fn positional(&self) -> Option<&'t Arg> {
        let mut positionals = self.command.get_positionals();
        let at = self.taken.len();
        let last = self.command.get_positionals().last();
        let repeats = last.filter(|arg| arg.get_num_args().is_some_and(|count| count.max_values() > 1));
        positionals.nth(at).or(repeats)
    }

    fn candidates(&self, unfinished: &str, live: &dyn Live) -> Candidates {
        if let Some(option) = self.pending {
            return self.values(option, unfinished, live);
        }
        if !self.plain && unfinished.starts_with('-') {
            if let Some((name, value)) = unfinished.split_once('=')
                && let Some(option) = self.option(name)
            {
                let mut found = self.values(option, value, live);
                found.words.iter_mut().for_each(|found| found.word = format!("{name}={}", found.word));
                return found;
            }
            let options = self.command.get_arguments().filter(|arg| !arg.is_hide_set());
            let words = options.filter_map(|arg| {
                let name = arg.get_long()?;
                Some(candidate(format!("--{name}"), arg.get_help().map(ToString::to_string)))
            });
            return Candidates { words: beginning(words.collect(), unfinished), files: false };
        }
        let mut found = match self.positional() {
            Some(arg) => self.values(arg, unfinished, live),
            None => Candidates::default(),
        };
        if self.may_have_sub_word() {
            let words = visible(self.command).map(|next| candidate(next.get_name(), about(next)));
            let words = beginning(words.collect(), &unfinished.to_ascii_lowercase());
            found.words.splice(0..0, words);
        }
        found
    }

    /// Values of an argument.
    fn values(&self, arg: &Arg, unfinished: &str, live: &dyn Live) -> Candidates {
        let closed = arg.get_possible_values();
        if !closed.is_empty() {
            let words = closed
                .iter()
                .filter(|value| !value.is_hide_set())
                .map(|value| candidate(value.get_name(), value.get_help().map(ToString::to_string)));
            return Candidates { words: beginning(words.collect(), unfinished), files: false };
        }
        if let Some(words) = self.live_values(arg, live) {
            return Candidates { words: in_list(words, unfinished), files: false };
        }
        let hint = arg.get_value_hint();
        let named = arg.get_value_names().is_some_and(|names| {
            names.iter().any(|name| ["FILE", "DIR", "PATH"].iter().any(|part| name.contains(part)))
        });
        Candidates {
            words: Vec::new(),
            files: named || !matches!(hint, ValueHint::Unknown | ValueHint::Other),
        }
    }

    /// Values that this machine knows; `None` where nobody but the user does.
    fn live_values(&self, arg: &Arg, live: &dyn Live) -> Option<Vec<Candidate>> {
        let image = self.image.as_deref().map(Path::new);
        let of_image = |find: &dyn Fn(&Path) -> Vec<Candidate>| image.map(find).unwrap_or_default();
        let plain = |words: Vec<String>| words.into_iter().map(|word| candidate(word, None)).collect();
        Some(match (self.path.as_slice(), arg.get_id().as_str()) {
            ([verb @ ("perms" | "unshare"), "del"], "words") => {
                of_image(&|image| plain(live.words(image, verb)))
            }
            (["perms", _], "words") => names_of::<Permission>(),
            (["unshare", _], "words") => names_of::<Namespace>(),
            (["env", "del"], "names") => of_image(&|image| plain(live.variables(image))),
            (["bind", "del"], "index") => of_image(&|image| live.binds(image)),
            (["bind", "add"], "kind") => plain(["ro", "rw", "dev"].map(str::to_owned).into()),
            (["overlay", "set"], "kind") => plain(["fuse", "kernel", "auto"].map(str::to_owned).into()),
            (["layer", "rm"], _) => of_image(&|image| live.layers(image)),
            (["instance", ..], "id" | "name" | "instance" | "instances" | "key" | "target") => {
                of_image(&|image| live.instances(image))
            }
            _ => return None,
        })
    }
}

/// The words of a closed list.
fn names_of<W: Word>() -> Vec<Candidate> {
    W::LIST.iter().map(|word| candidate(word.name(), None)).collect()
}

fn candidate(word: impl Into<String>, about: Option<String>) -> Candidate {
    let about = about.unwrap_or_default();
    let first = about.lines().next().unwrap_or_default();
    Candidate { word: word.into(), about: first.trim_end_matches('.').to_owned() }
}

fn about(command: &Command) -> Option<String> {
    command.get_about().map(ToString::to_string)
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|next| !next.is_hide_set() && next.get_name() != "run")
}

fn takes_value(option: &Arg) -> bool {
    option.get_action().takes_values() && option.get_num_args().is_none_or(|count| count.min_values() > 0)
}

/// Whether a verb's first word is an image.
fn takes_image(verb: &Command) -> bool {
    verb.get_positionals().next().is_some_and(|arg| arg.get_id() == "image")
}

fn beginning(words: Vec<Candidate>, start: &str) -> Vec<Candidate> {
    words.into_iter().filter(|found| found.word.starts_with(start)).collect()
}

/// Words of a list that is divided by commas: those before the last comma stay.
fn in_list(words: Vec<Candidate>, unfinished: &str) -> Vec<Candidate> {
    let (before, last) = match unfinished.rfind(',') {
        Some(at) => unfinished.split_at(at + 1),
        None => ("", unfinished),
    };
    let taken: Vec<&str> = before.split(',').collect();
    let free = words.into_iter().filter(|found| !taken.contains(&found.word.as_str()));
    let start = last.to_ascii_lowercase();
    let fitting = free.filter(|found| found.word.to_ascii_lowercase().starts_with(&start));
    fitting.map(|found| Candidate { word: format!("{before}{}", found.word), ..found }).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    struct App;

    impl Live for App {
        fn layers(&self, image: &Path) -> Vec<Candidate> {
            assert_eq!(image, Path::new("app"));
            vec![candidate("0", Some("base".to_owned())), candidate("1", Some("fonts".to_owned()))]
        }
        fn instances(&self, _: &Path) -> Vec<Candidate> {
            vec![candidate("web", None)]
        }
        fn words(&self, _: &Path, verb: &str) -> Vec<String> {
            vec![if verb == "perms" { "home" } else { "ipc" }.to_owned()]
        }
        fn variables(&self, _: &Path) -> Vec<String> {
            vec!["EDITOR".to_owned()]
        }
        fn binds(&self, _: &Path) -> Vec<Candidate> {
            vec![candidate("0", Some("/a -> /b".to_owned()))]
        }
        fn is_image(&self, program: &Path) -> bool {
            program == Path::new("app")
        }
    }

    fn completed(line: &str) -> (Vec<String>, bool) {
        let tool = super::super::Tool::command();
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let found = complete(&tool, &words, &App);
        (found.words.into_iter().map(|found| found.word).collect(), found.files)
    }

    fn words(line: &str) -> String {
        completed(line).0.join(" ")
    }

    #[test]
    fn verbs_and_sub_words_come_where_they_may_stand() {
        let verbs = words("fim ");
        for verb in ["mount", "layer", "perms", "doctor", "completions"] {
            assert!(verbs.split(' ').any(|word| word == verb), "{verb}: {verbs}");
        }
        assert!(!verbs.contains("complete "), "hidden: {verbs}");
        assert_eq!(words("fim umou"), "umount");
        assert_eq!(words("fim casefold app o"), "on off");
        assert_eq!(words("fim perms app "), "add del set list clear");
        assert_eq!(words("fim layer app profile "), "set show clear");
        assert_eq!(completed("fim perms "), (vec![], true), "an image comes first");
        assert_eq!(words("fim PERMS app LI"), "list");
    }

    #[test]
    fn options_and_their_values_are_known() {
        assert_eq!(words("fim ls --lo"), "--long");
        assert_eq!(completed("fim create --from "), (vec![], true));
        assert_eq!(words("fim layer app commit "), "binary layer file");
        assert_eq!(words("fim completions f"), "fish");
        assert_eq!(words("fim exec app -- --"), "");
    }

    #[test]
    fn live_values_are_those_of_the_image() {
        assert!(words("fim perms app add ").contains("wayland"));
        assert_eq!(words("fim perms app add Home,net"), "Home,network");
        assert_eq!(words("fim perms app del "), "home");
        assert_eq!(words("fim unshare app del "), "ipc");
        assert_eq!(words("fim env app del ED"), "EDITOR");
        assert_eq!(words("fim bind app del "), "0");
        assert_eq!(words("fim layer app rm "), "0 1");
    }

    #[test]
    fn an_image_completes_its_own_verbs() {
        assert_eq!(words("app fim-lay"), "fim-layer");
        assert_eq!(words("app fim-layer l"), "list");
        assert_eq!(words("app fim-layer rm "), "0 1");
        assert_eq!(completed("app x "), (vec![], true));
        assert!(!words("app fim-").contains("fim-umount"), "only what is about an image");
    }

    #[test]
    fn odd_lines_complete_to_nothing_and_do_not_panic() {
        for line in
            ["", "fim", "fim - ", "fim -- ", "fim nosuch ", "fim perms app add , ", "fim mount -o", "app"]
        {
            let _ = completed(line);
        }
    }
}
