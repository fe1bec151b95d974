//! In which blocks files come to lie.

use std::{num::NonZeroUsize, ops::ControlFlow, sync::Arc};

use super::{
    memory::{MemorySource, Node},
    roundtrip::written,
};
use crate::dwarfs::{
    profile::{FileUse, Part, Profile},
    read::Archive,
    write::{Categorizer, Codec, Content, Order, WriteOptions, write_archive},
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
fn files_come_in_the_order_that_is_asked_for() {
    for (order, expected) in [
        (Order::Path, [0, 1, 2, 3]),
        (Order::None, [0, 1, 2, 3]),
        // a, d/a, b, d/c.
        (Order::ReversePath, [0, 2, 1, 3]),
        (Order::List([&b"d/c"[..], b"nothing", b"a"].map(Box::from).into()), [1, 2, 3, 0]),
        (profile(&[]), [0, 1, 2, 3]),
        (profile(&["d/c", "a"]), [1, 2, 3, 0]),
        (profile(&["d/c", "d/a", "b", "a"]), [3, 2, 1, 0]),
        // By whichever name; twice, empty, missing and other things do no harm.
        (profile(&["z/b", "d", "l", "e", "nothing", "d/nothing", "a/x", "b", "d/c"]), [2, 0, 3, 1]),
    ] {
        assert_eq!(blocks(&archive(order.clone())), expected, "{order:?}");
    }
}

/// Files of three kinds that take turns by path, of a block's length each.
fn kinds() -> MemorySource {
    let word =
        |kind: usize, number: usize| format!("{:x} ", (kind * 50 + number % 30).wrapping_mul(0x9e37_79b9));
    let text = |kind: usize, file: usize| -> Vec<u8> {
        let words: String = (0..BLOCK).map(|number| word(kind, number + file)).collect();
        words.into_bytes().into_iter().take(BLOCK).collect()
    };
    let file = |number: usize| Node::file(&format!("f{number:02}"), &text(number % 3, number));
    MemorySource::new((0..30).map(file).collect())
}

#[test]
fn similar_files_follow_each_other_on_any_number_of_threads() {
    let bytes = |threads| {
        let options = WriteOptions {
            block_size_bits: 10,
            data: Codec::None,
            segmentation: None,
            order: Order::Similarity,
            threads: NonZeroUsize::new(threads).unwrap(),
            ..WriteOptions::default()
        };
        let mut bytes = Vec::new();
        write_archive(&kinds(), &options, &mut bytes, &()).unwrap();
        (bytes, written(&kinds(), &options).0)
    };
    let (one, archive) = bytes(1);
    assert!(one == bytes(3).0, "the same on one thread and on three");
    let mut order: Vec<(u32, usize)> =
        (0..30).map(|number| (first_block(&archive, &format!("f{number:02}")), number % 3)).collect();
    order.sort_unstable();
    let changes = order.windows(2).filter(|pair| pair[0].1 != pair[1].1).count();
    assert_eq!(changes, 2, "{order:?}");
}

fn first_block(archive: &Archive, path: &str) -> u32 {
    let mut first = None;
    let inode = archive.find(path.as_bytes()).unwrap().unwrap();
    let mut visit = |block| {
        first.get_or_insert(block);
        ControlFlow::Break(())
    };
    archive.blocks_of(inode, 0..u64::MAX, &mut visit).unwrap();
    first.unwrap()
}

#[test]
fn categories_lie_apart_and_are_named() {
    let noise = |seed: u64| -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_le_bytes()[7]
        };
        std::iter::repeat_with(&mut next).take(3 * BLOCK).collect()
    };
    let nodes = vec![
        Node::file("a.gz", &noise(1)),
        Node::file("b.txt", &b"compressible ".repeat(300)),
        Node::file("c.gz", &noise(2)),
        Node::file("d.txt", &b"also compressible ".repeat(300)),
    ];
    let source = MemorySource::new(nodes);
    let options = WriteOptions {
        block_size_bits: 12,
        order: Order::Path,
        segmentation: None,
        ..WriteOptions::default()
    };
    let categories = |archive: &Archive| -> Vec<Option<String>> {
        archive.block_facts().map(|facts| facts.unwrap().category).collect()
    };
    let (plain, _) = written(&source, &options);
    assert_eq!(categories(&plain), [const { None }; 4]);
    let apart = WriteOptions { categorizers: Categorizer::ALL.to_vec(), ..options };
    let (archive, _) = written(&source, &apart);
    let named: Vec<String> = categories(&archive).into_iter().flatten().collect();
    assert_eq!(named, ["<default>", "incompressible", "<default>", "incompressible", "<default>"]);
    let block = |path: &str| first_block(&archive, path);
    assert!(block("b.txt") < block("a.gz") && block("d.txt") < block("a.gz"));
    for node in &source.nodes {
        let inode = archive.find(&node.path).unwrap().unwrap();
        assert!(archive.read(inode, 0, 8 * BLOCK).unwrap().contiguous() == node.bytes.as_slice());
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
