//! An object that the kernel knows.

use std::fmt;

use smallvec::SmallVec;

use super::{acl::HandsDown, dir_index::DirIndex, fold::Folded, links::Links, stack::is_private_ino};
use crate::{
    sync::{
        Arc, Mutex, OnceLock, RwLock,
        atomic::{AtomicU8, AtomicU64},
    },
    vfs::{Errno, Error, FileKind, Ino, Name, NodeId, RefCount, Result},
};

/// Number of the upper where layers are told apart by number.
const UPPER: u32 = u32::MAX;

/// An object of a layer or of the upper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Object {
    layer: u32,
    node: NodeId,
}

impl Object {
    pub(super) const fn upper(node: NodeId) -> Self {
        Self { layer: UPPER, node }
    }

    pub(super) const fn lower(lower: LowerRef) -> Self {
        Self { layer: lower.layer, node: lower.node }
    }

    /// Number of its layer; `None` for the upper.
    pub(super) fn layer(self) -> Option<u32> {
        (self.layer != UPPER).then_some(self.layer)
    }

    pub(super) const fn node(self) -> NodeId {
        self.node
    }
}

/// An object of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LowerRef {
    pub(super) layer: u32,
    pub(super) node: NodeId,
}

/// The lower objects of a node, the highest first. More than one have only directories, and files of which the higher
/// ones have no data.
#[derive(Clone, Debug, Default)]
pub(super) enum Lowers {
    #[default]
    None,
    One(LowerRef),
    Many(Arc<[LowerRef]>),
}

impl Lowers {
    pub(super) fn as_slice(&self) -> &[LowerRef] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    pub(super) fn top(&self) -> Option<LowerRef> {
        self.as_slice().first().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }
}

/// An object that the kernel, or a node below it, holds.
pub(super) struct Node {
    pub(super) ino: Ino,
    pub(super) generation: u64,
    pub(super) kind: FileKind,
    /// Look-ups that the kernel counts, and links of children to it.
    pub(super) refs: RefCount,
    pub(super) state: Mutex<State>,
    /// Held from the staging of a copy-up to its publishing.
    pub(super) copy_up: Mutex<()>,
    /// What only directories have.
    pub(super) dir: Option<Box<Directory>>,
}

/// What changes about a node.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Where its contents are, once it has been copied up or was made there.
    pub(super) upper: Option<NodeId>,
    /// Where they are or were below.
    pub(super) lowers: Lowers,
    /// Where the data of a file are.
    pub(super) contents: Contents,
    /// The copy is in the index, which has one of its links.
    pub(super) indexed: Option<Links>,
    /// The names by which it has been seen and that it still has.
    pub(super) links: SmallVec<[Link; 1]>,
    /// Names of the lower object that show and that the upper object does not have.
    pub(super) lower_names: u32,
    /// A look-up of the object in the upper gives the number that the node has.
    pub(super) has_origin: bool,
    /// Where what is below is to be found, as the object in the upper says.
    pub(super) redirect: Option<Box<[u8]>>,
    /// It has become part of a layer while it was held: forgotten and found again it has a number of that layer.
    pub(super) rebased: bool,
    /// A removed directory: nothing can be made in it.
    pub(super) removed: bool,
}

/// A name of a node. Holds a reference on the parent, which the table gives back.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) parent: Arc<Node>,
    pub(super) name: Box<[u8]>,
}

/// What only directories have.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Held for reading by look-ups and listings, for writing by changes of entries.
    pub(super) lock: RwLock<()>,
    /// The merged entries, from the first listing on.
    pub(super) index: Mutex<Option<DirIndex>>,
    /// Number of entries that have been copied up. A look-up takes no lock that a copy-up holds when it publishes;
    /// by this it notices that what it saw of the layers may be outdated.
    pub(super) published: AtomicU64,
    /// Whether entries may carry an origin although nothing is below the directory.
    pub(super) impure: AtomicU8,
    /// Whether new entries get an access control list from it.
    pub(super) hands_down: HandsDown,
    /// Whether names in it are folded; nothing where none are in the whole tree.
    pub(super) folded: OnceLock<Folded>,
}

