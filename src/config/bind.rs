//! Places of the host that are shown inside.

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// How a place is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BindKind {
    /// Read-only.
    Ro,
    /// Writable.
    Rw,
    /// Writable, device nodes work.
    Dev,
}

impl BindKind {
    /// Reads `ro`, `rw` or `dev`, in any case.
    ///
    /// # Errors
    ///
    /// Another word.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        match text.to_ascii_lowercase().as_str() {
            "ro" => Ok(Self::Ro),
            "rw" => Ok(Self::Rw),
            "dev" => Ok(Self::Dev),
            _ => Err(ConfigError::UnknownWord {
                subject: "kind of bind",
                word: text.to_owned(),
                known: "ro rw dev".to_owned(),
            }),
        }
    }
}

/// One place of the host and where it is shown; both as given, expanded at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Where it is shown inside.
    #[serde(rename = "dst")]
    pub destination: String,
    /// The place of the host.
    #[serde(rename = "src")]
    pub source: String,
    /// How it is shown.
    #[serde(rename = "type")]
    pub kind: BindKind,
}

/// The binds in the order in which they are made. An index counts from 0; deleting one moves the later ones down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Binds {
    list: Vec<Bind>,
}

impl Binds {
    /// Adds a bind and returns its index.
    ///
    /// # Errors
    ///
    /// The place inside is neither absolute nor begins with a variable or `~`.
    pub fn add(&mut self, bind: Bind) -> Result<usize, ConfigError> {
        if !bind.destination.starts_with(['/', '$', '~']) {
            return Err(ConfigError::NotAbsolute { path: bind.destination });
        }
        self.list.push(bind);
        Ok(self.list.len() - 1)
    }

    /// Removes the bind at an index.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn remove(&mut self, index: usize) -> Result<Bind, ConfigError> {
        let count = self.list.len();
        if index >= count {
            return Err(ConfigError::NoSuchBind { index, count });
        }
        Ok(self.list.remove(index))
    }

    /// The binds in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Bind] {
        &self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(destination: &str) -> Bind {
        Bind { destination: destination.to_owned(), source: "$HOME/x".to_owned(), kind: BindKind::Ro }
    }

    #[test]
    fn indexes_follow_the_order() {
        let mut binds = Binds::default();
        assert_eq!(binds.add(bind("/a")).unwrap(), 0);
        assert_eq!(binds.add(bind("$HOME/b")).unwrap(), 1);
        assert!(binds.add(bind("c")).is_err());
        assert_eq!(binds.remove(0).unwrap().destination, "/a");
        let error = binds.remove(1).unwrap_err().to_string();
        assert_eq!(error, "cannot delete bind 1: the image has 1");
        assert_eq!(
            serde_json::to_string(&binds).unwrap(),
            r#"[{"dst":"$HOME/b","src":"$HOME/x","type":"ro"}]"#
        );
    }
}
