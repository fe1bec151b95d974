//! What can go wrong while an archive is made.

use std::{fmt, io};

use thiserror::Error;

use crate::dwarfs::format::freeze::FreezeError;

/// A failure to make an archive, with the facts.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The source refused something.
    #[error("cannot {action} {path}")]
    Source {
        /// What was being done.
        action: &'static str,
        /// On what, relative to the source's root.
        path: PathText,
        /// What the host said.
        source: io::Error,
    },
    /// A file changed each time it was read.
    #[error("{path} changed while it was read, {attempts} times in a row")]
    Changed {
        /// The file, relative to the source's root.
        path: PathText,
        /// How often it was tried.
        attempts: u32,
    },
    /// A name that no Linux directory can hold, or one that is there twice.
    #[error("{path} has an impossible name")]
    BadName {
        /// The entry, relative to the source's root.
        path: PathText,
    },
    /// Something is used as a directory and is none.
    #[error("{path} is not a directory")]
    NotADirectory {
        /// What it is, relative to the source's root.
        path: PathText,
    },
    /// More of something than the format can number.
    #[error("too many {what} for one archive")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
    /// A source's side car is damaged.
    #[error("the side car of the source is damaged")]
    Sidecar(#[source] crate::dwarfs::Error),
    /// An archive that another one is made from is damaged.
    #[error("cannot read an archive that it is made from")]
    Archive(#[source] crate::dwarfs::Error),
    /// A tar file that cannot be understood.
    #[error("cannot read the tar file at offset {offset:#x}: {problem}")]
    Tar {
        /// Where in the unpacked tar file.
        offset: u64,
        /// What is wrong.
        problem: TarProblem,
    },
    /// The input could not be unpacked into a scratch file.
    #[error("cannot unpack the tar file")]
    Unpack(#[source] io::Error),
    /// An option is out of range.
    #[error("{option} is {found}, it must be from {least} to {most}")]
    Option {
        /// Which one.
        option: &'static str,
        /// Its value.
        found: i64,
        /// Smallest value.
        least: i64,
        /// Largest value.
        most: i64,
    },
    /// A codec failed.
    #[error("cannot compress section {section}: {reason}")]
    Compress {
        /// The section's place in the archive, counted from 0.
        section: u32,
        /// What the codec said.
        reason: String,
    },
    /// The metadata does not fit its format.
    #[error("cannot lay out the metadata")]
    Freeze(#[from] FreezeError),
    /// The archive could not be written.
    #[error("cannot write the archive")]
    Output(#[source] io::Error),
    /// A thread could not be started, or ended before its work did.
    #[error("a worker thread failed")]
    Worker,
}

/// What is wrong with a tar file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TarProblem {
    /// It ends in the middle.
    #[error("it ends too early")]
    Truncated,
    /// A header's checksum does not match: not a tar file, or a damaged one.
    #[error("a header does not match its checksum")]
    Checksum,
    /// A field of a header is not what it should be.
    #[error("bad {0}")]
    Field(&'static str),
    /// An entry would leave the root.
    #[error("{0} leaves the root")]
    Escapes(PathText),
    /// An entry lies below something that is not a directory.
    #[error("{0} lies below something that is not a directory")]
    Below(PathText),
    /// A hard link leads nowhere.
    #[error("{0} is a hard link to nothing")]
    Dangling(PathText),
    /// A kind of entry that cannot be archived.
    #[error("{path} has the unknown type {kind:#x}")]
    Kind {
        /// The entry.
        path: PathText,
        /// Its type flag.
        kind: u8,
    },
    /// Something is larger than anything sensible.
    #[error("{what} is {found}, the limit is {limit}")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        found: u64,
        /// How large it may be.
        limit: u64,
    },
}

/// A path of bytes, shown to people as text.
#[derive(Clone, PartialEq, Eq)]
pub struct PathText(Vec<u8>);

impl PathText {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for PathText {
    fn from(path: Vec<u8>) -> Self {
        Self(path)
    }
}

impl From<&[u8]> for PathText {
    fn from(path: &[u8]) -> Self {
        Self(path.to_vec())
    }
}

impl fmt::Display for PathText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("/") } else { write!(f, "{}", self.0.escape_ascii()) }
    }
}

impl fmt::Debug for PathText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
