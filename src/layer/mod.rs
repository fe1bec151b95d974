//! What can be a layer.
//!
//! - [`ArchiveLayer`]: a DwarFS archive.
//! - [`HostDir`]: a directory of the host, read-only.
//! - [`HostUpper`]: a directory of the host with a work directory, writable.
//! - [`Memory`]: a small tree in memory, for tests.
//! - [`Recorded`]: any of them, whose reads are noted by a [`Recorder`].

mod archive;
mod host;
mod memory;
mod record;

pub use archive::ArchiveLayer;
pub use host::{FdPool, HostDir, HostUpper, UpperError};
pub use memory::Memory;
pub use record::{Recorded, Recorder};
