//! Codecs as text, and every codec through our own reader.

use std::{num::NonZeroUsize, sync::Arc};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::dwarfs::{
    format::section::{Compression, HEADER_LEN, SectionKind},
    read::{Archive, BlockCache, Place},
    write::{
        WriteOptions,
        tests::memory::{MemorySource, Node},
        write_archive,
    },
};

const STEREO: Pcm =
    Pcm { channels: 2, bits: 16, bytes: 2, big_endian: false, signed: true, padding: Padding::High };

const LZMA: Lzma = Lzma { level: 6, extreme: false, dictionary_bits: None, filter: Bcj::None };

#[test]
fn codecs_are_read_as_they_are_written() {
    let flac = |level, pcm| Codec::Flac { level, pcm };
    for (text, codec) in [
        ("null", Codec::None),
        ("zstd:level=19", Codec::Zstd { level: 19 }),
        ("zstd:level=-5", Codec::Zstd { level: -5 }),
        ("zstd:level=22:long=27", Codec::ZstdLong { level: 22, window_bits: 27 }),
        ("lzma:level=6", Codec::Lzma(LZMA)),
        (
            "lzma:level=9:extreme:dict_size=24:binary=x86",
            Codec::Lzma(Lzma {
                level: 9,
                extreme: true,
                dictionary_bits: Some(24),
                filter: Bcj::For(Machine::X86),
            }),
        ),
        ("lzma:level=6:binary=auto", Codec::Lzma(Lzma { filter: Bcj::Auto, ..LZMA })),
        ("lz4", Codec::Lz4),
        ("lz4hc:level=12", Codec::Lz4Hc { level: 12 }),
        ("brotli:quality=9:lgwin=24", Codec::Brotli { quality: 9, window_bits: 24 }),
        ("flac:level=8:channels=2:bits=16:bytes=2", flac(8, STEREO)),
        (
            "flac:level=8:channels=1:bits=20:bytes=3:big:unsigned:low",
            flac(
                8,
                Pcm {
                    channels: 1,
                    bits: 20,
                    bytes: 3,
                    big_endian: true,
                    signed: false,
                    padding: Padding::Low,
                },
            ),
        ),
    ] {
        assert_eq!(text.parse::<Codec>().unwrap(), codec, "{text}");
        assert_eq!(codec.to_string(), text);
    }
    for (text, whole) in [
        ("zstd", "zstd:level=3"),
        ("zstd:long", "zstd:level=3:long=27"),
        ("lzma", "lzma:level=9"),
        ("lz4hc", "lz4hc:level=9"),
        ("brotli", "brotli:quality=11:lgwin=22"),
        ("flac:bits=24:channels=2", "flac:level=5:channels=2:bits=24:bytes=3"),
    ] {
        assert_eq!(text.parse::<Codec>().unwrap().to_string(), whole, "{text}");
    }
}

