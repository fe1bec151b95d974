//! What can be wrong with an archive.

use std::{fmt, io};

use thiserror::Error;

use super::format::section::Compression;

/// A failure to read an archive, with the facts. Offsets are those of the file that holds the archive.
#[derive(Debug, Error)]
pub enum Error {
    /// The host could not read the file.
    #[error("cannot read {len} bytes at offset {offset:#x}")]
    Read {
        /// Where the read began.
        offset: u64,
        /// How much was asked for.
        len: u64,
        /// What the host said.
        source: io::Error,
    },
    /// The file ends before the archive does.
    #[error("{what} at offset {offset:#x} needs {expected} bytes, only {found} are there")]
    Truncated {
        /// What is cut off.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// Bytes that it needs.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// No archive begins at the place, or nowhere in the file.
    #[error("no DwarFS archive at offset {offset:#x}")]
    NotFound {
        /// Where it was looked for (from where on, for a search).
        offset: u64,
    },
    /// A version of the format that is newer than what is known here.
    #[error("format version {major}.{minor} at offset {offset:#x} is not supported")]
    Version {
        /// Where the header is.
        offset: u64,
        /// Its major version.
        major: u8,
        /// Its minor version.
        minor: u8,
    },
    /// A section's bytes are not those that were written.
    #[error("section {section} at offset {offset:#x} does not match its {checksum} checksum")]
    Checksum {
        /// The section's place in the archive, counted from 0.
        section: u32,
        /// Where its header is.
        offset: u64,
        /// The checksum that does not match.
        checksum: Checksum,
    },
    /// The file was changed under an open archive, and holds another one now.
    #[error("the file has changed: the archive that was opened is no longer there (offset {offset:#x})")]
    Replaced {
        /// Where the difference was found.
        offset: u64,
    },
    /// A section that every archive has is not there.
    #[error("the archive has no {what} section")]
    MissingSection {
        /// The missing section.
        what: &'static str,
    },
    /// A codec that this build cannot decode.
    #[error("section {section} is compressed with {codec}, which is not supported")]
    UnsupportedCodec {
        /// The section's place in the archive, counted from 0.
        section: u32,
        /// Its codec.
        codec: Compression,
    },
    /// A codec refused what a section holds.
    #[error("cannot decompress section {section} ({codec}): {reason}")]
    Decompress {
        /// The section's place in the archive, counted from 0.
        section: u32,
        /// Its codec.
        codec: Compression,
        /// What the codec said.
        reason: String,
    },
    /// The archive needs a feature of a future release.
    #[error("the archive needs the feature {name:?}, which is not supported")]
    UnknownFeature {
        /// The feature's name.
        name: String,
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
    /// Bytes that do not follow the grammar of their encoding.
    #[error("malformed {what} at byte {at}")]
    Malformed {
        /// What was being decoded.
        what: &'static str,
        /// Where in it.
        at: usize,
    },
    /// Metadata that contradicts itself.
    #[error("{what} {found} is out of range, it must be below {bound}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// The number.
        found: u64,
        /// The first number that it must not reach.
        bound: u64,
    },
    /// Two places of an archive that say different things.
    #[error("{what} is {found}, expected {expected}")]
    Unequal {
        /// Which number.
        what: &'static str,
        /// The number.
        found: u64,
        /// What another place says, or what was counted.
        expected: u64,
    },
    /// Metadata that breaks a rule of the format.
    #[error("damaged metadata: {what} (inode {inode})")]
    Damaged {
        /// The broken rule.
        what: &'static str,
        /// Where it was found.
        inode: u32,
    },
    /// An operation that asks a directory something met another kind of object.
    #[error("inode {inode} is not a directory")]
    NotADirectory {
        /// The object.
        inode: u32,
    },
    /// An operation that asks a symlink something met another kind of object.
    #[error("inode {inode} is not a symlink")]
    NotASymlink {
        /// The object.
        inode: u32,
    },
    /// An operation that asks a regular file something met another kind of object.
    #[error("inode {inode} is not a regular file")]
    NotAFile {
        /// The object.
        inode: u32,
    },
    /// The thread that was loading a block for everybody died of something else.
    #[error("loading the block was abandoned")]
    Abandoned,
    /// An attempt at a block failed for which several threads were waiting; all of them get the same reason.
    #[error(transparent)]
    Shared(#[from] std::sync::Arc<Error>),
}

/// A checksum that a section carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The fast one, checked before a section is first used.
    Xxh3,
    /// The cryptographic one, checked by a verification.
    Sha512,
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xxh3 => "XXH3-64",
            Self::Sha512 => "SHA-512/256",
        })
    }
}
