//! One cached block: decoded from front to back, by whoever needs more of it.
//!
//! ```text
//! Fresh ──► Busy ──► Resting ──► Busy ──► … ──► Done
//!              └───────────────────────────────► Failed
//! ```
//!
//! Who asks for bytes that are not there yet, and finds nobody at it, decodes until they are there and lets the
//! decoder rest. Who finds somebody at it waits until his own bytes are there, or until it is his turn. What was
//! published before the decoder met damage stays readable; behind it everybody gets the same error.

use std::{fmt, mem, ops::Range};

use super::{
    Key, Ledger,
    served::{Served, Taken},
};
use crate::{
    dwarfs::{Error, read::codec},
    pinned::{Pinned, Slice},
    sync::{
        Arc, Condvar, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    sys::block_memory::{Memory, Writer},
};

pub(in crate::dwarfs::read) use codec::Step;

/// Where blocks come from: an archive.
pub(in crate::dwarfs::read) trait Origin: Send + Sync + fmt::Debug {
    /// Reads a block's payload, checks it and opens it; `None` for a block that is stored as it is, which is brought
    /// into the page cache instead.
    fn open(&self, block: u32) -> Result<Option<Opened>, Error>;

    /// How many bytes of each unit of the memory of a block files refer to, once that has been counted.
    fn references(&self, block: u32) -> Option<&[u32]> {
        let _ = block;
        None
    }

    /// Whether that should be counted: true once.
    fn wants_count(&self) -> bool {
        false
    }

    /// Counts that.
    fn count_references(&self) {}

    /// Length of its longest block.
    fn longest(&self) -> usize;

    /// Where the cache notes when it let go of a block: 0 for never, else by its own clock.
    fn left(&self, block: u32) -> Option<&AtomicU64>;
}

/// A payload on its way to becoming a block.
pub(in crate::dwarfs::read) trait Decode: Send {
    /// Decodes one step.
    fn advance(&mut self, out: &mut Writer) -> Result<Step, Error>;

    /// Bytes of memory in use beside the output.
    fn held(&self) -> usize;
}

impl Decode for codec::Decoder {
    fn advance(&mut self, out: &mut Writer) -> Result<Step, Error> {
        Self::advance(self, out)
    }

    fn held(&self) -> usize {
        Self::held(self)
    }
}

/// A payload that has been opened.
pub(in crate::dwarfs::read) struct Opened {
    pub(in crate::dwarfs::read) decoder: Box<dyn Decode>,
    pub(in crate::dwarfs::read) memory: Arc<Memory>,
    pub(in crate::dwarfs::read) writer: Writer,
}

impl Opened {
    pub(in crate::dwarfs::read) fn new(
        (decoder, memory, writer): (impl Decode + 'static, Arc<Memory>, Writer),
    ) -> Self {
        Self { decoder: Box::new(decoder), memory, writer }
    }
}

/// How far a block is.
enum Work {
    Fresh,
    Resting(Opened),
    Busy,
    Done,
    Failed(Arc<Error>),
}

/// A block in the cache.
pub(in crate::dwarfs::read) struct Block {
    pub(super) key: Key,
    pub(super) origin: Arc<dyn Origin>,
    pub(super) uses: Uses,
    memory: OnceLock<Arc<Memory>>,
    served: Served,
    work: Mutex<Work>,
    changed: Condvar,
    /// The least length for which somebody waits.
    wanted: AtomicUsize,
    /// What of the cache's bound this block takes; `None` once it is out.
    charge: Mutex<Option<usize>>,
}

/// What the cache and the prefetcher know of how a block is used. All of it is approximate.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// Used again, after others came in.
    pub(super) again: AtomicBool,
    /// The cache's clock when `again` was last decided.
    pub(super) touched: AtomicU64,
    /// Used since the last sweep.
    pub(super) recently: AtomicBool,
    /// Bytes that were asked for, repetitions included.
    pub(super) asked: AtomicU64,
    /// How often more had to be decoded for somebody.
    pub(super) turns: AtomicU32,
    /// Whether a worker was asked to finish it.
    pub(super) finishing: AtomicBool,
}

/// What somebody's turn at a block came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// All was there already.
    Hit,
    /// He decoded, or waited for somebody who did.
    Decoded,
}

/// When a decoding thread is told to let the decoder rest.
pub(super) trait Attendant {
    /// Hears before the first step.
    fn begins(&self) {}

