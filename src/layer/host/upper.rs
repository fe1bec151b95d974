//! A directory of the host as the writable tree.
//!
//! ```text
//!   WORK/fim.lock      locked while a process writes to the upper
//!   WORK/work/         staging; whatever a crash left there is swept away at the next start, but for the notes of features
//!   WORK/index/        files of layers that had several names when they were copied up
//! ```

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use super::{
    ACL, DEFAULT_ACL,
    features::{self, Notes},
    host,
    layer::layer_by_tree,
    node::HostNode,
    owners,
    pool::FdPool,
    probe::{UpperError, probe},
    tree::HostTree,
};
use crate::{
    pinned::Data,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    sys::{
        beneath::{self, OpenFor},
        data,
        errno::Errno,
        users, xattr,
    },
    vfs::{
        Attr, FallocateMode, Feature, FsStat, LayerEntry, Name, NewObject, NodeId, OwnerChange, RenameMode,
        Result, SeekWhence, SetAttr, Spot, Upper, XattrFlags,
    },
};

/// The locked file in the work directory.
const LOCK_NAME: &[u8] = b"fim.lock";

/// The staging directory in the work directory, named as kernel overlayfs names its own.
const STAGING_NAME: &[u8] = b"work";

/// The directory of further names in the work directory.
const INDEX_NAME: &[u8] = b"index";

/// The whiteout in the staging directory of which all others are hard links.
pub(super) const SHARED_WHITEOUT: &[u8] = b"#whiteout";

/// A directory of the host with a work directory on the same file system, for one process.
#[derive(Debug)]
pub struct HostUpper {
    pub(super) tree: HostTree,
    pub(super) work: Arc<HostNode>,
    index: Arc<HostNode>,
    notes: Notes,
    /// User and group id that objects get which this process makes.
    pub(super) own_ids: (u32, u32),
    /// Whether the shared whiteout exists and has room for more names.
    pub(super) shared_whiteout: Mutex<bool>,
    /// Nodes that may have a descriptor for writing.
    pub(super) writers: Mutex<Vec<NodeId>>,
    pub(super) next_name: AtomicU64,
    /// Whether owners are recorded, for the host has one user only.
    pub(super) records: bool,
    /// Held while a record changes.
    pub(super) owners: Mutex<()>,
    /// Holds the lock.
    lock: OwnedFd,
}

impl HostUpper {
    /// Opens the directory `upper` with the work directory `work`, sweeps the latter, and tries out what the file
    /// system can do.
    ///
    /// # Errors
    ///
    /// [`UpperError`] says what is wrong with the directories.
    pub fn open(upper: &Path, work: &Path) -> Result<Self, UpperError> {
        Self::open_with(upper, work, FdPool::shared())
    }

    /// Opens it with descriptors from `pool`.
    ///
    /// # Errors
    ///
    /// [`UpperError`] says what is wrong with the directories.
    pub fn open_with(upper: &Path, work: &Path, pool: Arc<FdPool>) -> Result<Self, UpperError> {
        let prepare = |op, path: &Path| {
            let path = path.to_owned();
            move |errno| UpperError::Prepare { op, path, errno }
        };
        let upper_fd = beneath::open_directory(upper).map_err(prepare("open the directory", upper))?;
        let work_fd = beneath::open_directory(work).map_err(prepare("open the work directory", work))?;
        if device(&upper_fd) != device(&work_fd) {
            return Err(UpperError::DifferentFileSystems { upper: upper.to_owned(), work: work.to_owned() });
        }
        let lock = open_lock(work_fd.as_fd()).map_err(prepare("make a lock file in", work))?;
        data::lock_exclusive(lock.as_fd()).map_err(|_| UpperError::InUse { work: work.to_owned() })?;
        let open =
            |name| open_own(work_fd.as_fd(), name).map_err(prepare("prepare the work directory", work));
        let (staging, index) = (open(STAGING_NAME)?, open(INDEX_NAME)?);
        let notes = staging.try_clone().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)));
        let notes = notes.and_then(|staging| Notes::read(work_fd, staging));
        let notes = notes.map_err(prepare("read the notes in", work))?;
        sweep(staging.as_fd(), Some(features::NOTES)).map_err(prepare("empty the work directory", work))?;
        probe(staging.as_fd()).map_err(|(ability, errno)| UpperError::Unable {
            ability,
            path: upper.to_owned(),
            errno,
        })?;
        let tree = |error: crate::vfs::Error| UpperError::Prepare {
            op: "read the directory",
            path: upper.to_owned(),
            errno: error.errno(),
        };
        let host_tree = HostTree::new(upper_fd, pool, true).map_err(&tree)?;
        let work_node = host_tree.add_base(staging).map_err(&tree)?;
        let index = host_tree.add_base(index).map_err(tree)?;
        if is_empty(host_tree.directory(&host_tree.root).map_err(tree)?.as_fd())
            .map_err(prepare("read the directory", upper))?
        {
            notes.clear().map_err(prepare("clear the notes in", work))?;
        }
        Ok(Self {
            tree: host_tree,
            work: work_node,
            index,
            notes,
            own_ids: users::effective_ids(),
            shared_whiteout: Mutex::new(false),
            writers: Mutex::default(),
            next_name: AtomicU64::new(0),
            records: owners::are_recorded(),
            owners: Mutex::new(()),
            lock,
        })
    }

    /// Number of live nodes, the root, the work directory and the index included.
    #[must_use]
    pub fn live_nodes(&self) -> usize {
        self.tree.len()
    }

    /// Whether the upper uses nothing that others who know the format of overlayfs do not know.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.notes.are_none()
    }

    /// Gives everything back but the lock: the directory is somebody else's to write, under our lock.
    #[must_use]
    pub fn into_lock(self) -> OwnedFd {
        self.lock
    }

    /// A name in the work directory that nobody has.
    pub(super) fn staging_name(&self) -> Vec<u8> {
        format!("#h{:x}", self.next_name.fetch_add(1, Ordering::Relaxed)).into_bytes()
    }
}

