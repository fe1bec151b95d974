//! Case-insensitive, case-preserving names.

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
