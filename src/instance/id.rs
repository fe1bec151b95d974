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
        Self::of(hash)
    }

    /// The key of a server for instances that have an upper of their own, by the device and inode number of that.
    #[must_use]
    pub fn with_upper(self, upper: (u64, u64)) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"fim upper\0");
        hash.update(self.0);
        hash.update(upper.0.to_le_bytes());
        hash.update(upper.1.to_le_bytes());
        Self::of(hash)
    }

    /// The key of a server that nobody else joins: that of the process `pid`, at this moment.
    #[must_use]
    pub fn alone(self, pid: i32, moment: u128) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"fim alone\0");
        hash.update(self.0);
        hash.update(pid.to_le_bytes());
        hash.update(moment.to_le_bytes());
        Self::of(hash)
    }

    /// Whether `text` is a key as text.
    #[must_use]
    pub fn is_text(text: &str) -> bool {
        text.len() == 2 * KEY_LEN && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }

    fn of(hash: Sha256) -> Self {
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

/// The number of an instance among those of its image, from 0, never used again while any of them lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(u32);

impl InstanceId {
    /// Wraps a number.
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
        assert!(ServerKey::is_text(&key.to_string()) && !ServerKey::is_text(".."));
    }

    #[test]
    fn an_upper_of_its_own_is_another_server() {
        let key = ServerKey::new("a", (1, 2));
        assert_eq!(key.with_upper((3, 4)), key.with_upper((3, 4)));
        let all = [
            key,
            key.with_upper((1, 2)),
            key.with_upper((3, 4)),
            key.alone(1, 2),
            key.alone(1, 3),
            key.alone(2, 2),
        ];
        for (at, one) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == one), Some(at));
        }
    }
}
