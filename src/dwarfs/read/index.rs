//! Where an archive and its sections are in a file.

use super::read_at::{ReadAt, len_of, read_array, read_into, read_pieces, read_vec};
use crate::dwarfs::{
    Checksum, Error,
    format::{
        bytes::{array_at, u64_at},
        section::{
            Compression, FIRST_MINOR_WITH_CHECKSUMS, FIRST_MINOR_WITH_INDEX, HEADER_LEN, IndexEntry, MAGIC,
            MAJOR, OLD_HEADER_LEN, OldSectionHeader, SectionHeader, SectionKind, parse_version,
        },
    },
    limits,
};

/// Where in a file to look for an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this offset.
    At {
        /// Where it begins.
        offset: u64,
        /// Its length, where other data follows; `None`: to the end of the file.
        len: Option<u64>,
    },
    /// Behind whatever comes before it.
    Auto,
}

/// A section, found but not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// Its place in the archive, from 0.
    pub number: u32,
    /// Where its header is in the file.
    pub offset: u64,
    /// Where it ends in the file.
    pub end: u64,
}

/// A section's header, as far as reading the payload needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) compression: Compression,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Length of an archive's end that is asked for first: the section index, and schema and metadata of a small archive.
const TAIL: u64 = 256 << 10;

/// Longest schema and metadata that are asked for as a whole before they are read.
const HASTENED: u64 = 64 << 20;

/// All sections of an archive.
#[derive(Clone, Debug)]
pub struct Index {
    minor: u8,
    offset: u64,
    end: u64,
    has_index: bool,
    sections: Vec<Section>,
}

impl Index {
    /// Finds the archive and its sections.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] where there is no archive, [`Error::Version`] for one of another format, and
    /// [`Error::Truncated`] where a section does not end before the file does.
    pub fn open(source: &dyn ReadAt, place: Place) -> Result<Self, Error> {
        let file_len = len_of(source)?;
        let (offset, len) = match place {
            Place::At { offset, len } => (offset, len),
            Place::Auto => {
                // Nearly every file begins with its archive. An index says so without a look at anything between
                // start and end, of which nothing else may be needed for long.
                if let Ok(index) = Self::announce(source, 0, file_len, None)
                    && index.has_index
                {
                    return Ok(index);
                }
                let found = find_archive(source, file_len);
                (found.map_err(|error| why_not_at_start(source).unwrap_or(error))?, None)
            }
        };
        let mut index = Self::announce(source, offset, file_len, len)?;
        if !index.has_index {
            index.hop(source)?;
        }
        Ok(index)
    }

    /// Asks for what [`open`](Self::open) reads first in a file, as soon as it is known that it will be called.
    pub fn expect(source: &dyn ReadAt) {
        if let Ok(len) = source.len() {
            let tail = TAIL.min(len);
            source.will_need(0, HEADER_LEN as u64);
            source.will_need(len - tail, tail);
        }
    }

    /// The archive at `offset` with what its section index tells, if it has one.
    fn announce(source: &dyn ReadAt, offset: u64, file_len: u64, len: Option<u64>) -> Result<Self, Error> {
        let rest = file_len.saturating_sub(offset);
        let end = offset + len.unwrap_or(rest).min(rest);
        if end - offset < OLD_HEADER_LEN as u64 {
            return Err(Error::NotFound { offset });
        }
        // While the start comes from the disk, the end is on its way.
        let tail = TAIL.min(end - offset);
        source.will_need(end - tail, tail);
        let (_, minor) = parse_version(&read_array::<OLD_HEADER_LEN>(source, offset)?, offset)?;
        let mut index = Self { minor, offset, end, has_index: false, sections: Vec::new() };
        if let Some(sections) = index.read_section_index(source) {
            index.sections = sections;
            index.has_index = true;
            index.hasten(source);
        }
        Ok(index)
    }