layer_by_tree!(HostUpper);

impl Upper for HostUpper {
    fn work(&self) -> NodeId {
        self.work.id
    }

    fn index(&self) -> NodeId {
        self.index.id
    }

    fn peek(&self, dir: NodeId, name: Name<'_>) -> Result<Option<Attr>> {
        self.peek_name(dir, name)
    }

    fn create(&self, dir: NodeId, name: Name<'_>, new: &NewObject<'_>) -> Result<(NodeId, Attr)> {
        self.create_object(&self.tree.node(dir)?, name, new)
    }

    fn whiteout(&self, dir: NodeId, name: Name<'_>) -> Result<()> {
        self.make_whiteout(&self.tree.node(dir)?, name)
    }

    fn link(&self, node: NodeId, dir: NodeId, name: Name<'_>) -> Result<()> {
        self.link_name(node, dir, name)
    }

    fn unlink(&self, spot: Spot<'_>) -> Result<()> {
        self.remove_name(spot, beneath::remove)
    }

    fn rmdir(&self, spot: Spot<'_>) -> Result<()> {
        self.remove_name(spot, beneath::remove_directory)
    }

    fn remove_tree(&self, spot: Spot<'_>) -> Result<()> {
        let dir = self.tree.directory(&self.tree.node(spot.dir)?)?;
        let name = spot.name.as_bytes();
        let heap =
            beneath::open(dir.as_fd(), name, OpenFor::Path).map_err(host("open a directory to remove"))?;
        sweep(heap.as_fd(), None).map_err(host("empty a directory"))?;
        beneath::remove_directory(dir.as_fd(), name).map_err(host("remove a directory"))
    }

    fn rename(&self, from: Spot<'_>, to: Spot<'_>, mode: RenameMode) -> Result<()> {
        self.rename_name(from, to, mode)
    }

    fn set_attr(&self, node: NodeId, changes: &SetAttr) -> Result<()> {
        self.change_attr(node, changes)
    }

    fn write(&self, node: NodeId, offset: u64, bytes: &[u8]) -> Result<()> {
        let fd = self.writer(node)?;
        data::write_at(fd.as_fd(), offset, bytes).map_err(host("write"))
    }

    fn allocate(&self, node: NodeId, mode: FallocateMode, offset: u64, len: u64) -> Result<()> {
        let fd = self.writer(node)?;
        data::allocate(fd.as_fd(), mode.bits(), offset, len).map_err(host("allocate space"))
    }

    fn copy_range(&self, from: (NodeId, u64), to: (NodeId, u64), len: u64) -> Result<u64> {
        let source = self.tree.host_file(from.0)?;
        self.copy_from((source.as_fd(), from.1), to, len)
    }

