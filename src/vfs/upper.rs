//! The role of the writable tree.

use std::os::fd::BorrowedFd;

use super::{
    Attr, DeviceId, Errno, Error, FallocateMode, FileKind, Layer, Name, NodeId, Result, SetAttr, XattrFlags,
};

/// The one writable tree on top of a stack. What it shows is a [`Layer`]; what it adds is change.
///
/// It knows nothing of merging: whiteouts and marks are objects and attributes like any other. Everything is staged in
/// the [`work`](Self::work) directory of the same file system and published by [`rename`](Self::rename), so that each
/// step on disk is all or nothing. A node whose last name is removed or replaced goes on working until it is
/// forgotten.
#[expect(clippy::missing_errors_doc, reason = "errors are those of the host's system call of the same name")]
pub trait Upper: Layer {
    /// The directory for staging: outside the shown tree, empty when the upper is opened.
    fn work(&self) -> NodeId;

    /// The directory for names of files that have several: outside the shown tree as well, but what is in it stays.
    fn index(&self) -> NodeId;

    /// Attributes of a name, without counting a reference.
    fn peek(&self, dir: NodeId, name: Name<'_>) -> Result<Option<Attr>>;

    /// Makes an object, in one visible step, and counts a reference on it. `EEXIST` where the name exists.
    fn create(&self, dir: NodeId, name: Name<'_>, new: &NewObject<'_>) -> Result<(NodeId, Attr)>;

    /// Makes a whiteout (a character device 0:0). `EEXIST` where the name exists.
    fn whiteout(&self, dir: NodeId, name: Name<'_>) -> Result<()>;

    /// Makes one more name for `node`. `EEXIST` where the name exists.
    fn link(&self, node: NodeId, dir: NodeId, name: Name<'_>) -> Result<()>;

    /// Removes a name of something that is no directory.
    fn unlink(&self, spot: Spot<'_>) -> Result<()>;

    /// Removes an empty directory.
    fn rmdir(&self, spot: Spot<'_>) -> Result<()>;

    /// Removes a directory with everything in it, however deep. Nothing in it may have a live node.
    fn remove_tree(&self, spot: Spot<'_>) -> Result<()>;

    /// Renames in one step.
    fn rename(&self, from: Spot<'_>, to: Spot<'_>, mode: RenameMode) -> Result<()>;

    /// Changes attributes as truncate(2), chown(2), chmod(2) and utimensat(2) do, in this order.
    fn set_attr(&self, node: NodeId, changes: &SetAttr) -> Result<()>;

    /// Writes all of `data`.
    fn write(&self, node: NodeId, offset: u64, data: &[u8]) -> Result<()>;

    /// fallocate(2).
    fn allocate(&self, node: NodeId, mode: FallocateMode, offset: u64, len: u64) -> Result<()>;

    /// `copy_file_range(2)` between two files of this upper; may copy less than asked.
    fn copy_range(&self, from: (NodeId, u64), to: (NodeId, u64), len: u64) -> Result<u64>;

    /// `copy_file_range(2)` from a file of the host, which shares the data where the file system can; may copy less
    /// than asked.
    fn copy_from(&self, from: (BorrowedFd<'_>, u64), to: (NodeId, u64), len: u64) -> Result<u64>;

    /// Sets an extended attribute.
    fn set_xattr(&self, node: NodeId, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()>;

    /// Removes an extended attribute; `ENODATA` where it is not set.
    fn remove_xattr(&self, node: NodeId, name: &[u8]) -> Result<()>;

    /// Whether it cannot give objects away, and records whom they are to belong to.
    fn records_owners(&self) -> bool {
        false
    }

    /// Records whom `node` is to belong to. `EOPNOTSUPP` where that can be stored as such.
    fn record_owner(&self, _node: NodeId, _change: &OwnerChange) -> Result<()> {
        Err(Error::new(Errno::EOPNOTSUPP, "record an owner"))
    }

    /// What is recorded of `node`.
    fn recorded_owner(&self, _node: NodeId) -> Result<Option<OwnerChange>> {
        Ok(None)
    }

    /// Brings a file or directory to stable storage.
    fn sync(&self, node: NodeId, data_only: bool) -> Result<()>;

    /// Brings everything to stable storage.
    fn sync_all(&self) -> Result<()>;

    /// Notes, on stable storage, that the tree is about to use `feature`, so that others who mount it refuse it rather
    /// than show something else.
    fn note(&self, feature: Feature) -> Result<()>;

    /// Takes all such notes away: the tree uses none of the features, on stable storage.
    fn clear_notes(&self) -> Result<()>;

    /// Closes descriptors open for writing that have not been used since the last call. The owner of the file system
    /// calls it every few seconds: a file that is open for writing cannot be executed by anybody.
    fn close_idle(&self);
}

/// Something in an [`Upper`] that only this engine understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Objects whose lower part has another name.
    Redirect,
    /// Files whose data are below.
    WithoutData,
    /// Files that are found by the index under names that the upper does not have.
    Index,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Redirect, Self::WithoutData, Self::Index];

    /// The name of its note.
    #[must_use]
    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::Redirect => b"fim-redirect",
            Self::WithoutData => b"fim-metacopy",
            Self::Index => b"fim-index",
        }
    }
}

/// Whom an object is to belong to, and what it is to stand for, where the host can store neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerChange {
    /// The user; `None` leaves it as it is.
    pub uid: Option<u32>,
    /// The group; `None` leaves it as it is.
    pub gid: Option<u32>,
    /// The device that a regular file stands for.
    pub device: Option<(FileKind, DeviceId)>,
}

/// A name in a directory of an [`Upper`], with the node behind it where the caller knows one.
#[derive(Clone, Copy, Debug)]
pub struct Spot<'a> {
    /// The directory.
    pub dir: NodeId,
    /// The name in it.
    pub name: Name<'a>,
    /// The node that the name stands for. An object with live references must be named here.
    pub node: Option<NodeId>,
}

/// What a rename does with the two names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// The new name must be free.
    New,
    /// What had the new name goes.
    Replace,
    /// Both change places.
    Exchange,
    /// As `Replace`, and a whiteout takes the old name.
    LeaveWhiteout,
}

/// An object to make.
#[derive(Clone, Copy, Debug)]
pub struct NewObject<'a> {
    /// What it is.
    pub kind: NewKind<'a>,
    /// Permission bits (`0o7777`); symlinks have none of their own.
    pub perm: u16,
    /// Owner. Where the process may not give files away it becomes the process's own.
    pub uid: u32,
    /// Group; as the owner.
    pub gid: u32,
}

/// The kind of an object to make, with what only that kind has.
#[derive(Clone, Copy, Debug)]
pub enum NewKind<'a> {
    /// An empty regular file.
    Regular,
    /// An empty directory.
    Directory,
    /// A symlink to this target.
    Symlink(&'a [u8]),
    /// A character device.
    CharDevice(DeviceId),
    /// A block device.
    BlockDevice(DeviceId),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}