/// Where the data of a file are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Contents {
    /// With its attributes.
    #[default]
    Own,
    /// In a file of a layer, which is among the lowers.
    Below(LowerRef),
    /// Nowhere: the layer that had them is not there.
    Missing,
}

/// Where a node's attributes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Upper(NodeId),
    Lower(LowerRef),
}

impl Node {
    pub(super) fn new(ino: Ino, generation: u64, kind: FileKind, state: State) -> Self {
        let dir = (kind == FileKind::Directory).then(Box::default);
        Self {
            ino,
            generation,
            kind,
            refs: RefCount::new(1),
            state: Mutex::new(state),
            copy_up: Mutex::new(()),
            dir,
        }
    }

    /// Its directory part.
    pub(super) fn directory(&self) -> Result<&Directory> {
        self.dir.as_deref().ok_or(Error::new(Errno::ENOTDIR, "use a directory"))
    }

    pub(super) fn is_dir(&self) -> bool {
        self.dir.is_some()
    }

    pub(super) fn upper(&self) -> Option<NodeId> {
        self.state.lock().upper
    }

    /// What it is made of.
    pub(super) fn parts(&self) -> (Option<NodeId>, Lowers) {
        let state = self.state.lock();
        (state.upper, state.lowers.clone())
    }

    /// Where its attributes are.
    pub(super) fn origin(&self) -> Result<Origin> {
        self.state.lock().origin()
    }

    /// Where its data are.
    pub(super) fn data(&self) -> Result<Origin> {
        let state = self.state.lock();
        match state.contents {
            Contents::Own => state.origin(),
            Contents::Below(lower) => Ok(Origin::Lower(lower)),
            Contents::Missing => Err(Error::new(Errno::EIO, "find the data of a file")),
        }
    }

    /// Its inode number, where the same object will get it again after it has been forgotten.
    pub(super) fn lasting_ino(&self) -> Option<Ino> {
        let state = self.state.lock();
        let lasting = self.is_dir() || state.upper.is_none() || state.lowers.is_empty() || state.has_origin;
        (lasting && !state.rebased && !is_private_ino(self.ino)).then_some(self.ino)
    }

    /// The directory that it is in; itself for the root and for what is removed.
    pub(super) fn parent(self: &Arc<Self>) -> Arc<Self> {
        self.state.lock().links.first().map_or_else(|| Arc::clone(self), |link| Arc::clone(&link.parent))
    }
}

impl State {
    pub(super) fn origin(&self) -> Result<Origin> {
        self.upper
            .map(Origin::Upper)
            .or_else(|| self.lowers.top().map(Origin::Lower))
            .ok_or(Error::new(Errno::ESTALE, "find the contents of a node"))
    }

    /// The position of a name among the links.
    pub(super) fn link_position(&self, parent: &Arc<Node>, name: Name<'_>) -> Option<usize> {
        self.links.iter().position(|link| Arc::ptr_eq(&link.parent, parent) && *link.name == *name.as_bytes())
    }

    /// Takes a name out; the caller gives the reference on its parent back.
    #[must_use]
    pub(super) fn take_link(&mut self, parent: &Arc<Node>, name: Name<'_>) -> Option<Link> {
        self.link_position(parent, name).map(|position| self.links.swap_remove(position))
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({}, {:?})", self.ino.get(), self.kind)
    }
}

impl Drop for Node {
    /// Parents are dropped in a loop: a chain of them may be longer than the stack is deep.
    fn drop(&mut self) {
        let mut links = std::mem::take(&mut self.state.get_mut().links);
        while let Some(link) = links.pop() {
            if let Some(mut parent) = Arc::into_inner(link.parent) {
                links.append(&mut parent.state.get_mut().links);
            }
        }
    }
}
