//! Where an ELF file ends: the furthest byte that its headers name.
//!
//! Reads 64-bit little-endian ELF (gABI 4.1). The end is the largest of: the end of the header, of both header tables,
//! and of each segment and section that occupies bytes of the file. Nothing is believed: counts are 16 bits wide, table
//! entries have their one right size, sums are checked, and an end behind the file's end is an error.
//!
//! Image files carry a mark in the unused part of the identification (`e_ident[8..11]` = `F`, `I`, 1), which the kernel
//! ignores and file managers match.

use std::io;

use super::store::Store;

/// The mark of an image file, and where it stands.
pub const MARK: [u8; 3] = [b'F', b'I', 1];
/// Offset of [`MARK`] in the file.
pub const MARK_AT: u64 = 8;

const HEADER_LEN: usize = 64;
const SEGMENT_LEN: usize = 56;
const SECTION_LEN: usize = 64;
/// A section that occupies no bytes of the file.
const SHT_NOBITS: u32 = 8;

/// An ELF file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// The file could not be read.
    #[error("cannot read the ELF headers")]
    Read(#[source] io::Error),
    /// Something else than ELF.
    #[error("not an ELF file")]
    NotElf,
    /// ELF of another kind.
    #[error("not a 64-bit little-endian ELF file")]
    Kind,
    /// A table whose entries have another size than they must.
    #[error("the ELF {table} header table has entries of {found} bytes, expected {expected}")]
    EntrySize {
        /// Which table.
        table: &'static str,
        /// Size as stated.
        found: u16,
        /// Size as it must be.
        expected: usize,
    },
    /// Something lies behind the end of the file.
    #[error("the ELF {what} ends at {end:#x}, behind the end of the file at {length:#x}")]
    Truncated {
        /// What it is.
        what: &'static str,
        /// Where it ends.
        end: u64,
        /// Length of the file.
        length: u64,
    },
}

/// A piece of the file that is mapped or means something to the loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// `p_type`.
    pub kind: u32,
    /// Where it begins in the file.
    pub offset: u64,
    /// Where it is mapped.
    pub address: u64,
    /// Its length in the file.
    pub length: u64,
}

/// What the headers say.
#[derive(Clone, Debug)]
pub struct Elf {
    /// `e_machine`.
    pub machine: u16,
    /// The program header table.
    pub segments: Vec<Segment>,
    /// The end of the ELF file in bytes.
    pub end: u64,
}

/// Reads the headers.
///
/// # Errors
///
/// See [`ElfError`].
pub fn read(store: &impl Store) -> Result<Elf, ElfError> {
    let length = store.length().map_err(ElfError::Read)?;
    let mut header = [0; HEADER_LEN];
    store.read_at(&mut header, 0).map_err(ElfError::Read)?;
    if !header.starts_with(b"\x7fELF") {
        return Err(ElfError::NotElf);
    }
    // EI_CLASS = ELFCLASS64, EI_DATA = ELFDATA2LSB
    if header.get(4..6) != Some(&[2, 1]) {
        return Err(ElfError::Kind);
    }
    let mut end = End { length, end: 0 };
    end.reach("header", 0, HEADER_LEN as u64)?;

    let programs = Table::new("program", &header, 0x20, 0x36, SEGMENT_LEN)?;
    let sections = Table::new("section", &header, 0x28, 0x3a, SECTION_LEN)?;
    let mut segments = Vec::with_capacity(programs.count);
    for entry in programs.read(store, &mut end)?.chunks_exact(SEGMENT_LEN) {
        let segment = Segment {
            kind: u32_at(entry, 0),
            offset: u64_at(entry, 0x08),
            address: u64_at(entry, 0x10),
            length: u64_at(entry, 0x20),
        };
        end.reach("segment", segment.offset, segment.length)?;
        segments.push(segment);
    }
    for entry in sections.read(store, &mut end)?.chunks_exact(SECTION_LEN) {
        if u32_at(entry, 4) != SHT_NOBITS {
            end.reach("section", u64_at(entry, 0x18), u64_at(entry, 0x20))?;
        }
    }
    Ok(Elf { machine: u16_at(&header, 0x12), segments, end: end.end })
}

/// The furthest end so far.
struct End {
    length: u64,
    end: u64,
}

impl End {
    fn reach(&mut self, what: &'static str, offset: u64, length: u64) -> Result<(), ElfError> {
        if length == 0 {
            return Ok(());
        }
        let end = offset.saturating_add(length);
        if end > self.length {
            return Err(ElfError::Truncated { what, end, length: self.length });
        }
        self.end = self.end.max(end);
        Ok(())
    }
}

