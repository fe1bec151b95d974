//! The role of a read-only tree.

use std::{fmt, ops::ControlFlow, os::fd::OwnedFd};

use super::{Attr, FileKind, FsStat, Name, NodeId, Result, SeekWhence};
use crate::{pinned::Data, sync::Arc};

/// A read-only tree: an archive, a host directory, a tree in memory.
///
/// Objects are named by [`NodeId`]. [`lookup`](Self::lookup) and [`retain`](Self::retain) count a reference,
/// [`forget`](Self::forget) gives one back; a layer whose identities live for ever (an archive) ignores all three.
/// The root needs no reference. A layer shows what is there: whiteouts are character devices 0:0, marks such as
/// opaque are extended attributes; their meaning is the overlay's.
pub trait Layer: Send + Sync + fmt::Debug {
    /// The root directory.
    fn root(&self) -> NodeId;

    /// Finds `name` in `dir` and counts a reference on what it returns. `None` where there is no such entry.
    ///
    /// # Errors
    ///
    /// `ENOTDIR` where `dir` is no directory, `EIO` for a damaged archive, else what the host said.
    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<(NodeId, Attr)>>;

    /// Counts one more reference on a node that a directory listing showed.
    fn retain(&self, node: NodeId);

    /// Gives one reference back.
    fn forget(&self, node: NodeId);

    /// Attributes; `ino` is stable over remounts of the same layer.
    ///
    /// # Errors
    ///
    /// `EIO` for a damaged archive, else what the host said.
    fn attr(&self, node: NodeId) -> Result<Attr>;

    /// Lists `dir` without `.` and `..`, starting behind the entry whose `next` was `after` (0: from the start),
    /// until `visit` breaks. The order is the same every time.
    ///
    /// # Errors
    ///
    /// As [`lookup`](Self::lookup).
    fn read_dir(
        &self,
        dir: NodeId,
        after: u64,
        visit: &mut dyn FnMut(LayerEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()>;

    /// The target of a symlink, 1 to 4,095 bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL` where `node` is no symlink.
    fn read_link(&self, node: NodeId) -> Result<Vec<u8>>;

    /// Reads up to `len` bytes at `offset` of a regular file; fewer only at its end. Holes read as zeros.
    ///
    /// # Errors
    ///
    /// `EIO` where a block is damaged, else what the host said.
    fn read(&self, node: NodeId, offset: u64, len: usize) -> Result<Data>;

    /// The file of the host that has the contents of `node`, so that the kernel can copy or share them; `None` where
    /// there is none.
    ///
    /// # Errors
    ///
    /// What the host said.
    fn host_file(&self, node: NodeId) -> Result<Option<Arc<OwnedFd>>> {
        let _ = node;
        Ok(None)
    }

    /// Finds the next data or hole at or behind `offset` (lseek(2)).
    ///
    /// # Errors
    ///
    /// `ENXIO` behind the end, or where no data follows.
    fn seek(&self, node: NodeId, offset: u64, whence: SeekWhence) -> Result<u64>;

    /// The value of an extended attribute, `None` where it is not set.
    ///
    /// # Errors
    ///
    /// What the host said.
    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>>;

    /// The names of all extended attributes, without NULs.
    ///
    /// # Errors
    ///
    /// What the host said.
    fn xattr_names(&self, node: NodeId) -> Result<Vec<Vec<u8>>>;

    /// Whether any object can have an extended attribute at all; `false` saves every question.
    fn has_xattrs(&self) -> bool;

    /// Whether any object can have an access control list.
    fn has_acls(&self) -> bool {
        self.has_xattrs()
    }

    /// Figures of the tree as a whole.
    ///
    /// # Errors
    ///
    /// What the host said.
    fn stat_fs(&self) -> Result<FsStat>;
}

/// One entry of a layer's directory.
#[derive(Clone, Copy, Debug)]
pub struct LayerEntry<'a> {
    /// Its name.
    pub name: Name<'a>,
    /// What it is.
    pub kind: FileKind,
    /// Position behind it, to go on from; never 0.
    pub next: u64,
    /// Node and attributes where the layer has them at no cost. Carries no reference: call
    /// [`Layer::retain`] to keep the node.
    pub node: Option<(NodeId, Attr)>,
}
