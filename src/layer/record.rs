//! A layer that notes which files are read: how access profiles are made.
//!
//! ```text
//! Overlay -> Recorded -> the layer itself         notes names at look-up, paths and ranges at read
//!               |
//!            Recorder                             one for all layers of a stack
//! ```
//!
//! A layer stands behind this one only while somebody records; otherwise nothing of it is there. What the kernel has in
//! its cache is not read again, so a recording that begins with the mount has every file once, in the order in which it
//! was first needed.

use std::ops::{ControlFlow, Range};

use hashbrown::HashMap;

use crate::{
    dwarfs::profile::{FileUse, MAX_FILES, MAX_PATH, MAX_RANGES, Part, Profile},
    pinned::Data,
    sync::{Arc, Mutex},
    vfs::{Attr, FileKind, FsStat, Layer, LayerEntry, Name, NodeId, Result, SeekWhence},
};

/// Reads are noted in units of this many bytes, the least that the kernel reads ahead: what counts is which blocks are
/// needed, and they are larger by far.
const UNIT: u64 = 64 << 10;

/// Names that are remembered of a layer. A million of them take about 100 MiB; a file whose name was seen later is
/// left out of the recording.
const MAX_NAMES: usize = 1 << 20;

/// What has been read so far.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Locked for a few instructions, behind every lock of a layer.
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// In the order of the first reads.
    files: Vec<FileUse>,
    by_path: HashMap<Box<[u8]>, usize>,
}

impl Recorder {
    /// What has been read until now.
    #[must_use]
    pub fn profile(&self) -> Profile {
        Profile { files: self.seen.lock().files.clone() }
    }

    /// The number of a file in the recording; `None` once there are too many.
    fn number(&self, path: Vec<u8>) -> Option<usize> {
        let mut seen = self.seen.lock();
        if let Some(number) = seen.by_path.get(path.as_slice()) {
            return Some(*number);
        }
        let number = seen.files.len();
        if number == MAX_FILES {
            return None;
        }
        let path: Box<[u8]> = path.into();
        seen.files.push(FileUse { path: path.clone(), part: Part::Ranges(Vec::new()) });
        seen.by_path.insert(path, number);
        Some(number)
    }

    fn note(&self, number: usize, range: Range<u64>) {
        if let Some(FileUse { part: Part::Ranges(ranges), .. }) = self.seen.lock().files.get_mut(number) {
            add(ranges, range);
        }
    }
}

/// Adds a range to ascending ones that lie apart. Beyond [`MAX_RANGES`] the two that lie closest become one.
fn add(ranges: &mut Vec<Range<u64>>, mut new: Range<u64>) {
    let first = ranges.partition_point(|range| range.end < new.start);
    let behind = ranges.partition_point(|range| range.start <= new.end);
    if let Some(touched) = ranges.get(first..behind)
        && let (Some(low), Some(high)) = (touched.first(), touched.last())
    {
        new = new.start.min(low.start)..new.end.max(high.end);
    }
    ranges.splice(first..behind, [new]);
    if ranges.len() > MAX_RANGES {
        let gaps = ranges.windows(2).map(|pair| match pair {
            [low, high] => high.start - low.end,
            _ => u64::MAX,
        });
        if let Some((at, _)) = gaps.enumerate().min_by_key(|(_, gap)| *gap) {
            let end = ranges.remove(at + 1).end;
            if let Some(range) = ranges.get_mut(at) {
                range.end = end;
            }
        }
    }
}

/// A layer whose reads are noted.
#[derive(Debug)]
pub struct Recorded {
    layer: Arc<dyn Layer>,
    recorder: Arc<Recorder>,
    /// What was looked up or listed. Numbers of a layer never come back for something else.
    names: Mutex<HashMap<NodeId, Place>>,
    /// Files that were read, with their number in the recording, if they have one. Locked before `names`.
    files: Mutex<HashMap<NodeId, Option<usize>>>,
}

/// Where a node was found.
#[derive(Debug)]
struct Place {
    dir: NodeId,
    name: Box<[u8]>,
}

impl Recorded {
    /// Notes the reads of a layer.
    #[must_use]
    pub fn new(layer: Arc<dyn Layer>, recorder: Arc<Recorder>) -> Self {
        Self { layer, recorder, names: Mutex::default(), files: Mutex::default() }
    }

    fn note_name(&self, dir: NodeId, name: Name<'_>, node: NodeId, kind: FileKind) {
        if matches!(kind, FileKind::Regular | FileKind::Directory) {
            let mut names = self.names.lock();
            if names.len() < MAX_NAMES || names.contains_key(&node) {
                names.insert(node, Place { dir, name: name.as_bytes().into() });
            }
        }
    }

    fn note_read(&self, node: NodeId, offset: u64, len: usize) {
        let number = *self
            .files
            .lock()
            .entry(node)
            .or_insert_with(|| self.path(node).and_then(|path| self.recorder.number(path)));
        if let Some(number) = number {
            let end = offset.saturating_add(len as u64);
            let range = offset - offset % UNIT..end.checked_next_multiple_of(UNIT).unwrap_or(u64::MAX);
            self.recorder.note(number, range);
        }
    }

    /// The path of a node as it was last looked up; `None` where a name of it is not known, or there is no end of them.
    fn path(&self, node: NodeId) -> Option<Vec<u8>> {
        let names = self.names.lock();
        let (mut parts, mut len, mut at) = (Vec::new(), 0, node);
        while at != self.layer.root() {
            let Place { dir, name } = names.get(&at)?;
            len += name.len() + 1;
            if len > MAX_PATH {
                return None;
            }
            parts.push(&**name);
            at = *dir;
        }
        parts.reverse();
        Some(parts.join(&b'/'))
    }
}