    /// Asks for the schema and the metadata, which the opening reads next, in one piece.
    fn hasten(&self, source: &dyn ReadAt) {
        let (Some(schema), Some(metadata)) =
            (self.first(SectionKind::Schema), self.first(SectionKind::Metadata))
        else {
            return;
        };
        let (start, end) = (schema.offset.min(metadata.offset), schema.end.max(metadata.end));
        // They lie side by side at the end; a hostile order must not bring in the whole file.
        if end - start <= HASTENED && start < self.end - TAIL.min(self.end - self.offset) {
            source.will_need(start, end - start);
        }
    }

    /// Minor version of the format.
    #[must_use]
    pub const fn minor(&self) -> u8 {
        self.minor
    }

    /// Where the archive begins in the file.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Where the archive ends in the file, as far as known: the end of its last section.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.sections.last().map_or(self.offset, |section| section.end)
    }

    /// The sections as their headers tell them one by one, whatever the section index says.
    ///
    /// # Errors
    ///
    /// What is wrong with a header, or with reading it.
    pub(super) fn hopped(&self, source: &dyn ReadAt) -> Result<Vec<Section>, Error> {
        let Self { minor, offset, end, .. } = *self;
        let mut plain = Self { minor, offset, end, has_index: false, sections: Vec::new() };
        plain.hop(source)?;
        Ok(plain.sections)
    }

    /// Length of what the archive was looked for in, from its beginning on.
    pub(super) const fn place_len(&self) -> u64 {
        self.end - self.offset
    }

    /// Whether the sections were found by the section index.
    #[must_use]
    pub const fn has_index(&self) -> bool {
        self.has_index
    }

    /// The sections in the order of the file.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The first section of a kind.
    #[must_use]
    pub fn first(&self, kind: SectionKind) -> Option<Section> {
        self.sections.iter().find(|section| section.kind == kind).copied()
    }

    /// Reads a section's header.
    pub(super) fn payload(&self, source: &dyn ReadAt, section: Section) -> Result<Payload, Error> {
        if self.minor < FIRST_MINOR_WITH_CHECKSUMS {
            let header = OldSectionHeader::parse(&read_array(source, section.offset)?)?;
            let offset = section.offset + OLD_HEADER_LEN as u64;
            return Ok(Payload { compression: header.compression, offset, len: u64::from(header.len) });
        }
        let header = self.header(source, section)?;
        let offset = section.offset + HEADER_LEN as u64;
        Ok(Payload { compression: header.compression, offset, len: header.len })
    }

    /// Reads a section's payload as it is stored, checked against its XXH3.
    pub(super) fn read(
        &self,
        source: &dyn ReadAt,
        section: Section,
    ) -> Result<(Compression, Vec<u8>), Error> {
        self.read_whole(source, section, false)
    }

    /// As [`read`](Self::read); `strict` checks the payload against its SHA-512/256 as well.
    pub(super) fn read_whole(
        &self,
        source: &dyn ReadAt,
        section: Section,
        strict: bool,
    ) -> Result<(Compression, Vec<u8>), Error> {
        use sha2::Digest as _;
        let payload = self.payload(source, section)?;
        let limit = limits::max_stored(section.kind);
        if payload.len > limit {
            return Err(Error::Limit { what: "stored length of a section", found: payload.len, limit });
        }
        if self.minor < FIRST_MINOR_WITH_CHECKSUMS {
            return Ok((payload.compression, read_vec(source, payload.offset, payload.len)?));
        }
        let header = self.header(source, section)?;
        let bytes = read_vec(source, section.offset + HEADER_LEN as u64, header.len)?;
        if header.hash_xxh3(&bytes) != header.xxh3 {
            return Err(mismatch(section, Checksum::Xxh3));
        }
        if strict
            && <[u8; 32]>::from(header.sha_hasher().chain_update(&bytes).finalize()) != header.sha512_256
        {
            return Err(mismatch(section, Checksum::Sha512));
        }
        Ok((header.compression, bytes))
    }

    /// Compares a payload that has been read with its section's XXH3.
    pub(super) fn compare(&self, source: &dyn ReadAt, section: Section, payload: &[u8]) -> Result<(), Error> {
        if self.minor < FIRST_MINOR_WITH_CHECKSUMS {
            return Ok(());
        }
        let header = self.header(source, section)?;
        if header.hash_xxh3(payload) == header.xxh3 { Ok(()) } else { Err(mismatch(section, Checksum::Xxh3)) }
    }

    /// The number that a section's header gives it; `None` in formats whose headers have none.
    pub(super) fn number(&self, source: &dyn ReadAt, section: Section) -> Result<Option<u32>, Error> {
        if self.minor < FIRST_MINOR_WITH_CHECKSUMS {
            return Ok(None);
        }
        self.header(source, section).map(|header| Some(header.number))
    }

    /// Checks a section against its checksums, without keeping it; `take` hears of each piece that was read.
    pub(super) fn check(
        &self,
        source: &dyn ReadAt,
        section: Section,
        strict: bool,
        take: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        use sha2::Digest as _;
        if self.minor < FIRST_MINOR_WITH_CHECKSUMS {
            return Ok(());
        }
        let header = self.header(source, section)?;
        let mut xxh3 = header.xxh3_hasher();
        let mut sha = strict.then(|| header.sha_hasher());
        read_pieces(source, section.offset + HEADER_LEN as u64, header.len, &mut |piece| {
            xxh3.update(piece);
            if let Some(sha) = &mut sha {
                sha.update(piece);
            }
            take(piece.len() as u64);
        })?;
        if xxh3.digest() != header.xxh3 {
            return Err(mismatch(section, Checksum::Xxh3));
        }
        match sha.map(|sha| <[u8; 32]>::from(sha.finalize())) {
            Some(found) if found != header.sha512_256 => Err(mismatch(section, Checksum::Sha512)),
            _ => Ok(()),
        }
    }

    /// Reads a header of format 2.2 or later and checks it against what is known of the section.
    fn header(&self, source: &dyn ReadAt, section: Section) -> Result<SectionHeader, Error> {
        let header = SectionHeader::parse(&read_array(source, section.offset)?, section.offset)?;
        let found = (section.end - section.offset).saturating_sub(HEADER_LEN as u64);
        if header.len != found || header.kind != section.kind {
            let (what, expected) = ("section", header.len);
            return Err(Error::Truncated { what, offset: section.offset, expected, found });
        }
        Ok(header)
    }

    /// Reads the section index, if there is a valid one. One that is damaged is as good as none: the headers say
    /// the same.
    fn read_section_index(&self, source: &dyn ReadAt) -> Option<Vec<Section>> {
        const ENTRY_LEN: u64 = size_of::<u64>() as u64;
        if self.minor < FIRST_MINOR_WITH_INDEX {
            return None;
        }
        let last = read_array(source, self.end.checked_sub(ENTRY_LEN)?).ok()?;
        let last = IndexEntry::from_raw(u64::from_le_bytes(last));
        let offset = self.offset.checked_add(last.offset)?;
        let len = self.end.checked_sub(offset.checked_add(HEADER_LEN as u64)?)?;
        if last.kind != SectionKind::Index || len % ENTRY_LEN != 0 || len / ENTRY_LEN > limits::MAX_SECTIONS {
            return None;
        }
        let number = u32::try_from(len / ENTRY_LEN).ok()?.checked_sub(1)?;
        let section = Section { kind: last.kind, number, offset, end: self.end };
        let (compression, entries) = self.read(source, section).ok()?;
        if compression != Compression::None {
            return None;
        }
        self.sections_of(&entries)
    }

    /// Turns index entries into sections, if they stand in order and leave room for each header.
    fn sections_of(&self, entries: &[u8]) -> Option<Vec<Section>> {
        let count = entries.len() / size_of::<u64>();
        let entry = |at: usize| u64_at(entries, at * size_of::<u64>()).map(IndexEntry::from_raw);
        let mut sections = Vec::with_capacity(count);
        for at in 0..count {
            let IndexEntry { kind, offset } = entry(at)?;
            let start = self.offset.checked_add(offset)?;
            let end = if at + 1 < count { self.offset.checked_add(entry(at + 1)?.offset)? } else { self.end };
            let is_first_at_start = at > 0 || offset == 0;
            if !is_first_at_start || end < start.checked_add(HEADER_LEN as u64)? || end > self.end {
                return None;
            }
            sections.push(Section { kind, number: u32::try_from(at).ok()?, offset: start, end });
        }
        Some(sections)
    }

    /// Finds the sections by their headers. They end with the file, or where no header follows: at data that
    /// somebody put behind the archive.
    fn hop(&mut self, source: &dyn ReadAt) -> Result<(), Error> {
        let old = self.minor < FIRST_MINOR_WITH_CHECKSUMS;
        let header_len = if old { OLD_HEADER_LEN } else { HEADER_LEN } as u64;
        let mut offset = if old { self.offset + OLD_HEADER_LEN as u64 } else { self.offset };
        while self.end - offset >= header_len {
            let (kind, len) = match self.peek(source, offset, old) {
                Ok(found) => found,
                Err(Error::NotFound { .. } | Error::Malformed { .. }) if self.is_complete() => return Ok(()),
                Err(error) => return Err(error),
            };
            let found = self.end - offset - header_len;
            if len > found {
                return Err(Error::Truncated { what: "section", offset, expected: len, found });
            }
            let number = self.sections.len() as u64;
            if number >= limits::MAX_SECTIONS {
                let limit = limits::MAX_SECTIONS;
                return Err(Error::Limit { what: "number of sections", found: number, limit });
            }
            let end = offset + header_len + len;
            self.sections.push(Section {
                kind,
                number: u32::try_from(number).unwrap_or(u32::MAX),
                offset,
                end,
            });
            offset = end;
        }
        Ok(())
    }

    /// Kind and payload length of the section at `offset`.
    fn peek(&self, source: &dyn ReadAt, offset: u64, old: bool) -> Result<(SectionKind, u64), Error> {
        if old {
            let header = OldSectionHeader::parse(&read_array(source, offset)?)?;
            return Ok((header.kind, u64::from(header.len)));
        }
        let header = SectionHeader::parse(&read_array(source, offset)?, offset)?;
        Ok((header.kind, header.len))
    }

    /// Whether all that an archive must have has been found.
    fn is_complete(&self) -> bool {
        self.first(SectionKind::Schema).is_some() && self.first(SectionKind::Metadata).is_some()
    }
}

