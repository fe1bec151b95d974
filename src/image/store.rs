//! What an image is read from and written to: a file, or in tests something that crashes.

use std::{fs::File, io, os::unix::fs::FileExt};

/// Bytes at offsets. Reading and syncing need no permission to write.
pub trait Store {
    /// Reads up to `buffer.len()` bytes; fewer only at the end.
    ///
    /// # Errors
    ///
    /// What the host says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes.
    ///
    /// # Errors
    ///
    /// What the host says; any part of the bytes may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes everything written so far survive a crash.
    ///
    /// # Errors
    ///
    /// What the host says; what was written may be lost.
    fn sync(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    ///
    /// What the host says.
    fn length(&self) -> io::Result<u64>;

    /// Cuts or extends (with zeros).
    ///
    /// # Errors
    ///
    /// What the host says.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Reads exactly `buffer.len()` bytes.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` where there are fewer.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_at(buffer, offset)? < buffer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// A store that is opened for writing only while something is written.
///
/// Linux refuses to start a program while its file is open for writing, so an image is kept open for writing for as
/// short as can be; syncing goes through the reading side.
pub trait Medium: Store {
    /// The writing side.
    type Writer: Store;

    /// Opens the writing side.
    ///
    /// # Errors
    ///
    /// What the host says.
    fn writer(&self) -> io::Result<Self::Writer>;
}

impl Store for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
            match FileExt::read_at(self, rest, at) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}