impl Layer for Recorded {
    fn root(&self) -> NodeId {
        self.layer.root()
    }

    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<(NodeId, Attr)>> {
        let found = self.layer.lookup(dir, name)?;
        if let Some((node, attr)) = &found {
            self.note_name(dir, name, *node, attr.kind);
        }
        Ok(found)
    }

    fn retain(&self, node: NodeId) {
        self.layer.retain(node);
    }

    fn forget(&self, node: NodeId) {
        self.layer.forget(node);
    }

    fn attr(&self, node: NodeId) -> Result<Attr> {
        self.layer.attr(node)
    }

    fn read_dir(
        &self,
        dir: NodeId,
        after: u64,
        visit: &mut dyn FnMut(LayerEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.layer.read_dir(dir, after, &mut |entry| {
            if let Some((node, attr)) = &entry.node {
                self.note_name(dir, entry.name, *node, attr.kind);
            }
            visit(entry)
        })
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        self.layer.read_link(node)
    }

    fn read(&self, node: NodeId, offset: u64, len: usize) -> Result<Data> {
        let data = self.layer.read(node, offset, len)?;
        if !data.is_empty() {
            self.note_read(node, offset, data.len());
        }
        Ok(data)
    }

    fn seek(&self, node: NodeId, offset: u64, whence: SeekWhence) -> Result<u64> {
        self.layer.seek(node, offset, whence)
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.layer.xattr(node, name)
    }

    fn xattr_names(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        self.layer.xattr_names(node)
    }

    fn has_xattrs(&self) -> bool {
        self.layer.has_xattrs()
    }

    fn has_acls(&self) -> bool {
        self.layer.has_acls()
    }

    fn stat_fs(&self) -> Result<FsStat> {
        self.layer.stat_fs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::HostDir;

    /// A layer over a directory with `d/one`, `d/two` and `three`, a megabyte each, and what was read of it.
    fn recorded() -> (tempfile::TempDir, Recorded, Arc<Recorder>) {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("d")).unwrap();
        for name in ["d/one", "d/two", "three"] {
            std::fs::write(tree.path().join(name), vec![b'x'; 1 << 20]).unwrap();
        }
        std::fs::write(tree.path().join("empty"), "").unwrap();
        let recorder = Arc::new(Recorder::default());
        let layer = Arc::new(HostDir::open(tree.path()).unwrap());
        (tree, Recorded::new(layer, Arc::clone(&recorder)), recorder)
    }

    fn find(layer: &dyn Layer, path: &str) -> NodeId {
        path.split('/').fold(layer.root(), |dir, name| {
            layer.lookup(dir, Name::new(name.as_bytes()).unwrap()).unwrap().unwrap().0
        })
    }

    #[test]
    fn files_come_in_the_order_of_their_first_reads_with_what_was_read() {
        let (_tree, layer, recorder) = recorded();
        let (one, two, three) = (find(&layer, "d/one"), find(&layer, "d/two"), find(&layer, "three"));
        layer.read(two, 100_000, 10).unwrap();
        layer.read(three, 0, 65_536).unwrap();
        layer.read(two, 900_000, 500_000).unwrap();
        layer.read(one, 0, 1).unwrap();
        layer.read(three, 65_536, 1).unwrap();
        layer.read(find(&layer, "empty"), 0, 10).unwrap();
        layer.read(two, 5 << 20, 10).unwrap();
        let unit = |from, to| from * UNIT..to * UNIT;
        let files = [
            (&b"d/two"[..], vec![unit(1, 2), unit(13, 16)]),
            (b"three", vec![unit(0, 2)]),
            (b"d/one", vec![unit(0, 1)]),
        ];
        let files = files.map(|(path, ranges)| FileUse { path: path.into(), part: Part::Ranges(ranges) });
        assert_eq!(recorder.profile().files, files);
        assert_eq!(Profile::decode(&recorder.profile().encode()).unwrap(), recorder.profile());
    }

    #[test]
    fn two_layers_with_one_path_are_one_file() {
        let (_tree, layer, recorder) = recorded();
        let above = Recorded::new(Arc::clone(&layer.layer), Arc::clone(&recorder));
        layer.read(find(&layer, "d/one"), 0, 10).unwrap();
        above.read(find(&above, "d/one"), 0, 10).unwrap();
        assert_eq!(recorder.profile().files.len(), 1);
    }

    #[test]
    fn ranges_stay_apart_and_few() {
        let mut ranges = Vec::new();
        for new in [10..20, 30..40, 0..5, 20..30, 100..110, 4..6] {
            add(&mut ranges, new);
        }
        assert_eq!(ranges, [0..6, 10..40, 100..110]);
        add(&mut ranges, 0..200);
        assert_eq!(ranges, [0..200; 1]);
        ranges = (0..MAX_RANGES as u64).map(|at| at * 100..at * 100 + 10).collect();
        add(&mut ranges, 1_020..1_025);
        assert!(ranges.len() == MAX_RANGES && ranges.contains(&(1_000..1_025)), "the closest become one");
        ranges.clear();
        for at in 0..200_u64 {
            let start = (at * 7919) % 1_000 * 1_000;
            add(&mut ranges, start..start + 10);
            assert!(ranges.len() <= MAX_RANGES);
            assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
            assert!(ranges.iter().any(|range| range.start <= start && start + 10 <= range.end));
        }
    }
}
