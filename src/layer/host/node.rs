//! One live object of a host tree.

use std::{fmt, os::fd::OwnedFd};

use crate::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    vfs::{FileKind, NodeId, RefCount},
};

/// What tells objects of the host apart: device and inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
}

/// A live object. Its place and its descriptors have a lock each; neither is held during a system call on another node.
pub(super) struct HostNode {
    pub(super) id: NodeId,
    pub(super) key: Key,
    pub(super) kind: FileKind,
    /// References of users of the tree and of nodes whose place names this one as parent.
    pub(super) refs: RefCount,
    pub(super) place: Mutex<Place>,
    pub(super) fds: Mutex<Fds>,
    /// A listing that somebody is in the middle of.
    pub(super) listing: Mutex<Option<Arc<Listing>>>,
    used: AtomicBool,
    /// Where the node stands between its first write and the closing of the descriptor for it.
    pub(super) writing: AtomicU8,
}

/// The node has no descriptor for writing, or one that nobody counts.
pub(super) const NOT_WRITING: u8 = 0;
/// Not written to since the last round of closing.
pub(super) const IDLE: u8 = 1;
/// Written to since the last round of closing.
pub(super) const WRITTEN: u8 = 2;

/// Where a node is found when it has no descriptor.
#[derive(Clone)]
pub(super) enum Place {
    /// It is the root of the tree or the work directory: its descriptor is never closed.
    Root,
    /// A name in a parent, on which it holds a reference.
    At { parent: Arc<HostNode>, name: Box<[u8]> },
    /// Nowhere: its known name is gone. Its descriptors are pinned.
    Lost,
}

/// The descriptors of a node. Users clone the `Arc`, so that taking one out here never cuts a running call.
#[derive(Debug, Default)]
pub(super) struct Fds {
    pub(super) path: Option<Arc<OwnedFd>>,
    pub(super) read: Option<Arc<OwnedFd>>,
    pub(super) write: Option<Arc<OwnedFd>>,
    /// The node cannot be opened again by name.
    pub(super) pinned: bool,
    /// The pool has it in its queue.
    pub(super) queued: bool,
}

/// Entries of a directory in the order of the host.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) entries: Vec<(Box<[u8]>, FileKind)>,
}

impl HostNode {
    pub(super) fn new(id: NodeId, key: Key, kind: FileKind, place: Place) -> Self {
        Self {
            id,
            key,
            kind,
            refs: RefCount::new(1),
            place: Mutex::new(place),
            fds: Mutex::new(Fds::default()),
            listing: Mutex::new(None),
            used: AtomicBool::new(true),
            writing: AtomicU8::new(NOT_WRITING),
        }
    }

    /// Notes that a descriptor is in use, so that the pool closes others first.
    pub(super) fn touch(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Whether it was touched since the last call.
    pub(super) fn take_touched(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}

impl Place {
    /// Whether both name the same entry.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Root, Self::Root) | (Self::Lost, Self::Lost) => true,
            (Self::At { parent: a, name: x }, Self::At { parent: b, name: y }) => Arc::ptr_eq(a, b) && x == y,
            _ => false,
        }
    }

    /// Whether it is `name` in `parent`.
    pub(super) fn is(&self, parent: &Arc<HostNode>, name: &[u8]) -> bool {
        matches!(self, Self::At { parent: mine, name: called } if Arc::ptr_eq(mine, parent) && **called == *name)
    }
}

impl Fds {
    /// Any descriptor at all: enough for attributes.
    pub(super) fn any(&self) -> Option<Arc<OwnedFd>> {
        self.path.as_ref().or(self.write.as_ref()).or(self.read.as_ref()).cloned()
    }

    /// Takes all of them out.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Arc<OwnedFd>> + use<> {
        [self.path.take(), self.read.take(), self.write.take()].into_iter().flatten()
    }
}

impl fmt::Debug for HostNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostNode({:?}, {:?}, {:?})", self.id, self.key, self.kind)
    }
}

impl Drop for HostNode {
    /// Parents are dropped in a loop: a chain of them may be longer than the stack is deep.
    fn drop(&mut self) {
        let mut next = std::mem::replace(self.place.get_mut(), Place::Lost);
        while let Place::At { parent, .. } = next {
            let Some(mut parent) = Arc::into_inner(parent) else { break };
            next = std::mem::replace(parent.place.get_mut(), Place::Lost);
        }
    }
}
