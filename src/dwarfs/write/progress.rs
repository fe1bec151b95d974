//! How the making of an archive tells how far it is.

use super::error::WriteError;

/// A part of the work; they follow each other in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Finding what is to be archived.
    Scan,
    /// Comparing files of equal size.
    Hash,
    /// Reading, compressing and writing file data.
    Compress,
    /// Writing the metadata.
    Finish,
}

/// Someone who watches. Called from several threads; none of the calls may block.
pub trait Progress: Sync {
    /// A phase begins, in which `files` files with `bytes` bytes are to be worked on (0 where that is not known).
    fn begin(&self, phase: Phase, files: u64, bytes: u64) {
        let _ = (phase, files, bytes);
    }

    /// So many more files (entries, in [`Phase::Scan`]) are done.
    fn files(&self, count: u64) {
        let _ = count;
    }

    /// So many more bytes have been read.
    fn bytes_in(&self, count: u64) {
        let _ = count;
    }

    /// This could not be read and is left out.
    fn left_out(&self, error: &WriteError) {
        let _ = error;
    }

    /// So many more bytes have been written to the archive.
    fn bytes_out(&self, count: u64) {
        let _ = count;
    }
}

/// Nobody watches.
impl Progress for () {}

impl std::fmt::Debug for dyn Progress + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}
