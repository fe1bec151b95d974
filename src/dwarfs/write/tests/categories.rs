//! Kinds of data: found, packed apart, compressed each in its way, and read back.

use std::num::NonZeroUsize;

use proptest::{collection::vec, prelude::*, sample};

use super::{
    memory::{Behaviour, MemorySource, Node},
    roundtrip::written,
};
use crate::dwarfs::{
    format::section::Compression,
    read::Archive,
    write::{
        Categorizer, Codec, Lzma, Order, Segmentation, Summary, WriteOptions,
        category::audio::tests::wav_head, write_archive,
    },
};

/// A file of audio: a head, two tones in each channel, and something behind them.
fn wave(channels: u16, bits: u16, frames: u32, behind: &[u8]) -> Vec<u8> {
    let bytes = usize::from(bits.div_ceil(8));
    let mut file =
        wav_head(channels, bits, b"about", frames * u32::from(channels) * u32::from(bits.div_ceil(8)));
    for frame in 0..frames {
        for channel in 0..channels {
            let at = f64::from(frame) * (0.02 + 0.005 * f64::from(channel));
            let full = f64::from(1_u32 << (bits - 2));
            #[expect(clippy::cast_possible_truncation, reason = "it is less than full")]
            let value = (full * (at.sin() + 0.3 * (at * 3.7).sin()) * 0.7) as i64;
            let value = if bytes == 1 { value + 128 } else { value };
            file.extend_from_slice(&value.to_le_bytes()[..bytes]);
        }
    }
    file.extend_from_slice(behind);
    file
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[7]
    };
    std::iter::repeat_with(&mut next).take(len).collect()
}

fn elf(machine: u8, len: usize, seed: u8) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
    file.extend([machine, 0]);
    file.extend((0..len).map(|at| u8::try_from(at * at / 5 % 200).unwrap() ^ seed));
    file
}

fn options() -> WriteOptions {
    WriteOptions {
        block_size_bits: 13,
        order: Order::Path,
        data: Codec::Zstd { level: 3 },
        segmentation: Some(Segmentation { window_bits: 8, step_shift: 1, lookback: 1 }),
        categorizers: Categorizer::ALL.to_vec(),
        ..WriteOptions::default()
    }
}

fn assert_same(source: &MemorySource, archive: &Archive) {
    for node in &source.nodes {
        let inode = archive.find(&node.path).unwrap().unwrap();
        let found = archive.read(inode, 0, node.bytes.len() + 10).unwrap();
        let grown = node.bytes.len()
            + match node.behaviour {
                Behaviour::Changing(times) => times as usize,
                _ => 0,
            };
        let mut expected = node.bytes.clone();
        expected.resize(grown, b'+');
        assert!(found.contiguous() == expected.as_slice(), "{:?}", String::from_utf8_lossy(&node.path));
    }
}

/// Category, codec and description of each block.
fn blocks(archive: &Archive) -> Vec<(String, Compression, Option<String>)> {
    let facts = archive.block_facts().map(Result::unwrap);
    facts.map(|facts| (facts.category.unwrap(), facts.compression, facts.description)).collect()
}

fn tree() -> MemorySource {
    MemorySource::new(vec![
        Node::file("a.wav", &wave(2, 16, 9_000, b"")),
        Node::file("b.wav", &wave(2, 16, 5_000, b"LIST of something")),
        Node::file("c.wav", &wave(1, 24, 7_001, b"x")),
        Node::file("d.wav", &wave(1, 8, 20_000, b"")),
        Node::file("e.so", &elf(62, 30_000, 1)),
        Node::file("f.so", &elf(183, 20_000, 2)),
        Node::file("g.txt", &b"some text, and more of it ".repeat(900)),
        Node::file("h.gz", &noise(20_000, 3)),
        Node::file("i.wav", &wave(2, 16, 10, b"")),
        Node::file("j", b""),
    ])
}

#[test]
fn each_kind_is_compressed_in_its_way() {
    let source = tree();
    let lzma: Codec = "lzma:level=6".parse().unwrap();
    for data in [Codec::Zstd { level: 3 }, lzma] {
        let (archive, summary) = written(&source, &WriteOptions { data, ..options() });
        assert_same(&source, &archive);
        let blocks = blocks(&archive);
        let usual = if data == lzma { Compression::Lzma } else { Compression::Zstd };
        for (category, codec, described) in [
            ("<default>", usual, false),
            ("binary/x86", usual, false),
            ("binary/arm64", usual, false),
            ("pcmaudio/waveform", Compression::Flac, true),
            ("incompressible", Compression::None, false),
        ] {
            let of_it: Vec<_> = blocks.iter().filter(|(name, ..)| name == category).collect();
            assert!(!of_it.is_empty(), "{category}");
            for (_, found, description) in of_it {
                assert_eq!((*found, description.is_some()), (codec, described), "{category}");
            }
        }
        assert!(blocks.iter().any(|(name, ..)| name == "pcmaudio/metadata"));
        let described =
            |text: &str| blocks.iter().any(|(.., description)| description.as_deref() == Some(text));
        assert!(described(
            r#"{"bits_per_sample":24,"bytes_per_sample":3,"endianness":"little","number_of_channels":1,"padding":"lsb","signedness":"signed"}"#
        ));
        assert!(described(
            r#"{"bits_per_sample":8,"bytes_per_sample":1,"endianness":"little","number_of_channels":1,"padding":"lsb","signedness":"unsigned"}"#
        ));
        let told = |name: &str| summary.categories.iter().find(|it| it.name == name).unwrap().clone();
        // Too short a file is not worth it.
        assert_eq!(told("pcmaudio/waveform").files, 4);
        assert!(told("pcmaudio/waveform").bytes_out * 2 < told("pcmaudio/waveform").bytes_in);
        assert_eq!(told("binary/x86").files, 1);
        assert_eq!(told("incompressible").bytes_in, 20_000);
    }
}

