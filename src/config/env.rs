//! Variables for programs inside, `NAME=VALUE`. UID, GID, USER, HOME, SHELL and PS1 define the identity inside.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Length of a name or a value, in bytes: the kernel takes no longer string at exec (MAX_ARG_STRLEN).
const STRING_LIMIT: usize = 128 << 10;

/// The variables by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// Reads `NAME=VALUE`.
    ///
    /// # Errors
    ///
    /// The text has no `=`, no name, a NUL, or is too long.
    pub fn parse(text: &str) -> Result<(String, String), ConfigError> {
        let wrong = || ConfigError::NotAVariable { text: text.to_owned() };
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        if name.is_empty() || text.contains('\0') {
            return Err(wrong());
        }
        if text.len() >= STRING_LIMIT {
            return Err(ConfigError::TooLong {
                what: "a variable",
                found: text.len(),
                limit: STRING_LIMIT - 1,
            });
        }
        Ok((name.to_owned(), value.to_owned()))
    }

    /// Adds variables; one that is there gets the new value.
    pub fn add(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        self.variables.extend(variables);
    }

    /// Removes variables.
    ///
    /// # Errors
    ///
    /// A name that is not set; nothing is removed then.
    pub fn remove(&mut self, names: &[String]) -> Result<(), ConfigError> {
        if let Some(name) = names.iter().find(|name| !self.variables.contains_key(*name)) {
            return Err(ConfigError::NoSuchVariable { name: name.clone() });
        }
        self.variables.retain(|name, _| !names.contains(name));
        Ok(())
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.variables.clear();
    }

    /// The value of a variable, as stored.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_given() {
        for (text, expected) in [
            ("A=1", Some(("A", "1"))),
            ("A=", Some(("A", ""))),
            ("A=b=c", Some(("A", "b=c"))),
            ("P=$HOME/x ${Y:-z}", Some(("P", "$HOME/x ${Y:-z}"))),
            ("A", None),
            ("=1", None),
            ("A=\0", None),
        ] {
            let read = Environment::parse(text).ok();
            assert_eq!(
                read.as_ref().map(|(name, value)| (name.as_str(), value.as_str())),
                expected,
                "{text:?}"
            );
        }
    }

    #[test]
    fn deleting_is_all_or_nothing() {
        let mut environment = Environment::default();
        environment.add([("A".to_owned(), "1".to_owned())]);
        assert!(environment.remove(&["A".to_owned(), "B".to_owned()]).is_err());
        assert_eq!(environment.get("A"), Some("1"));
        environment.remove(&["A".to_owned()]).unwrap();
        assert_eq!(environment.iter().count(), 0);
    }
}