    /// Hears after each step; the block may have grown. `false` ends the turn.
    fn stepped(&self, block: &Block) -> bool;

    /// Hears when the turn is over, however it ended.
    fn ends(&self) {}
}

impl Block {
    pub(super) fn new(key: Key, origin: Arc<dyn Origin>) -> Self {
        Self {
            key,
            origin,
            uses: Uses::default(),
            memory: OnceLock::new(),
            served: Served::default(),
            work: Mutex::new(Work::Fresh),
            changed: Condvar::new(),
            wanted: AtomicUsize::new(usize::MAX),
            charge: Mutex::new(Some(0)),
        }
    }

    /// How many bytes are there.
    pub(super) fn published(&self) -> usize {
        self.memory.get().map_or(0, |memory| memory.published())
    }

    /// How long it can become; 0 before it is opened.
    pub(super) fn capacity(&self) -> usize {
        self.memory.get().map_or(0, |memory| memory.capacity())
    }

    /// Whether nothing more will be decoded.
    pub(super) fn is_settled(&self) -> bool {
        matches!(*self.work.lock(), Work::Done | Work::Failed(_))
    }

    /// Whether somebody is at it just now.
    pub(super) fn is_busy(&self) -> bool {
        self.work.try_lock().is_none_or(|work| matches!(*work, Work::Busy))
    }

    /// Whether a decoder waits to go on.
    pub(super) fn is_resting(&self) -> bool {
        matches!(*self.work.lock(), Work::Resting(_))
    }

    /// Pins a range, which must have been reached, unless some of it was given back.
    pub(super) fn slice(self: Arc<Self>, range: Range<usize>) -> (Taken, Slice) {
        (self.served.take(&range), Slice::new(self, range))
    }

    /// Whether much of the block could be given back.
    pub(super) fn is_ripe(&self) -> bool {
        self.origin.references(self.key.block).is_some_and(|whole| self.served.is_ripe(whole))
            && matches!(*self.work.lock(), Work::Done)
    }

    /// Gives back what has been served. Returns whether that was anything.
    pub(super) fn thin(&mut self, ledger: &Ledger) -> bool {
        let Some(memory) = self.memory.get_mut().and_then(Arc::get_mut) else { return false };
        let Some(whole) = self.origin.references(self.key.block) else { return false };
        let freed: usize =
            self.served.withdraw(whole).map(|(first, count)| memory.release(first, count)).sum();
        self.recharge(0, ledger);
        freed > 0
    }

    /// Sees to it that the first `until` bytes are there.
    pub(super) fn reach(
        self: &Arc<Self>,
        until: usize,
        ledger: &Ledger,
        attendant: &dyn Attendant,
    ) -> Result<Turn, Error> {
        if self.published() >= until {
            return Ok(Turn::Hit);
        }
        let mut work = self.work.lock();
        loop {
            if self.published() >= until {
                return Ok(Turn::Decoded);
            }
            match &*work {
                Work::Done => return Err(self.too_short(until)),
                Work::Failed(error) => return Err(Error::Shared(Arc::clone(error))),
                Work::Busy => {
                    self.wanted.fetch_min(until, Ordering::Relaxed);
                    self.changed.wait(&mut work);
                }
                Work::Fresh | Work::Resting(_) => {
                    let taken = mem::replace(&mut *work, Work::Busy);
                    drop(work);
                    Shift::begin(self, ledger, attendant).work(taken, until);
                    work = self.work.lock();
                }
            }
        }
    }

    /// Goes on with a block for nobody in particular; does nothing where somebody else is at it.
    pub(super) fn proceed(self: &Arc<Self>, ledger: &Ledger, attendant: &dyn Attendant) {
        let taken = {
            let mut work = self.work.lock();
            match &*work {
                Work::Fresh | Work::Resting(_) => mem::replace(&mut *work, Work::Busy),
                Work::Busy | Work::Done | Work::Failed(_) => return,
            }
        };
        Shift::begin(self, ledger, attendant).work(taken, usize::MAX);
    }

    /// Brings the charge up to what the block really takes.
    fn recharge(&self, held: usize, ledger: &Ledger) {
        let takes = size_of::<Self>() + held + self.memory.get().map_or(0, |memory| memory.resident());
        if let Some(charge) = &mut *self.charge.lock() {
            ledger.adjust(*charge, takes);
            *charge = takes;
        }
    }

