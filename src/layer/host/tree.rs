//! The table of a host tree's live nodes.

use std::os::fd::{AsFd as _, OwnedFd};

use super::{
    ACL, host,
    node::{HostNode, Key, Place},
    open::key_of,
    owners,
    pool::FdPool,
};
use crate::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    sys::{
        beneath::{self, Statx},
        xattr,
    },
    vfs::{Attr, Errno, Error, FileKind, Name, NodeId, Result, Shards},
};

/// Live nodes of a host directory.
///
/// Numbers of nodes are never used twice, so that an inode number which the host uses again is a new node. `by_key`
/// makes all names of one object one node.
#[derive(Debug)]
pub(super) struct HostTree {
    pub(super) pool: Arc<FdPool>,
    pub(super) root: Arc<HostNode>,
    by_id: Shards<NodeId, Arc<HostNode>>,
    by_key: Shards<Key, Arc<HostNode>>,
    next_id: AtomicU64,
    /// It is ours to change.
    pub(super) writable: bool,
    /// There is one user only, as far as the calling process knows.
    pub(super) single_user: bool,
    /// Its file system has access control lists.
    pub(super) has_acls: bool,
}

impl HostTree {
    /// Makes the tree of the directory that `fd` names.
    pub(super) fn new(fd: OwnedFd, pool: Arc<FdPool>, writable: bool) -> Result<Self> {
        let has_acls = xattr::is_known(fd.as_fd(), ACL);
        let root = base_node(NodeId::new(0), fd)?;
        let tree = Self {
            pool,
            root: Arc::clone(&root),
            by_id: Shards::default(),
            by_key: Shards::default(),
            next_id: AtomicU64::new(1),
            writable,
            single_user: owners::are_recorded(),
            has_acls,
        };
        tree.insert(&root);
        Ok(tree)
    }

    /// Adds a directory beside the root that is part of the tree without being shown in it.
    pub(super) fn add_base(&self, fd: OwnedFd) -> Result<Arc<HostNode>> {
        let node = base_node(self.new_id(), fd)?;
        self.insert(&node);
        Ok(node)
    }

    /// Number of live nodes.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The node of `id`.
    pub(super) fn node(&self, id: NodeId) -> Result<Arc<HostNode>> {
        self.by_id.get(&id).ok_or(Error::new(Errno::ESTALE, "find a node of a host directory"))
    }

    /// Finds `name` in `dir` and counts a reference.
    pub(super) fn lookup(&self, dir: &Arc<HostNode>, name: Name<'_>) -> Result<Option<(NodeId, Attr)>> {
        let dir_fd = self.directory(dir)?;
        match self.lend(&[dir], || beneath::stat(dir_fd.as_fd(), name.as_bytes())) {
            Ok(stat) => Ok(Some(self.adopt(dir, name, &stat)?)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(host("look a name up")(errno)),
        }
    }

    /// The node of what `stat` was seen as `name` in `dir`, with one more reference.
    pub(super) fn adopt(&self, dir: &Arc<HostNode>, name: Name<'_>, stat: &Statx) -> Result<(NodeId, Attr)> {
        let attr = self.attr_of(stat)?;
        Ok((self.adopt_node(dir, name, key_of(stat), attr.kind).id, attr))
    }

    fn adopt_node(&self, dir: &Arc<HostNode>, name: Name<'_>, key: Key, kind: FileKind) -> Arc<HostNode> {
        let found = self.by_key.with(&key, |map| {
            map.get(&key).filter(|node| node.kind == kind && node.refs.try_retain()).cloned()
        });
        if let Some(node) = found {
            self.find_again(&node, dir, name);
            return node;
        }
        let place = Place::At { parent: Arc::clone(dir), name: name.as_bytes().into() };
        // The parent is in use by the caller, so it is alive.
        let _ = dir.refs.try_retain();
        let node = Arc::new(HostNode::new(self.new_id(), key, kind, place));
        // Whoever finds it by its key uses its number at once.
        self.by_id.with(&node.id, |map| map.insert(node.id, Arc::clone(&node)));
        let raced = self.by_key.with(&key, |map| {
            let raced = map.get(&key).filter(|node| node.kind == kind && node.refs.try_retain()).cloned();
            if raced.is_none() {
                map.insert(key, Arc::clone(&node));
            }
            raced
        });
        if let Some(raced) = raced {
            self.release(&node, 1);
            return raced;
        }
        node
    }

    /// Gives a node that had lost its name the one under which it was just seen.
    fn find_again(&self, node: &Arc<HostNode>, dir: &Arc<HostNode>, name: Name<'_>) {
        let mut place = node.place.lock();
        if matches!(*place, Place::Lost) && dir.refs.try_retain() {
            *place = Place::At { parent: Arc::clone(dir), name: name.as_bytes().into() };
            drop(place);
            self.unpin(node);
        }
    }

    /// Counts one more reference.
    pub(super) fn retain(&self, id: NodeId) {
        if let Ok(node) = self.node(id) {
            let _ = node.refs.try_retain();
        }
    }

    /// Gives a reference back.
    pub(super) fn forget(&self, id: NodeId) {
        if let Ok(node) = self.node(id) {
            self.release(&node, 1);
        }
    }

    /// Gives references back; at the last one the node goes, and its reference on its parent with it.
    pub(super) fn release(&self, node: &Arc<HostNode>, count: u64) {
        let mut node = Arc::clone(node);
        let mut count = count;
        while node.refs.release(count) {
            self.remove(&node);
            self.pool.close(node.fds.lock().take_all());
            let place = std::mem::replace(&mut *node.place.lock(), Place::Lost);
            let Place::At { parent, .. } = place else { return };
            (node, count) = (parent, 1);
        }
    }

    /// Takes `node` out of the table of host identities: its inode is about to be free for others.
    pub(super) fn disown(&self, node: &Arc<HostNode>) {
        self.by_key.with(&node.key, |map| {
            if map.get(&node.key).is_some_and(|mine| Arc::ptr_eq(mine, node)) {
                map.remove(&node.key);
            }
        });
    }

    /// Puts a node at a new place, which takes a reference on the parent and gives that on the old one back.
    pub(super) fn place(&self, node: &Arc<HostNode>, place: Place) {
        if let Place::At { parent, .. } = &place {
            let _ = parent.refs.try_retain();
        }
        let old = std::mem::replace(&mut *node.place.lock(), place);
        if let Place::At { parent, .. } = old {
            self.release(&parent, 1);
        }
    }

    fn remove(&self, node: &Arc<HostNode>) {
        self.by_id.with(&node.id, |map| map.remove(&node.id));
        self.disown(node);
    }

    fn insert(&self, node: &Arc<HostNode>) {
        self.by_key.with(&node.key, |map| map.insert(node.key, Arc::clone(node)));
        self.by_id.with(&node.id, |map| map.insert(node.id, Arc::clone(node)));
    }

    fn new_id(&self) -> NodeId {
        NodeId::new(self.next_id.fetch_add(1, Ordering::Relaxed))
    }
}

/// A node that is reached through its descriptor alone.
fn base_node(id: NodeId, fd: OwnedFd) -> Result<Arc<HostNode>> {
    let stat = beneath::stat(fd.as_fd(), b"").map_err(host("read attributes of the directory"))?;
    let node = HostNode::new(id, key_of(&stat), FileKind::Directory, Place::Root);
    {
        let mut fds = node.fds.lock();
        fds.path = Some(Arc::new(fd));
        fds.pinned = true;
    }
    Ok(Arc::new(node))
}
