//! Finds files with equal contents: by size first, then by a hash of what they hold.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
};

use xxhash_rust::xxh3::Xxh3;

use super::{
    error::WriteError,
    object::Object,
    progress::{Phase, Progress},
    read::{Files, read_stable},
    tree::{ObjectId, Tree},
};
use crate::sync::{
    atomic::{AtomicUsize, Ordering},
    thread,
};

/// Files with equal contents; mostly there is one only.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) first: ObjectId,
    pub(super) others: Vec<ObjectId>,
}

/// Groups files, given in packing order, by their contents. A group stands where its first file stood. Files that
/// have changed since they were scanned are brought up to date in the tree.
pub(super) fn group(
    files: &Files<'_>,
    tree: &mut Tree,
    order: Vec<ObjectId>,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Vec<Group>, WriteError> {
    let size = |tree: &Tree, id| tree.object(id).and_then(Object::file).map_or(0, |file| file.size);
    let mut of_size: HashMap<u64, u32> = HashMap::new();
    for id in &order {
        *of_size.entry(size(tree, *id)).or_default() += 1;
    }
    let is_alone = |size: u64| size == 0 || of_size.get(&size).is_none_or(|count| *count == 1);
    let candidates: Vec<ObjectId> = order.iter().copied().filter(|id| !is_alone(size(tree, *id))).collect();
    let bytes = candidates.iter().map(|id| size(tree, *id)).sum();
    progress.begin(Phase::Hash, candidates.len() as u64, bytes);

    let mut hashes: HashMap<ObjectId, u128> = HashMap::with_capacity(candidates.len());
    for hashed in hash_all(files, tree, &candidates, threads, progress)? {
        hashes.insert(hashed.id, hashed.hash);
        if let (Some(newer), Some(object)) = (hashed.newer, tree.object_mut(hashed.id)) {
            *object = newer;
        }
    }
    let mut groups: Vec<Group> = Vec::with_capacity(order.len());
    let mut of_content: HashMap<(u64, u128), usize> = HashMap::new();
    for id in order {
        if let Some(hash) = hashes.get(&id) {
            let at = *of_content.entry((size(tree, id), *hash)).or_insert(groups.len());
            if let Some(group) = groups.get_mut(at) {
                group.others.push(id);
                continue;
            }
        }
        groups.push(Group { first: id, others: Vec::new() });
    }
    Ok(groups)
}

struct Hashed {
    id: ObjectId,
    hash: u128,
    newer: Option<Object>,
}

fn hash_all(
    files: &Files<'_>,
    tree: &Tree,
    candidates: &[ObjectId],
    threads: usize,
    progress: &dyn Progress,
) -> Result<Vec<Hashed>, WriteError> {
    // A seed that nobody can know beforehand: no two files can be made whose hashes collide.
    let seed = RandomState::new().build_hasher().finish();
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<Hashed>, WriteError> {
        let mut buffer = vec![0; BUFFER_LEN];
        let mut done = Vec::new();
        while let Some(id) = candidates.get(next.fetch_add(1, Ordering::Relaxed)) {
            let hashed = hash(files, tree, *id, seed, &mut buffer, progress);
            if hashed.is_err() {
                next.store(candidates.len(), Ordering::Relaxed);
            }
            done.push(hashed?);
            progress.files(1);
        }
        Ok(done)
    };
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| thread::Builder::new().name("hash".into()).spawn_scoped(scope, work))
            .collect::<Result<_, _>>()
            .map_err(|_| WriteError::Worker)?;
        let mut all = Vec::with_capacity(candidates.len());
        for worker in workers {
            all.append(&mut worker.join().map_err(|_| WriteError::Worker)??);
        }
        Ok(all)
    })
}

/// Bytes read at a time.
const BUFFER_LEN: usize = 1 << 18;

fn hash(
    files: &Files<'_>,
    tree: &Tree,
    id: ObjectId,
    seed: u64,
    buffer: &mut [u8],
    progress: &dyn Progress,
) -> Result<Hashed, WriteError> {
    let (hash, newer) = read_stable(files, tree, id, |contents, object| {
        let mut hasher = Xxh3::with_seed(seed);
        let Some(file) = object.file() else { return Ok(None) };
        for range in file.data() {
            // Files that differ in their holes differ, and a hole is never read.
            hasher.update(&range.start.to_le_bytes());
            hasher.update(&range.end.to_le_bytes());
            let mut at = range.start;
            while at < range.end {
                let want = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(buffer.len());
                let Some(part) = buffer.get_mut(..want) else { return Ok(None) };
                let read = contents.read_at(part, at)?;
                if read == 0 {
                    return Ok(None);
                }
                hasher.update(part.get(..read).unwrap_or_default());
                progress.bytes_in(read as u64);
                at += read as u64;
            }
        }
        Ok(Some(hasher.digest128()))
    })?;
    Ok(Hashed { id, hash, newer })
}
