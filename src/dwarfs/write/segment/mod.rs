//! Puts the contents of files into blocks, and finds contents again that a recent block has.
//!
//! ```text
//! file      [ literal ][   match   ][ literal ............ window ]  <- read so far
//!                 |          |                             hash
//! blocks    .. [  n-1  ] [ n: ... | match | ... literal|   ]
//! ```
//!
//! While a file is read, a hash of its last window of bytes rolls on; the hash of every so-many-th window of what
//! goes into a block is remembered. A window whose hash is known is compared, extended to both sides as far as the
//! bytes are equal, and becomes a piece that points there; everything else is literal. Without a window (levels 0
//! to 2) files simply follow each other, cut where a block is full.
//!
//! Files of one category are a stream ([`stream`]). Streams know nothing of each other, so some of them are worked on
//! at a time, each by a thread; their blocks take turns ([`turns`]), so that they stand in the same order whatever the
//! number of threads and however fast each is.

mod recent;
mod rolling;
mod scanner;
mod stream;
mod turns;

use super::{
    category::Category,
    compress::BlockSink,
    dedup::Group,
    error::WriteError,
    object::Object,
    options::Segmentation,
    progress::Progress,
    read::Files,
    tree::{ObjectId, Tree},
};
use crate::sync::thread;

pub(super) use rolling::LEAST_BITS;
use stream::Stream;
pub(super) use turns::MOST_SEATS;
use turns::Turns;

/// A piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Part of a block.
    Data { block: u32, offset: u32, size: u32 },
    /// Bytes that are zero and not stored.
    Hole { size: u64 },
}

/// Files with equal contents, and where these are.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) group: Group,
    /// Range of [`Segmented::pieces`].
    pub(super) pieces: std::ops::Range<usize>,
}

/// Where all files went.
#[derive(Debug, Default)]
pub(super) struct Segmented {
    pub(super) files: Vec<Packed>,
    pub(super) pieces: Vec<Piece>,
    pub(super) blocks: u32,
    /// Of which category each block is.
    pub(super) categories: Vec<Category>,
    /// Bytes that were found again in a block.
    pub(super) matched: u64,
    /// Files that have changed since they were scanned, as they are now.
    pub(super) changed: Vec<(ObjectId, Object)>,
    /// Files that cannot be read and are left out.
    pub(super) lost: Vec<ObjectId>,
}

/// How files are put into blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Length of a block in bytes.
    pub(super) block_size: u32,
    /// How contents are found again; `None`: not at all.
    pub(super) segmentation: Option<Segmentation>,
}

/// Reads all files, those of each category as a stream, and hands full blocks to `sink`. Files that have changed since
/// they were scanned leave their group.
pub(super) fn segment(
    files: &Files<'_>,
    tree: &Tree,
    streams: Vec<(Category, Vec<Group>)>,
    cut: Cut,
    sink: &dyn BlockSink,
    progress: &dyn Progress,
) -> Result<Segmented, WriteError> {
    let turns = Turns::new(streams.len());
    let seats = turns.seats();
    let todo: Vec<_> = streams.into_iter().map(|stream| crate::sync::Mutex::new(Some(stream))).collect();
    let take = |number: usize| todo.get(number).and_then(|stream| stream.lock().take());
    let work = |seat: usize| -> Result<Vec<(usize, Segmented)>, WriteError> {
        let _leaving = turns.abort_on_unwind();
        let mut done = Vec::new();
        let mut next = Some(seat);
        while let Some((number, (category, groups))) = next.and_then(|number| Some((number, take(number)?))) {
            let stream = Stream::new(category, cut, turns.seat(seat, sink), progress);
            let segmented = stream.run(files, tree, groups).inspect_err(|_| turns.abort())?;
            done.push((number, segmented));
            next = turns.next_stream(seat);
        }
        Ok(done)
    };
    let work = &work;
    let results: Vec<Result<_, WriteError>> = match seats {
        0 => Vec::new(),
        // No thread for what one does alone.
        1 => vec![work(0)],
        _ => thread::scope(|scope| {
            let spawn =
                |seat| thread::Builder::new().name("segment".into()).spawn_scoped(scope, move || work(seat));
            let workers: Vec<_> = (0..seats).map(spawn).collect();
            if workers.iter().any(Result::is_err) {
                turns.abort();
            }
            let join = |worker: std::io::Result<thread::ScopedJoinHandle<'_, _>>| {
                worker.map_err(|_| WriteError::Worker)?.join().map_err(|_| WriteError::Worker)?
            };
            workers.into_iter().map(join).collect()
        }),
    };
    let mut all = Vec::new();
    for result in results {
        all.append(&mut result?);
    }
    all.sort_unstable_by_key(|(number, _)| *number);
    Ok(joined(all.into_iter().map(|(_, segmented)| segmented), turns.into_categories()))
}

/// Puts together what became of the streams.
fn joined(streams: impl Iterator<Item = Segmented>, categories: Vec<Category>) -> Segmented {
    let mut out = Segmented::default();
    for mut stream in streams {
        let first = out.pieces.len();
        out.files.extend(stream.files.into_iter().map(|Packed { group, pieces }| Packed {
            group,
            pieces: pieces.start + first..pieces.end + first,
        }));
        out.pieces.append(&mut stream.pieces);
        out.matched += stream.matched;
        out.changed.append(&mut stream.changed);
        out.lost.append(&mut stream.lost);
    }
    out.blocks = u32::try_from(categories.len()).unwrap_or(u32::MAX);
    out.categories = categories;
    out
}

/// Number of files that share the contents of another one.
pub(super) fn duplicates(segmented: &Segmented) -> u64 {
    segmented.files.iter().map(|file| file.group.others.len() as u64).sum()
}

/// All files of a group.
pub(super) fn members(group: &Group) -> impl Iterator<Item = ObjectId> {
    std::iter::once(group.first).chain(group.others.iter().copied())
}

#[cfg(test)]
mod tests;
