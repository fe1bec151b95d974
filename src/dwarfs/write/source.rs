//! Where the tree to be archived comes from.

use std::io;

use super::{error::WriteError, faults::Faults, object::Object, progress::Progress, tree::Tree};

/// A tree of files that can be listed once and whose files can be read, from several threads at a time.
pub trait Source: Sync {
    /// Finds everything that is to be archived. `faults` decides on what cannot be read.
    ///
    /// # Errors
    /// Passes on what `faults` says, and fails if the source as a whole cannot be read.
    fn scan(&self, faults: &Faults<'_>, progress: &dyn Progress) -> Result<Tree, WriteError>;

    /// Opens a file that [`scan`](Source::scan) found, as it is now. `path` is its first name.
    ///
    /// # Errors
    /// Fails if the file is gone, is something else now, or cannot be read.
    fn open(&self, path: &[u8], file: &Object) -> Result<Box<dyn Contents + '_>, WriteError>;
}

/// A file that is open for reading.
pub trait Contents: Send {
    /// Whether the file is still as `known` says: the same inode with the same length and times.
    ///
    /// # Errors
    /// Fails if the host does.
    fn is_unchanged(&self, known: &Object) -> io::Result<bool>;

    /// The file's attributes and ranges of data as they are now; what only `scan` can know is taken from `known`.
    ///
    /// # Errors
    /// Fails if the host does.
    fn refresh(&self, known: &Object) -> io::Result<Object>;

    /// Reads at `offset`, which lies in a range of data, and returns how much; 0 only at the end of the file.
    ///
    /// # Errors
    /// Fails if the host does.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}
