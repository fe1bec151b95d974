//! An archive as a whole.

use std::ops::{ControlFlow, Range};

use smallvec::SmallVec;

use super::{
    blocks::Blocks,
    cache::BlockCache,
    chunks::Piece,
    codec::Job,
    index::{Index, Place, Section},
    live::Live,
    paths::VisitPath,
    prefetch::{MOST_LOOKED_AT, Next},
    read_at::ReadAt,
    stat::{Kind, Stat},
    tree::{DirEntry, Inode, Tree},
};
use crate::{
    dwarfs::{
        Error,
        format::{
            history::History,
            schema::Schema,
            section::{Compression, SectionKind},
        },
        limits,
    },
    pinned::Data,
    sync::Arc,
};

/// What to look for in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next data.
    Data,
    /// The next hole; the end of the file is one.
    Hole,
}

/// Figures of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Minor version of the format.
    pub minor: u8,
    /// Number of inodes.
    pub inodes: u32,
    /// Number of blocks.
    pub blocks: usize,
    /// Longest uncompressed block in bytes.
    pub block_size: u64,
    /// Size of all files, hard links counted once.
    pub total_size: u64,
    /// The same without holes.
    pub allocated_size: u64,
    /// What further names of files save, were each a file of its own.
    pub hardlink_size: u64,
    /// Length of the archive in the file.
    pub stored_size: u64,
    /// Version of the writer, as it calls itself.
    pub writer: String,
    /// When it was written, in seconds since the epoch.
    pub created: Option<u64>,
}

/// What is known of a block without decompressing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockFacts {
    /// How it is stored.
    pub compression: Compression,
    /// Its length in the file, without its header.
    pub stored_len: u64,
    /// What the writer took its data for, where it says so.
    pub category: Option<String>,
    /// What it said about the data, as JSON.
    pub description: Option<String>,
}

/// An open archive. All of it can be used from any thread.
#[derive(Debug)]
pub struct Archive {
    pub(super) tree: Arc<Tree>,
    pub(super) blocks: Blocks,
}

impl Archive {
    /// Opens an archive: finds its sections, reads and checks its metadata. File data is not touched.
    ///
    /// # Errors
    ///
    /// What is wrong with the archive, or with reading it.
    pub fn open(source: Arc<dyn ReadAt>, place: Place, cache: &Arc<BlockCache>) -> Result<Self, Error> {
        let index = Index::open(&*source, place)?;
        let schema = load(&*source, &index, SectionKind::Schema, "schema")?;
        let schema = Schema::decode(&schema)?;
        let metadata = load(&*source, &index, SectionKind::Metadata, "metadata")?;
        let tree = Arc::new(Tree::new(&schema, metadata)?);
        let live = Live::new(&*source, &index)?;
        let blocks = Blocks::new(source, index, live, Arc::clone(cache), Arc::clone(&tree));
        Ok(Self { tree, blocks })
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> Inode {
        self.tree.root()
    }

    /// Finds `name` in a directory.
    ///
    /// # Errors
    ///
    /// [`Error::NotADirectory`], or what is wrong with the metadata.
    pub fn lookup(&self, directory: Inode, name: &[u8]) -> Result<Option<Inode>, Error> {
        self.tree.lookup(directory, name)
    }

    /// Finds an object by its path from the root: names with `/` between them.
    ///
    /// # Errors
    ///
    /// As [`lookup`](Self::lookup).
    pub fn find(&self, path: &[u8]) -> Result<Option<Inode>, Error> {
        let mut inode = self.root();
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            match self.lookup(inode, name)? {
                Some(child) => inode = child,
                None => return Ok(None),
            }
        }
        Ok(Some(inode))
    }

