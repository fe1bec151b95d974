//! How large anything may be that an archive claims, and why.
//!
//! Archives are untrusted. Whatever is read from one is checked against these before memory is asked for; beyond
//! them, nothing is allocated that is much larger than the bytes which justify it.

use super::format::section::SectionKind;

/// Newest minor version of format 2 that is read. Upstream accepts 2.6 and announces that it differs from 2.5 only
/// in its number.
pub const MAX_MINOR: u8 = 6;

/// Sections of one archive. 2^24 blocks of the smallest size (1 KiB) are 16 GiB, of the usual one 256 TiB; the
/// offsets of so many take 128 MiB.
pub const MAX_SECTIONS: u64 = 1 << 24;

/// Uncompressed length of one file-data block: upstream's writer goes up to 2^30.
pub const MAX_BLOCK_LEN: u64 = 1 << 30;

/// Places of a file that look like the start of an archive and are none, before the search gives up: each costs two
/// reads. Programs that know the format have a handful of them.
pub const MAX_CANDIDATES: u64 = 1 << 16;

/// What a codec may add to what it cannot compress: frames and headers. Writers store such sections as they are.
const STORED_SLACK: u64 = 1 << 20;

/// Stored length of a section that is read as a whole. The bytes are there when memory is asked for, but a file with
/// holes has as many of them as it likes.
#[must_use]
pub const fn max_stored(kind: SectionKind) -> u64 {
    STORED_SLACK
        + match kind {
            SectionKind::Block => MAX_BLOCK_LEN,
            SectionKind::Schema => MAX_SCHEMA_LEN,
            SectionKind::Metadata => MAX_METADATA_LEN,
            SectionKind::Index => MAX_SECTIONS * size_of::<u64>() as u64,
            SectionKind::History => MAX_HISTORY_LEN,
            SectionKind::Unknown(_) => 0,
        }
}

/// Uncompressed length of the schema: a full one takes under 4 KiB.
pub const MAX_SCHEMA_LEN: u64 = 1 << 20;

/// Uncompressed length of the metadata. A tree of ten million files takes about 400 MiB.
pub const MAX_METADATA_LEN: u64 = 1 << 31;

/// Uncompressed length of metadata that a stored length justifies. Names and bit-packed numbers shrink by a factor of
/// two to thirty; a thousand and a floor leave room for odd trees, and let no few KiB become gigabytes.
#[must_use]
pub const fn max_metadata(stored: u64) -> u64 {
    const FLOOR: u64 = 64 << 20;
    const RATIO: u64 = 1_024;
    let justified = stored.saturating_mul(RATIO);
    let justified = if justified > FLOOR { justified } else { FLOOR };
    if justified < MAX_METADATA_LEN { justified } else { MAX_METADATA_LEN }
}

/// Uncompressed length of all history: an entry takes under 4 KiB, each rewrite adds one.
pub const MAX_HISTORY_LEN: u64 = 1 << 22;

/// Length of a list in a history: in memory an empty entry takes 200 times the byte that it takes there.
pub const MAX_HISTORY_ITEMS: u32 = 1 << 16;

/// History sections that are read: rewriting adds one, or an entry to the one there is.
pub const MAX_HISTORIES: usize = 64;

/// Layouts of a schema: a full one has about 60.
pub const MAX_LAYOUTS: u32 = 4_096;

/// Fields of one layout: the largest one known has 36.
pub const MAX_FIELDS: u32 = 1_024;

/// Nesting of a thrift value: history nests 4 deep.
pub const MAX_THRIFT_DEPTH: u32 = 16;

/// Length of the side car that carries extended attributes: a million objects with 64 bytes each.
pub const MAX_SIDECAR_LEN: u64 = 1 << 26;

/// Objects and attributes in a side car, together: in memory each takes some hundred bytes, whatever it takes there.
pub const MAX_SIDECAR_ITEMS: usize = 1 << 20;

/// Longest name of an entry in bytes (`NAME_MAX`).
pub const MAX_NAME_LEN: usize = 255;

/// Longest target of a symlink in bytes (`PATH_MAX` without its NUL).
pub const MAX_TARGET_LEN: usize = 4_095;

/// Longest path of an object in bytes: far longer than one that can be opened (`PATH_MAX`), short enough to bound a
/// circle of parents.
pub const MAX_PATH_LEN: usize = 1 << 20;

/// Feature strings of an archive: upstream knows one.
pub const MAX_FEATURES: u64 = 1_024;