    fn copy_from(&self, from: (BorrowedFd<'_>, u64), to: (NodeId, u64), len: u64) -> Result<u64> {
        let target = self.writer(to.0)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        data::copy_range(from, (target.as_fd(), to.1), len)
            .map(|copied| copied as u64)
            .map_err(host("copy a range"))
    }

    fn set_xattr(&self, node: NodeId, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        let node = self.tree.node(node)?;
        let fd = self.tree.descriptor(&node, OpenFor::Path)?;
        let set = || xattr::set(fd.as_fd(), name, value, flags.bits());
        self.tree.lend(&[&node], set).map_err(host("set an extended attribute"))?;
        // A list changes the permission bits of the group.
        if name == ACL { self.record_follows(&node).map_err(host("record an owner")) } else { Ok(()) }
    }

    fn remove_xattr(&self, node: NodeId, name: &[u8]) -> Result<()> {
        let node = self.tree.node(node)?;
        let fd = self.tree.descriptor(&node, OpenFor::Path)?;
        let remove = || xattr::remove(fd.as_fd(), name);
        self.tree.lend(&[&node], remove).map_err(host("remove an extended attribute"))
    }

    fn records_owners(&self) -> bool {
        self.records
    }

    fn record_owner(&self, node: NodeId, change: &OwnerChange) -> Result<()> {
        self.record(node, change)
    }

    fn recorded_owner(&self, node: NodeId) -> Result<Option<OwnerChange>> {
        self.recorded(node)
    }

    fn sync(&self, node: NodeId, data_only: bool) -> Result<()> {
        self.sync_node(node, data_only)
    }

    fn sync_all(&self) -> Result<()> {
        let root = self.tree.directory(&self.tree.root)?;
        let root = beneath::open_listing(root.as_fd()).map_err(host("open the upper"))?;
        data::sync_file_system(root.as_fd()).map_err(host("sync the file system"))
    }

    fn note(&self, feature: Feature) -> Result<()> {
        self.notes.make(feature).map_err(host("note a feature in the work directory"))
    }

    fn clear_notes(&self) -> Result<()> {
        self.notes.clear().map_err(host("clear the notes in the work directory"))
    }

    fn close_idle(&self) {
        self.close_idle_writers();
    }
}

fn device(fd: &OwnedFd) -> Option<(u32, u32)> {
    beneath::stat(fd.as_fd(), b"").ok().map(|stat| (stat.stx_dev_major, stat.stx_dev_minor))
}

fn open_lock(work: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    match beneath::create(work, LOCK_NAME, 0o600) {
        Err(Errno::EEXIST) => beneath::open(work, LOCK_NAME, OpenFor::Write),
        other => other,
    }
}

/// Opens a directory of the work directory, which is made if it is not there. What it was handed down must not pass on
/// to what is made in it.
fn open_own(work: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    match beneath::make_directory(work, name, 0o700) {
        Ok(()) => {}
        Err(Errno::EEXIST) => {
            // Kernel overlayfs leaves one without permissions.
            let fd = beneath::open(work, name, OpenFor::Path)?;
            let _ = beneath::set_perm(fd.as_fd(), 0o700);
        }
        Err(errno) => return Err(errno),
    }
    let fd = beneath::open(work, name, OpenFor::Path)?;
    // Looked for first: taking away what is not there needs room all the same, which a full upper does not have.
    if xattr::get(fd.as_fd(), DEFAULT_ACL)?.is_some() {
        xattr::remove(fd.as_fd(), DEFAULT_ACL)?;
    }
    Ok(fd)
}

fn is_empty(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut is_empty = true;
    beneath::list(beneath::open_listing(dir)?.as_fd(), |_| is_empty = false)?;
    Ok(is_empty)
}

/// Removes everything in `staging` but the directory `kept`, however deep: subdirectories move to its top before their
/// turn comes.
fn sweep(staging: BorrowedFd<'_>, kept: Option<&[u8]>) -> Result<(), Errno> {
    let mut directories = VecDeque::new();
    let mut serial = 0_u64;
    empty(staging, staging, kept, &mut serial, &mut directories)?;
    while let Some(name) = directories.pop_front() {
        let fd = beneath::open(staging, &name, OpenFor::Path)?;
        // An own directory without permissions is ours all the same.
        let _ = beneath::set_perm(fd.as_fd(), 0o700);
        empty(staging, fd.as_fd(), None, &mut serial, &mut directories)?;
        beneath::remove_directory(staging, &name)?;
    }
    Ok(())
}

fn empty(
    staging: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    kept: Option<&[u8]>,
    serial: &mut u64,
    directories: &mut VecDeque<Vec<u8>>,
) -> Result<(), Errno> {
    let mut names = Vec::new();
    let listing = beneath::open_listing(dir)?;
    beneath::list(listing.as_fd(), |entry| names.push(entry.name.to_vec()))?;
    for name in names.into_iter().filter(|name| kept != Some(name.as_slice())) {
        match beneath::remove(dir, &name) {
            Ok(()) => {}
            Err(Errno::EISDIR) => directories.push_back(lift(staging, dir, &name, serial)?),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Moves the directory `name` of `dir` to a fresh name in `staging`.
fn lift(
    staging: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    name: &[u8],
    serial: &mut u64,
) -> Result<Vec<u8>, Errno> {
    // Moving a directory to another parent rewrites its `..`, which needs write permission on it.
    if let Ok(fd) = beneath::open(dir, name, OpenFor::Path) {
        let _ = beneath::set_perm(fd.as_fd(), 0o700);
    }
    loop {
        *serial += 1;
        let lifted = format!("#s{serial:x}").into_bytes();
        match beneath::rename((dir, name), (staging, &lifted), beneath::RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(lifted),
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
}