#[test]
fn what_is_no_codec_is_named() {
    for (text, message) in [
        ("gzip", r#"unknown codec "gzip": expected null, zstd, lzma, lz4, lz4hc, brotli or flac"#),
        ("", r#"unknown codec "": expected null, zstd, lzma, lz4, lz4hc, brotli or flac"#),
        ("zstd:19", r#"zstd has no setting "19": expected level=N, long or long=BITS"#),
        ("zstd:level=x", r#"zstd has no setting "level=x": expected level=N, long or long=BITS"#),
        ("zstd:level=1:level=2", r#"zstd has no setting "level=2": expected level=N, long or long=BITS"#),
        ("zstd:level=23", "zstd level is 23, it must be from -131072 to 22"),
        ("zstd:long=28", "zstd window (bits) is 28, it must be from 10 to 27"),
        ("lzma:level=10", "lzma level is 10, it must be from 0 to 9"),
        ("lzma:dict_size=31", "lzma dictionary (bits) is 31, it must be from 12 to 30"),
        ("lz4:level=1", r#"lz4 has no setting "level=1": expected nothing"#),
        ("lz4hc:level=13", "lz4hc level is 13, it must be from 1 to 12"),
        ("brotli:quality=12", "brotli quality is 12, it must be from 0 to 11"),
        ("flac", "flac needs bits"),
        ("flac:bits=16", "flac needs channels"),
        ("flac:bits=20:channels=2:bytes=2", "flac bits of a sample is 20, it must be from 8 to 16"),
        ("flac:bits=33:channels=2", "flac bytes of a sample is 5, it must be from 1 to 4"),
        ("flac:bits=16:channels=9", "flac channels is 9, it must be from 1 to 8"),
    ] {
        assert_eq!(text.parse::<Codec>().unwrap_err().to_string(), message);
    }
}

/// Codecs, the fast and the strong end of each.
fn codecs() -> Vec<(Codec, Compression)> {
    let mut codecs = vec![(Codec::None, Compression::None), (Codec::Lz4, Compression::Lz4)];
    codecs.extend([-50, 0, 1, 12, 22].map(|level| (Codec::Zstd { level }, Compression::Zstd)));
    codecs.extend([10, 27].map(|window_bits| (Codec::ZstdLong { level: 3, window_bits }, Compression::Zstd)));
    codecs.extend([1, 9, 12].map(|level| (Codec::Lz4Hc { level }, Compression::Lz4)));
    codecs.extend(
        [(0, 10), (5, 22), (11, 24), (9, 30)]
            .map(|(quality, window_bits)| (Codec::Brotli { quality, window_bits }, Compression::Brotli)),
    );
    codecs.extend([0, 1, 9].map(|level| (Codec::Lzma(Lzma { level, ..LZMA }), Compression::Lzma)));
    let strong = Lzma { extreme: true, dictionary_bits: Some(12), filter: Bcj::Auto, ..LZMA };
    codecs.push((Codec::Lzma(strong), Compression::Lzma));
    codecs
}

/// Archives one file and has our reader read it. Returns how its blocks are stored.
fn through(codec: Codec, bytes: &[u8]) -> Vec<Compression> {
    let source = MemorySource::new(vec![Node::file("file", bytes)]);
    let options = WriteOptions {
        block_size_bits: 18,
        data: codec,
        threads: NonZeroUsize::new(2).unwrap(),
        ..WriteOptions::default()
    };
    let mut out = Vec::new();
    write_archive(&source, &options, &mut out, &()).unwrap();
    let place = Place::At { offset: 0, len: None };
    let archive = Archive::open(Arc::new(out), place, &BlockCache::new(1 << 24)).unwrap();
    archive.verify(&mut |_, _| {}).unwrap();
    let inode = archive.find(b"file").unwrap().unwrap();
    let found = archive.read(inode, 0, bytes.len() + 1).unwrap().contiguous().into_owned();
    assert!(found == bytes, "{codec}");
    archive.block_facts().map(|facts| facts.unwrap().compression).collect()
}

fn text(len: usize) -> Vec<u8> {
    (0_u32..).flat_map(|at| format!("line {at} of {}\n", at / 100).into_bytes()).take(len).collect()
}

fn noise(len: usize) -> Vec<u8> {
    let mut seed = 1_u64;
    (0..len)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33).to_le_bytes()[0]
        })
        .collect()
}

#[test]
fn every_codec_reads_back() {
    for (codec, compression) in codecs() {
        assert_eq!(through(codec, &text(600_000)), [compression; 3], "{codec}");
    }
}

#[test]
fn what_does_not_shrink_is_stored() {
    for (codec, _) in codecs() {
        assert_eq!(through(codec, &noise(300_000)), [Compression::None; 2], "{codec}");
        assert_eq!(through(codec, b"x"), [Compression::None], "{codec}");
        assert_eq!(through(codec, b"ten bytes!"), [Compression::None], "{codec}");
    }
    assert_eq!(through(Codec::Flac { level: 8, pcm: STEREO }, &noise(300_000)), [Compression::None; 2]);
}

#[expect(clippy::cast_possible_truncation, reason = "samples are made within their width")]
/// Samples of two tones and a little noise, written as `pcm` says.
fn sound(pcm: Pcm, frames: usize) -> Vec<u8> {
    let noise = noise(frames * usize::from(pcm.channels));
    let most = (1_i64 << (pcm.bits - 1)) - 1;
    let mut bytes = Vec::new();
    for (at, noise) in noise.iter().enumerate() {
        let (moment, channel) = (at / usize::from(pcm.channels), at % usize::from(pcm.channels));
        let tone = (moment as f64 * 0.03 * (1.0 + channel as f64 / 10.0)).sin() * 0.7;
        let sample = (tone * most as f64) as i64 + i64::from(*noise) % 16;
        let sample = sample.clamp(-most - 1, most);
        let offset = if pcm.signed { 0 } else { most + 1 };
        let unused = u32::from(pcm.bytes) * 8 - u32::from(pcm.bits);
        let shift = if pcm.padding == Padding::Low { unused } else { 0 };
        let raw = ((sample + offset) << shift).to_le_bytes();
        let mut raw = raw[..usize::from(pcm.bytes)].to_vec();
        if pcm.big_endian {
            raw.reverse();
        }
        bytes.extend(raw);
    }
    bytes
}

fn layouts() -> impl Iterator<Item = Pcm> {
    let widths = [(8, 1), (12, 2), (16, 2), (20, 3), (24, 3), (24, 4), (32, 4)];
    let kinds = (0..8_u8).map(|kind| (kind & 1 != 0, kind & 2 != 0, kind & 4 != 0));
    widths.into_iter().flat_map(move |(bits, bytes)| {
        kinds.clone().map(move |(big_endian, signed, low)| Pcm {
            channels: 1 + bits % 5 % 3,
            bits,
            bytes,
            big_endian,
            signed,
            padding: if low { Padding::Low } else { Padding::High },
        })
    })
}

#[test]
fn samples_of_every_layout_read_back() {
    for pcm in layouts() {
        let bytes = sound(pcm, 20_000);
        let codec = Codec::Flac { level: 5, pcm };
        assert_eq!(through(codec, &bytes[..bytes.len().min(1 << 18)])[0], Compression::Flac, "{codec}");
    }
}

#[test]
fn every_level_of_flac_reads_back() {
    let bytes = sound(STEREO, 50_000);
    for level in 0..=8 {
        assert_eq!(through(Codec::Flac { level, pcm: STEREO }, &bytes), [Compression::Flac], "{level}");
    }
}

#[test]
fn samples_with_something_in_their_padding_are_stored() {
    for pcm in layouts().filter(|pcm| pcm.bytes * 8 > pcm.bits) {
        let mut bytes = sound(pcm, 20_000);
        let frame = bytes.len() / 2 / usize::from(pcm.bytes) * usize::from(pcm.bytes);
        let is_first = pcm.big_endian != (pcm.padding == Padding::Low);
        let place = frame + if is_first { 0 } else { usize::from(pcm.bytes) - 1 };
        bytes[place] ^= if pcm.padding == Padding::Low { 0x01 } else { 0x40 };
        let stored = through(Codec::Flac { level: 5, pcm }, &bytes);
        assert_eq!(stored[0], Compression::None, "{pcm:?}");
    }
}

#[test]
fn a_block_that_cuts_a_frame_is_stored() {
    let pcm = Pcm { bits: 24, bytes: 3, ..STEREO };
    let stored = through(Codec::Flac { level: 5, pcm }, &sound(pcm, 50_000));
    assert_eq!(stored, [Compression::None, Compression::None]);
}

#[test]
fn a_dictionary_is_no_longer_than_the_block() {
    let sealed = |codec| {
        let mut compressor = Compressor::new(codec).unwrap();
        let payload = text(1 << 20);
        let sealed = compressor.seal(0, SectionKind::Block, &payload).unwrap();
        assert_eq!(sealed.header.compression, Compression::Lzma);
        sealed.payload.to_vec()
    };
    let strong = Lzma { level: 9, ..LZMA };
    let xz = sealed(Codec::Lzma(strong));
    // Stream header, length and flags of the block's header, the filter's number and size of its settings.
    assert_eq!(xz[12 + 2..12 + 4], [0x21, 1], "LZMA2");
    // 2^20: (2 | code & 1) << (code / 2 + 11).
    assert_eq!(xz[12 + 4], 16);
}

/// Machine code of calls to few places, as a compiler writes it.
fn calls(len: usize) -> Vec<u8> {
    let mut code = b"\x7fELF\x02\x01\x01".to_vec();
    code.resize(64, 0);
    code[18] = 62;
    let mut steps = noise(len).into_iter();
    while code.len() < len {
        let target = 1_000_u32 * u32::from(steps.next().unwrap() % 50);
        let at = u32::try_from(code.len()).unwrap() + 5;
        code.push(0xe8);
        code.extend(target.wrapping_sub(at).to_le_bytes());
        code.extend([0x48, 0x89, 0xc7, steps.next().unwrap() % 8]);
    }
    code
}

#[test]
fn the_filter_for_the_machine_is_found_and_used() {
    let len = |filter, bytes: &[u8]| {
        let codec = Codec::Lzma(Lzma { filter, ..LZMA });
        assert_eq!(through(codec, bytes), [Compression::Lzma], "{codec}");
        let mut compressor = Compressor::new(codec).unwrap();
        compressor.seal(0, SectionKind::Block, bytes).unwrap().payload.len() + HEADER_LEN
    };
    let code = calls(200_000);
    let (plain, auto) = (len(Bcj::None, &code), len(Bcj::Auto, &code));
    assert!(auto * 10 < plain * 9, "{auto} of {plain}");
    assert_eq!(auto, len(Bcj::For(Machine::X86), &code));
    // A filter that does no good is not used.
    let mut text = text(200_000);
    text[..20].copy_from_slice(b"\x7fELF\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0\x28\0");
    assert_eq!(len(Bcj::Auto, &text), len(Bcj::None, &text));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_bytes_read_back_with_any_codec(
        parts in vec((vec(any::<u8>(), 1..200), 1..60_usize), 0..20),
        which in 0..32_usize,
    ) {
        let bytes: Vec<u8> = parts.iter().flat_map(|(part, times)| part.repeat(*times)).collect();
        let mut codecs = codecs();
        codecs.extend(layouts().step_by(5).map(|pcm| (Codec::Flac { level: 2, pcm }, Compression::Flac)));
        let (codec, _) = codecs[which % codecs.len()];
        through(codec, &bytes);
    }
}
