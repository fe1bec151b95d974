//! The role that the front calls: every operation leads to its file.

use super::Overlay;
use crate::{
    pinned::Data,
    vfs::{
        Attr, Caller, DeviceId, DirPlusSink, DirSink, Entry, FallocateMode, FileKind, FileSystem, FsStat,
        Ino, Lookup, Name, NewKind, RenameFlags, Result, SeekWhence, SetAttr, XattrFlags,
    },
};

impl FileSystem for Overlay {
    fn lookup(&self, parent: Ino, name: Name<'_>) -> Result<Lookup> {
        self.do_lookup(parent, name)
    }

    fn forget(&self, ino: Ino, count: u64) {
        self.do_forget(ino, count);
    }

    fn getattr(&self, ino: Ino) -> Result<Attr> {
        self.do_getattr(ino)
    }

    fn setattr(&self, caller: Caller, ino: Ino, changes: &SetAttr) -> Result<Attr> {
        self.do_setattr(caller, ino, changes)
    }

    fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        self.do_readlink(ino)
    }

    fn mknod(
        &self,
        caller: Caller,
        parent: Ino,
        name: Name<'_>,
        kind: FileKind,
        perm: u16,
        rdev: DeviceId,
    ) -> Result<Entry> {
        self.do_mknod(caller, parent, name, kind, perm, rdev)
    }

    fn mkdir(&self, caller: Caller, parent: Ino, name: Name<'_>, perm: u16) -> Result<Entry> {
        self.make(caller, parent, name, NewKind::Directory, perm)
    }

    fn symlink(&self, caller: Caller, parent: Ino, name: Name<'_>, target: &[u8]) -> Result<Entry> {
        self.make(caller, parent, name, NewKind::Symlink(target), 0o777)
    }

    fn link(&self, ino: Ino, parent: Ino, name: Name<'_>) -> Result<Entry> {
        self.do_link(ino, parent, name)
    }

    fn unlink(&self, parent: Ino, name: Name<'_>) -> Result<()> {
        self.do_unlink(parent, name)
    }

    fn rmdir(&self, parent: Ino, name: Name<'_>) -> Result<()> {
        self.do_rmdir(parent, name)
    }

    fn rename(
        &self,
        parent: Ino,
        name: Name<'_>,
        new_parent: Ino,
        new_name: Name<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        self.do_rename(parent, name, new_parent, new_name, flags)
    }

    fn readdir(&self, dir: Ino, offset: u64, sink: &mut dyn DirSink) -> Result<()> {
        self.do_readdir(dir, offset, sink)
    }

    fn readdirplus(&self, dir: Ino, offset: u64, sink: &mut dyn DirPlusSink) -> Result<()> {
        self.do_readdirplus(dir, offset, sink)
    }

    fn fsyncdir(&self, dir: Ino, data_only: bool) -> Result<()> {
        self.do_fsync(dir, data_only)
    }

    fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Data> {
        self.do_read(ino, offset, len)
    }

    fn write(&self, caller: Caller, ino: Ino, offset: u64, data: &[u8], kill_privileges: bool) -> Result<()> {
        self.do_write(caller, ino, offset, data, kill_privileges)
    }

    fn fsync(&self, ino: Ino, data_only: bool) -> Result<()> {
        self.do_fsync(ino, data_only)
    }

    fn fallocate(&self, caller: Caller, ino: Ino, mode: FallocateMode, offset: u64, len: u64) -> Result<()> {
        self.do_fallocate(caller, ino, mode, offset, len)
    }

    fn seek(&self, ino: Ino, offset: u64, whence: SeekWhence) -> Result<u64> {
        self.do_seek(ino, offset, whence)
    }

    fn copy_range(
        &self,
        caller: Caller,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        len: u64,
    ) -> Result<u64> {
        self.do_copy_range(caller, (from, from_offset), (to, to_offset), len)
    }

    fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        self.do_getxattr(ino, name)
    }

    fn listxattr(&self, ino: Ino) -> Result<Vec<u8>> {
        self.do_listxattr(ino)
    }

    fn setxattr(&self, caller: Caller, ino: Ino, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        self.do_setxattr(caller, ino, name, value, flags)
    }

    fn removexattr(&self, _caller: Caller, ino: Ino, name: &[u8]) -> Result<()> {
        self.do_removexattr(ino, name)
    }

    fn has_xattrs(&self) -> bool {
        self.stack.has_xattrs()
    }

    fn has_acls(&self) -> bool {
        self.stack.has_acls()
    }

    fn statfs(&self) -> Result<FsStat> {
        self.do_statfs()
    }

    fn is_folded(&self, dir: Ino) -> Result<bool> {
        self.do_is_folded(dir)
    }

    fn folds_names(&self) -> bool {
        self.options.casefold.is_some()
    }

    fn is_read_only(&self) -> bool {
        self.stack.upper().is_none()
    }
}
