//! Another codec for an archive: each section is unpacked and compressed anew, or copied as it is stored.
//!
//! ```text
//! BLOCK ... SCHEMA METADATA HISTORY INDEX       what is read
//!   |          |      |        |      |
//!   v          v      v        v      v
//! BLOCK ... SCHEMA METADATA HISTORY INDEX       the same blocks and the same metadata, one entry more of history,
//!                                               an index of the new offsets
//! ```
//!
//! The cut of the blocks stays, and so does every byte of the metadata: names, owners, times and the side car are what
//! they were. Who wants other blocks packs the contents anew, from [`MergedSource`](super::MergedSource).

use std::{io::Write, ops::RangeInclusive};

use super::{
    archive_writer::{ArchiveWriter, Sealed},
    category::Category,
    codec::{Codec, Compressor},
    encode_history,
    error::WriteError,
    in_order::in_order,
    memory,
    options::{History, WriteOptions},
    progress::{Phase, Progress},
};
use crate::dwarfs::{
    format::section::{Compression, SectionHeader, SectionKind},
    read::{Archive, Section, Stored},
};

/// Which blocks are copied as they are stored. Stored ones always are where nothing is to be compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Those that are compressed in one of these ways.
    pub codecs: Vec<Compression>,
    /// Stored ones of a category that no codec makes smaller.
    pub incompressible: bool,
}

impl Keep {
    /// Everything is compressed anew.
    pub const NOTHING: Self = Self { codecs: Vec::new(), incompressible: false };
}

impl Default for Keep {
    /// What has a codec for its own kind of data, which no other one matches, or is known to need none.
    fn default() -> Self {
        Self { codecs: vec![Compression::Flac, Compression::Ricepp], incompressible: true }
    }
}

/// What became of an archive's sections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recompressed {
    /// Blocks that were copied as they were stored.
    pub copied: u64,
    /// Blocks that were compressed anew.
    pub repacked: u64,
    /// Length of the archive before.
    pub bytes_in: u64,
    /// Length of the archive.
    pub bytes_out: u64,
}

/// The way in which a codec's payloads are marked.
#[must_use]
pub const fn compression_of(codec: Codec) -> Compression {
    match codec {
        Codec::None => Compression::None,
        Codec::Zstd { .. } | Codec::ZstdLong { .. } => Compression::Zstd,
        Codec::Lzma(_) => Compression::Lzma,
        // Both are written under the same number.
        Codec::Lz4 | Codec::Lz4Hc { .. } => Compression::Lz4,
        Codec::Brotli { .. } => Compression::Brotli,
        Codec::Flac { .. } => Compression::Flac,
    }
}

/// Block sizes that can be written, as a power of two.
const BITS: RangeInclusive<u8> = 10..=30;

/// The least block size, as a power of two, that holds the blocks of an archive.
#[must_use]
pub fn block_size_bits(archive: &Archive) -> u8 {
    BITS.into_iter().find(|bits| archive.block_size() <= 1 << bits).unwrap_or(*BITS.end())
}

/// Writes an archive anew with the codecs of `options`; of them only what concerns codecs, threads, memory and history
/// has a meaning here.
///
/// # Errors
///
/// The archive is damaged, or the output cannot be written. What has been written until then is of no use.
pub fn recompress(
    archive: &Archive,
    options: &WriteOptions,
    keep: &Keep,
    output: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<Recompressed, WriteError> {
    let options =
        WriteOptions { block_size_bits: block_size_bits(archive), segmentation: None, ..options.clone() };
    options.check()?;
    let threads = memory::threads(&options)?;
    let work = Recompression { archive, options: &options, keep };
    let sections = work.plan();
    let bytes_in = sections.iter().map(|job| job.section.end - job.section.offset).sum();
    progress.begin(Phase::Compress, sections.len() as u64, bytes_in);
    let mut done = Recompressed { bytes_in, ..Recompressed::default() };
    let mut output = ArchiveWriter::new(output, progress);
    in_order(
        threads,
        sections.len(),
        Compressors::default,
        |compressors, number| {
            let job = sections.get(number).ok_or(WriteError::Worker)?;
            let section = work.section(compressors, *job, number)?;
            progress.bytes_in(job.section.end - job.section.offset);
            Ok((section, job.block.is_some()))
        },
        |(section, is_block)| {
            let count = if section.is_copied { &mut done.copied } else { &mut done.repacked };
            *count += u64::from(is_block);
            output.write(&Sealed { header: section.header, payload: &section.payload })
        },
    )?;
    progress.begin(Phase::Finish, 0, 0);
    write_history(&[archive], &options, &mut output)?;
    done.bytes_out = output.finish()?;
    Ok(done)
}

/// Writes a history: that of the archives, lowest first, and ours.
pub(super) fn write_history(
    archives: &[&Archive],
    options: &WriteOptions,
    output: &mut ArchiveWriter<'_>,
) -> Result<(), WriteError> {
    let mut before = Vec::new();
    for archive in archives {
        before.extend(archive.history().map_err(WriteError::Archive)?.entries);
    }
    let history = match &options.history {
        Some(history) => History { before, ..history.clone() },
        None => return Ok(()),
    };
    let payload = encode_history(&history, options.created);
    let number = output.next_number()?;
    let mut compressor = Compressor::new(options.metadata)?;
    output.write(&compressor.seal(number, SectionKind::History, &payload)?)
}

/// A section that is to be written.
#[derive(Clone, Copy, Debug)]
struct Planned {
    section: Section,
    /// Number of the block, if it is one.
    block: Option<u32>,
}

/// A section that can be written.
struct Written {
    header: SectionHeader,
    payload: Vec<u8>,
    is_copied: bool,
}

/// The compressors of one thread.
#[derive(Default)]
struct Compressors {
    data: Option<Compressor>,
    metadata: Option<Compressor>,
}

struct Recompression<'a> {
    archive: &'a Archive,
    options: &'a WriteOptions,
    keep: &'a Keep,
}

