//! Section headers and the section index.
//!
//! Since format 2.2 each section begins with 64 bytes, integers little endian:
//!
//! ```text
//! 0x00  6  magic "DWARFS"            0x30  4  number of the section, from 0
//! 0x06  1  major version (2)         0x34  2  kind
//! 0x07  1  minor version             0x36  2  compression
//! 0x08 32  SHA-512/256 of 0x28..end  0x38  8  length of the payload that follows
//! 0x28  8  XXH3-64 of 0x30..end
//! ```
//!
//! Both checksums cover the payload as it is stored (compressed). Formats 2.0 and 2.1 have one 8-byte file header
//! instead, and 8 bytes before each section: u16 kind, u8 compression, one unused byte, u32 length.
//!
//! The section index is the payload of the last section: for each section, itself included, `kind << 48 | offset`,
//! with the offset counted from the first section. Its last entry therefore is where a reader finds the index.

use std::fmt;

use sha2::{Digest as _, Sha512_256};
use xxhash_rust::xxh3::Xxh3Default;

use super::bytes::{array_at, u16_at, u32_at, u64_at};
use crate::dwarfs::{Error, limits};

/// The first bytes of every section.
pub const MAGIC: [u8; 6] = *b"DWARFS";
/// The major version of the format.
pub const MAJOR: u8 = 2;
/// The minor version that is written: everything in it is understood by upstream 0.7.0 and later.
pub const WRITTEN_MINOR: u8 = 5;
/// First minor version whose sections have 64-byte headers with checksums.
pub const FIRST_MINOR_WITH_CHECKSUMS: u8 = 2;
/// First minor version that may end in a section index.
pub const FIRST_MINOR_WITH_INDEX: u8 = 4;
/// Length of a section header in bytes.
pub const HEADER_LEN: usize = 64;
/// Length of the file header of formats 2.0 and 2.1, and of their section headers.
pub const OLD_HEADER_LEN: usize = 8;

const SHA_AT: usize = 0x08;
const XXH3_AT: usize = 0x28;
const NUMBER_AT: usize = 0x30;
const KIND_AT: usize = 0x34;
const COMPRESSION_AT: usize = 0x36;
const LEN_AT: usize = 0x38;

const _: () = assert!(LEN_AT + size_of::<u64>() == HEADER_LEN && SHA_AT + 32 == XXH3_AT);

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SectionKind {
    /// File data.
    Block,
    /// The layout of the metadata.
    Schema,
    /// The metadata.
    Metadata,
    /// Where the sections are.
    Index,
    /// Who made the archive, and how.
    History,
    /// Something of another release, to be skipped.
    Unknown(u16),
}

impl SectionKind {
    /// The kind that a header's number names.
    #[must_use]
    pub const fn from_raw(raw: u16) -> Self {
        match raw {
            0 => Self::Block,
            7 => Self::Schema,
            8 => Self::Metadata,
            9 => Self::Index,
            10 => Self::History,
            other => Self::Unknown(other),
        }
    }

    /// The number for the header.
    #[must_use]
    pub const fn raw(self) -> u16 {
        match self {
            Self::Block => 0,
            Self::Schema => 7,
            Self::Metadata => 8,
            Self::Index => 9,
            Self::History => 10,
            Self::Unknown(other) => other,
        }
    }
}

/// How a section's payload is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// As it is.
    None,
    /// One `.xz` stream, perhaps several.
    Lzma,
    /// One zstd frame.
    Zstd,
    /// u32 length and one lz4 block.
    Lz4,
    /// The same; upstream writes the number of plain lz4 instead.
    Lz4Hc,
    /// Varint length and a brotli stream.
    Brotli,
    /// Varint length, a thrift header and a FLAC stream.
    Flac,
    /// Varint length, a thrift header and Rice codes.
    Ricepp,
    /// Something of another release.
    Unknown(u16),
}

impl Compression {
    /// The compression that a header's number names.
    #[must_use]
    pub const fn from_raw(raw: u16) -> Self {
        match raw {
            0 => Self::None,
            1 => Self::Lzma,
            2 => Self::Zstd,
            3 => Self::Lz4,
            4 => Self::Lz4Hc,
            5 => Self::Brotli,
            6 => Self::Flac,
            7 => Self::Ricepp,
            other => Self::Unknown(other),
        }
    }

