//! Compresses blocks on several threads and writes them in their order, with bounded memory.
//!
//! ```text
//!            full                        compressed
//! segmenter ------> jobs --> workers ------------> results --> caller: in order --> archive
//!     ^                                                            |
//!     +------------------------- free buffers <--------------------+
//! ```
//!
//! There are more buffers than workers: one, and one for each block that a stream fills. The streams wait for a free
//! one, so no more blocks than that are under way; and since the block that is to be written next is always among
//! them, nobody waits for ever. Whoever fails closes all three queues, and everybody comes to an end.

use std::collections::{BTreeMap, VecDeque};

use super::{
    archive_writer::{ArchiveWriter, Sealed},
    category::Category,
    codec::{Codec, Compressor},
    error::WriteError,
};
use crate::{
    dwarfs::format::section::{Compression, SectionHeader, SectionKind},
    sync::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
        thread,
    },
};

/// Where full blocks go, and empty buffers come from.
pub(super) trait BlockSink: Sync {
    /// Returns a buffer of at least `len` bytes; whatever it holds is of no use. `None`: everything is coming to an
    /// end, because somebody else failed.
    fn buffer(&self, len: usize) -> Option<Vec<u8>>;

    /// Takes block `number`, the first `len` bytes of a buffer, which are of a category.
    fn block(&self, number: u32, buffer: Vec<u8>, len: usize, category: Category);
}

/// How many take part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crew {
    /// Threads that compress.
    pub(super) threads: usize,
    /// Buffers that go round.
    pub(super) buffers: usize,
}

/// Codecs for the blocks of a category: the one, and the one that is tried if the block is not made for that.
pub(super) type Codecs = (Codec, Option<Codec>);

/// What became of the blocks of a category.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) blocks: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// Runs `produce` on a thread of its own, compresses the blocks that it makes on `crew.threads` more, each with the
/// codec of its category, and writes them.
pub(super) fn run<T: Send>(
    codecs: impl Fn(Category) -> Codecs + Sync,
    crew: Crew,
    archive: &mut ArchiveWriter<'_>,
    produce: impl FnOnce(&dyn BlockSink) -> Result<T, WriteError> + Send,
) -> Result<(T, BTreeMap<Category, Tally>), WriteError> {
    let threads = crew.threads;
    let pipeline = Pipeline::new(crew);
    thread::scope(|scope| {
        let producer = spawn(scope, "segment", || {
            let _closing = Closing(&pipeline.jobs);
            produce(&pipeline)
        })?;
        let workers: Result<Vec<_>, _> =
            (0..threads).map(|_| spawn(scope, "compress", || pipeline.work(&codecs))).collect();
        let written = match &workers {
            Ok(_) => pipeline.write(archive).inspect_err(|_| pipeline.close()),
            Err(_) => {
                pipeline.close();
                Ok(BTreeMap::new())
            }
        };
        let produced = producer.join().map_err(|_| WriteError::Worker)?;
        for worker in workers? {
            worker.join().map_err(|_| WriteError::Worker)?;
        }
        // A producer that was cut short has nothing to say of the cause.
        let tallies = written?;
        Ok((produced?, tallies))
    })
}

fn spawn<'s, T: Send + 's>(
    scope: &'s thread::Scope<'s, '_>,
    name: &str,
    body: impl FnOnce() -> T + Send + 's,
) -> Result<thread::ScopedJoinHandle<'s, T>, WriteError> {
    thread::Builder::new().name(name.into()).spawn_scoped(scope, body).map_err(|_| WriteError::Worker)
}

/// A block on its way.
struct Job {
    number: u32,
    buffer: Vec<u8>,
    len: usize,
    category: Category,
}

/// A block that can be written; its payload is in `compressed` or, if that is `None`, in the job's buffer.
struct Done {
    job: Job,
    header: SectionHeader,
    compressed: Option<Vec<u8>>,
}

struct Pipeline {
    free: Queue<Vec<u8>>,
    jobs: Queue<Job>,
    results: Queue<Result<Done, WriteError>>,
    workers: AtomicUsize,
}

impl Pipeline {
    fn new(crew: Crew) -> Self {
        let free = Queue::default();
        (0..crew.buffers).for_each(|_| free.push(Vec::new()));
        let workers = AtomicUsize::new(crew.threads);
        Self { free, jobs: Queue::default(), results: Queue::default(), workers }
    }

