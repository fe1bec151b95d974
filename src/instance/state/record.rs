//! The record of one instance.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{instance::group::Places, sys::identity::Identity};

/// Version of the record; a newer one is left alone.
pub const VERSION: u32 = 1;
/// Longest name, in bytes: it is a file name, with a moment behind it once the instance has ended.
const LONGEST_NAME: usize = 200;

/// A name that a user gave to an instance: letters, digits, `.`, `_` and `-`, and no number, which would be an id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Checks a name.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_name = !name.is_empty()
            && name.len() <= LONGEST_NAME
            && name.bytes().all(known)
            && !name.starts_with(['.', '-'])
            && !name.bytes().all(|byte| byte.is_ascii_digit());
        is_name.then(|| Self(name.to_owned()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::new(&name).ok_or_else(|| format!("{name:?} is no name of an instance"))
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is known of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Version of this record.
    pub version: u32,
    /// Number among the instances of its image.
    pub id: u32,
    /// What the user calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The image.
    pub image: PathBuf,
    /// Identity of the image.
    pub image_id: String,
    /// `FIM_DIR_INSTANCE`.
    pub directory: PathBuf,
    /// The program, as text.
    pub command: Vec<String>,
    /// Whether it runs as root inside.
    pub root: bool,
    /// Whether nobody waits for it.
    pub background: bool,
    /// Layers that are not in the image.
    #[serde(default)]
    pub layers: Vec<PathBuf>,
    /// Binds given at its start, `SRC:DST[:ro]`.
    #[serde(default)]
    pub binds: Vec<String>,
    /// Variables given at its start.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What the variables are for.
    #[serde(default)]
    pub notes: BTreeMap<String, String>,
    /// Its own control group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Places>,
    /// Its own upper, where it does not share that of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<PathBuf>,
    /// When it started, in milliseconds since 1970.
    pub started: u64,
    /// Its process: the one that the user started.
    pub identity: Identity,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<End>,
}

/// How an instance ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Its exit status; none where it was killed together with the process that knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// The signal that killed its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
    /// Why it could not go on, where that was it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl State {
    /// What its directory is called as long as it lives.
    #[must_use]
    pub fn key(&self) -> String {
        self.name.as_ref().map_or_else(|| self.id.to_string(), Name::to_string)
    }

    /// Whether a word of the user means it: its id, its name, or the beginning of its name.
    #[must_use]
    pub fn is_meant_by(&self, word: &str) -> Meant {
        let name = self.name.as_ref().map_or("", Name::as_str);
        if word.is_empty() {
            Meant::Not
        } else if word == name || word == self.id.to_string() {
            Meant::Exactly
        } else if name.starts_with(word) {
            Meant::ByPrefix
        } else {
            Meant::Not
        }
    }
}

/// Whether a word means an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meant {
    /// By its whole name or its id.
    Exactly,
    /// By the beginning of its name.
    ByPrefix,
    /// It does not.
    Not,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_no_numbers() {
        for name in ["a", "web.1", "A_b-c", "1a"] {
            assert!(Name::new(name).is_some(), "{name}");
        }
        for name in ["", "7", ".", "..", ".x", "-x", "a/b", "a@1", "a b", "ä", "a\n", &"x".repeat(201)] {
            assert!(Name::new(name).is_none(), "{name}");
        }
        assert!(serde_json::from_str::<Name>("\"../x\"").is_err());
    }
}
