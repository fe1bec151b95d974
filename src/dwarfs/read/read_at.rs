//! Where an archive's bytes come from.

use std::{
    fmt,
    fs::File,
    io,
    num::NonZeroU64,
    os::unix::fs::{FileExt, MetadataExt as _},
};

use rustix::fs::{Advice, fadvise};

use crate::dwarfs::Error;

/// Something that can be read at any offset, by many threads at once.
///
/// Not a mapping: a file that is truncated while it is mapped kills its readers by a signal, one that is read gives
/// an error.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether an archive file is empty")]
pub trait ReadAt: Send + Sync + fmt::Debug {
    /// Returns the length in bytes, as it is now.
    ///
    /// # Errors
    ///
    /// What the host says.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    ///
    /// What the host says; `UnexpectedEof` where it ends before.
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Returns a number that differs when the contents have been changed: what was checked is checked again then.
    ///
    /// # Errors
    ///
    /// What the host says.
    fn stamp(&self) -> io::Result<u64> {
        self.len()
    }

    /// Hears that these bytes will be read soon, so that they can be on their way; no answer, no error.
    fn will_need(&self, _offset: u64, _len: u64) {}
}

impl ReadAt for File {
    fn len(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    /// Length and times of change; that of the inode as well, for the other one can be set back.
    fn stamp(&self) -> io::Result<u64> {
        let found = self.metadata()?;
        let facts = [
            found.size(),
            bits(found.mtime()),
            bits(found.mtime_nsec()),
            bits(found.ctime()),
            bits(found.ctime_nsec()),
        ];
        Ok(facts
            .into_iter()
            .fold(0, |stamp, fact| (stamp ^ fact).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)))
    }

    fn will_need(&self, offset: u64, len: u64) {
        // Where the host does not take advice, they are read when they are read.
        let _ = NonZeroU64::new(len).map(|len| fadvise(self, offset, Some(len), Advice::WillNeed));
    }
}

const fn bits(number: i64) -> u64 {
    number.cast_unsigned()
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(buffer.len())?));
        let bytes = range.and_then(|range| self.get(range)).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// Longest step in which a payload is read into memory that is asked for only then: what a section claims to be long
/// costs no memory before the bytes are there.
const STEP: usize = 4 << 20;

/// Reads `N` bytes at `offset`.
pub(super) fn read_array<const N: usize>(source: &dyn ReadAt, offset: u64) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    read_into(source, offset, &mut bytes)?;
    Ok(bytes)
}

/// Reads `len` bytes at `offset`.
pub(super) fn read_vec(source: &dyn ReadAt, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
    let too_long = |_| Error::Limit { what: "length of a read", found: len, limit: usize::MAX as u64 };
    let len = usize::try_from(len).map_err(too_long)?;
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let from = bytes.len();
        bytes.resize(from + STEP.min(len - from), 0);
        if let Some(part) = bytes.get_mut(from..) {
            read_into(source, offset.saturating_add(from as u64), part)?;
        }
    }
    Ok(bytes)
}

/// Passes `len` bytes at `offset` to `take`, piece by piece.
pub(super) fn read_pieces(
    source: &dyn ReadAt,
    mut offset: u64,
    mut len: u64,
    take: &mut dyn FnMut(&[u8]),
) -> Result<(), Error> {
    let step = usize::try_from(len).map_or(STEP, |len| len.min(STEP / 4));
    let mut buffer = vec![0; step];
    while len > 0 {
        let part = usize::try_from(len).map_or(step, |len| len.min(step));
        let Some(piece) = buffer.get_mut(..part) else { break };
        read_into(source, offset, piece)?;
        take(piece);
        offset = offset.saturating_add(part as u64);
        len -= part as u64;
    }
    Ok(())
}

/// Fills `buffer` from `offset` on.
pub(super) fn read_into(source: &dyn ReadAt, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
    source.read_exact_at(offset, buffer).map_err(|source| Error::Read {
        offset,
        len: buffer.len() as u64,
        source,
    })
}

/// The state of `source`.
pub(super) fn stamp_of(source: &dyn ReadAt) -> Result<u64, Error> {
    source.stamp().map_err(|source| Error::Read { offset: 0, len: 0, source })
}

/// The length of `source`.
pub(super) fn len_of(source: &dyn ReadAt) -> Result<u64, Error> {
    source.len().map_err(|source| Error::Read { offset: 0, len: 0, source })
}
