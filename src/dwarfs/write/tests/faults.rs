//! Everything that can fail fails in time, with its name, and never for ever.

use std::{io, num::NonZeroUsize, sync::Arc};

use super::memory::{Behaviour, MemorySource, Node};
use crate::{
    dwarfs::{
        read::{Archive, BlockCache, Depth, Place},
        write::{Codec, Content, Progress, Summary, Unreadable, WriteError, WriteOptions, write_archive},
    },
    sync::Mutex,
};

fn options() -> WriteOptions {
    let threads = NonZeroUsize::new(3).unwrap();
    WriteOptions { block_size_bits: 12, threads, data: Codec::Zstd { level: 1 }, ..WriteOptions::default() }
}

fn write(source: &MemorySource) -> Result<Summary, WriteError> {
    write_archive(source, &options(), &mut io::sink(), &())
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

#[test]
fn a_file_that_changes_for_a_while_is_read_again() {
    let source = MemorySource::new(vec![Node::file("a", b"12345").behaving(Behaviour::Changing(3))]);
    let summary = write(&source).unwrap();
    assert_eq!(summary.bytes_in, 8);
    assert!(source.looks("a") >= 3);
}

#[test]
fn a_file_that_never_stops_changing_is_named() {
    let source = MemorySource::new(vec![Node::file("a", b"12345").behaving(Behaviour::Changing(u32::MAX))]);
    let error = write(&source).unwrap_err();
    assert_eq!(error.to_string(), "a changed while it was read, 4 times in a row");
}

#[test]
fn a_file_that_changes_is_no_duplicate_any_more() {
    let same = noise(9_000);
    for changes in 0..6 {
        let nodes = vec![
            Node::file("a", &same).behaving(Behaviour::Changing(changes)),
            Node::file("b", &same),
            Node::file("c", &same),
        ];
        let summary = write(&MemorySource::new(nodes)).unwrap();
        let expected = if changes == 0 { (2, 9_000) } else { (1, 18_000 + u64::from(changes)) };
        assert_eq!((summary.duplicates, summary.bytes_packed), expected, "{changes} changes");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    for at in [0, 5_000, 29_999] {
        let nodes = vec![
            Node::file("good", &noise(50_000)),
            Node::file("x", &noise(30_000)).behaving(Behaviour::Failing(at - at % 1_000)),
        ];
        let error = write(&MemorySource::new(nodes)).unwrap_err();
        assert_eq!(error.to_string(), "cannot read x");
    }
}

/// Notes what is left out.
#[derive(Default)]
struct Watch(Mutex<Vec<String>>);

impl Progress for Watch {
    fn left_out(&self, error: &WriteError) {
        self.0.lock().push(error.to_string());
    }
}

/// Archives what can be read, has our reader look at it, and returns what was said.
fn write_what_can_be_read(source: &MemorySource, paths: &[&str]) -> (Summary, Vec<String>) {
    let (watch, mut bytes) = (Watch::default(), Vec::new());
    let options = WriteOptions { unreadable: Unreadable::LeaveOut, ..options() };
    let summary = write_archive(source, &options, &mut bytes, &watch).unwrap();
    let place = Place::At { offset: 0, len: None };
    let archive = Archive::open(Arc::new(bytes), place, &BlockCache::new(1 << 20)).unwrap();
    let report = archive.check(Depth::Everything, 1, &mut |_, _| {});
    assert!(report.is_whole(), "{:?}", report.findings);
    for node in &source.nodes {
        let is_there = paths.iter().any(|path| path.as_bytes() == node.path);
        let found = archive.find(&node.path).unwrap();
        assert_eq!(found.is_some(), is_there, "{}", node.path.escape_ascii());
        if let Some(inode) = found.filter(|_| node.object.file().is_some()) {
            let bytes = archive.read(inode, 0, node.bytes.len() + 1).unwrap().contiguous().into_owned();
            assert!(bytes == node.bytes);
        }
    }
    for (link, _) in &source.links {
        let is_there = paths.iter().any(|path| path.as_bytes() == link);
        assert_eq!(archive.find(link).unwrap().is_some(), is_there, "{}", link.escape_ascii());
    }
    let mut left_out = watch.0.into_inner();
    left_out.sort();
    assert_eq!(summary.left_out, left_out.len() as u64);
    (summary, left_out)
}

#[test]
fn files_that_cannot_be_read_are_left_out_with_all_their_names() {
    for at in [0, 5_000, 29_000] {
        let mut source = MemorySource::new(vec![
            Node::new("d", Content::Directory, 0o755),
            Node::file("d/bad", &noise(30_000)).behaving(Behaviour::Failing(at)),
            Node::file("d/good", &noise(50_000)),
            Node::file("d/zebra", &noise(20)),
            Node::new("e", Content::Directory, 0o755),
            Node::file("e/changes", b"12345").behaving(Behaviour::Changing(u32::MAX)),
            Node::new("f", Content::Directory, 0o755),
            Node::file("f/last", &noise(40_000)),
            Node::new("g", Content::Fifo, 0o600),
        ]);
        source.links = vec![
            (b"a".to_vec(), b"d/bad".to_vec()),
            (b"f/bad".to_vec(), b"d/bad".to_vec()),
            (b"f/good".to_vec(), b"d/good".to_vec()),
        ];
        let there = ["d", "d/good", "d/zebra", "e", "f", "f/good", "f/last", "g"];
        let (summary, left_out) = write_what_can_be_read(&source, &there);
        assert_eq!(left_out, ["cannot read a", "e/changes changed while it was read, 4 times in a row"]);
        assert_eq!((summary.files, summary.hard_links, summary.directories), (3, 1, 4));
    }
}

#[test]
fn a_file_that_cannot_be_read_takes_no_equal_one_along() {
    let same = noise(9_000);
    for bad in 0..3 {
        // Failures strike while hashes are made, or only later.
        for (behaviour, other) in [
            (Behaviour::Failing(8_000), 9_000),
            (Behaviour::Changing(u32::MAX), 9_000),
            (Behaviour::Steady, 1),
        ] {
            let file = |number: usize| {
                let file = Node::file(&format!("{number}"), &same);
                if number == bad { file.behaving(behaviour.clone()) } else { file }
            };
            let mut nodes: Vec<Node> = (0..3).map(file).collect();
            nodes.push(Node::file("x", &noise(other)));
            let is_steady = matches!(behaviour, Behaviour::Steady);
            let mut there: Vec<String> = (0..3)
                .filter(|number| is_steady || *number != bad)
                .map(|number| number.to_string())
                .collect();
            there.push("x".into());
            let there: Vec<&str> = there.iter().map(String::as_str).collect();
            let (_, left_out) = write_what_can_be_read(&MemorySource::new(nodes), &there);
            assert_eq!(left_out.len(), usize::from(!is_steady));
        }
    }
}

#[test]
fn a_damaged_source_is_not_left_out() {
    let options = WriteOptions { unreadable: Unreadable::LeaveOut, ..options() };
    let source = MemorySource::new(vec![Node::file(".fim.sidecar", b"no side car")]);
    let result = write_archive(&source, &options, &mut io::sink(), &());
    assert!(matches!(result, Err(WriteError::Sidecar(_))));
    let source = MemorySource::new(vec![Node::file("a", &noise(9_000))]);
    let result = write_archive(&source, &options, &mut Full(100), &());
    assert!(matches!(result, Err(WriteError::Output(_))));
}

/// Takes so many bytes and no more.
struct Full(usize);

impl io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_ends_the_work_wherever_it_strikes() {
    let nodes = || (0..20).map(|at| Node::file(&format!("f{at}"), &noise(5_000 + at))).collect();
    let whole = write(&MemorySource::new(nodes())).unwrap().bytes_out;
    let whole = usize::try_from(whole).unwrap();
    for room in (0..whole).step_by(whole / 50).chain([whole - 1]) {
        let error = write_archive(&MemorySource::new(nodes()), &options(), &mut Full(room), &()).unwrap_err();
        assert!(matches!(error, WriteError::Output(_)), "{room}: {error}");
    }
    write_archive(&MemorySource::new(nodes()), &options(), &mut Full(whole), &()).unwrap();
}

#[test]
fn options_out_of_range_are_named() {
    let source = MemorySource::default();
    let refused = |options: WriteOptions| {
        write_archive(&source, &options, &mut io::sink(), &()).unwrap_err().to_string()
    };
    let bits = WriteOptions { block_size_bits: 31, ..options() };
    assert_eq!(refused(bits), "block size (bits) is 31, it must be from 10 to 30");
    let level = WriteOptions { data: Codec::Zstd { level: 23 }, ..options() };
    assert_eq!(refused(level), "zstd level is 23, it must be from -131072 to 22");
}

#[test]
fn a_side_car_that_is_none_is_refused() {
    let source = MemorySource::new(vec![Node::file(".fim.sidecar", b"no side car")]);
    assert!(matches!(write(&source), Err(WriteError::Sidecar(_))));
    let source = MemorySource::new(vec![Node::new(".fim.sidecar", Content::Fifo, 0o600)]);
    assert!(matches!(write(&source), Err(WriteError::BadName { .. })));
}