    /// The number for the header.
    #[must_use]
    pub const fn raw(self) -> u16 {
        match self {
            Self::None => 0,
            Self::Lzma => 1,
            Self::Zstd => 2,
            Self::Lz4 => 3,
            Self::Lz4Hc => 4,
            Self::Brotli => 5,
            Self::Flac => 6,
            Self::Ricepp => 7,
            Self::Unknown(other) => other,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Lzma => f.write_str("lzma"),
            Self::Zstd => f.write_str("zstd"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Lz4Hc => f.write_str("lz4hc"),
            Self::Brotli => f.write_str("brotli"),
            Self::Flac => f.write_str("flac"),
            Self::Ricepp => f.write_str("ricepp"),
            Self::Unknown(raw) => write!(f, "codec {raw}"),
        }
    }
}

/// The header of a section of format 2.2 and later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionHeader {
    /// Minor version of the format.
    pub minor: u8,
    /// SHA-512/256 of everything behind this field.
    pub sha512_256: [u8; 32],
    /// XXH3-64 of everything behind this field.
    pub xxh3: u64,
    /// The section's place, from 0.
    pub number: u32,
    /// What it holds.
    pub kind: SectionKind,
    /// How its payload is stored.
    pub compression: Compression,
    /// Length of the payload in bytes.
    pub len: u64,
}

impl SectionHeader {
    /// Makes the header of a section with this payload.
    #[must_use]
    pub fn seal(number: u32, kind: SectionKind, compression: Compression, payload: &[u8]) -> Self {
        let mut header = Self {
            minor: WRITTEN_MINOR,
            sha512_256: [0; 32],
            xxh3: 0,
            number,
            kind,
            compression,
            len: payload.len() as u64,
        };
        header.xxh3 = header.hash_xxh3(payload);
        let mut sha = header.sha_hasher();
        sha.update(payload);
        header.sha512_256 = sha.finalize().into();
        header
    }

    /// Reads a header; `offset` is where it is, for errors.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] where the magic or the major version is another, [`Error::Version`] for a minor version
    /// without such headers or one of the future.
    pub fn parse(bytes: &[u8; HEADER_LEN], offset: u64) -> Result<Self, Error> {
        let (major, minor) = parse_version(bytes, offset)?;
        if minor < FIRST_MINOR_WITH_CHECKSUMS {
            return Err(Error::Version { offset, major, minor });
        }
        let malformed = || Error::Malformed { what: "section header", at: 0 };
        Ok(Self {
            minor,
            sha512_256: array_at(bytes, SHA_AT).ok_or_else(malformed)?,
            xxh3: u64_at(bytes, XXH3_AT).ok_or_else(malformed)?,
            number: u32_at(bytes, NUMBER_AT).ok_or_else(malformed)?,
            kind: SectionKind::from_raw(u16_at(bytes, KIND_AT).ok_or_else(malformed)?),
            compression: Compression::from_raw(u16_at(bytes, COMPRESSION_AT).ok_or_else(malformed)?),
            len: u64_at(bytes, LEN_AT).ok_or_else(malformed)?,
        })
    }

    /// The header as it is written.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let parts: [&[u8]; 5] =
            [&MAGIC, &[MAJOR, self.minor], &self.sha512_256, &self.xxh3.to_le_bytes(), &self.tail()];
        for (to, from) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }

    /// XXH3-64 that the header has to carry for this payload.
    #[must_use]
    pub fn hash_xxh3(&self, payload: &[u8]) -> u64 {
        let mut hasher = self.xxh3_hasher();
        hasher.update(payload);
        hasher.digest()
    }

    /// An XXH3 hasher that has seen the header and waits for the payload.
    #[must_use]
    pub fn xxh3_hasher(&self) -> Xxh3Default {
        let mut hasher = Xxh3Default::new();
        hasher.update(&self.tail());
        hasher
    }

    /// An SHA-512/256 hasher that has seen the header and waits for the payload.
    #[must_use]
    pub fn sha_hasher(&self) -> Sha512_256 {
        let mut hasher = Sha512_256::new();
        hasher.update(self.xxh3.to_le_bytes());
        hasher.update(self.tail());
        hasher
    }

    /// The part that both checksums cover: number, kind, compression, length.
    fn tail(&self) -> [u8; HEADER_LEN - NUMBER_AT] {
        let mut bytes = [0; HEADER_LEN - NUMBER_AT];
        let parts: [&[u8]; 4] = [
            &self.number.to_le_bytes(),
            &self.kind.raw().to_le_bytes(),
            &self.compression.raw().to_le_bytes(),
            &self.len.to_le_bytes(),
        ];
        for (to, from) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }
}

/// The header of a section of formats 2.0 and 2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldSectionHeader {
    /// What it holds.
    pub kind: SectionKind,
    /// How its payload is stored.
    pub compression: Compression,
    /// Length of the payload in bytes.
    pub len: u32,
}

