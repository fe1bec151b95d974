//! The DwarFS format: reading and writing archives.
//!
//! - [`format`]: bytes to structs and back; no input or output, no clock.
//! - [`read`]: an open archive and the cache of its blocks.
//! - [`write`]: trees become archives.
//! - [`limits`]: how large anything may be that an archive claims.
//! - [`profile`]: which files are read, in which order.
//! - [`Error`]: what can be wrong with an archive, with the facts.
//!
//! An archive is a row of sections without padding, behind an optional foreign prefix (a script, an ELF file):
//!
//! ```text
//! prefix | BLOCK 0 | BLOCK 1 | ... | SCHEMA | METADATA | HISTORY | SECTION INDEX | trailing data
//!          file data, compressed     layout   inodes,    who made  where each
//!                                    of the   names,     it        section is
//!                                    metadata chunks
//! ```

mod error;
pub mod format;
pub mod limits;
pub mod profile;
pub mod read;
pub mod write;

pub use error::{Checksum, Error};
