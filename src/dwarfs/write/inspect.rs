//! Looks into files before they are packed, on all threads: what they hold, what that is like, of which category it is.
//!
//! Only what somebody asks for is found out: a hash of the files that have their size in common with another, a
//! sample ([`sample`]) of all files where they are ordered by similarity or put into categories.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
};

use xxhash_rust::xxh3::Xxh3;

use super::{
    category::{self, Categorizer, Category, Sorter},
    error::WriteError,
    object::{FileContent, Object},
    progress::{Phase, Progress},
    read::{Files, read_stable},
    sample,
    similar::Sketch,
    source::Contents,
    tree::{ObjectId, Tree},
};
use crate::sync::{
    atomic::{AtomicUsize, Ordering},
    thread,
};

/// What is to be found out, besides equal contents.
#[derive(Clone, Copy, Debug)]
pub(super) struct Questions<'a> {
    /// Whether sketches are wanted.
    pub(super) sketches: bool,
    /// What finds categories.
    pub(super) categorizers: &'a [Categorizer],
}

impl Questions<'_> {
    const fn need_samples(&self) -> bool {
        self.sketches || !self.categorizers.is_empty()
    }
}

/// What has been found out about a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Insight {
    /// Hash of its contents and holes. `None`: no other file has its size.
    pub(super) hash: Option<u128>,
    pub(super) sketch: Sketch,
    pub(super) category: Category,
}

/// Looks into files and returns what was found out about each. Files that have changed since they were scanned are
/// brought up to date in the tree.
pub(super) fn inspect(
    files: &Files<'_>,
    tree: &mut Tree,
    order: &[ObjectId],
    questions: Questions<'_>,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Vec<Insight>, WriteError> {
    let jobs = plan(tree, order, questions);
    let bytes = jobs.iter().map(|job| job.bytes(tree)).sum();
    progress.begin(Phase::Hash, jobs.len() as u64, bytes);
    // A seed that nobody can know beforehand: no two files can be made whose hashes collide.
    let seed = RandomState::new().build_hasher().finish();
    let mut insights = vec![Insight::default(); order.len()];
    for seen in look_at_all(Look { files, tree, questions, seed, progress }, &jobs, threads)? {
        let Seen { job, found: Some((insight, newer)) } = seen else {
            tree.lose(seen.job.id);
            continue;
        };
        if let Some(slot) = insights.get_mut(job.place) {
            *slot = insight;
        }
        if let (Some(newer), Some(object)) = (newer, tree.object_mut(job.id)) {
            *object = newer;
        }
    }
    Ok(insights)
}

/// A file that is to be looked into.
#[derive(Clone, Copy, Debug)]
struct Job {
    id: ObjectId,
    /// Its place in the order.
    place: usize,
    /// Whether another file has its size.
    is_hashed: bool,
    is_sampled: bool,
}

impl Job {
    /// What will be read.
    fn bytes(&self, tree: &Tree) -> u64 {
        let data = tree.object(self.id).and_then(Object::file).map_or(0, FileContent::data_len);
        let sampled = if self.is_sampled { sample::len(data) } else { 0 };
        if self.is_hashed { data + sampled } else { sampled }
    }
}

fn plan(tree: &Tree, order: &[ObjectId], questions: Questions<'_>) -> Vec<Job> {
    let size = |id: ObjectId| tree.object(id).and_then(Object::file).map_or(0, |file| file.size);
    let mut of_size: HashMap<u64, u32> = HashMap::new();
    for id in order {
        *of_size.entry(size(*id)).or_default() += 1;
    }
    let job = |(place, id): (usize, &ObjectId)| {
        let size = size(*id);
        let is_hashed = of_size.get(&size).is_some_and(|count| *count > 1);
        let job = Job { id: *id, place, is_hashed, is_sampled: questions.need_samples() };
        (size > 0 && (job.is_hashed || job.is_sampled)).then_some(job)
    };
    order.iter().enumerate().filter_map(job).collect()
}

