//! `fim bench`: how fast an archive or image can be opened, walked and read here, in this process, without a mount.
//!
//! Five figures, each of something that a mount does all the time: opening; walking all names with their attributes;
//! reading all files in the order of the walk; the same again, now out of the cache as far as it holds; and small reads
//! all over the place.

use std::{
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::browse::{BrowseError, FileKind, Found, Object, Step, Tree, Walk};

/// Length of a small read in bytes: a page.
const SMALL: u64 = 4096;
/// How many small reads there are.
const SMALL_READS: u64 = 2000;
/// Files that are kept in mind for reading; of larger trees the first ones.
const FILES: usize = 200_000;

/// Something that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// What was done.
    pub what: &'static str,
    /// How many objects were looked at, or files read.
    pub count: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Measures; `step` hears of what comes next.
///
/// # Errors
///
/// The archive cannot be opened, or is damaged.
pub fn bench(
    path: &Path,
    offset: Option<u64>,
    step: &mut dyn FnMut(&str),
) -> Result<Vec<Measured>, BrowseError> {
    step("opening");
    let (tree, opening) = timed(|| Tree::open(path, offset))?;
    let mut all = vec![measured("open", 1, 0, opening)];
    step("walking");
    let ((files, count), walking) = timed(|| walk(&tree))?;
    all.push(measured("walk", count, 0, walking));
    for what in ["read", "read again"] {
        step(what);
        let (bytes, reading) = timed(|| read(&files))?;
        all.push(measured(what, files.len() as u64, bytes, reading));
    }
    step("reading here and there");
    let ((reads, bytes), reading) = timed(|| read_here_and_there(&files))?;
    all.push(measured("small reads", reads, bytes, reading));
    Ok(all)
}

fn timed<T>(work: impl FnOnce() -> Result<T, BrowseError>) -> Result<(T, Duration), BrowseError> {
    let started = Instant::now();
    let done = work()?;
    Ok((done, started.elapsed()))
}

fn measured(what: &'static str, count: u64, bytes: u64, time: Duration) -> Measured {
    Measured { what, count, bytes, seconds: time.as_secs_f64() }
}

/// A regular file and its path.
type File<'t> = (Vec<u8>, Object<'t>);

/// The regular files, and how many objects there are.
fn walk(tree: &Tree) -> Result<(Vec<File<'_>>, u64), BrowseError> {
    let mut steps = Walk::below(Found { path: Vec::new(), object: tree.root()? }, true);
    let (mut files, mut count) = (Vec::new(), 1);
    while let Some(step) = steps.advance() {
        match step {
            Step::Object { path, object, .. } => {
                count += 1;
                if object.attr().kind == FileKind::Regular && files.len() < FILES {
                    files.push((path.to_owned(), object));
                }
            }
            Step::Failed(error) => return Err(error),
        }
    }
    Ok((files, count))
}

fn read(files: &[File<'_>]) -> Result<u64, BrowseError> {
    let mut total = 0;
    for (path, object) in files {
        object.contents(path, &mut |bytes| {
            total += black_box(bytes).len() as u64;
            Ok(())
        })?;
    }
    Ok(total)
}

/// Small reads at places that look random and are the same each time.
fn read_here_and_there(files: &[File<'_>]) -> Result<(u64, u64), BrowseError> {
    let whole: Vec<&File<'_>> = files.iter().filter(|(_, object)| object.attr().size > 0).collect();
    let (mut reads, mut bytes, mut state) = (0, 0, 1_u64);
    // Numerical Recipes' generator; its high bits are good enough for places.
    let mut next = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound.max(1)
    };
    for _ in 0..SMALL_READS {
        let at = usize::try_from(next(whole.len() as u64)).unwrap_or_default();
        let Some((path, object)) = whole.get(at) else { break };
        let size = object.attr().size;
        let begin = next(size);
        object.range(path, begin..begin.saturating_add(SMALL).min(size), &mut |_, found| {
            bytes += black_box(found).len() as u64;
            Ok(())
        })?;
        reads += 1;
    }
    Ok((reads, bytes))
}
