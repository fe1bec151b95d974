//! Case-insensitive, case-preserving names.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Which names are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CasefoldMode {
    /// Full folding over NFD.
    #[default]
    Unicode,
    /// Simple one-to-one folding.
    Windows,
    /// The letters A to Z.
    Ascii,
}

impl CasefoldMode {
    /// Reads a mode in any case.
    ///
    /// # Errors
    ///
    /// Another word.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        match text.to_ascii_lowercase().as_str() {
            "unicode" => Ok(Self::Unicode),
            "windows" => Ok(Self::Windows),
            "ascii" => Ok(Self::Ascii),
            _ => Err(ConfigError::UnknownWord {
                subject: "case folding mode",
                word: text.to_owned(),
                known: "unicode windows ascii".to_owned(),
            }),
        }
    }
}

impl fmt::Display for CasefoldMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unicode => "unicode",
            Self::Windows => "windows",
            Self::Ascii => "ascii",
        })
    }
}

/// Whether, how and where names are folded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Casefold {
    /// Whether names are folded.
    #[serde(default)]
    pub on: bool,
    /// Which names are one.
    #[serde(default)]
    pub mode: CasefoldMode,
    /// Subtrees by absolute path inside; empty stands for the whole mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subtrees: Vec<String>,
}

impl Casefold {
    /// Names folded in `subtrees`, in the whole tree where there are none.
    ///
    /// # Errors
    ///
    /// A subtree that is no absolute path.
    pub fn new(mode: CasefoldMode, subtrees: &[String]) -> Result<Self, ConfigError> {
        let mut folded = Self { on: true, mode, subtrees: Vec::new() };
        for path in subtrees {
            let names: Vec<_> = path.split('/').filter(|name| !name.is_empty()).collect();
            if !path.starts_with('/') || names.iter().any(|name| matches!(*name, "." | "..")) {
                return Err(ConfigError::NotASubtree { path: path.clone() });
            }
            if names.is_empty() {
                // The root: the whole tree.
                return Ok(Self { subtrees: Vec::new(), ..folded });
            }
            folded.subtrees.push(format!("/{}", names.join("/")));
        }
        folded.subtrees.sort();
        folded.subtrees.dedup();
        Ok(folded)
    }
}

/// In one line: `off`, or the mode and the subtrees.
impl fmt::Display for Casefold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.on {
            return f.write_str("off");
        }
        write!(f, "{}", self.mode)?;
        self.subtrees.iter().try_for_each(|path| write!(f, " {path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtrees_are_plain_paths_from_the_root() {
        let made = |paths: &[&str]| {
            let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
            Casefold::new(CasefoldMode::Windows, &paths).map(|folded| folded.to_string())
        };
        assert_eq!(made(&[]).unwrap(), "windows");
        assert_eq!(made(&["/b//c/", "/a", "/a"]).unwrap(), "windows /a /b/c");
        assert_eq!(made(&["/a", "/"]).unwrap(), "windows");
        for path in ["a", "", "/a/../b", "/."] {
            assert!(made(&[path]).is_err(), "{path}");
        }
        assert_eq!(Casefold::default().to_string(), "off");
    }
}
