//! Writes sections one after the other, and the index behind them.

use std::io::Write;

use super::{error::WriteError, progress::Progress};
use crate::dwarfs::{
    format::section::{Compression, HEADER_LEN, IndexEntry, SectionHeader, SectionKind, encode_index},
    limits,
};

/// A section that is ready to be written.
#[derive(Debug)]
pub(super) struct Sealed<'a> {
    pub(super) header: SectionHeader,
    pub(super) payload: &'a [u8],
}

/// The end of the pipeline: an archive that grows section by section.
pub(super) struct ArchiveWriter<'a> {
    output: &'a mut dyn Write,
    progress: &'a dyn Progress,
    index: Vec<IndexEntry>,
    written: u64,
}

impl<'a> ArchiveWriter<'a> {
    pub(super) fn new(output: &'a mut dyn Write, progress: &'a dyn Progress) -> Self {
        Self { output, progress, index: Vec::new(), written: 0 }
    }

    /// Number that the next section gets.
    pub(super) fn next_number(&self) -> Result<u32, WriteError> {
        match u32::try_from(self.index.len()) {
            Ok(number) if u64::from(number) < limits::MAX_SECTIONS => Ok(number),
            _ => Err(WriteError::TooMany { what: "sections" }),
        }
    }

    /// Writes a section that bears the next number.
    pub(super) fn write(&mut self, section: &Sealed<'_>) -> Result<(), WriteError> {
        self.index.push(IndexEntry { kind: section.header.kind, offset: self.written });
        self.output.write_all(&section.header.encode()).map_err(WriteError::Output)?;
        self.output.write_all(section.payload).map_err(WriteError::Output)?;
        let len = HEADER_LEN as u64 + section.payload.len() as u64;
        self.written += len;
        self.progress.bytes_out(len);
        Ok(())
    }

    /// Writes the index, which names itself last, and returns the length of the archive.
    pub(super) fn finish(mut self) -> Result<u64, WriteError> {
        let number = self.next_number()?;
        let own = IndexEntry { kind: SectionKind::Index, offset: self.written };
        let payload = encode_index(&[self.index.as_slice(), &[own]].concat());
        let header = SectionHeader::seal(number, SectionKind::Index, Compression::None, &payload);
        self.write(&Sealed { header, payload: &payload })?;
        self.output.flush().map_err(WriteError::Output)?;
        Ok(self.written)
    }
}
