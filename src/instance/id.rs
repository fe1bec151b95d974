//! Which runs share a server, and how an instance is counted.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// Length of a key in bytes.
const KEY_LEN: usize = 16;

/// The identity of a server: an image together with a data directory. A copy of the image used elsewhere has another
/// data directory, and so another server.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerKey([u8; KEY_LEN]);

impl ServerKey {
    /// Makes the key of an image and the device and inode number of its data directory.
    #[must_use]
    pub fn new(image_id: &str, data_dir: (u64, u64)) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"fim server\0");
        hash.update(image_id.as_bytes());
        hash.update([0]);
        hash.update(data_dir.0.to_le_bytes());
        hash.update(data_dir.1.to_le_bytes());
        let mut key = [0; KEY_LEN];
        key.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
        Self(key)
    }
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerKey({self})")
    }
}

/// The number of an instance among those of its server, from 0, never used again while the server lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(u32);

impl InstanceId {
    /// Wraps a number that the server has given.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_and_data_directory_both_count() {
        let key = ServerKey::new("a", (1, 2));
        assert_eq!(key, ServerKey::new("a", (1, 2)));
        for other in [ServerKey::new("b", (1, 2)), ServerKey::new("a", (2, 2)), ServerKey::new("a", (1, 1))] {
            assert_ne!(key, other);
        }
        assert_eq!(key.to_string().len(), 2 * KEY_LEN);
    }
}
