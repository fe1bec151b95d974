//! The blocks of one archive: stored ones are read from the file, all others come from the cache.

use std::ops::Range;

use super::{
    cache::{BlockCache, Key, Opened, Origin},
    codec::Job,
    index::{Index, Payload, Section},
    live::{Generation, Live},
    prefetch::Next,
    read_at::{ReadAt, read_into, read_vec},
    references::References,
    tree::Tree,
};
use crate::{
    dwarfs::{
        Error,
        format::section::{Compression, SectionKind},
    },
    pinned::Slice,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    sys::block_memory::Memory,
};

/// A payload may be twice as long as the longest block, and this long in any case: codecs that cannot compress add
/// a little, none of them adds as much.
const LEAST_PAYLOAD_LIMIT: u64 = 64 << 10;

/// The blocks of an archive.
#[derive(Debug)]
pub(super) struct Blocks {
    sections: Arc<Sections>,
    /// The same, as the cache knows it.
    origin: Arc<dyn Origin>,
    cache: Arc<BlockCache>,
    archive: u64,
}

/// The sections that hold blocks.
#[derive(Debug)]
struct Sections {
    source: Arc<dyn ReadAt>,
    index: Index,
    live: Live,
    /// Longest uncompressed block.
    max_len: u64,
    blocks: Vec<BlockState>,
    tree: Arc<Tree>,
    /// Counted when the cache first wants to give something back.
    references: OnceLock<Option<References>>,
    counting: AtomicBool,
}

/// What is known of a block.
#[derive(Debug)]
struct BlockState {
    section: Section,
    /// Read from its header on first use.
    payload: OnceLock<Payload>,
    /// The generation of the file, never 0, in which the block was found equal to its checksum.
    checked: AtomicU32,
    /// Held by whoever compares a stored block with its checksum.
    checking: Mutex<()>,
    /// When the cache let go of it, by the cache's clock.
    left: AtomicU64,
}

impl Blocks {
    pub(super) fn new(
        source: Arc<dyn ReadAt>,
        index: Index,
        live: Live,
        cache: Arc<BlockCache>,
        tree: Arc<Tree>,
    ) -> Self {
        let max_len = tree.tables().block_size;
        let blocks = index.sections().iter().filter(|section| section.kind == SectionKind::Block);
        let state = |section: &Section| BlockState {
            section: *section,
            payload: OnceLock::new(),
            checked: AtomicU32::new(0),
            checking: Mutex::new(()),
            left: AtomicU64::new(0),
        };
        let blocks = blocks.map(state).collect();
        let archive = cache.register();
        let sections = Arc::new(Sections {
            source,
            index,
            live,
            max_len,
            blocks,
            tree,
            references: OnceLock::new(),
            counting: AtomicBool::new(false),
        });
        Self { origin: Arc::clone(&sections) as _, sections, cache, archive }
    }

    pub(super) fn source(&self) -> &dyn ReadAt {
        &*self.sections.source
    }

    pub(super) fn index(&self) -> &Index {
        &self.sections.index
    }

    /// Number of blocks.
    pub(super) fn len(&self) -> usize {
        self.sections.blocks.len()
    }

    /// Returns `len` bytes at `offset` of block `number`. `next` tells what the reader comes to behind it.
    pub(super) fn slice(
        &self,
        number: u32,
        offset: u64,
        len: usize,
        next: &dyn Fn(usize) -> Next,
    ) -> Result<Slice, Error> {
        let sections = &*self.sections;
        let block = sections.block(number)?;
        let payload = sections.payload(block)?;
        if payload.compression == Compression::None {
            checked_range(offset, len, payload.len)?;
            return sections.read_stored(block, payload.offset + offset, len as u64).map(Slice::from_vec);
        }
        let range = checked_range(offset, len, sections.max_len)?;
        self.cache.slice(self.key(number), &self.origin, range, next)
    }

    /// Loads blocks in the background.
    pub(super) fn prefetch(&self, blocks: &[u32]) {
        let there = blocks.iter().filter(|number| self.sections.block(**number).is_ok());
        self.cache.prefetch(there.map(|number| (self.key(*number), Arc::clone(&self.origin))));
    }

