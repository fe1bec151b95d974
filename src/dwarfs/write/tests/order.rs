//! In which blocks files come to lie.

use std::{ops::ControlFlow, sync::Arc};

use super::{
    memory::{MemorySource, Node},
    roundtrip::written,
};
use crate::dwarfs::{
    profile::{FileUse, Part, Profile},
    read::Archive,
    write::{Codec, Content, Order, WriteOptions},
};

/// A block, and the length of each file here: the number of its block is the place of a file in the order.
const BLOCK: usize = 1 << 10;

/// `a`, `b` (also called `z/b`), `d/a`, `d/c`, each of one block; `e` is empty and `l` a link.
fn source() -> MemorySource {
    let file = |path: &str, byte| Node::file(path, &[byte; BLOCK]);
    let nodes = vec![
        file("a", 1),
        file("b", 2),
        Node::new("d", Content::Directory, 0o755),
        file("d/a", 3),
        file("d/c", 4),
        Node::file("e", b""),
        Node::new("l", Content::Symlink((*b"a").into()), 0o777),
        Node::new("z", Content::Directory, 0o755),
    ];
    let mut source = MemorySource::new(nodes);
    source.links.push((b"z/b".to_vec(), b"b".to_vec()));
    source
}

fn archive(order: Order) -> Archive {
    let options = WriteOptions { block_size_bits: 10, data: Codec::None, order, ..WriteOptions::default() };
    written(&source(), &options).0
}

fn profile(paths: &[&str]) -> Order {
    let file = |path: &&str| FileUse { path: path.as_bytes().into(), part: Part::Whole };
    Order::Profile(Arc::new(Profile { files: paths.iter().map(file).collect() }))
}

/// Blocks of `a`, `b`, `d/a`, `d/c`.
fn blocks(archive: &Archive) -> [u32; 4] {
    ["a", "b", "d/a", "d/c"].map(|path| {
        let mut found = Vec::new();
        let inode = archive.find(path.as_bytes()).unwrap().unwrap();
        let mut visit = |block| {
            found.push(block);
            ControlFlow::Continue(())
        };
        archive.blocks_of(inode, 0..u64::MAX, &mut visit).unwrap();
        assert_eq!(found.len(), 1, "{path}");
        found[0]
    })
}

#[test]
fn files_of_a_profile_come_first_and_the_others_by_path() {
    for (order, expected) in [
        (Order::Path, [0, 1, 2, 3]),
        (profile(&[]), [0, 1, 2, 3]),
        (profile(&["d/c", "a"]), [1, 2, 3, 0]),
        (profile(&["d/c", "d/a", "b", "a"]), [3, 2, 1, 0]),
        // By whichever name; twice, empty, missing and other things do no harm.
        (profile(&["z/b", "d", "l", "e", "nothing", "d/nothing", "a/x", "b", "d/c"]), [2, 0, 3, 1]),
    ] {
        assert_eq!(blocks(&archive(order.clone())), expected, "{order:?}");
    }
}

#[test]
fn blocks_of_a_range_are_those_that_hold_it() {
    let nodes = vec![Node::file("f", &[7; 5 * BLOCK])];
    let options = WriteOptions { block_size_bits: 10, data: Codec::None, ..WriteOptions::default() };
    let (archive, _) = written(&MemorySource::new(nodes), &options);
    let inode = archive.find(b"f").unwrap().unwrap();
    let unit = BLOCK as u64;
    for (range, expected) in [
        (0..1, &[0][..]),
        (0..unit, &[0]),
        (unit - 1..unit + 1, &[0, 1]),
        (2 * unit..u64::MAX, &[2, 3, 4]),
        (5 * unit..u64::MAX, &[]),
    ] {
        let mut found = Vec::new();
        let mut visit = |block| {
            found.push(block);
            ControlFlow::Continue(())
        };
        archive.blocks_of(inode, range.clone(), &mut visit).unwrap();
        assert_eq!(found, expected, "{range:?}");
    }
    let mut calls = 0;
    let mut visit = |_| {
        calls += 1;
        ControlFlow::Break(())
    };
    archive.blocks_of(inode, 0..u64::MAX, &mut visit).unwrap();
    assert_eq!(calls, 1);
}