/// A header table as the ELF header describes it: at most 65,535 entries, so at most 4 MiB.
struct Table {
    name: &'static str,
    offset: u64,
    count: usize,
    entry: usize,
}

impl Table {
    /// `offset_at` and `size_at` say where the header holds the table's offset and its entries' size and number.
    fn new(
        name: &'static str,
        header: &[u8],
        offset_at: usize,
        size_at: usize,
        entry: usize,
    ) -> Result<Self, ElfError> {
        let count = usize::from(u16_at(header, size_at + 2));
        let found = u16_at(header, size_at);
        if count > 0 && usize::from(found) != entry {
            return Err(ElfError::EntrySize { table: name, found, expected: entry });
        }
        Ok(Self { name, offset: u64_at(header, offset_at), count, entry })
    }

    fn read(&self, store: &impl Store, end: &mut End) -> Result<Vec<u8>, ElfError> {
        let len = self.count * self.entry;
        end.reach(self.name, self.offset, len as u64)?;
        let mut bytes = vec![0; len];
        store.read_exact_at(&mut bytes, self.offset).map_err(ElfError::Read)?;
        Ok(bytes)
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
}

/// Reads a little-endian number; 0 where the bytes end before it.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

/// Reads a little-endian number; 0 where the bytes end before it.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

/// Reads a little-endian number; 0 where the bytes end before it.
#[must_use]
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _};

    use super::*;

    /// A file with a header, one segment and two sections of which the second occupies no bytes.
    fn small() -> Vec<u8> {
        let mut bytes = vec![0; 0x1000];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0x20, &64_u64.to_le_bytes());
        put(0x28, &0x800_u64.to_le_bytes());
        put(0x36, &56_u16.to_le_bytes());
        put(0x38, &1_u16.to_le_bytes());
        put(0x3a, &64_u16.to_le_bytes());
        put(0x3c, &2_u16.to_le_bytes());
        put(64 + 0x20, &0x700_u64.to_le_bytes());
        put(0x800 + 0x18, &0x100_u64.to_le_bytes());
        put(0x800 + 0x20, &0x800_u64.to_le_bytes());
        put(0x840 + 4, &SHT_NOBITS.to_le_bytes());
        put(0x840 + 0x18, &0x900_u64.to_le_bytes());
        put(0x840 + 0x20, &u64::MAX.to_le_bytes());
        bytes
    }

    fn end_of(bytes: &[u8]) -> Result<u64, ElfError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        read(&file).map(|elf| elf.end)
    }

    #[test]
    fn the_end_is_the_furthest_byte_named() {
        let mut bytes = small();
        assert_eq!(end_of(&bytes).unwrap(), 0x900);
        bytes[0x800 + 0x20..0x828].copy_from_slice(&8_u64.to_le_bytes());
        assert_eq!(end_of(&bytes).unwrap(), 0x880, "the section table counts");
        bytes[64 + 0x20..64 + 0x28].copy_from_slice(&0xfff_u64.to_le_bytes());
        assert_eq!(end_of(&bytes).unwrap(), 0xfff, "a segment counts");
    }

    #[test]
    fn the_running_program_has_an_end_within_its_file() {
        let file = File::open("/proc/self/exe").unwrap();
        let elf = read(&file).unwrap();
        assert!(elf.end <= file.metadata().unwrap().len() && elf.end > 4096);
        assert!(elf.segments.iter().any(|segment| segment.kind == 1));
    }

    #[test]
    fn hostile_headers_are_errors() {
        assert!(matches!(end_of(b"#!/bin/sh\n"), Err(ElfError::NotElf)));
        assert!(matches!(end_of(b""), Err(ElfError::NotElf)));
        assert!(matches!(end_of(b"\x7fELF\x01\x01"), Err(ElfError::Kind)));
        assert!(matches!(end_of(b"\x7fELF\x02\x01"), Err(ElfError::Truncated { what: "header", .. })));
        for (at, value) in
            [(0x20, u64::MAX), (0x28, u64::MAX - 8), (0x28, 0xfc1), (0x60, u64::MAX), (0x818, 1 << 40)]
        {
            let mut bytes = small();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            assert!(matches!(end_of(&bytes), Err(ElfError::Truncated { .. })), "{at:#x}");
        }
        let mut bytes = small();
        bytes[0x36] = 0;
        assert!(matches!(end_of(&bytes), Err(ElfError::EntrySize { table: "program", found: 0, .. })));
        for cut in 0..small().len() {
            let _ = end_of(&small()[..cut]);
        }
    }
}
