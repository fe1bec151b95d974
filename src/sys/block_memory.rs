//! Memory of one cached block: one writer fills it from the front, many readers see what is filled.
//!
//! ```text
//!      published                        capacity
//! 0 ------|------------------------------|
//! | readers, `&[u8]`  | the writer, `&mut [u8]` |
//! ```
//!
//! The length that is published only grows, and only the writer moves it: it writes behind it, then stores the new
//! length with Release; readers load it with Acquire and look at nothing behind it. So no byte is ever written that
//! somebody can see.
//!
//! Longer blocks are mappings of their own: what is not touched costs nothing, and what is freed goes back to the
//! system at once, also in parts. Short blocks come from the heap.
#![expect(unsafe_code, reason = "one writer and many readers of the same memory at the same time")]

use std::{fmt, io, ops::Range, ptr, ptr::NonNull, slice};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use zstd_safe::{DCtx, InBuffer, OutBuffer, SafeResult, WriteBuf};

use crate::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Longest block that comes from the heap, in bytes. A mapping costs a system call each way and a page's rounding.
const LONGEST_ON_HEAP: usize = 64 << 10;

/// Unit in which mappings are trimmed and given back: a page of every system that we run on is at most this long.
pub const UNIT: usize = 64 << 10;

/// What a decoder gets at a time: with one call for many pages a page costs half of what it costs when the decoder
/// runs into it. More would lie idle while a decoder rests.
const AHEAD: usize = 256 << 10;

/// The memory of one block.
pub struct Memory {
    base: NonNull<u8>,
    capacity: usize,
    published: AtomicUsize,
    /// Bytes that were given back.
    released: usize,
    backing: Backing,
}

/// Where the memory comes from.
enum Backing {
    /// A boxed slice of `capacity` bytes.
    Heap,
    /// A private anonymous mapping of this length, which shrinks when the writer is done.
    Mapping(AtomicUsize),
}

// SAFETY: `base` is owned by this value alone, and nothing about it belongs to a thread.
unsafe impl Send for Memory {}
// SAFETY: shared access reads below `published` only, and writes happen at or behind it through the one `Writer`.
unsafe impl Sync for Memory {}

impl Memory {
    /// Reserves `capacity` bytes, none of them published.
    ///
    /// # Errors
    ///
    /// What mmap(2) said.
    pub fn reserve(capacity: usize) -> io::Result<(Arc<Self>, Writer)> {
        let (base, backing) = if capacity <= LONGEST_ON_HEAP {
            let buffer = Box::into_raw(vec![0_u8; capacity].into_boxed_slice());
            (buffer.cast::<u8>(), Backing::Heap)
        } else {
            let (protection, flags) =
                (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
            // SAFETY: the kernel chooses the place, so that nothing that is mapped already is replaced.
            let base = unsafe { mmap_anonymous(ptr::null_mut(), capacity, protection, flags) }?;
            // Parts of a huge page cannot be given back.
            // SAFETY: the range is the mapping just made; this advice changes no contents. That a system without
            // huge pages refuses it is fine.
            let _ = unsafe { madvise(base, capacity, Advice::LinuxNoHugepage) };
            (base.cast::<u8>(), Backing::Mapping(AtomicUsize::new(capacity)))
        };
        let base = NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?;
        let memory = Arc::new(Self { base, capacity, published: AtomicUsize::new(0), released: 0, backing });
        let writer = Writer { memory: Arc::clone(&memory), there: 0 };
        Ok((memory, writer))
    }

    /// How many bytes from the start on can be read.
    #[must_use]
    pub fn published(&self) -> usize {
        self.published.load(Ordering::Acquire)
    }

    /// How many bytes it can hold.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The bytes of a range, if all of it is published; else none.
    #[must_use]
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        if range.start > range.end || range.end > self.published() {
            return &[];
        }
        // SAFETY: from_raw_parts wants `len` initialised bytes within one allocation that nobody writes while the
        // slice lives. The range lies below `published`, hence within the allocation, which lives as long as `self`;
        // those bytes were written before the Release store that the Acquire load above has seen; the writer
        // only writes at or behind `published`, which never falls.
        unsafe { slice::from_raw_parts(self.base.as_ptr().add(range.start), range.len()) }
    }

