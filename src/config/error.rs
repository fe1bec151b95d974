//! What can be wrong with a setting.

/// A setting that cannot be taken, or stored bytes that are not settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A word outside the closed list.
    #[error("unknown {subject} {word:?}: expected one of {known}")]
    UnknownWord {
        /// What the word should have named.
        subject: &'static str,
        /// The word as given.
        word: String,
        /// The words there are.
        known: String,
    },
    /// Not `NAME=VALUE`.
    #[error("cannot read the variable {text:?}: expected NAME=VALUE")]
    NotAVariable {
        /// The argument as given.
        text: String,
    },
    /// A variable to delete that is not there.
    #[error("cannot delete the variable {name:?}: it is not set in the image")]
    NoSuchVariable {
        /// Its name.
        name: String,
    },
    /// A bind to delete that is not there.
    #[error("cannot delete bind {index}: the image has {count}")]
    NoSuchBind {
        /// The index as given.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A path inside must begin at the root.
    #[error("cannot bind to {path:?}: the place inside must be an absolute path")]
    NotAbsolute {
        /// The path as given.
        path: String,
    },
    /// A subtree must be a plain path from the root.
    #[error("cannot fold names in {path:?}: expected an absolute path inside, without . and ..")]
    NotASubtree {
        /// The path as given.
        path: String,
    },
    /// An identity that is not 32 hexadecimal digits.
    #[error("cannot read the image id {text:?}: expected 32 hexadecimal digits")]
    NotAnId {
        /// The text as given.
        text: String,
    },
    /// A value beyond its limit.
    #[error("{what} has {found} bytes: at most {limit} fit")]
    TooLong {
        /// Which value.
        what: &'static str,
        /// Its length in bytes.
        found: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// More values than there may be.
    #[error("there are {found} {what}: at most {limit} fit")]
    TooMany {
        /// Which values.
        what: &'static str,
        /// How many.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// A text that cannot stand in one line.
    #[error("cannot take {text:?} for {what}: expected one line of text")]
    NotALine {
        /// What it should be.
        what: &'static str,
        /// The text as given.
        text: String,
    },
    /// Neither PNG nor SVG.
    #[error("cannot take the icon: it is neither PNG nor SVG")]
    NotAnIcon,
    /// Not the address of a directory of recipes.
    #[error("cannot take {text:?} for an address: expected http://… or https://…")]
    NotAnAddress {
        /// The text as given.
        text: String,
    },
    /// The stored text is not what it should be.
    #[error("cannot read the settings")]
    Malformed(#[source] serde_json::Error),
    /// A user's policy is not what it should be.
    #[error("cannot understand the policy")]
    Policy(#[source] serde_json::Error),
}