    /// What the block will take of the bound when all of it is there.
    pub(super) fn weight(&self) -> usize {
        self.memory.get().map_or_else(|| self.origin.longest(), |memory| memory.capacity())
    }

    /// The block is out of the cache: from now on it counts for nothing. Who pins it has it until he lets go.
    pub(super) fn discharge(&self, ledger: &Ledger) {
        if let Some(charge) = self.charge.lock().take() {
            ledger.adjust(charge, 0);
            if let Some(left) = self.origin.left(self.key.block) {
                left.store(ledger.now().max(1), Ordering::Relaxed);
            }
        }
    }

    /// Whether the cache still counts it.
    pub(super) fn is_kept(&self) -> bool {
        self.charge.lock().is_some()
    }

    fn too_short(&self, until: usize) -> Error {
        let bound = self.published() as u64 + 1;
        Error::OutOfRange { what: "end of a chunk in its block", found: until as u64, bound }
    }
}

impl Pinned for Block {
    fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.memory.get().map_or(&[], |memory| memory.bytes(range))
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({:?}, {} of {} bytes)", self.key, self.published(), self.capacity())
    }
}

/// Somebody's time at a block. However it ends, also by a panic, those who wait hear of it.
struct Shift<'a> {
    block: &'a Arc<Block>,
    ledger: &'a Ledger,
    attendant: &'a dyn Attendant,
    outcome: Option<Work>,
}

impl<'a> Shift<'a> {
    fn begin(block: &'a Arc<Block>, ledger: &'a Ledger, attendant: &'a dyn Attendant) -> Self {
        attendant.begins();
        Self { block, ledger, attendant, outcome: None }
    }

    fn work(mut self, taken: Work, until: usize) {
        let outcome = match taken {
            Work::Fresh => self.open(),
            Work::Resting(opened) => Ok(Some(opened)),
            Work::Busy | Work::Done | Work::Failed(_) => Ok(None),
        };
        self.outcome = Some(match outcome {
            Ok(Some(opened)) => self.decode(opened, until),
            // Stored as it is: nobody asks the cache for it but a prefetch.
            Ok(None) => Work::Done,
            Err(error) => Work::Failed(Arc::new(error)),
        });
    }

    fn open(&self) -> Result<Option<Opened>, Error> {
        let opened = self.block.origin.open(self.block.key.block)?;
        if let Some(opened) = &opened {
            self.ledger.opened();
            self.block.served.begin(opened.memory.capacity());
            let _ = self.block.memory.set(Arc::clone(&opened.memory));
            self.block.recharge(opened.decoder.held(), self.ledger);
        }
        Ok(opened)
    }

    fn decode(&self, mut opened: Opened, until: usize) -> Work {
        loop {
            // The end of a block that is all there takes no time, and frees the decoder.
            let published = opened.writer.published();
            if published >= until && published < opened.writer.capacity() {
                return Work::Resting(opened);
            }
            let advanced = opened.decoder.advance(&mut opened.writer);
            self.ledger.decoded(opened.writer.published().saturating_sub(published));
            match advanced {
                Ok(Step::More) => self.block.recharge(opened.decoder.held(), self.ledger),
                Ok(Step::End) => {
                    let Opened { decoder, writer, .. } = opened;
                    drop(decoder);
                    writer.finish();
                    return Work::Done;
                }
                Err(error) => return Work::Failed(Arc::new(error)),
            }
            self.tell(opened.writer.published());
            if !self.attendant.stepped(self.block) {
                return Work::Resting(opened);
            }
        }
    }

    /// Wakes those who wait for what is there by now.
    fn tell(&self, published: usize) {
        if self.block.wanted.load(Ordering::Relaxed) <= published {
            let _work = self.block.work.lock();
            self.block.wanted.store(usize::MAX, Ordering::Relaxed);
            self.block.changed.notify_all();
        }
    }
}

impl Drop for Shift<'_> {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| Work::Failed(Arc::new(Error::Abandoned)));
        let held = match &outcome {
            Work::Resting(opened) => opened.decoder.held(),
            _ => 0,
        };
        self.block.recharge(held, self.ledger);
        {
            let mut work = self.block.work.lock();
            *work = outcome;
            self.block.wanted.store(usize::MAX, Ordering::Relaxed);
            self.block.changed.notify_all();
        }
        self.attendant.ends();
        // A block of one step, or one that was long in coming, has not been heard of yet.
        self.attendant.stepped(self.block);
    }
}