impl OldSectionHeader {
    /// Reads a header. Kinds and codecs that are not known are errors here: nothing was ever added to this format.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] for an unknown kind or codec.
    pub fn parse(bytes: &[u8; OLD_HEADER_LEN]) -> Result<Self, Error> {
        let [kind_low, kind_high, compression, _unused, length @ ..] = *bytes;
        let kind = SectionKind::from_raw(u16::from_le_bytes([kind_low, kind_high]));
        let compression = Compression::from_raw(u16::from(compression));
        if matches!(kind, SectionKind::Unknown(_)) {
            return Err(Error::Malformed { what: "section header (kind)", at: 0 });
        }
        if matches!(compression, Compression::Unknown(_)) {
            return Err(Error::Malformed { what: "section header (compression)", at: 2 });
        }
        Ok(Self { kind, compression, len: u32::from_le_bytes(length) })
    }
}

/// Reads magic and version from the first eight bytes of a section or file header.
///
/// # Errors
///
/// [`Error::NotFound`] where the magic is another, [`Error::Version`] for a version of the future.
pub fn parse_version(bytes: &[u8], offset: u64) -> Result<(u8, u8), Error> {
    let [magic @ .., major, minor] = array_at::<8>(bytes, 0).ok_or(Error::NotFound { offset })?;
    if magic != MAGIC {
        return Err(Error::NotFound { offset });
    }
    if major != MAJOR || minor > limits::MAX_MINOR {
        return Err(Error::Version { offset, major, minor });
    }
    Ok((major, minor))
}

/// One entry of the section index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// What the section holds.
    pub kind: SectionKind,
    /// Where its header is, counted from the first section.
    pub offset: u64,
}

/// Bits of an index entry that hold the offset; the kind lies above them.
const INDEX_OFFSET_BITS: u32 = 48;

impl IndexEntry {
    /// Reads an entry.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        let [.., low, high] = raw.to_le_bytes();
        Self {
            kind: SectionKind::from_raw(u16::from_le_bytes([low, high])),
            offset: raw & ((1 << INDEX_OFFSET_BITS) - 1),
        }
    }

    /// The entry as it is written. Bits of the offset above the 48th are lost.
    #[must_use]
    pub const fn raw(self) -> u64 {
        (self.kind.raw() as u64) << INDEX_OFFSET_BITS | self.offset & ((1 << INDEX_OFFSET_BITS) - 1)
    }
}

/// The payload of the section index: one entry for each section, its own as the last one.
#[must_use]
pub fn encode_index(entries: &[IndexEntry]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.raw().to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_header_reads_back_and_matches_its_payload() {
        let header = SectionHeader::seal(7, SectionKind::Metadata, Compression::Zstd, b"payload");
        let bytes = header.encode();
        assert_eq!(SectionHeader::parse(&bytes, 0).unwrap(), header);
        assert_eq!(header.hash_xxh3(b"payload"), header.xxh3);
        assert_ne!(header.hash_xxh3(b"paYload"), header.xxh3);
        let mut stored = bytes[NUMBER_AT..].to_vec();
        stored.extend_from_slice(b"payload");
        assert_eq!(xxhash_rust::xxh3::xxh3_64(&stored), header.xxh3);
    }

    #[test]
    fn foreign_and_future_headers_are_refused() {
        let good = SectionHeader::seal(0, SectionKind::Block, Compression::None, b"").encode();
        let with = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            SectionHeader::parse(&bytes, 64)
        };
        assert!(matches!(with(0, b'd'), Err(Error::NotFound { offset: 64 })));
        assert!(matches!(with(6, 3), Err(Error::Version { major: 3, .. })));
        assert!(matches!(with(7, 7), Err(Error::Version { minor: 7, .. })));
        assert!(matches!(with(7, 1), Err(Error::Version { minor: 1, .. })));
        assert!(with(7, 6).is_ok());
    }

    #[test]
    fn numbers_of_kinds_and_codecs_read_back() {
        for raw in 0..32 {
            assert_eq!(SectionKind::from_raw(raw).raw(), raw);
            assert_eq!(Compression::from_raw(raw).raw(), raw);
        }
    }

    #[test]
    fn index_entries_read_back() {
        let entry = IndexEntry { kind: SectionKind::Index, offset: (1 << 48) - 1 };
        assert_eq!(IndexEntry::from_raw(entry.raw()), entry);
        assert_eq!(encode_index(&[entry])[6..], [9, 0]);
    }

    #[test]
    fn old_headers_refuse_what_was_never_written() {
        let parsed = OldSectionHeader::parse(&[8, 0, 2, 0, 1, 1, 0, 0]).unwrap();
        assert_eq!(parsed.kind, SectionKind::Metadata);
        assert_eq!(parsed.compression, Compression::Zstd);
        assert_eq!(parsed.len, 257);
        assert!(OldSectionHeader::parse(&[77, 0, 2, 0, 0, 0, 0, 0]).is_err());
        assert!(OldSectionHeader::parse(&[8, 0, 99, 0, 0, 0, 0, 0]).is_err());
    }
}
