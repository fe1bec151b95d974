//! Identities as newtypes. Raw integers are turned into them in `fuse/front.rs` and in the layers only.

/// A kernel-visible inode number: FUSE's nodeid and `st_ino` in one.
///
/// The kernel holds a count of look-ups on it; it is valid from the first LOOKUP that answered it until FORGET has
/// given all of them back. The same object keeps its number through copy-up and remount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(u64);

impl Ino {
    /// The root directory of a mount (`FUSE_ROOT_ID`).
    pub const ROOT: Self = Self(1);

    /// Wraps a number that came from the kernel or is about to be given to it.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// The identity of an object inside one [`Layer`](super::Layer) or [`Upper`](super::Upper).
///
/// Means nothing in another layer. All hard links of one object share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u64);

impl NodeId {
    /// Wraps a layer's own number.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}
