//! The contracts between the file-system storeys: identities, attributes, errors and three roles.
//!
//! - [`Layer`]: a read-only tree (an archive, a host directory). Names its objects by [`NodeId`].
//! - [`Upper`]: the one writable tree on top.
//! - [`FileSystem`]: what the FUSE front serves. Names its objects by [`Ino`].
//!
//! All three are called from any thread with `&self`. Everything goes by node: there is no open handle, and no path.

mod attr;
mod error;
mod file_system;
mod ids;
mod layer;
mod name;
mod refs;
mod shards;
mod upper;

pub use attr::{Attr, DeviceId, FileKind, FsStat, SetAttr, SetTime, Time};
pub use error::{Error, Result};
pub use file_system::{
    Caller, DirPlusSink, DirSink, Entry, FallocateMode, FileSystem, Full, Invalidate, Lookup, NoInvalidate,
    RenameFlags, SeekWhence, XattrFlags,
};
pub use ids::{Ino, NodeId};
pub use layer::{Layer, LayerEntry};
pub use name::{Name, NameError};
pub use refs::RefCount;
pub use shards::Shards;
pub use upper::{Feature, NewKind, NewObject, OwnerChange, RenameMode, Spot, Upper};

pub use crate::sys::errno::Errno;
