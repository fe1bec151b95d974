//! How large anything may be that an archive claims, and why.
//!
//! Archives are untrusted. Whatever is read from one is checked against these before memory is asked for; beyond
//! them, nothing is allocated that is much larger than the bytes which justify it.

/// Newest minor version of format 2 that is read. Upstream accepts 2.6 and announces that it differs from 2.5 only
/// in its number.
pub const MAX_MINOR: u8 = 6;

/// Sections of one archive. 2^24 blocks of the smallest size (1 KiB) are 16 GiB, of the usual one 256 TiB; the
/// offsets of so many take 128 MiB.
pub const MAX_SECTIONS: u64 = 1 << 24;

/// Uncompressed length of one file-data block: upstream's writer goes up to 2^30.
pub const MAX_BLOCK_LEN: u64 = 1 << 30;

/// Uncompressed length of the schema: a full one takes under 4 KiB.
pub const MAX_SCHEMA_LEN: u64 = 1 << 20;

/// Uncompressed length of the metadata. A tree of ten million files takes about 400 MiB.
pub const MAX_METADATA_LEN: u64 = 1 << 31;

/// Uncompressed length of a history section: an entry takes under 4 KiB, each rewrite adds one.
pub const MAX_HISTORY_LEN: u64 = 1 << 24;

/// Layouts of a schema: a full one has about 60.
pub const MAX_LAYOUTS: u32 = 4_096;

/// Fields of one layout: the largest one known has 36.
pub const MAX_FIELDS: u32 = 1_024;

/// Nesting of a thrift value: history nests 4 deep.
pub const MAX_THRIFT_DEPTH: u32 = 16;

/// Length of the side car that carries extended attributes: a million objects with 64 bytes each.
pub const MAX_SIDECAR_LEN: u64 = 1 << 26;

/// Longest name of an entry in bytes (`NAME_MAX`).
pub const MAX_NAME_LEN: usize = 255;

/// Longest target of a symlink in bytes (`PATH_MAX` without its NUL).
pub const MAX_TARGET_LEN: usize = 4_095;

/// Longest path of an object in bytes: far longer than one that can be opened (`PATH_MAX`), short enough to bound a
/// circle of parents.
pub const MAX_PATH_LEN: usize = 1 << 20;

/// Feature strings of an archive: upstream knows one.
pub const MAX_FEATURES: u64 = 1_024;