#[test]
fn the_filter_of_the_machine_is_used() {
    // Calls of the same functions from everywhere: relative addresses that differ, absolute ones that do not.
    let mut code = elf(62, 0, 0);
    for at in 0..6_000_u32 {
        let target = 0x10_0000 + at * 37 % 11 * 64;
        code.push(0xe8);
        let end = u32::try_from(code.len()).unwrap() + 4;
        code.extend_from_slice(&target.wrapping_sub(end).to_le_bytes());
        code.extend_from_slice(b"\x48\x89\xc7");
    }
    let source = MemorySource::new(vec![Node::file("program", &code)]);
    let lzma = |filter: &str| format!("lzma:level=6{filter}").parse().unwrap();
    let size = |data, categorizers: &[Categorizer]| {
        let categorizers = categorizers.to_vec();
        let (archive, summary) =
            written(&source, &WriteOptions { block_size_bits: 20, data, categorizers, ..options() });
        assert_same(&source, &archive);
        summary.bytes_out
    };
    let (with, without) = (size(lzma(""), &[Categorizer::Binary]), size(lzma(""), &[]));
    assert!(with * 10 < without * 9, "{with} of {without}");
    let Codec::Lzma(Lzma { level: 6, .. }) = lzma("") else { panic!("lzma is lzma") };
}

#[test]
fn samples_that_are_none_take_the_usual_codec() {
    // 12 bits in two bytes leave the lowest four zero; here they are not.
    let mut head = wav_head(1, 12, b"", 20_000);
    head.extend((0..20_000_u32).map(|at| u8::try_from(at % 7).unwrap() | 1));
    let source = MemorySource::new(vec![Node::file("odd.wav", &head)]);
    let (archive, _) = written(&source, &options());
    assert_same(&source, &archive);
    for (category, compression, _) in blocks(&archive) {
        assert!(category == "pcmaudio/metadata" || compression == Compression::Zstd, "{category}");
    }
}

#[test]
fn audio_that_changes_is_read_again() {
    let mut nodes = tree().nodes;
    for node in &mut nodes[..3] {
        node.behaviour = Behaviour::Changing(2);
    }
    let source = MemorySource::new(nodes);
    let (archive, _) = written(&source, &options());
    assert_same(&source, &archive);
}

#[test]
fn the_number_of_threads_makes_no_difference() {
    let bytes = |threads: usize, lookback| {
        let segmentation = Some(Segmentation { window_bits: 8, step_shift: 1, lookback });
        let threads = NonZeroUsize::new(threads).unwrap();
        let mut bytes = Vec::new();
        write_archive(&tree(), &WriteOptions { threads, segmentation, ..options() }, &mut bytes, &())
            .unwrap();
        bytes
    };
    for lookback in [1, 3] {
        let one = bytes(1, lookback);
        for threads in [1, 2, 8] {
            assert!(one == bytes(threads, lookback), "{threads} threads");
        }
    }
}

/// A file of some kind, perhaps damaged.
fn file() -> impl Strategy<Value = Vec<u8>> {
    let kind = (0..6_u8, 0..4_000_u32, vec(any::<u8>(), 0..9), any::<u64>()).prop_map(
        |(kind, len, behind, seed)| {
            let long = len as usize * 3;
            match kind {
                0 => wave(2, 16, len, &behind),
                1 => wave(1, 24, len, &behind),
                2 => elf(62, long, behind.first().copied().unwrap_or_default()),
                3 => noise(long, seed),
                4 => wave(3, 8, len, &behind),
                _ => behind.repeat(len as usize),
            }
        },
    );
    let damage = vec((any::<sample::Index>(), any::<u8>()), 0..3);
    (kind, damage).prop_map(|(mut file, damage)| {
        for (at, byte) in damage {
            if let Some(place) = (!file.is_empty()).then(|| at.index(file.len().min(80))) {
                file[place] = byte;
            }
        }
        file
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_packed_reads_back(
        files in vec(file(), 0..12),
        block_size_bits in 10..16_u8,
        lookback in 1..4_u8,
        order in sample::select(vec![Order::Path, Order::Similarity, Order::None]),
        threads in 1..5_usize,
    ) {
        let node = |(number, file): (usize, &Vec<u8>)| Node::file(&format!("{number:02}"), file);
        let source = MemorySource::new(files.iter().enumerate().map(node).collect());
        let segmentation = Some(Segmentation { window_bits: 7, step_shift: 1, lookback });
        let threads = NonZeroUsize::new(threads).unwrap();
        let options = WriteOptions { block_size_bits, segmentation, order, threads, ..options() };
        let (archive, summary): (Archive, Summary) = written(&source, &options);
        assert_same(&source, &archive);
        let packed: u64 = summary.categories.iter().map(|category| category.files).sum();
        prop_assert_eq!(packed + summary.duplicates, files.len() as u64);
    }
}