const fn mismatch(section: Section, checksum: Checksum) -> Error {
    Error::Checksum { section: section.number, offset: section.offset, checksum }
}

/// What is wrong with the archive at the start of a file, which begins like one.
fn why_not_at_start(source: &dyn ReadAt) -> Option<Error> {
    match Index::open(source, Place::At { offset: 0, len: None }) {
        Err(error @ (Error::Truncated { .. } | Error::Version { .. })) => Some(error),
        _ => None,
    }
}

/// Finds the first archive in a file: a header that another one follows, where it says that it ends.
fn find_archive(source: &dyn ReadAt, file_len: u64) -> Result<u64, Error> {
    const STEP: usize = 1 << 20;
    const NEEDLE_LEN: usize = MAGIC.len() + 1;
    let mut buffer = vec![0; STEP];
    let (mut offset, mut candidates) = (0, 0);
    while file_len.saturating_sub(offset) >= HEADER_LEN as u64 {
        let len = usize::try_from(file_len - offset).map_or(STEP, |rest| rest.min(STEP));
        let Some(window) = buffer.get_mut(..len) else { break };
        read_into(source, offset, window)?;
        let mut at = 0;
        while let Some(found) = find_magic(window, at) {
            let candidate = offset + found as u64;
            if is_archive(source, candidate, file_len) {
                return Ok(candidate);
            }
            candidates += 1;
            if candidates > limits::MAX_CANDIDATES {
                let (found, limit) = (candidates, limits::MAX_CANDIDATES);
                return Err(Error::Limit { what: "number of false starts before an archive", found, limit });
            }
            at = found + 1;
        }
        // The last bytes are looked at again: a header may begin in them.
        offset += if len < STEP { len } else { len - NEEDLE_LEN } as u64;
    }
    Err(Error::NotFound { offset: 0 })
}