/// What all threads have in common.
#[derive(Clone, Copy)]
struct Look<'a> {
    files: &'a Files<'a>,
    tree: &'a Tree,
    questions: Questions<'a>,
    seed: u64,
    progress: &'a dyn Progress,
}

struct Seen {
    job: Job,
    /// What was found out, and the file's present state if it has changed; `None`: the file is left out.
    found: Option<(Insight, Option<Object>)>,
}

fn look_at_all(look: Look<'_>, jobs: &[Job], threads: usize) -> Result<Vec<Seen>, WriteError> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<Seen>, WriteError> {
        let mut inspector = Inspector::new(look)?;
        let mut done = Vec::new();
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let seen = inspector.look_at(*job);
            if seen.is_err() {
                next.store(jobs.len(), Ordering::Relaxed);
            }
            done.push(seen?);
            look.progress.files(1);
        }
        Ok(done)
    };
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| thread::Builder::new().name("inspect".into()).spawn_scoped(scope, work))
            .collect::<Result<_, _>>()
            .map_err(|_| WriteError::Worker)?;
        let mut all = Vec::with_capacity(jobs.len());
        for worker in workers {
            all.append(&mut worker.join().map_err(|_| WriteError::Worker)??);
        }
        Ok(all)
    })
}

/// Bytes read at a time.
const BUFFER_LEN: usize = 1 << 18;

/// What a thread needs for its work.
struct Inspector<'a> {
    look: Look<'a>,
    buffer: Vec<u8>,
    sample: Vec<u8>,
    sorter: Sorter,
}

impl<'a> Inspector<'a> {
    fn new(look: Look<'a>) -> Result<Self, WriteError> {
        let sorter = Sorter::new(look.questions.categorizers)?;
        let (buffer, sample) = (vec![0; BUFFER_LEN], Vec::new());
        Ok(Self { look, buffer, sample, sorter })
    }

    fn look_at(&mut self, job: Job) -> Result<Seen, WriteError> {
        let Look { files, tree, questions, .. } = self.look;
        let read = read_stable(files, tree, job.id, |contents, object| {
            let Some(file) = object.file() else { return Ok(None) };
            if job.is_sampled {
                if !sample::read(contents, &file.data(), &mut self.sample)? {
                    return Ok(None);
                }
                self.look.progress.bytes_in(self.sample.len() as u64);
            }
            if !job.is_hashed {
                return Ok(Some(None));
            }
            Ok(self.hash(contents, file)?.map(Some))
        });
        let (hash, newer) = match read {
            Ok(read) => read,
            Err(error) => {
                files.faults.leave_out(error)?;
                return Ok(Seen { job, found: None });
            }
        };
        let mut insight = Insight { hash, ..Insight::default() };
        if job.is_sampled && questions.sketches {
            insight.sketch = Sketch::of(&self.sample);
        }
        if job.is_sampled && self.sample.len() as u64 >= category::LEAST_LEN {
            insight.category = self.sorter.category(&self.sample)?;
        }
        Ok(Seen { job, found: Some((insight, newer)) })
    }

    /// Hashes a file; nothing if it ended early.
    fn hash(&mut self, contents: &dyn Contents, file: &FileContent) -> io::Result<Option<u128>> {
        let mut hasher = Xxh3::with_seed(self.look.seed);
        for range in file.data() {
            // Files that differ in their holes differ, and a hole is never read.
            hasher.update(&range.start.to_le_bytes());
            hasher.update(&range.end.to_le_bytes());
            let mut at = range.start;
            while at < range.end {
                let want = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(self.buffer.len());
                let Some(part) = self.buffer.get_mut(..want) else { return Ok(None) };
                let read = contents.read_at(part, at)?;
                if read == 0 {
                    return Ok(None);
                }
                hasher.update(part.get(..read).unwrap_or_default());
                self.look.progress.bytes_in(read as u64);
                at += read as u64;
            }
        }
        Ok(Some(hasher.digest128()))
    }
}
