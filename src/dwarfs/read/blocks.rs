//! The blocks of one archive: stored ones are read from the file, all others come from the cache.

use std::ops::Range;

use super::{
    cache::{Block, BlockCache, Key},
    codec::Job,
    index::{Index, Payload, Section},
    read_at::{ReadAt, read_vec},
};
use crate::{
    dwarfs::{
        Error,
        format::section::{Compression, SectionKind},
    },
    pinned::Slice,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// The blocks of an archive.
#[derive(Debug)]
pub(super) struct Blocks {
    source: Arc<dyn ReadAt>,
    index: Index,
    cache: Arc<BlockCache>,
    archive: u64,
    /// Longest uncompressed block.
    max_len: u64,
    blocks: Vec<BlockState>,
}

/// What is known of a block.
#[derive(Debug)]
struct BlockState {
    section: Section,
    /// Read from its header on first use.
    payload: OnceLock<Payload>,
    /// Whether a stored block has been checked against its checksum.
    checked: AtomicBool,
}

impl Blocks {
    pub(super) fn new(source: Arc<dyn ReadAt>, index: Index, cache: Arc<BlockCache>, max_len: u64) -> Self {
        let blocks = index.sections().iter().filter(|section| section.kind == SectionKind::Block);
        let state = |section: &Section| BlockState {
            section: *section,
            payload: OnceLock::new(),
            checked: AtomicBool::new(false),
        };
        let blocks = blocks.map(state).collect();
        let archive = cache.register();
        Self { source, index, cache, archive, max_len, blocks }
    }

    pub(super) fn source(&self) -> &dyn ReadAt {
        &*self.source
    }

    pub(super) const fn index(&self) -> &Index {
        &self.index
    }

    /// Number of blocks.
    pub(super) const fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Returns `len` bytes at `offset` of block `number`.
    pub(super) fn slice(&self, number: u32, offset: u64, len: usize) -> Result<Slice, Error> {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        let bound = self.blocks.len() as u64;
        let block = self.blocks.get(at).ok_or(Error::OutOfRange {
            what: "block",
            found: u64::from(number),
            bound,
        })?;
        let payload = self.payload(block)?;
        let key = Key { archive: self.archive, block: number };
        if payload.compression == Compression::None {
            return self.stored(key, block, payload, offset, len);
        }
        let decoded = self.cache.get(key, || self.decode(block))?;
        let range = checked_range(offset, len, decoded.len() as u64)?;
        Ok(decoded.slice(range))
    }

    /// Decodes blocks before they are asked for, as far as the cache has room.
    pub(super) fn prefetch(&self, blocks: &[u32]) {
        for number in blocks {
            // Whoever reads the block gets the error.
            let _ = self.slice(*number, 0, 0);
        }
    }

    /// Reads a part of a stored block from the file, after the block as a whole was checked once.
    fn stored(
        &self,
        key: Key,
        block: &BlockState,
        payload: Payload,
        offset: u64,
        len: usize,
    ) -> Result<Slice, Error> {
        checked_range(offset, len, payload.len)?;
        if !block.checked.load(Ordering::Acquire) {
            self.cache.once(key, || self.check(block))?;
        }
        read_vec(self.source(), payload.offset + offset, len as u64).map(Slice::from_vec)
    }

    /// Checks a stored block against its checksum, unless somebody just did.
    fn check(&self, block: &BlockState) -> Result<(), Error> {
        if !block.checked.load(Ordering::Acquire) {
            self.index.check(self.source(), block.section, false, &mut |_| {})?;
            block.checked.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn decode(&self, block: &BlockState) -> Result<Block, Error> {
        let (codec, payload) = self.index.read(self.source(), block.section)?;
        let job = Job { section: block.section.number, codec, limit: self.max_len };
        job.decompress(payload).map(Block::new)
    }

    fn payload(&self, block: &BlockState) -> Result<Payload, Error> {
        if let Some(payload) = block.payload.get() {
            return Ok(*payload);
        }
        let payload = self.index.payload(self.source(), block.section)?;
        Ok(*block.payload.get_or_init(|| payload))
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.cache.unregister(self.archive);
    }
}

/// The range of `len` bytes at `offset`, if a block of `block_len` bytes has it.
fn checked_range(offset: u64, len: usize, block_len: u64) -> Result<Range<usize>, Error> {
    let end = offset.saturating_add(len as u64);
    let out = || Error::OutOfRange { what: "end of a chunk in its block", found: end, bound: block_len + 1 };
    if end > block_len {
        return Err(out());
    }
    let start = usize::try_from(offset).map_err(|_| out())?;
    Ok(start..start + len)
}
