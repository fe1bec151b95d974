//! The merged, writable view over layers.
//!
//! Any number of read-only layers and at most one upper look like one tree, as Linux overlayfs merges them: the highest
//! layer wins, directories of one name merge, a whiteout deletes the name below it, an opaque directory hides what is
//! below. The first change of a lower object copies it up.
//!
//! ```text
//!   stack.rs      the layers, by number, and the upper
//!   merge.rs      which objects make up a name (pure), marks.rs the attributes that have a meaning for it
//!   node.rs       an object that the kernel knows; table.rs all of them
//!   lookup.rs     from a name to a node
//!   fold.rs       names that differ in spelling alone
//!   dir_index.rs  a merged directory's entries with stable offsets; read_dir.rs lists them
//!   copy_up.rs    from a layer to the upper; links.rs keeps names of one file names of one file
//!   create.rs remove.rs rename.rs link.rs attr.rs data.rs xattr.rs    one file for each family of operations
//!   freeze.rs     standing still for a commit, and going on with the upper as a layer
//!   export.rs    an upper that others understand
//!   flatten.rs    a stack of layers as one layer
//!   file_system.rs    the role that the front calls
//!   layers_view.rs    each layer by itself, a file system of its own
//! ```
//!
//! Locks, taken downwards:
//!
//! ```text
//!   gate         read by what changes something; write while frozen
//!   topology     read by everything; write while the stack changes
//!   renaming     read by what changes entries; write by rename
//!   Node.dir.lock      read by look-ups; write by changes of its entries; parent before child
//!   Node.copy_up       the only one that is held while file data moves
//!   Node.dir.index
//!   Node.state         also held during the one system call that publishes a copy-up or takes a name away
//!   shards of the table
//! ```

mod acl;
mod attr;
mod copy_up;
mod create;
mod data;
mod dir_index;
mod export;
mod file_system;
mod find;
mod flatten;
mod fold;
mod freeze;
mod layers_view;
mod link;
mod links;
mod lookup;
mod marks;
mod merge;
mod node;
mod owner;
mod read_dir;
mod redirect;
mod remove;
mod rename;
mod stack;
mod table;
mod xattr;

use std::{fmt, ops::RangeInclusive};

use crate::{
    sync::{Arc, RwLock, atomic::AtomicU64},
    vfs::{Attr, Errno, Error, Invalidate, Layer, Result, Upper},
};

pub use export::ExportError;
pub use flatten::{Attributes, Below, Flat, FlatDirectory, Flattening, Part};
pub use fold::Folding;
pub use freeze::FreezeGuard;
pub use layers_view::LayersView;
use node::Node;
use stack::Stack;
use table::Table;

/// Choices for an [`Overlay`].
#[derive(Clone, Debug)]
pub struct OverlayOptions {
    /// Do not wait for stable storage, ever: what a crash leaves is undefined.
    pub volatile: bool,
    /// How ids appear that the server's user namespace does not map; `None` where it maps all.
    pub squash: Option<Squash>,
    /// Files of at least this many bytes are copied up without their data where only attributes change.
    pub smallest_without_data: u64,
    /// Where names that differ in spelling alone are one name.
    pub casefold: Option<Folding>,
}

/// Shorter files are copied whole at no noticeable price, and need nothing below them afterwards.
const SMALLEST_WITHOUT_DATA: u64 = 128 << 10;

impl Default for OverlayOptions {
    fn default() -> Self {
        Self { volatile: false, squash: None, smallest_without_data: SMALLEST_WITHOUT_DATA, casefold: None }
    }
}

/// Ids outside the mapped ranges are shown as the owner of the mount: files with an unmapped owner could not be written.
#[derive(Clone, Debug)]
pub struct Squash {
    /// The user id shown instead.
    pub uid: u32,
    /// The group id shown instead.
    pub gid: u32,
    /// User ids that exist in the namespace.
    pub uids: Vec<RangeInclusive<u32>>,
    /// Group ids that exist in the namespace.
    pub gids: Vec<RangeInclusive<u32>>,
}

impl Squash {
    fn uid(&self, uid: u32) -> u32 {
        if self.uids.iter().any(|range| range.contains(&uid)) { uid } else { self.uid }
    }

    fn gid(&self, gid: u32) -> u32 {
        if self.gids.iter().any(|range| range.contains(&gid)) { gid } else { self.gid }
    }
}

/// A stack of layers with an optional upper, as one file system.
pub struct Overlay {
    stack: Stack,
    table: Table,
    root: Arc<Node>,
    options: OverlayOptions,
    invalidate: Arc<dyn Invalidate>,
    gate: RwLock<()>,
    topology: RwLock<()>,
    renaming: RwLock<()>,
    /// Number of changes of the index. A look-up of another name holds no lock that they hold.
    copies: AtomicU64,
}

impl Overlay {
    /// Puts `layers`, the lowest first, and `upper` together; without an upper the result is read-only.
    ///
    /// # Errors
    ///
    /// `EINVAL` where there is nothing to show or too many layers, else what the host said of the roots.
    pub fn new(
        layers: Vec<Arc<dyn Layer>>,
        upper: Option<Arc<dyn Upper>>,
        options: OverlayOptions,
        invalidate: Arc<dyn Invalidate>,
    ) -> Result<Self> {
        if layers.is_empty() && upper.is_none() {
            return Err(Error::new(Errno::EINVAL, "stack no layers"));
        }
        if let Some(upper) = &upper {
            Self::sweep_index(&**upper)?;
        }
        let stack = Stack::new(layers, upper)?;
        let table = Table::default();
        let root = table.insert_root(stack.merge_roots()?);
        if let (Some(folding), Some(dir)) = (&options.casefold, &root.dir) {
            let _ = dir.folded.set(folding.of_root());
        }
        Ok(Self {
            stack,
            table,
            root,
            options,
            invalidate,
            gate: RwLock::new(()),
            topology: RwLock::new(()),
            renaming: RwLock::new(()),
            copies: AtomicU64::new(0),
        })
    }

    /// Number of nodes that the kernel, or a node below them, holds; the root is always one.
    #[must_use]
    pub fn live_nodes(&self) -> usize {
        self.table.len()
    }

    /// Closes descriptors for writing that have been idle since the last call; to be called every few seconds.
    pub fn close_idle(&self) {
        if let Some(upper) = self.stack.upper() {
            upper.close_idle();
        }
    }

    /// The upper, or `EROFS`.
    fn upper(&self) -> Result<&Arc<dyn Upper>> {
        self.stack.upper().ok_or(Error::new(Errno::EROFS, "change a read-only stack"))
    }

    /// `attr` with the ids that programs see.
    fn shown(&self, mut attr: Attr) -> Attr {
        if let Some(squash) = &self.options.squash {
            attr.uid = squash.uid(attr.uid);
            attr.gid = squash.gid(attr.gid);
        }
        attr
    }
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overlay")
            .field("stack", &self.stack)
            .field("live_nodes", &self.live_nodes())
            .finish_non_exhaustive()
    }
}
