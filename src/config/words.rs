//! Settings that are a set of words out of a closed list, with `all` as a word of its own.
//!
//! `all` is stored as given. Taking one word out of `all` leaves all the others by name.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ConfigError;

/// A word out of a closed list.
pub trait Word: Copy + Ord + 'static {
    /// What a word of the list is called in messages.
    const SUBJECT: &'static str;
    /// The word that stands for several.
    const EVERY: Self;
    /// The list.
    const LIST: &'static [Self];

    /// The word as it is written, in lower case.
    fn name(self) -> &'static str;

    /// Whether the word `all` includes this one.
    fn in_every(self) -> bool;

    /// Reads a word, in any case.
    ///
    /// # Errors
    ///
    /// [`ConfigError::UnknownWord`] names the list.
    fn parse(text: &str) -> Result<Self, ConfigError> {
        find(text).ok_or_else(|| ConfigError::UnknownWord {
            subject: Self::SUBJECT,
            word: text.to_owned(),
            known: Self::LIST.iter().map(|word| word.name()).collect::<Vec<_>>().join(" "),
        })
    }
}

/// A set of words. Words of later versions are kept, listed, and mean nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordSet<W> {
    known: BTreeSet<W>,
    foreign: BTreeSet<String>,
}

impl<W: Word> WordSet<W> {
    /// Reads arguments, each of which may hold several words divided by commas.
    ///
    /// # Errors
    ///
    /// The first unknown word.
    pub fn parse<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Vec<W>, ConfigError> {
        let words = arguments.into_iter().flat_map(|argument| argument.split(','));
        words.map(str::trim).filter(|word| !word.is_empty()).map(W::parse).collect()
    }

    /// Adds words.
    pub fn add(&mut self, words: impl IntoIterator<Item = W>) {
        self.known.extend(words);
    }

    /// Removes words; `all` removes what it stands for.
    pub fn remove(&mut self, words: impl IntoIterator<Item = W>) {
        for word in words {
            if word == W::EVERY {
                self.known.retain(|held| !held.in_every());
            } else if word.in_every() && self.known.remove(&W::EVERY) {
                self.known.extend(W::LIST.iter().filter(|other| other.in_every()));
            }
            self.known.remove(&word);
        }
    }

    /// Replaces everything.
    pub fn set(&mut self, words: impl IntoIterator<Item = W>) {
        self.clear();
        self.add(words);
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.known.clear();
        self.foreign.clear();
    }

    /// Whether the word holds, by itself or through `all`.
    #[must_use]
    pub fn contains(&self, word: W) -> bool {
        self.known.contains(&word) || (word.in_every() && self.known.contains(&W::EVERY))
    }

    /// The words as stored, sorted by name.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let known = self.known.iter().map(|word| word.name());
        let mut names: Vec<&str> = known.chain(self.foreign.iter().map(String::as_str)).collect();
        names.sort_unstable();
        names
    }
}

impl<W> Default for WordSet<W> {
    fn default() -> Self {
        Self { known: BTreeSet::new(), foreign: BTreeSet::new() }
    }
}

impl<W: Word> Serialize for WordSet<W> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.names().serialize(serializer)
    }
}

impl<'de, W: Word> Deserialize<'de> for WordSet<W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut set = Self::default();
        for text in Vec::<String>::deserialize(deserializer)? {
            match find(&text) {
                Some(word) => set.known.insert(word),
                None => set.foreign.insert(text),
            };
        }
        Ok(set)
    }
}

fn find<W: Word>(text: &str) -> Option<W> {
    W::LIST.iter().copied().find(|word| word.name().eq_ignore_ascii_case(text))
}

/// Makes an enum of words: the variants, how each is written, and which of them `all` leaves out.
macro_rules! words {
    (
        $(#[$docs:meta])* $name:ident, $subject:literal, not in all: [$($apart:ident),*];
        $($(#[$variant_docs:meta])* $variant:ident = $text:literal),+ $(,)?
    ) => {
        $(#[$docs])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_docs])* $variant,)+
        }

        impl $crate::config::Word for $name {
            const SUBJECT: &'static str = $subject;
            const EVERY: Self = Self::All;
            const LIST: &'static [Self] = &[$(Self::$variant,)+];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            fn in_every(self) -> bool {
                !matches!(self, Self::All $(| Self::$apart)*)
            }
        }
    };
}
pub(super) use words;

#[cfg(test)]
mod tests {
    use crate::config::{Permission, Permissions};

    #[test]
    fn words_are_read_in_any_case_and_divided_by_commas() {
        let words = Permissions::parse(["Network,GPU", "home"]).unwrap();
        assert_eq!(words, [Permission::Network, Permission::Gpu, Permission::Home]);
        let error = Permissions::parse(["network,netwrok"]).unwrap_err().to_string();
        assert!(
            error.starts_with("unknown permission \"netwrok\": expected one of all strict audio"),
            "{error}"
        );
    }

    #[test]
    fn one_word_leaves_all() {
        let mut set = Permissions::default();
        set.add([Permission::All, Permission::Strict]);
        assert!(set.contains(Permission::Network));
        assert_eq!(set.names(), ["all", "strict"]);
        set.remove([Permission::Network]);
        assert!(!set.contains(Permission::Network) && set.contains(Permission::Gpu));
        assert!(!set.contains(Permission::All) && set.contains(Permission::Strict));
        set.remove([Permission::All]);
        assert_eq!(set.names(), ["strict"]);
    }

    #[test]
    fn words_of_later_versions_are_kept() {
        let set: Permissions = serde_json::from_str(r#"["teleport","home"]"#).unwrap();
        assert!(set.contains(Permission::Home));
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["home","teleport"]"#);
    }
}