    const fn key(&self, block: u32) -> Key {
        Key { archive: self.archive, block }
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.cache.unregister(self.archive);
    }
}

impl Sections {
    fn block(&self, number: u32) -> Result<&BlockState, Error> {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        let bound = self.blocks.len() as u64;
        self.blocks.get(at).ok_or(Error::OutOfRange { what: "block", found: u64::from(number), bound })
    }

    fn payload(&self, block: &BlockState) -> Result<Payload, Error> {
        if let Some(payload) = block.payload.get() {
            return Ok(*payload);
        }
        let payload = self.index.payload(&*self.source, block.section)?;
        Ok(*block.payload.get_or_init(|| payload))
    }

    /// Reads a part of a stored block from the file. It counts if the block as a whole was checked in the file's
    /// present state; else the block is checked and the part read once more.
    fn read_stored(&self, block: &BlockState, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
        /// Tries before a file that somebody keeps writing to is given up.
        const TRIES: u32 = 4;
        for _ in 0..TRIES {
            if block.checked.load(Ordering::Acquire) != 0 {
                let bytes = read_vec(&*self.source, offset, len)?;
                if self.is_checked(block)?.is_ok() {
                    return Ok(bytes);
                }
            }
            self.check_stored(block)?;
        }
        Err(Error::Replaced { offset: block.section.offset })
    }

    /// Compares a stored block with its checksum, unless that was done since the file was last changed.
    fn check_stored(&self, block: &BlockState) -> Result<(), Error> {
        let _one_at_a_time = block.checking.lock();
        if let Err(generation) = self.is_checked(block)? {
            self.index.check(&*self.source, block.section, false, &mut |_| {})?;
            block.checked.store(generation, Ordering::Release);
        }
        Ok(())
    }

    /// Whether a block was checked in the file's present state; else the number of that.
    fn is_checked(&self, block: &BlockState) -> Result<Result<(), Generation>, Error> {
        let generation = self.live.confirm(&*self.source)?;
        Ok(if block.checked.load(Ordering::Acquire) == generation { Ok(()) } else { Err(generation) })
    }
}

impl Origin for Sections {
    fn open(&self, number: u32) -> Result<Option<Opened>, Error> {
        let block = self.block(number)?;
        let payload = self.payload(block)?;
        if payload.compression == Compression::None {
            return self.check_stored(block).map(|()| None);
        }
        let job = Job { section: block.section.number, codec: payload.compression, limit: self.max_len };
        let limit = self.max_len.saturating_mul(2).saturating_add(LEAST_PAYLOAD_LIMIT);
        if payload.len > limit {
            return Err(Error::Limit { what: "length of a compressed block", found: payload.len, limit });
        }
        let len = usize::try_from(payload.len).map_err(|_| job.no_room(payload.len))?;
        let (memory, mut writer) = Memory::reserve(len).map_err(|_| job.no_room(payload.len))?;
        writer.expect(len);
        read_into(&*self.source, payload.offset, writer.spare())?;
        writer.publish(len);
        if let Err(generation) = self.is_checked(block)? {
            self.index.compare(&*self.source, block.section, memory.bytes(0..len))?;
            block.checked.store(generation, Ordering::Release);
        }
        job.decoder(memory).map(|opened| Some(Opened::new(opened)))
    }

    fn references(&self, number: u32) -> Option<&[u32]> {
        self.references.get()?.as_ref()?.of(number)
    }

    fn wants_count(&self) -> bool {
        !self.counting.swap(true, Ordering::Relaxed)
    }

    fn count_references(&self) {
        self.references.get_or_init(|| References::count(&self.tree, self.blocks.len()));
    }

    fn longest(&self) -> usize {
        usize::try_from(self.max_len).unwrap_or(usize::MAX)
    }

    fn left(&self, number: u32) -> Option<&AtomicU64> {
        self.block(number).ok().map(|block| &block.left)
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