    /// How many bytes of the system's memory it takes by now.
    #[must_use]
    pub fn resident(&self) -> usize {
        match &self.backing {
            Backing::Heap => self.capacity,
            Backing::Mapping(kept) => {
                let filled = self.published().next_multiple_of(UNIT).min(kept.load(Ordering::Relaxed));
                filled.saturating_sub(self.released)
            }
        }
    }

    /// Gives `count` units from unit `first` on back to the system; they read as zeros from now on. To be called once
    /// for each unit, of a mapping whose writer is done. Returns the bytes that were freed.
    pub fn release(&mut self, first: usize, count: usize) -> usize {
        let Backing::Mapping(kept) = &self.backing else { return 0 };
        let start = first.saturating_mul(UNIT);
        let end = start.saturating_add(count.saturating_mul(UNIT)).min(kept.load(Ordering::Relaxed));
        if start >= end {
            return 0;
        }
        // SAFETY: the range begins at a page and lies within the mapping, which is private and anonymous, so that its
        // pages are replaced by zeros. `&mut self` says that nobody looks at them, and that there is no writer, who
        // would share this value.
        let advised =
            unsafe { madvise(self.base.as_ptr().add(start).cast(), end - start, Advice::LinuxDontNeed) };
        match advised {
            Ok(()) => {
                self.released = self.released.saturating_add(end - start);
                end - start
            }
            Err(_) => 0,
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match &self.backing {
            Backing::Heap => {
                let buffer = ptr::slice_from_raw_parts_mut(self.base.as_ptr(), self.capacity);
                // SAFETY: `base` and `capacity` are those of the boxed slice that `reserve` took apart, and nobody
                // else frees it.
                drop(unsafe { Box::from_raw(buffer) });
            }
            Backing::Mapping(kept) => {
                // SAFETY: the range is what `reserve` mapped and `finish` left of it; nobody refers to it any more,
                // because slices borrow `self`. Failing would only keep the memory.
                let _ = unsafe { munmap(self.base.as_ptr().cast(), kept.load(Ordering::Relaxed)) };
            }
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} of {} bytes)", self.published(), self.capacity)
    }
}

/// The one who may write into a [`Memory`]. It cannot be cloned.
#[derive(Debug)]
pub struct Writer {
    memory: Arc<Memory>,
    /// Up to here pages have been asked for.
    there: usize,
}

impl Writer {
    /// How many bytes are published.
    #[must_use]
    pub fn published(&self) -> usize {
        self.memory.published.load(Ordering::Relaxed)
    }

