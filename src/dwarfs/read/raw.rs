//! What somebody needs who makes another archive out of this one: sections as they are stored, and the pieces of files.

use std::ops::ControlFlow;

use super::{archive::Archive, chunks::Piece, codec::Job, index::Section, tree::Inode};
use crate::dwarfs::{
    Error,
    format::section::{Compression, SectionKind},
    limits,
};

/// A section's payload as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// How it is compressed.
    pub compression: Compression,
    /// The compressed bytes.
    pub payload: Vec<u8>,
}

/// Hears of each piece of a file and of where in the file it begins.
pub type VisitPiece<'a> = dyn FnMut(u64, Piece) -> Result<ControlFlow<()>, Error> + 'a;

impl Archive {
    /// Reads a section and compares it with all its checksums.
    ///
    /// # Errors
    ///
    /// What is wrong with the section, or with reading it.
    pub fn stored(&self, section: Section) -> Result<Stored, Error> {
        let (compression, payload) = self.index().read_whole(self.blocks.source(), section, true)?;
        Ok(Stored { compression, payload })
    }

    /// Decompresses what [`stored`](Self::stored) has read.
    ///
    /// # Errors
    ///
    /// What is wrong with the payload.
    pub fn unpack(&self, section: Section, stored: Stored) -> Result<Vec<u8>, Error> {
        let limit = match section.kind {
            SectionKind::Block => self.block_size(),
            SectionKind::Metadata => limits::max_metadata(stored.payload.len() as u64),
            SectionKind::Schema => limits::MAX_SCHEMA_LEN,
            SectionKind::History => limits::MAX_HISTORY_LEN,
            SectionKind::Index | SectionKind::Unknown(_) => stored.payload.len() as u64,
        };
        Job { section: section.number, codec: stored.compression, limit }.decompress(stored.payload)
    }

    /// The sections that hold blocks, by the numbers of these.
    pub fn block_sections(&self) -> impl Iterator<Item = Section> + '_ {
        self.index().sections().iter().filter(|section| section.kind == SectionKind::Block).copied()
    }

    /// What the writer took the data of a block for, where it says so and that can be read.
    #[must_use]
    pub fn category_of(&self, block: u32) -> Option<&[u8]> {
        self.tree.tables().categories.as_ref().ok()?.name(self.tree.data(), block).ok()?
    }

    /// All regular files, each once however many names it has. `None` in formats up to 2.2, which cannot tell.
    pub fn files(&self) -> Option<impl Iterator<Item = Inode>> {
        self.tree.files()
    }

    /// Visits the pieces of a regular file from the one at `offset` on, until `visit` breaks.
    ///
    /// # Errors
    ///
    /// [`Error::NotAFile`], what is wrong with the metadata, or what `visit` says.
    pub fn pieces(&self, inode: Inode, offset: u64, visit: &mut VisitPiece<'_>) -> Result<(), Error> {
        self.tree.pieces(inode, offset, visit)
    }

    /// The number of a regular file's contents: files of one number have the same.
    ///
    /// # Errors
    ///
    /// [`Error::NotAFile`], or what is wrong with the metadata.
    pub fn contents_of(&self, inode: Inode) -> Result<u32, Error> {
        self.tree.chunk_index(inode)
    }

    /// Whether last access and last change of attributes are times of their own.
    #[must_use]
    pub fn has_all_times(&self) -> bool {
        !self.tree.tables().options.mtime_only
    }
}
