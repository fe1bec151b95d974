//! Names of directory entries: bytes, not text.

use std::{ffi::OsStr, fmt, os::unix::ffi::OsStrExt as _};

use thiserror::Error;

/// Longest name in bytes (`NAME_MAX`). Kernels from 6.16 on pass longer ones to FUSE servers: we must refuse them.
const NAME_MAX: usize = 255;

/// The name of a directory entry: 1 to 255 bytes without `/` and NUL, neither `.` nor `..`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name<'a>(&'a [u8]);

/// Why bytes are not a [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// More than 255 bytes: `ENAMETOOLONG`.
    #[error("name is longer than 255 bytes")]
    TooLong,
    /// Empty, `.`, `..`, or with a `/` or NUL in it: `EINVAL`.
    #[error("name is empty, a dot name, or contains a slash or NUL")]
    Invalid,
}

impl<'a> Name<'a> {
    /// Checks bytes and returns them as a name.
    ///
    /// # Errors
    ///
    /// [`NameError`] says which rule they break.
    pub fn new(bytes: &'a [u8]) -> Result<Self, NameError> {
        if bytes.len() > NAME_MAX {
            return Err(NameError::TooLong);
        }
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.iter().any(|b| matches!(b, b'/' | 0))
        {
            return Err(NameError::Invalid);
        }
        Ok(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The bytes as the standard library's string of the platform.
    #[must_use]
    pub fn as_os_str(self) -> &'a OsStr {
        OsStr::from_bytes(self.0)
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_os_str())
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_obey_the_rules() {
        let long = [b'n'; 256];
        for (bytes, expected) in [
            (&b"a"[..], Ok(())),
            (b"\xff\xfe", Ok(())),
            (b"...", Ok(())),
            (&long[..255], Ok(())),
            (&long[..], Err(NameError::TooLong)),
            (b"", Err(NameError::Invalid)),
            (b".", Err(NameError::Invalid)),
            (b"..", Err(NameError::Invalid)),
            (b"a/b", Err(NameError::Invalid)),
            (b"a\0b", Err(NameError::Invalid)),
        ] {
            assert_eq!(Name::new(bytes).map(|_| ()), expected, "{bytes:?}");
        }
    }
}