    /// How many bytes there is room for in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.capacity
    }

    /// Gets the pages for the next `count` bytes that are about to be written. A system that cannot do that gives
    /// them out one by one.
    pub fn expect(&mut self, count: usize) {
        let Backing::Mapping(kept) = &self.memory.backing else { return };
        let start = self.there.next_multiple_of(UNIT);
        let end = self.published().saturating_add(count).min(self.capacity());
        let end = end.next_multiple_of(UNIT).min(kept.load(Ordering::Relaxed));
        if start >= end {
            return;
        }
        self.there = end;
        // SAFETY: the range begins at a page and lies within the mapping, which lives as long as `memory`. The advice
        // makes pages present and changes no contents. That it is refused is fine.
        let _ = unsafe {
            madvise(self.memory.base.as_ptr().add(start).cast(), end - start, Advice::LinuxPopulateWrite)
        };
    }

    /// The bytes that are not published yet, to be written.
    pub fn spare(&mut self) -> &mut [u8] {
        let published = self.published();
        // SAFETY: from_raw_parts_mut wants initialised bytes within one allocation that nobody else touches while
        // the slice lives. `published` is at most the capacity; both kinds of memory are zeroed when they are made;
        // readers stay below `published`, and `&mut self` keeps this writer from moving it or from handing the same
        // bytes out again.
        unsafe {
            slice::from_raw_parts_mut(self.memory.base.as_ptr().add(published), self.capacity() - published)
        }
    }

    /// Publishes the next `count` bytes; at most what is spare.
    pub fn publish(&mut self, count: usize) {
        let published = self.published().saturating_add(count).min(self.capacity());
        self.memory.published.store(published, Ordering::Release);
    }

    /// Lets a zstd decoder write behind what is published, and publishes what it wrote.
    ///
    /// With the parameter `StableOutBuffer` the decoder needs no window of its own: it refers back to what is
    /// published, which stays where it is and as it is.
    ///
    /// # Errors
    ///
    /// What the decoder says; nothing has been published then.
    pub fn decompress(&mut self, decoder: &mut DCtx<'static>, input: &mut InBuffer<'_>) -> SafeResult {
        let published = self.published();
        if self.there < published.saturating_add(AHEAD / 2) {
            self.expect(AHEAD);
        }
        decoder.decompress_stream(&mut OutBuffer::around_pos(&mut Whole(self), published), input)
    }

    /// Says that no more will come: what was reserved and not used goes back.
    pub fn finish(self) {
        let Backing::Mapping(kept) = &self.memory.backing else { return };
        let (needed, mapped) =
            (self.published().next_multiple_of(UNIT).max(UNIT), kept.load(Ordering::Relaxed));
        if needed >= mapped {
            return;
        }
        // SAFETY: the tail begins at a page and lies within the mapping, behind everything that readers may look at;
        // the only writer ends here.
        let unmapped = unsafe { munmap(self.memory.base.as_ptr().add(needed).cast(), mapped - needed) };
        if unmapped.is_ok() {
            kept.store(needed, Ordering::Relaxed);
        }
    }
}

/// The memory as zstd wants to see it: as a whole, with a position. Only [`Writer::decompress`] makes one, so that
/// the position is always what is published.
struct Whole<'a>(&'a mut Writer);

