//! The single executable file: an ELF program, the settings area, and archives.
//!
//! ```text
//! 0            ELF end, rounded up to 4 KiB                                     each rounded up to 4 KiB
//! | ELF program | settings A | settings B | table A | table B | archive | archive | ... | torn rest |
//!   the engine    2 MiB        2 MiB        1 MiB     1 MiB     tools     base      layers
//! ```
//!
//! - [`elf`]: where the program ends, computed from its headers.
//! - [`twin`]: two checksummed copies of a value; a change writes the older one.
//! - [`reserved`]: where the copies lie.
//! - [`LayerTable`]: where the archives lie.
//! - [`ImageFile`]: an image opened for reading; [`ImageEdit`]: one that is being changed.
//! - [`runtime_copy`]: the program, taken out of the image so that nobody executes from the image itself.
//!
//! Nothing in front of the archives' end is ever moved, and the only bytes that are written twice are the copies: a
//! crash at any moment leaves the old or the new settings, the old or the new table, never a mixture.

pub mod digest;
mod edit;
pub mod elf;
mod error;
mod image_file;
mod layer_table;
pub mod reserved;
pub mod runtime_copy;
pub mod store;
pub mod twin;
mod verify;

pub use edit::{ImageEdit, NewArchive, Published, append, publish};
pub use error::ImageError;
pub use image_file::{ImageFile, open_regular};
pub use layer_table::{ArchiveKind, LayerEntry, LayerTable, TableError};
pub use verify::{Depth, Verified, verify_archive};

#[cfg(test)]
mod tests;
