//! What a tree consists of: objects, apart from their names.

use std::ops::Range;

/// A point in time: seconds since the epoch (negative before it) and nanoseconds forward from there.
///
/// All of it can be archived: offsets are 64 bits wide, counted from the earliest time of the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds, less than 10^9.
    pub nanos: u32,
}

/// A device number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl Device {
    /// The number of a whiteout, the mark of a deleted name.
    pub const WHITEOUT: Self = Self { major: 0, minor: 0 };

    /// The 64-bit `dev_t` of Linux, which archives store.
    #[must_use]
    pub fn to_raw(self) -> u64 {
        let (major, minor) = (u64::from(self.major), u64::from(self.minor));
        (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32
    }
}

/// What an object is, with what belongs to that kind only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A directory.
    Directory,
    /// A symlink and its target.
    Symlink(Box<[u8]>),
    /// A regular file.
    File(FileContent),
    /// A character device; with number 0:0 a whiteout.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Content {
    /// The `S_IFMT` bits of the mode.
    #[must_use]
    pub const fn mode_bits(&self) -> u32 {
        match self {
            Self::Directory => 0o040_000,
            Self::Symlink(_) => 0o120_000,
            Self::File(_) => 0o100_000,
            Self::CharDevice(_) => 0o020_000,
            Self::BlockDevice(_) => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
        }
    }
}

/// What a regular file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileContent {
    /// Length in bytes.
    pub size: u64,
    /// Ranges with data, ascending and apart; the rest are holes. `None`: all of it is data.
    pub extents: Option<Box<[Range<u64>]>>,
    /// Where the source finds the data; only the source knows what it means.
    pub locator: u64,
}

impl FileContent {
    /// The ranges with data.
    #[must_use]
    pub fn data(&self) -> Vec<Range<u64>> {
        match &self.extents {
            Some(extents) => extents.to_vec(),
            None if self.size == 0 => Vec::new(),
            None => vec![0..self.size; 1],
        }
    }

    /// Bytes of data, holes not counted.
    #[must_use]
    pub fn data_len(&self) -> u64 {
        match &self.extents {
            Some(extents) => extents.iter().map(|extent| extent.end - extent.start).sum(),
            None => self.size,
        }
    }
}

/// An object: everything but its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub content: Content,
    /// Permission bits with suid, sgid and sticky (`0o7777`).
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of attributes.
    pub ctime: Timestamp,
    /// When it was made, where that is known.
    pub btime: Option<Timestamp>,
}

impl Object {
    /// An object of root's with all times at the epoch.
    #[must_use]
    pub fn new(content: Content, perm: u16) -> Self {
        let epoch = Timestamp::default();
        Self { content, perm, uid: 0, gid: 0, mtime: epoch, atime: epoch, ctime: epoch, btime: None }
    }

    /// The mode with the type.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.content.mode_bits() | u32::from(self.perm)
    }

    /// The file, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&FileContent> {
        match &self.content {
            Content::File(file) => Some(file),
            _ => None,
        }
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self.content, Content::Directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_those_of_linux() {
        assert_eq!(Device { major: 8, minor: 1 }.to_raw(), 0x801);
        assert_eq!(Device { major: 0xfffff, minor: 0xfffff }.to_raw(), 0x000f_f000_ffff_ffff);
        assert_eq!(Device::WHITEOUT.to_raw(), 0);
    }
}