    fn close(&self) {
        self.free.close();
        self.jobs.close();
        self.results.close();
    }

    fn work(&self, codecs: &dyn Fn(Category) -> Codecs) {
        let _leaving = Leaving(self);
        let mut known: Vec<(Codec, Compressor)> = Vec::new();
        while let Some(job) = self.jobs.pop() {
            let payload = job.buffer.get(..job.len).unwrap_or_default();
            let (first, second) = codecs(job.category);
            let mut result = seal(&mut known, first, job.number, payload);
            if let (Ok((_, None)), Some(second)) = (&result, second) {
                result = seal(&mut known, second, job.number, payload);
            }
            self.results.push(result.map(|(header, compressed)| Done { job, header, compressed }));
        }
    }

    /// Writes blocks in their order until no more come.
    fn write(&self, archive: &mut ArchiveWriter<'_>) -> Result<BTreeMap<Category, Tally>, WriteError> {
        let mut early = BTreeMap::new();
        let mut tallies: BTreeMap<Category, Tally> = BTreeMap::new();
        while let Some(result) = self.results.pop() {
            let done = result?;
            early.insert(done.job.number, done);
            while let Some(done) = early.remove(&archive.next_number()?) {
                let raw = done.job.buffer.get(..done.job.len).unwrap_or_default();
                let payload = done.compressed.as_deref().unwrap_or(raw);
                archive.write(&Sealed { header: done.header, payload })?;
                let tally = tallies.entry(done.job.category).or_default();
                tally.blocks += 1;
                tally.bytes_in += raw.len() as u64;
                tally.bytes_out += payload.len() as u64;
                self.free.push(done.job.buffer);
            }
        }
        // A worker that died took a block with it.
        if early.is_empty() { Ok(tallies) } else { Err(WriteError::Worker) }
    }
}

/// Compressors that a worker keeps: blocks of few categories take turns, and a context of a high level takes as much
/// memory as a block, and more.
const MOST_KEPT: usize = 2;

/// Compresses a block with a codec, whose compressor is kept. The payload is given if it is smaller than the block.
fn seal(
    known: &mut Vec<(Codec, Compressor)>,
    codec: Codec,
    number: u32,
    payload: &[u8],
) -> Result<(SectionHeader, Option<Vec<u8>>), WriteError> {
    let mut compressor = match known.iter().position(|(known, _)| *known == codec) {
        Some(place) => known.remove(place).1,
        None => {
            known.truncate(MOST_KEPT - 1);
            Compressor::new(codec)?
        }
    };
    let header = compressor.seal(number, SectionKind::Block, payload)?.header;
    let is_smaller = header.compression != Compression::None;
    let compressed = is_smaller.then(|| compressor.out.clone());
    known.insert(0, (codec, compressor));
    Ok((header, compressed))
}

impl BlockSink for Pipeline {
    fn buffer(&self, len: usize) -> Option<Vec<u8>> {
        let mut buffer = self.free.pop()?;
        if buffer.len() < len {
            buffer = vec![0; len];
        }
        Some(buffer)
    }

    fn block(&self, number: u32, buffer: Vec<u8>, len: usize, category: Category) {
        self.jobs.push(Job { number, buffer, len, category });
    }
}

/// Closes a queue when its only writer is gone, however it went.
struct Closing<'a, T>(&'a Queue<T>);

impl<T> Drop for Closing<'_, T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Notes that a worker is gone, however it went; the last one closes the results.
struct Leaving<'a>(&'a Pipeline);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.close();
        }
        if self.0.workers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.results.close();
        }
    }
}

/// A queue between threads. Its length is bounded by the number of buffers that go round.
struct Queue<T> {
    state: Mutex<QueueState<T>>,
    changed: Condvar,
}

struct QueueState<T> {
    items: VecDeque<T>,
    is_closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let state = QueueState { items: VecDeque::new(), is_closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<T> Queue<T> {
    fn push(&self, item: T) {
        self.state.lock().items.push_back(item);
        self.changed.notify_one();
    }

    /// Waits for an item; `None` when the queue is closed and empty.
    fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                return Some(item);
            }
            if state.is_closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_all();
    }
}
