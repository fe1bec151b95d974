//! What an inode is.

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Directory,
    Symlink,
    Regular,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

/// The classes in the order in which inodes are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Directory,
    Symlink,
    Regular,
    Device,
    Other,
}

/// The bits of a mode that tell the kind.
const KIND_MASK: u32 = 0o170_000;

impl Kind {
    /// The kind that a mode names.
    pub(super) const fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & KIND_MASK {
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            0o100_000 => Self::Regular,
            0o020_000 => Self::CharDevice,
            0o060_000 => Self::BlockDevice,
            0o010_000 => Self::Fifo,
            0o140_000 => Self::Socket,
            _ => return None,
        })
    }

    pub(super) const fn class(self) -> Class {
        match self {
            Self::Directory => Class::Directory,
            Self::Symlink => Class::Symlink,
            Self::Regular => Class::Regular,
            Self::CharDevice | Self::BlockDevice => Class::Device,
            Self::Fifo | Self::Socket => Class::Other,
        }
    }
}

/// A point in time: seconds since the epoch, and nanoseconds forward from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamp {
    /// Seconds, negative before the epoch.
    pub seconds: i64,
    /// Nanoseconds, less than 10^9.
    pub nanos: u32,
}

/// The attributes of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Permission bits (`0o7777`).
    pub perm: u16,
    /// Hard links of a regular file; 1 for everything else, since the format counts no others.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number as Linux encodes `st_rdev`; 0 where it is no device.
    pub rdev: u64,
    /// Length in bytes; of a symlink that of its target, of a directory a constant.
    pub size: u64,
    /// Bytes that are not holes.
    pub allocated: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of attributes.
    pub ctime: Timestamp,
    /// Creation, where the archive has it.
    pub btime: Option<Timestamp>,
}
