//! Which files of the root are read first.

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Length of a stored profile in bytes: some thousand files, and it fits the settings area beside the largest icon and
/// both scripts.
pub const PROFILE_LIMIT: usize = 256 << 10;

/// An access profile as text, see `dwarfs::profile`. Whether it means anything is found out by whoever uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoredProfile(String);

impl StoredProfile {
    /// Takes a text.
    ///
    /// # Errors
    ///
    /// It is longer than [`PROFILE_LIMIT`].
    pub fn new(text: String) -> Result<Self, ConfigError> {
        if text.len() > PROFILE_LIMIT {
            let found = text.len();
            return Err(ConfigError::TooLong { what: "an access profile", found, limit: PROFILE_LIMIT });
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ImageId, SCRIPT_LIMIT, SETTINGS_LIMIT, Scripts, Settings, encode};

    #[test]
    fn it_fits_beside_everything_else() {
        let mut settings = Settings::new(ImageId::from_random([7; 16]));
        // A line break takes two bytes in the settings, and a line has ten at the least.
        settings.profile = Some(StoredProfile::new("/123456789\n".repeat(PROFILE_LIMIT / 11)).unwrap());
        let script = || Some("x".repeat(SCRIPT_LIMIT));
        settings.scripts = Scripts { start: script(), stop: script() };
        let icon = (1 << 20) * 4 / 3;
        assert!(encode(&settings).unwrap().len() + icon < SETTINGS_LIMIT - (64 << 10));
        assert!(StoredProfile::new("x".repeat(PROFILE_LIMIT + 1)).is_err());
    }
}
