//! The role of a whole file system, as the FUSE front serves it.

use bitflags::bitflags;

use super::{Attr, DeviceId, FileKind, FsStat, Ino, Name, Result, SetAttr};
use crate::{pinned::Data, sys::users};

/// Who asks: ids as the mount's user namespace sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// File-system user id.
    pub uid: u32,
    /// File-system group id.
    pub gid: u32,
    /// Thread id of the caller, 0 for the kernel's own requests (writeback).
    pub pid: u32,
    /// Permission bits that new objects do not get, unless their directory hands an access control list down.
    pub umask: u16,
}

impl Caller {
    /// Whether the caller may let programs run with the rights of the group `gid`: root may, and who is in it.
    #[must_use]
    pub fn may_set_gid(&self, gid: u32) -> bool {
        self.uid == 0
            || self.gid == gid
            || users::groups_of(self.pid).is_ok_and(|groups| groups.contains(&gid))
    }
}

/// An object with its identity for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The inode number (also `attr.ino`).
    pub ino: Ino,
    /// Tells two objects apart that had the same number one after the other.
    pub generation: u64,
    /// Its attributes.
    pub attr: Attr,
}

/// The answer to a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The entry; the kernel holds one more look-up on it.
    Found(Entry),
    /// The entry, which has the name in another spelling; the kernel holds one more look-up on it.
    Respelled(Entry),
    /// No such entry, and the kernel may remember that until it is told otherwise.
    Absent,
    /// No such entry, and the kernel must ask again next time.
    AbsentUncached,
}

/// The reply buffer is full; the entry was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Takes the entries of a READDIR reply.
pub trait DirSink {
    /// Takes an entry; `next` is the offset to go on from behind it.
    ///
    /// # Errors
    ///
    /// [`Full`] where the reply has no room for it.
    fn push(&mut self, ino: Ino, kind: FileKind, name: &[u8], next: u64) -> Result<(), Full>;
}

/// Takes the entries of a READDIRPLUS reply.
pub trait DirPlusSink {
    /// Whether the next entry, which is of this kind, shall be pushed with its attributes.
    fn wants(&self, _kind: FileKind) -> bool {
        true
    }

    /// Takes an entry on which the file system has counted a look-up; `.` and `..` carry none.
    ///
    /// # Errors
    ///
    /// [`Full`] where the reply has no room: the file system takes the look-up back.
    fn push(&mut self, entry: &Entry, name: &[u8], next: u64) -> Result<(), Full>;

    /// Takes an entry whose attributes are not wanted, and on which no look-up is counted. Who wants all gets none.
    ///
    /// # Errors
    ///
    /// [`Full`] where the reply has no room for it.
    fn push_bare(&mut self, _ino: Ino, _kind: FileKind, _name: &[u8], _next: u64) -> Result<(), Full> {
        Err(Full)
    }

    /// Takes an entry of which nothing but its kind is known: whoever wants more looks it up.
    ///
    /// # Errors
    ///
    /// [`Full`] where the reply has no room.
    fn push_plain(&mut self, kind: FileKind, name: &[u8], next: u64) -> Result<(), Full>;
}

bitflags! {
    /// Flags of renameat2(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RenameFlags: u32 {
        /// Fail where the new name exists.
        const NOREPLACE = libc::RENAME_NOREPLACE;
        /// Exchange the two names.
        const EXCHANGE = libc::RENAME_EXCHANGE;
        /// Leave a whiteout at the old name (refused through a mount).
        const WHITEOUT = libc::RENAME_WHITEOUT;
    }
}

bitflags! {
    /// Flags of setxattr(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct XattrFlags: u32 {
        /// Fail where the attribute exists.
        const CREATE = libc::XATTR_CREATE as u32;
        /// Fail where the attribute does not exist.
        const REPLACE = libc::XATTR_REPLACE as u32;
    }
}

bitflags! {
    /// Modes of fallocate(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FallocateMode: u32 {
        /// Do not change the length.
        const KEEP_SIZE = libc::FALLOC_FL_KEEP_SIZE as u32;
        /// Make a hole (with `KEEP_SIZE`).
        const PUNCH_HOLE = libc::FALLOC_FL_PUNCH_HOLE as u32;
        /// Turn the range to zeros.
        const ZERO_RANGE = libc::FALLOC_FL_ZERO_RANGE as u32;
    }
}

/// What to look for in a file (lseek(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekWhence {
    /// The next data.
    Data,
    /// The next hole, the end of the file being one.
    Hole,
}

/// Takes what the kernel must forget: the one message that travels upwards.
///
/// Called with locks held: an implementation may only note it down and pass it on from another thread.
pub trait Invalidate: Send + Sync {
    /// The entry `name` of `parent` is no longer what the kernel remembers.
    fn entry(&self, parent: Ino, name: &[u8]);
    /// The same a moment after the request that is being served has been answered.
    fn entry_afterwards(&self, parent: Ino, name: &[u8]);
    /// Attributes of `ino` changed; with `data` its contents as well. Without, the kernel has forgotten them when this
    /// returns.
    fn inode(&self, ino: Ino, data: bool);
}

/// An [`Invalidate`] for file systems without a kernel: nobody remembers anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoInvalidate;

impl Invalidate for NoInvalidate {
    fn entry(&self, _parent: Ino, _name: &[u8]) {}
    fn entry_afterwards(&self, _parent: Ino, _name: &[u8]) {}
    fn inode(&self, _ino: Ino, _data: bool) {}
}

