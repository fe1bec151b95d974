//! Bounded messages between our processes: how their fields lie in bytes.
//!
//! Integers are little endian, byte strings and lists have a `u32` count in front. The length of a message is bounded
//! by the channel that carries it; a count is never believed further than there are bytes left.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use thiserror::Error;

/// A message that does not mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// It ends in the middle of a field.
    #[error("the message ends at byte {offset}, in the middle of a field")]
    Short {
        /// Where it ends.
        offset: usize,
    },
    /// It goes on behind its last field.
    #[error("the message has {left} bytes too many")]
    Long {
        /// How many.
        left: usize,
    },
    /// It is of another version.
    #[error("the message is of version {found}, this engine speaks {expected}")]
    Version {
        /// The version in the message.
        found: u8,
        /// The version of this engine.
        expected: u8,
    },
    /// A field has a value without a meaning.
    #[error("the message has the unknown value {value} for {field}")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// Descriptors are missing, or too many.
    #[error("the message came with {found} descriptors instead of {expected}")]
    Descriptors {
        /// How many came.
        found: usize,
        /// How many belong to it.
        expected: usize,
    },
}

/// Puts fields into a message.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Begins a message with its version and its kind.
    #[must_use]
    pub fn new(version: u8, kind: u8) -> Self {
        Self(vec![version, kind])
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A byte string. One of 4 GiB or more is cut, and the channel refuses the message.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(value);
        self
    }

    /// A list of byte strings.
    pub fn list<'a>(&mut self, values: impl ExactSizeIterator<Item = &'a OsStr>) -> &mut Self {
        self.u32(u32::try_from(values.len()).unwrap_or(u32::MAX));
        for value in values {
            self.bytes(value.as_bytes());
        }
        self
    }

    /// The message.
    #[must_use]
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Takes fields out of a message.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Reader<'a> {
    /// Begins with a message of this version; returns its kind as well.
    ///
    /// # Errors
    ///
    /// [`WireError::Version`], [`WireError::Short`].
    pub fn new(message: &'a [u8], expected: u8) -> Result<(u8, Self), WireError> {
        let mut reader = Self { rest: message, length: message.len() };
        let found = reader.u8()?;
        if found != expected {
            return Err(WireError::Version { found, expected });
        }
        Ok((reader.u8()?, reader))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or(WireError::Short { offset: self.length })?;
        self.rest = rest;
        Ok(taken)
    }

    /// One byte.
    ///
    /// # Errors
    ///
    /// [`WireError::Short`].
    pub fn u8(&mut self) -> Result<u8, WireError> {
        let length = self.length;
        self.take(1)?.first().copied().ok_or(WireError::Short { offset: length })
    }

    /// Four bytes.
    ///
    /// # Errors
    ///
    /// [`WireError::Short`].
    pub fn u32(&mut self) -> Result<u32, WireError> {
        let length = self.length;
        let (bytes, _) = self.take(4)?.split_first_chunk().ok_or(WireError::Short { offset: length })?;
        Ok(u32::from_le_bytes(*bytes))
    }

    /// Eight bytes.
    ///
    /// # Errors
    ///
    /// [`WireError::Short`].
    pub fn u64(&mut self) -> Result<u64, WireError> {
        let length = self.length;
        let (bytes, _) = self.take(8)?.split_first_chunk().ok_or(WireError::Short { offset: length })?;
        Ok(u64::from_le_bytes(*bytes))
    }

    /// A byte string.
    ///
    /// # Errors
    ///
    /// [`WireError::Short`].
    pub fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let count = self.u32()?;
        self.take(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// A byte string for the system.
    ///
    /// # Errors
    ///
    /// [`WireError::Short`].
    pub fn os_string(&mut self) -> Result<OsString, WireError> {
        Ok(OsString::from_vec(self.bytes()?.to_vec()))
    }

    /// A list of byte strings.
    ///
    /// # Errors
    ///
    /// [`WireError::Short`].
    pub fn list(&mut self) -> Result<Vec<OsString>, WireError> {
        let count = self.u32()?;
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.os_string()?);
        }
        Ok(values)
    }

    /// Says that this was all.
    ///
    /// # Errors
    ///
    /// [`WireError::Long`].
    pub fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Long { left: self.rest.len() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back() {
        let list = [OsString::from("a"), OsString::new(), OsString::from_vec(vec![0xff, 0])];
        let message = Writer::new(3, 7)
            .u8(9)
            .u32(70_000)
            .bytes(b"x")
            .list(list.iter().map(OsString::as_os_str))
            .finish();
        let (kind, mut reader) = Reader::new(&message, 3).unwrap();
        assert_eq!(kind, 7);
        assert_eq!(reader.u8().unwrap(), 9);
        assert_eq!(reader.u32().unwrap(), 70_000);
        assert_eq!(reader.bytes().unwrap(), b"x");
        assert_eq!(reader.list().unwrap(), list);
        reader.finish().unwrap();
    }

    #[test]
    fn every_cut_is_noticed() {
        let message =
            Writer::new(1, 2).u32(5).list([OsStr::new("abc"), OsStr::new("d")].into_iter()).finish();
        for length in 0..message.len() {
            let read = Reader::new(&message[..length], 1).and_then(|(_, mut reader)| {
                reader.u32()?;
                reader.list()?;
                reader.finish()
            });
            assert!(read.is_err(), "{length}");
        }
    }

    #[test]
    fn counts_are_not_believed() {
        let message = Writer::new(1, 2).u32(u32::MAX).finish();
        assert!(Reader::new(&message, 1).unwrap().1.bytes().is_err());
        assert!(Reader::new(&message, 1).unwrap().1.list().is_err());
        assert!(Reader::new(&message, 2).is_err());
        assert!(Reader::new(&message, 1).unwrap().1.finish().is_err());
    }
}