/// The next place at or behind `from` with magic and major version.
fn find_magic(window: &[u8], from: usize) -> Option<usize> {
    let [first, ..] = MAGIC;
    let mut at = from;
    loop {
        at += window.get(at..)?.iter().position(|byte| *byte == first)?;
        match array_at::<8>(window, at) {
            Some([magic @ .., MAJOR, _]) if magic == MAGIC => return Some(at),
            _ => at += 1,
        }
    }
}

/// Whether an archive begins at `offset`: its first section ends where the second one begins.
fn is_archive(source: &dyn ReadAt, offset: u64, file_len: u64) -> bool {
    let Ok(head) = read_array::<{ 2 * OLD_HEADER_LEN }>(source, offset) else { return false };
    match parse_version(&head, offset) {
        Ok((_, minor)) if minor < FIRST_MINOR_WITH_CHECKSUMS => is_old_archive(source, offset, file_len),
        Ok(_) => is_new_archive(source, offset),
        Err(_) => false,
    }
}

fn is_new_archive(source: &dyn ReadAt, offset: u64) -> bool {
    let header = |at| SectionHeader::parse(&read_array(source, at).ok()?, at).ok();
    let second =
        |first: &SectionHeader| header(offset.checked_add(HEADER_LEN as u64)?.checked_add(first.len)?);
    header(offset)
        .filter(|first| first.number == 0)
        .and_then(|first| second(&first))
        .is_some_and(|second| second.number == 1)
}