/// A file system that the FUSE front can serve.
///
/// It works by node: no operation needs a handle, an unlinked node lives until its last [`forget`](Self::forget).
/// Permission bits are checked by the kernel (`default_permissions`); names have been checked by the front. Each
/// operation that answers an [`Entry`] counts one look-up on it. Errors carry the errno of the manual page of the
/// system call.
#[expect(clippy::missing_errors_doc, reason = "the sentence above holds for all of them")]
pub trait FileSystem: Send + Sync {
    /// Finds `name` in `parent`.
    fn lookup(&self, parent: Ino, name: Name<'_>) -> Result<Lookup>;
    /// Gives `count` look-ups back.
    fn forget(&self, ino: Ino, count: u64);
    /// Attributes.
    fn getattr(&self, ino: Ino) -> Result<Attr>;
    /// Changes attributes; returns them all as they are then.
    fn setattr(&self, caller: Caller, ino: Ino, changes: &SetAttr) -> Result<Attr>;
    /// Target of a symlink.
    fn readlink(&self, ino: Ino) -> Result<Vec<u8>>;

    /// Makes a regular file (also for CREATE), device, fifo or socket; the caller's umask applies.
    fn mknod(
        &self,
        caller: Caller,
        parent: Ino,
        name: Name<'_>,
        kind: FileKind,
        perm: u16,
        rdev: DeviceId,
    ) -> Result<Entry>;
    /// Makes a directory; the caller's umask applies.
    fn mkdir(&self, caller: Caller, parent: Ino, name: Name<'_>, perm: u16) -> Result<Entry>;
    /// Makes a symlink.
    fn symlink(&self, caller: Caller, parent: Ino, name: Name<'_>, target: &[u8]) -> Result<Entry>;
    /// Makes one more name for `ino`, which is no directory.
    fn link(&self, ino: Ino, parent: Ino, name: Name<'_>) -> Result<Entry>;
    /// Removes a name of something that is no directory.
    fn unlink(&self, parent: Ino, name: Name<'_>) -> Result<()>;
    /// Removes an empty directory.
    fn rmdir(&self, parent: Ino, name: Name<'_>) -> Result<()>;
    /// Renames.
    fn rename(
        &self,
        parent: Ino,
        name: Name<'_>,
        new_parent: Ino,
        new_name: Name<'_>,
        flags: RenameFlags,
    ) -> Result<()>;

    /// Lists a directory with `.` and `..` from `offset` (0: the start) until the sink is full. Offsets stay valid
    /// while entries come and go; an entry that is there all the time is shown exactly once.
    fn readdir(&self, dir: Ino, offset: u64, sink: &mut dyn DirSink) -> Result<()>;
    /// Lists with attributes and counts a look-up on each entry taken.
    fn readdirplus(&self, dir: Ino, offset: u64, sink: &mut dyn DirPlusSink) -> Result<()>;
    /// Brings changes of the directory's entries to stable storage.
    fn fsyncdir(&self, dir: Ino, data_only: bool) -> Result<()>;

    /// Reads up to `len` bytes, fewer only at the end of the file.
    fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Data>;
    /// Writes all of `data`; `kill_privileges`: clear suid, sgid and file capabilities.
    fn write(&self, caller: Caller, ino: Ino, offset: u64, data: &[u8], kill_privileges: bool) -> Result<()>;
    /// Brings contents (and, unless `data_only`, attributes) to stable storage.
    fn fsync(&self, ino: Ino, data_only: bool) -> Result<()>;
    /// fallocate(2).
    fn fallocate(&self, caller: Caller, ino: Ino, mode: FallocateMode, offset: u64, len: u64) -> Result<()>;
    /// lseek(2) for data and holes.
    fn seek(&self, ino: Ino, offset: u64, whence: SeekWhence) -> Result<u64>;
    /// `copy_file_range(2)`: returns the number of bytes copied.
    fn copy_range(
        &self,
        caller: Caller,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        len: u64,
    ) -> Result<u64>;

    /// Value of an extended attribute; `ENODATA` where it is not set.
    fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>>;
    /// Names of all extended attributes, each followed by a NUL.
    fn listxattr(&self, ino: Ino) -> Result<Vec<u8>>;
    /// Sets an extended attribute.
    fn setxattr(&self, caller: Caller, ino: Ino, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()>;
    /// Removes an extended attribute.
    fn removexattr(&self, caller: Caller, ino: Ino, name: &[u8]) -> Result<()>;
    /// Whether anything in the tree has, or can get, an extended attribute; `false` lets the kernel stop asking.
    fn has_xattrs(&self) -> bool;
    /// Whether anything in the tree has, or can get, an access control list: then the kernel asks for that of each
    /// object before it grants anything to others than its owner.
    fn has_acls(&self) -> bool {
        self.has_xattrs()
    }

    /// Figures of the file system as a whole.
    fn statfs(&self) -> Result<FsStat>;
    /// Whether names in the directory `dir` that differ in spelling alone are one name.
    fn is_folded(&self, dir: Ino) -> Result<bool> {
        let _ = dir;
        Ok(false)
    }
    /// Whether any directory folds names.
    fn folds_names(&self) -> bool {
        false
    }
    /// Whether nothing can be changed through it.
    fn is_read_only(&self) -> bool;
}
