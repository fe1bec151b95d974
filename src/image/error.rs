//! What can be wrong with an image.

use std::{io, path::PathBuf};

use super::{elf::ElfError, layer_table::TableError, twin::TwinError};
use crate::{config::ConfigError, dwarfs};

/// A failure to read or change an image, with the facts.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file could not be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// Something that is no regular file, and may never end or never begin.
    #[error("cannot use {}: it is not a regular file", path.display())]
    NotAFile {
        /// What it is called.
        path: PathBuf,
    },
    /// The file is no image: its program part.
    #[error("{} is not an image", path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
        /// What was found.
        source: ElfError,
    },
    /// The file is no image: nothing behind its program part.
    #[error("{} is not an image: no settings area at offset {offset:#x}", path.display())]
    NoArea {
        /// The file.
        path: PathBuf,
        /// Where the area would begin.
        offset: u64,
    },
    /// The settings or the layer table cannot be read or written.
    #[error("cannot use the image {}", path.display())]
    Twin {
        /// The image.
        path: PathBuf,
        /// What happened.
        source: TwinError,
    },
    /// The settings are readable, but not settings.
    #[error("cannot use the settings of {}", path.display())]
    Settings {
        /// The image.
        path: PathBuf,
        /// What was found.
        source: ConfigError,
    },
    /// The layer table is readable, but wrong.
    #[error("cannot use the image {}", path.display())]
    Table {
        /// The image.
        path: PathBuf,
        /// What was found.
        source: TableError,
    },
    /// The image's place is read-only, or not ours to write.
    #[error("cannot change {} (copy the image to a place that you can write)", path.display())]
    ReadOnly {
        /// The image.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// A process executes from the image itself.
    #[error("cannot change {}: a program runs from the file itself (end it, then try again)", path.display())]
    Busy {
        /// The image.
        path: PathBuf,
    },
    /// Another process of ours changes the image and does not end.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The image.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// Reading, writing or syncing failed.
    #[error("cannot {action} {} at offset {offset:#x}", path.display())]
    Io {
        /// What was being done: `read`, `write`, `sync`.
        action: &'static str,
        /// The image.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What the host says.
        source: io::Error,
    },
    /// An archive cannot be opened or is damaged.
    #[error("cannot use the archive at offset {offset:#x} of {}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Where the archive begins.
        offset: u64,
        /// What was found.
        source: Box<dwarfs::Error>,
    },
    /// What was copied into the image is not what was verified before.
    #[error("the archive at offset {offset:#x} of {} changed while it was copied", path.display())]
    Changed {
        /// The image.
        path: PathBuf,
        /// Where the archive begins.
        offset: u64,
    },
}
