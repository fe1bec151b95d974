//! Where the settings and the layer table lie: at fixed distances behind the ELF program.
//!
//! The places are generous and, where the file system can, holes: an image with ordinary settings occupies a few
//! blocks of the 6 MiB. They are fixed so that settings can grow without moving an archive.
//!
//! There is no head over the four copies: an image is known by the magic of any of them, so no single damaged block
//! makes it unreadable.

use super::{store::Store, twin::Twin};

/// The settings area begins, and every archive begins, at a multiple of this: pages and blocks can then be shared
/// with another file (reflink) and mapped.
pub const ALIGNMENT: u64 = 4096;
/// Room for one copy of the settings: an icon of 1 MiB in base 64 and everything else, see `config::SETTINGS_LIMIT`.
const SETTINGS_ROOM: u32 = 2 << 20;
/// Room for one copy of the layer table: about 4,000 layers with short messages.
const TABLE_ROOM: u32 = 1 << 20;
/// First bytes of a copy of the settings; the last byte is the version of the area's layout.
const SETTINGS_MAGIC: [u8; 8] = *b"FIMSETT\x01";
/// First bytes of a copy of the layer table.
const TABLE_MAGIC: [u8; 8] = *b"FIMTABL\x01";

const _: () = assert!(crate::config::SETTINGS_LIMIT + 64 <= SETTINGS_ROOM as usize);

/// The settings area of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    start: u64,
}

impl Reserved {
    /// The area that follows an ELF program of `elf_end` bytes.
    #[must_use]
    pub fn behind(elf_end: u64) -> Self {
        Self { start: align_up(elf_end) }
    }

    /// Where the area begins.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Where the area ends and archives may begin.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.table().end()
    }

    /// The two copies of the settings.
    #[must_use]
    pub fn settings(&self) -> Twin {
        Twin { what: "settings", magic: SETTINGS_MAGIC, offset: self.start, room: SETTINGS_ROOM }
    }

    /// The two copies of the layer table.
    #[must_use]
    pub fn table(&self) -> Twin {
        Twin { what: "layer table", magic: TABLE_MAGIC, offset: self.settings().end(), room: TABLE_ROOM }
    }

    /// Whether the area is there.
    #[must_use]
    pub fn is_present(&self, store: &impl Store) -> bool {
        self.settings().is_present(store) || self.table().is_present(store)
    }
}

/// Rounds up to [`ALIGNMENT`]; the largest multiple where there is no larger one.
#[must_use]
pub fn align_up(offset: u64) -> u64 {
    offset.checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX - (ALIGNMENT - 1))
}