impl Recompression<'_> {
    /// Everything but the history and the index, which are written anew.
    fn plan(&self) -> Vec<Planned> {
        let is_wanted = |kind| !matches!(kind, SectionKind::Index | SectionKind::History);
        let sections = self.archive.index().sections().iter().filter(|section| is_wanted(section.kind));
        let mut blocks = 0..;
        sections
            .map(|section| {
                let block = if section.kind == SectionKind::Block { blocks.next() } else { None };
                Planned { section: *section, block }
            })
            .collect()
    }

    fn section(
        &self,
        compressors: &mut Compressors,
        job: Planned,
        number: usize,
    ) -> Result<Written, WriteError> {
        let number = u32::try_from(number).map_err(|_| WriteError::TooMany { what: "sections" })?;
        let kind = job.section.kind;
        let stored = self.archive.stored(job.section).map_err(WriteError::Archive)?;
        let (codec, compressor) = match kind {
            SectionKind::Block => (self.options.data, &mut compressors.data),
            _ => (self.options.metadata, &mut compressors.metadata),
        };
        if self.is_copied(job, stored.compression, codec) {
            return Ok(copied(number, kind, stored));
        }
        let mut payload = self.archive.unpack(job.section, stored).map_err(WriteError::Archive)?;
        let compressor = match compressor {
            Some(compressor) => compressor,
            None => compressor.insert(Compressor::new(codec)?),
        };
        let header = compressor.seal(number, kind, &payload)?.header;
        if header.compression != Compression::None {
            payload = std::mem::take(&mut compressor.out);
        }
        Ok(Written { header, payload, is_copied: false })
    }

    fn is_copied(&self, job: Planned, found: Compression, wished: Codec) -> bool {
        let is_stored = found == Compression::None;
        match job.section.kind {
            // What nobody knows stays as it is.
            SectionKind::Unknown(_) => true,
            _ if is_stored && wished == Codec::None => true,
            SectionKind::Block => {
                let category = job.block.and_then(|block| self.archive.category_of(block));
                let is_hopeless = category == Some(Category::Incompressible.name().as_bytes());
                self.keep.codecs.contains(&found) || (self.keep.incompressible && is_stored && is_hopeless)
            }
            _ => false,
        }
    }
}

/// A section that is copied, with the number that it has in the new archive.
fn copied(number: u32, kind: SectionKind, stored: Stored) -> Written {
    let Stored { compression, payload } = stored;
    Written { header: SectionHeader::seal(number, kind, compression, &payload), payload, is_copied: true }
}

/// A block of an archive as it is stored, sealed as the section `number` of another one.
pub(super) fn copy_block(
    archive: &Archive,
    section: Section,
    number: usize,
) -> Result<(SectionHeader, Vec<u8>), WriteError> {
    let number = u32::try_from(number).map_err(|_| WriteError::TooMany { what: "sections" })?;
    let stored = archive.stored(section).map_err(WriteError::Archive)?;
    let Written { header, payload, .. } = copied(number, SectionKind::Block, stored);
    Ok((header, payload))
}