fn is_old_archive(source: &dyn ReadAt, offset: u64, file_len: u64) -> bool {
    let header = |at: u64| OldSectionHeader::parse(&read_array(source, at).ok()?).ok();
    let first_at = offset + OLD_HEADER_LEN as u64;
    let Some(first) = header(first_at).filter(|first| first.len > 0) else { return false };
    let second_at = first_at + OLD_HEADER_LEN as u64 + u64::from(first.len);
    if second_at >= file_len {
        return false;
    }
    let second = header(second_at).filter(|second| second.len > 0).map(|second| second.kind);
    match first.kind {
        SectionKind::Block => matches!(second, Some(SectionKind::Block | SectionKind::Schema)),
        SectionKind::Schema => second == Some(SectionKind::Metadata),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dwarfs::format::section::{WRITTEN_MINOR, encode_index};

    /// A schema and a metadata section of these payloads, with a section index or without.
    fn example(with_index: bool) -> Vec<u8> {
        let mut archive = Vec::new();
        let mut entries = Vec::new();
        let parts =
            [(SectionKind::Block, "data"), (SectionKind::Schema, "s"), (SectionKind::Metadata, "meta")];
        for (number, (kind, payload)) in (0..).zip(parts) {
            entries.push(IndexEntry { kind, offset: archive.len() as u64 });
            put(&mut archive, number, kind, payload.as_bytes());
        }
        if with_index {
            entries.push(IndexEntry { kind: SectionKind::Index, offset: archive.len() as u64 });
            put(&mut archive, 3, SectionKind::Index, &encode_index(&entries));
        }
        archive
    }

    fn put(archive: &mut Vec<u8>, number: u32, kind: SectionKind, payload: &[u8]) {
        archive.extend_from_slice(&SectionHeader::seal(number, kind, Compression::None, payload).encode());
        archive.extend_from_slice(payload);
    }

    fn open(bytes: &[u8], place: Place) -> Result<Index, Error> {
        Index::open(&bytes.to_vec(), place)
    }

    #[test]
    fn an_archive_that_was_cut_off_is_called_one() {
        let archive = example(true);
        let cut = open(&archive[..66], Place::Auto);
        assert!(matches!(cut, Err(Error::Truncated { .. })), "{cut:?}");
        let none = open(&[b'x'; 200], Place::Auto);
        assert!(matches!(none, Err(Error::NotFound { .. })), "{none:?}");
    }

    const START: Place = Place::At { offset: 0, len: None };

    #[test]
    fn sections_are_found_by_index_and_by_headers() {
        let by_index = open(&example(true), START).unwrap();
        let by_headers = open(&example(false), START).unwrap();
        assert!(by_index.has_index() && !by_headers.has_index());
        assert_eq!(by_index.minor(), WRITTEN_MINOR);
        assert_eq!(by_index.sections()[..3], *by_headers.sections());
        let metadata = by_index.first(SectionKind::Metadata).unwrap();
        let (codec, payload) = by_index.read(&example(true), metadata).unwrap();
        assert_eq!((codec, &*payload), (Compression::None, &b"meta"[..]));
    }

    #[test]
    fn a_damaged_index_is_as_good_as_none() {
        let whole = example(true);
        let index_at = example(false).len();
        for at in index_at + HEADER_LEN..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            let index = open(&damaged, START).unwrap();
            assert!(!index.has_index(), "byte {at}");
            assert_eq!(index.sections().len(), 4);
        }
    }

    #[test]
    fn archives_are_found_behind_prefixes_and_before_tails() {
        for with_index in [true, false] {
            let archive = example(with_index);
            // The magic alone, and a header that no other one follows, are no archive.
            let mut file = b"#!/bin/sh\nDWARFS\x02\x05 DDWARFS".to_vec();
            file.extend_from_slice(&archive[..HEADER_LEN]);
            file.extend_from_slice(&vec![b'D'; (1 << 20) + 7]);
            let offset = file.len() as u64;
            file.extend_from_slice(&archive);
            let found = open(&file, Place::Auto).unwrap();
            assert_eq!((found.offset(), found.has_index()), (offset, with_index));
            file.extend_from_slice(
                b"something else that follows the archive, long enough for a header of a section",
            );
            let len = Some(archive.len() as u64);
            assert_eq!(open(&file, Place::At { offset, len }).unwrap().sections(), found.sections());
            let hopped = open(&file, Place::Auto).unwrap();
            assert_eq!((hopped.sections(), hopped.has_index()), (found.sections(), false));
        }
        assert!(matches!(open(&[0; 4_096], Place::Auto), Err(Error::NotFound { .. })));
        assert!(matches!(open(b"", START), Err(Error::NotFound { .. })));
        assert!(matches!(
            open(b"", Place::At { offset: 9, len: Some(u64::MAX) }),
            Err(Error::NotFound { .. })
        ));
    }

    #[test]
    fn truncated_archives_are_refused_or_end_at_a_section() {
        let whole = example(false);
        let complete = (0..whole.len()).filter(|end| open(&whole[..*end], START).is_ok()).collect::<Vec<_>>();
        // Cuts at the ends of sections, or with less than a header behind them; what is missing shows later.
        assert!(complete.iter().all(|end| open(&whole[..*end], START).unwrap().sections().len() < 3));
        assert!(matches!(
            open(&whole[..whole.len() - 1], START),
            Err(Error::Truncated { expected: 4, found: 3, .. })
        ));
    }

    #[test]
    fn checksums_are_checked() {
        let archive = example(false);
        let index = open(&archive, START).unwrap();
        let section = index.first(SectionKind::Block).unwrap();
        assert!(index.check(&archive, section, true, &mut |_| {}).is_ok());
        let with = |at: usize| {
            let mut damaged = archive.clone();
            damaged[at] ^= 1;
            index.check(&damaged, section, true, &mut |_| {}).unwrap_err()
        };
        assert!(matches!(with(HEADER_LEN), Error::Checksum { checksum: Checksum::Xxh3, section: 0, .. }));
        assert!(matches!(with(8), Error::Checksum { checksum: Checksum::Sha512, .. }));
    }
}
