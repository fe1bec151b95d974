//! An upper that fails at the call that a test names.

use std::{
    fmt,
    ops::ControlFlow,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use fim::{
    layer::HostUpper,
    pinned::Data,
    vfs::{
        Attr, Errno, Error, FallocateMode, Feature, FsStat, Layer, LayerEntry, Name, NewObject, NodeId,
        RenameMode, Result, SeekWhence, SetAttr, Spot, Upper, XattrFlags,
    },
};

/// Which calls are counted, and fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// What needs room or the right to write.
    Changes,
    /// Everything that can fail.
    All,
}

/// How long a failure lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// One call, as where somebody makes room in the next moment.
    Once,
    /// All calls from there on, until [`Faulty::heal`].
    On,
}

/// A failure to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) errno: Errno,
    pub(crate) calls: Calls,
    pub(crate) lasting: Lasting,
    /// The call that fails, from 0.
    pub(crate) at: u64,
}

/// A host directory with a switch.
pub(crate) struct Faulty {
    inner: Arc<HostUpper>,
    fault: std::sync::Mutex<Option<Fault>>,
    seen: AtomicU64,
    failed: AtomicU32,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<HostUpper>) -> Self {
        Self { inner, fault: std::sync::Mutex::new(None), seen: AtomicU64::new(0), failed: AtomicU32::new(0) }
    }

    /// Fails as `fault` says from now on.
    pub(crate) fn break_with(&self, fault: Fault) {
        self.seen.store(0, Ordering::SeqCst);
        self.failed.store(0, Ordering::SeqCst);
        *self.fault.lock().unwrap() = Some(fault);
    }

    /// Fails no more; says how many calls failed.
    pub(crate) fn heal(&self) -> u32 {
        *self.fault.lock().unwrap() = None;
        self.failed.load(Ordering::SeqCst)
    }

    fn call(&self, is_change: bool) -> Result<&HostUpper> {
        let fault = self.fault.lock().unwrap();
        let Some(fault) = *fault else { return Ok(&self.inner) };
        if fault.calls == Calls::Changes && !is_change {
            return Ok(&self.inner);
        }
        let at = self.seen.fetch_add(1, Ordering::SeqCst);
        if at == fault.at || (at > fault.at && fault.lasting == Lasting::On) {
            self.failed.fetch_add(1, Ordering::SeqCst);
            return Err(Error::with_source(fault.errno, "do what the test forbids", "injected"));
        }
        Ok(&self.inner)
    }

    fn change(&self) -> Result<&HostUpper> {
        self.call(true)
    }

    fn look(&self) -> Result<&HostUpper> {
        self.call(false)
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Layer for Faulty {
    fn root(&self) -> NodeId {
        self.inner.root()
    }

    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<(NodeId, Attr)>> {
        self.look()?.lookup(dir, name)
    }

    fn retain(&self, node: NodeId) {
        self.inner.retain(node);
    }

    fn forget(&self, node: NodeId) {
        self.inner.forget(node);
    }

    fn attr(&self, node: NodeId) -> Result<Attr> {
        self.look()?.attr(node)
    }

    fn read_dir(
        &self,
        dir: NodeId,
        after: u64,
        visit: &mut dyn FnMut(LayerEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.look()?.read_dir(dir, after, visit)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        self.look()?.read_link(node)
    }

    fn read(&self, node: NodeId, offset: u64, len: usize) -> Result<Data> {
        self.look()?.read(node, offset, len)
    }

    fn host_file(&self, node: NodeId) -> Result<Option<Arc<OwnedFd>>> {
        self.look()?.host_file(node)
    }

    fn seek(&self, node: NodeId, offset: u64, whence: SeekWhence) -> Result<u64> {
        self.look()?.seek(node, offset, whence)
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.look()?.xattr(node, name)
    }

    fn xattr_names(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        self.look()?.xattr_names(node)
    }

    fn has_xattrs(&self) -> bool {
        self.inner.has_xattrs()
    }

    fn stat_fs(&self) -> Result<FsStat> {
        self.look()?.stat_fs()
    }
}

impl Upper for Faulty {
    fn work(&self) -> NodeId {
        self.inner.work()
    }

    fn index(&self) -> NodeId {
        self.inner.index()
    }

    fn peek(&self, dir: NodeId, name: Name<'_>) -> Result<Option<Attr>> {
        self.look()?.peek(dir, name)
    }

    fn create(&self, dir: NodeId, name: Name<'_>, new: &NewObject<'_>) -> Result<(NodeId, Attr)> {
        self.change()?.create(dir, name, new)
    }

    fn whiteout(&self, dir: NodeId, name: Name<'_>) -> Result<()> {
        self.change()?.whiteout(dir, name)
    }

    fn link(&self, node: NodeId, dir: NodeId, name: Name<'_>) -> Result<()> {
        self.change()?.link(node, dir, name)
    }

    fn unlink(&self, spot: Spot<'_>) -> Result<()> {
        self.change()?.unlink(spot)
    }

    fn rmdir(&self, spot: Spot<'_>) -> Result<()> {
        self.change()?.rmdir(spot)
    }

    fn remove_tree(&self, spot: Spot<'_>) -> Result<()> {
        self.change()?.remove_tree(spot)
    }

    fn rename(&self, from: Spot<'_>, to: Spot<'_>, mode: RenameMode) -> Result<()> {
        self.change()?.rename(from, to, mode)
    }

    fn set_attr(&self, node: NodeId, changes: &SetAttr) -> Result<()> {
        self.change()?.set_attr(node, changes)
    }

    fn write(&self, node: NodeId, offset: u64, data: &[u8]) -> Result<()> {
        self.change()?.write(node, offset, data)
    }

    fn allocate(&self, node: NodeId, mode: FallocateMode, offset: u64, len: u64) -> Result<()> {
        self.change()?.allocate(node, mode, offset, len)
    }

    fn copy_range(&self, from: (NodeId, u64), to: (NodeId, u64), len: u64) -> Result<u64> {
        self.change()?.copy_range(from, to, len)
    }

    fn copy_from(&self, from: (BorrowedFd<'_>, u64), to: (NodeId, u64), len: u64) -> Result<u64> {
        self.change()?.copy_from(from, to, len)
    }

    fn set_xattr(&self, node: NodeId, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        self.change()?.set_xattr(node, name, value, flags)
    }

    fn remove_xattr(&self, node: NodeId, name: &[u8]) -> Result<()> {
        self.change()?.remove_xattr(node, name)
    }

    fn sync(&self, node: NodeId, data_only: bool) -> Result<()> {
        self.change()?.sync(node, data_only)
    }

    fn sync_all(&self) -> Result<()> {
        self.change()?.sync_all()
    }

    fn note(&self, feature: Feature) -> Result<()> {
        self.change()?.note(feature)
    }

    fn clear_notes(&self) -> Result<()> {
        self.change()?.clear_notes()
    }

    fn close_idle(&self) {
        self.inner.close_idle();
    }
}
