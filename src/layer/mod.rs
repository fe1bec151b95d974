//! What can be a layer.
//!
//! - [`ArchiveLayer`]: a DwarFS archive.
//! - [`HostDir`]: a directory of the host, read-only.
//! - [`HostUpper`]: a directory of the host with a work directory, writable.
//! - `Libdwarfs` (feature `libdwarfs`): a DwarFS archive, read by upstream's library.
//! - [`Memory`]: a small tree in memory, for tests.
//! - [`Recorded`]: any of them, whose reads are noted by a [`Recorder`].

mod archive;
mod host;
#[cfg(feature = "libdwarfs")]
mod libdwarfs;
mod memory;
mod record;

pub use archive::ArchiveLayer;
pub use host::{FdPool, HostDir, HostUpper, UpperError};
#[cfg(feature = "libdwarfs")]
pub use libdwarfs::{Libdwarfs, LibdwarfsError};
pub use memory::Memory;
pub use record::{Recorded, Recorder};
