//! Everything that can fail fails in time, with its name, and never for ever.

use std::{io, num::NonZeroUsize};

use super::memory::{Behaviour, MemorySource, Node};
use crate::dwarfs::write::{Codec, Content, Summary, WriteError, WriteOptions, write_archive};

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
    let level = WriteOptions { data: Codec::Zstd { level: 0 }, ..options() };
    assert_eq!(refused(level), "zstd level is 0, it must be from 1 to 22");
}

#[test]
fn a_side_car_that_is_none_is_refused() {
    let source = MemorySource::new(vec![Node::file(".fim.sidecar", b"no side car")]);
    assert!(matches!(write(&source), Err(WriteError::Sidecar(_))));
    let source = MemorySource::new(vec![Node::new(".fim.sidecar", Content::Fifo, 0o600)]);
    assert!(matches!(write(&source), Err(WriteError::BadName { .. })));
}