    /// The path of an object from the root, without a slash in front; of a file with several names the first one. For
    /// a directory this takes a step a name, for anything else a look at all entries: for many of them use
    /// [`paths`](Self::paths).
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] where there is no such inode, or what is wrong with the metadata.
    pub fn path_of(&self, inode: Inode) -> Result<Vec<u8>, Error> {
        self.tree.path_of(inode)
    }

    /// Visits every path below the root, each directory before what is in it, all names of a file.
    ///
    /// # Errors
    ///
    /// The first damage of the metadata, after everything else has been visited.
    pub fn paths(&self, visit: &mut VisitPath<'_>) -> Result<(), Error> {
        self.tree.paths(visit)
    }

    /// What an inode is.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] where there is no such inode, or what is wrong with the metadata.
    pub fn kind(&self, inode: Inode) -> Result<Kind, Error> {
        self.tree.kind(inode)
    }

    /// The attributes of an inode.
    ///
    /// # Errors
    ///
    /// As [`kind`](Self::kind).
    pub fn attr(&self, inode: Inode) -> Result<Stat, Error> {
        self.tree.stat(inode)
    }

    /// Visits the entries of a directory, in the order of their names, from place `from` on, until `visit` breaks.
    ///
    /// # Errors
    ///
    /// As [`lookup`](Self::lookup).
    pub fn read_dir(
        &self,
        directory: Inode,
        from: u32,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.tree.read_dir(directory, from, visit)
    }

    /// The target of a symlink.
    ///
    /// # Errors
    ///
    /// [`Error::NotASymlink`], or what is wrong with the metadata.
    pub fn read_link(&self, inode: Inode) -> Result<Vec<u8>, Error> {
        self.tree.read_link(inode)
    }

    /// Reads up to `len` bytes at `offset` of a regular file; fewer only at its end. Holes read as zeros.
    ///
    /// # Errors
    ///
    /// [`Error::NotAFile`], or what is wrong with a block.
    pub fn read(&self, inode: Inode, offset: u64, len: usize) -> Result<Data, Error> {
        let mut data = Data::empty();
        let end = offset.saturating_add(len as u64);
        self.tree.pieces(inode, offset, &mut |start, piece| {
            if start >= end {
                return Ok(ControlFlow::Break(()));
            }
            let skip = offset.saturating_sub(start);
            let take = piece.len().min(end - start).saturating_sub(skip);
            // At most `len`, therefore within the address space.
            let take = usize::try_from(take).unwrap_or(usize::MAX);
            match piece {
                Piece::Hole { .. } => data.push_zeros(take),
                Piece::Data { block, offset, .. } if take > 0 => {
                    let next = |most| self.next(inode, block, end, most);
                    data.push(self.blocks.slice(block, u64::from(offset) + skip, take, &next)?);
                }
                Piece::Data { .. } => {}
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(data)
    }

    /// What somebody who has read a file up to `end`, which is in `block`, comes to.
    fn next(&self, inode: Inode, block: u32, end: u64, most: usize) -> Next {
        let mut rest = SmallVec::<[u32; 8]>::new();
        // Damage is told to who reads it.
        let _ = self.blocks_of(inode, end..u64::MAX, &mut |other| {
            rest.push(other);
            if rest.len() < MOST_LOOKED_AT { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        Next::of(block, rest.into_iter(), most, end > self.block_size())
    }

    /// Visits the blocks that hold `range` of a regular file, in file order, until `visit` breaks. A block is named
    /// again where the file comes back to it.
    ///
    /// # Errors
    ///
    /// [`Error::NotAFile`], or what is wrong with the metadata.
    pub fn blocks_of(
        &self,
        inode: Inode,
        range: Range<u64>,
        visit: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut last = None;
        self.tree.pieces(inode, range.start, &mut |start, piece| match piece {
            _ if start >= range.end => Ok(ControlFlow::Break(())),
            Piece::Data { block, len, .. } if len > 0 && last != Some(block) => {
                last = Some(block);
                Ok(visit(block))
            }
            _ => Ok(ControlFlow::Continue(())),
        })
    }

    /// Asks for blocks to be decoded in the background, in this order, before anybody reads them. Returns at once;
    /// what is read meanwhile comes first. Numbers that no block has and blocks that are damaged are passed over,
    /// as is what the cache has no room for.
    pub fn prefetch(&self, blocks: &[u32]) {
        self.blocks.prefetch(blocks);
    }

    /// Finds the next data or hole at or behind `offset`; `None` behind the end, or where no data follows.
    ///
    /// # Errors
    ///
    /// [`Error::NotAFile`], or what is wrong with the metadata.
    pub fn seek(&self, inode: Inode, offset: u64, whence: Seek) -> Result<Option<u64>, Error> {
        let size = self.tree.file_size(inode)?.total;
        if offset >= size {
            return Ok(None);
        }
        let mut found = None;
        self.tree.pieces(inode, offset, &mut |start, piece| {
            let wanted = matches!(
                (whence, piece),
                (Seek::Data, Piece::Data { .. }) | (Seek::Hole, Piece::Hole { .. })
            );
            if wanted && piece.len() > 0 {
                found = Some(start.max(offset));
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found.or((whence == Seek::Hole).then_some(size)))
    }

    /// Figures for people and for statfs.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let tables = self.tree.tables();
        let writer = self.tree.data().get(tables.writer.clone()).unwrap_or_default();
        Figures {
            minor: self.index().minor(),
            inodes: self.tree.inode_count(),
            blocks: self.blocks.len(),
            block_size: tables.block_size,
            total_size: tables.total_fs_size,
            allocated_size: tables.total_allocated_fs_size.unwrap_or(tables.total_fs_size),
            hardlink_size: tables.hardlink_size,
            stored_size: self.index().end() - self.index().offset(),
            writer: String::from_utf8_lossy(writer).into_owned(),
            created: tables.created,
        }
    }

    /// What is known of each block without decompressing it, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// Of each block what is wrong with its header or its category.
    pub fn block_facts(&self) -> impl Iterator<Item = Result<BlockFacts, Error>> + '_ {
        let sections = self.index().sections().iter();
        let blocks = sections.filter(|section| section.kind == SectionKind::Block);
        (0..).zip(blocks).map(|(number, section)| self.facts_of(number, *section))
    }

    fn facts_of(&self, number: u32, section: Section) -> Result<BlockFacts, Error> {
        let payload = self.index().payload(self.blocks.source(), section)?;
        let categories = self.tree.tables().categories.as_ref().map_err(Arc::clone)?;
        let data = self.tree.data();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(BlockFacts {
            compression: payload.compression,
            stored_len: payload.len,
            category: categories.name(data, number)?.map(text),
            description: categories.description(data, number)?.map(text),
        })
    }

    /// Longest uncompressed block in bytes.
    #[must_use]
    pub fn block_size(&self) -> u64 {
        self.tree.tables().block_size
    }

    /// Where the archive and its sections are.
    #[must_use]
    pub fn index(&self) -> &Index {
        self.blocks.index()
    }

    /// Who made the archive: all history sections, oldest first.
    ///
    /// # Errors
    ///
    /// What is wrong with a history section.
    pub fn history(&self) -> Result<History, Error> {
        let mut history = History::default();
        let mut limit = limits::MAX_HISTORY_LEN;
        let source = self.blocks.source();
        let sections = self.index().sections().iter().filter(|section| section.kind == SectionKind::History);
        for section in sections.take(limits::MAX_HISTORIES) {
            let (codec, payload) = self.index().read(source, *section)?;
            let bytes = Job { section: section.number, codec, limit }.decompress(payload)?;
            limit = limit.saturating_sub(bytes.len() as u64);
            history.entries.extend(History::decode(&bytes)?.entries);
        }
        Ok(history)
    }
}

/// Reads, checks and decompresses the first section of a kind.
pub(super) fn load(
    source: &dyn ReadAt,
    index: &Index,
    kind: SectionKind,
    what: &'static str,
) -> Result<Vec<u8>, Error> {
    let section = index.first(kind).ok_or(Error::MissingSection { what })?;
    let (codec, payload) = index.read(source, section)?;
    let limit = match kind {
        SectionKind::Metadata => limits::max_metadata(payload.len() as u64),
        _ => limits::MAX_SCHEMA_LEN,
    };
    Job { section: section.number, codec, limit }.decompress(payload)
}
