//! Who merges the layers.

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// The kind of overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverlayKind {
    /// The engine does everything.
    #[default]
    Fuse,
    /// The engine serves the merged read-only layers, kernel overlayfs adds the upper.
    Kernel,
    /// `Kernel` where it works and nothing is asked for that only `Fuse` can do.
    Auto,
}

impl OverlayKind {
    /// Reads a kind in any case; FlatImage's words mean what is nearest.
    ///
    /// # Errors
    ///
    /// Another word.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        match text.to_ascii_lowercase().as_str() {
            "fuse" | "overlayfs" | "unionfs" => Ok(Self::Fuse),
            "kernel" | "bwrap" => Ok(Self::Kernel),
            "auto" => Ok(Self::Auto),
            _ => Err(ConfigError::UnknownWord {
                subject: "kind of overlay",
                word: text.to_owned(),
                known: "fuse kernel auto".to_owned(),
            }),
        }
    }

    /// The word for the kind.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fuse => "fuse",
            Self::Kernel => "kernel",
            Self::Auto => "auto",
        }
    }
}
