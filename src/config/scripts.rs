//! What runs when a background instance starts and stops.

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Length of a script in bytes: both fit the settings area beside the largest icon.
pub const SCRIPT_LIMIT: usize = 64 << 10;

/// The scripts as text; the first line may name the interpreter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scripts {
    /// Runs at start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Runs before the stop signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
}

impl Scripts {
    /// Checks the length of a script.
    ///
    /// # Errors
    ///
    /// It is longer than [`SCRIPT_LIMIT`].
    pub fn check(text: &str) -> Result<(), ConfigError> {
        if text.len() > SCRIPT_LIMIT {
            return Err(ConfigError::TooLong { what: "a script", found: text.len(), limit: SCRIPT_LIMIT });
        }
        Ok(())
    }
}
