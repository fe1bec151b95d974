//! Directories of the host as trees of nodes.
//!
//! [`HostTree`] is what [`HostDir`] and [`HostUpper`] share: a table of live nodes, and descriptors that are opened
//! when they are needed. No path is ever built: a node knows its parent and its name, and is opened relative to the
//! descriptor of the parent.
//!
//! ```text
//!   tree.rs    the table: look-up, references, who is whose parent
//!   node.rs    one node: its place and its descriptors
//!   open.rs    from a node to a descriptor, and attributes
//!   pool.rs    how many descriptors stay open
//!   layer.rs   the read-only role, for both
//!   upper.rs   the writable role; change.rs its changes, probe.rs what the file system must be able to do
//!   owners.rs  records of owners that the host cannot store
//!   features.rs    notes of what an upper uses that others do not know
//! ```

mod change;
mod dir;
mod features;
mod layer;
mod node;
mod open;
mod owners;
mod pool;
mod probe;
mod tree;
mod upper;

pub use dir::HostDir;
pub use pool::FdPool;
pub use probe::UpperError;
pub use upper::HostUpper;

use crate::vfs::{Errno, Error};

/// The access control list of an object, and the one that a directory hands down.
const ACL: &[u8] = b"system.posix_acl_access";
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Names what was being done when the host said `errno`.
fn host(op: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::new(errno, op)
}