// SAFETY: `as_mut_ptr` points at `capacity` bytes that are valid to write to; zstd writes at or behind the position
// it is given, which is `published`, so that readers see no change. `as_slice` covers published bytes only, all of
// them initialised, and `filled_until` publishes what zstd says it has written.
unsafe impl WriteBuf for Whole<'_> {
    fn as_slice(&self) -> &[u8] {
        self.0.memory.bytes(0..self.0.published())
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }

    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.memory.base.as_ptr()
    }

    unsafe fn filled_until(&mut self, n: usize) {
        let published = self.0.published();
        self.0.publish(n.saturating_sub(published));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::thread;

    /// What stands at each place.
    fn byte(at: usize) -> u8 {
        u8::try_from(at * 7 % 251).unwrap()
    }

    fn fill(writer: &mut Writer, count: usize) {
        let start = writer.published();
        for (at, spare) in writer.spare().iter_mut().take(count).enumerate() {
            *spare = byte(start + at);
        }
        writer.publish(count);
    }

    #[test]
    fn only_what_is_published_can_be_read() {
        for capacity in [0, 10, LONGEST_ON_HEAP, LONGEST_ON_HEAP + 1, 3 << 20] {
            let (memory, mut writer) = Memory::reserve(capacity).unwrap();
            assert_eq!((memory.published(), memory.capacity()), (0, capacity));
            assert!(memory.bytes(0..1).is_empty());
            fill(&mut writer, capacity / 2);
            assert_eq!(memory.published(), capacity / 2);
            assert!(memory.bytes(0..capacity / 2 + 1).is_empty());
            assert!(memory.bytes(0..capacity / 2).iter().enumerate().all(|(at, found)| *found == byte(at)));
            assert_eq!(writer.spare().len(), capacity - capacity / 2);
            // More than there is cannot be published.
            writer.publish(usize::MAX);
            assert_eq!(memory.published(), capacity);
        }
    }

    #[test]
    fn what_was_not_used_goes_back() {
        let (memory, mut writer) = Memory::reserve(64 << 20).unwrap();
        fill(&mut writer, UNIT + 1);
        assert_eq!(memory.resident(), 2 * UNIT);
        writer.finish();
        assert_eq!(memory.resident(), 2 * UNIT);
        assert_eq!(memory.bytes(UNIT..UNIT + 1), [byte(UNIT)]);
        let (memory, writer) = Memory::reserve(64 << 20).unwrap();
        writer.finish();
        assert_eq!((memory.published(), memory.resident()), (0, 0));
    }

    #[test]
    fn parts_go_back() {
        let (mut memory, mut writer) = Memory::reserve(10 * UNIT + 5).unwrap();
        fill(&mut writer, 10 * UNIT + 5);
        writer.finish();
        assert_eq!(memory.resident(), 10 * UNIT + 5);
        let alone = Arc::get_mut(&mut memory).unwrap();
        assert_eq!((alone.release(2, 3), alone.release(10, 7), alone.release(99, 1)), (3 * UNIT, 5, 0));
        assert_eq!(memory.resident(), 7 * UNIT);
        assert!(memory.bytes(2 * UNIT..5 * UNIT).iter().all(|byte| *byte == 0));
        for at in [0, 2 * UNIT - 1, 5 * UNIT, 10 * UNIT - 1] {
            assert_eq!(memory.bytes(at..at + 1), [byte(at)]);
        }
    }

    #[test]
    fn pages_are_expected_once_and_not_beyond_the_end() {
        let len = (3 << 20) + 5;
        let (memory, mut writer) = Memory::reserve(len).unwrap();
        writer.expect(AHEAD);
        assert_eq!(writer.there, AHEAD);
        fill(&mut writer, UNIT);
        writer.expect(AHEAD);
        assert_eq!(writer.there, AHEAD + UNIT);
        writer.expect(usize::MAX);
        assert_eq!(writer.there, len);
        fill(&mut writer, len - UNIT);
        assert!(memory.bytes(0..len).iter().enumerate().all(|(at, found)| *found == byte(at)));
    }

    #[test]
    fn too_much_is_an_error() {
        assert!(Memory::reserve(usize::MAX / 2).is_err());
    }

    #[test]
    fn readers_never_see_what_is_not_written_yet() {
        const LEN: usize = 3 << 20;
        for round in 0..4 {
            let (memory, mut writer) = Memory::reserve(LEN - round).unwrap();
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        let mut seen = 0;
                        while seen < memory.capacity() {
                            let published = memory.published();
                            let fresh = memory.bytes(seen..published);
                            assert!((seen..).zip(fresh).all(|(at, found)| *found == byte(at)));
                            seen = published;
                        }
                    });
                }
                let mut step = 1;
                while !writer.spare().is_empty() {
                    let count = step.min(writer.spare().len());
                    fill(&mut writer, count);
                    step = step * 3 % 10_007 + 1;
                }
            });
        }
    }

    #[test]
    fn zstd_writes_behind_what_is_published_and_readers_may_look_on() {
        let text: Vec<u8> = (0..2_000_000).map(|at: usize| byte(at / 3 * at)).collect();
        let packed = zstd::bulk::compress(&text, 5).unwrap();
        let (memory, mut writer) = Memory::reserve(text.len()).unwrap();
        let mut decoder = DCtx::create();
        decoder.set_parameter(zstd_safe::DParameter::StableOutBuffer(true)).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                while memory.published() < text.len() {
                    let published = memory.published();
                    assert!(memory.bytes(0..published) == &text[..published]);
                }
            });
            for piece in packed.chunks(10_000) {
                let mut input = InBuffer::around(piece);
                while input.pos() < piece.len() {
                    writer.decompress(&mut decoder, &mut input).unwrap();
                }
            }
        });
        assert!(memory.bytes(0..text.len()) == text);
    }
}
