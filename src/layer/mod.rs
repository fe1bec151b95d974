//! What can be a layer.

mod archive;

pub use archive::ArchiveLayer;
