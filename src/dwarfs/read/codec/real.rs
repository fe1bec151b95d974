//! Payloads that real encoders made, whole and damaged: those of the test archives, and `.xz` streams.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use liblzma::stream::{Check, Filters, LzmaOptions, Stream as Encoder};

use super::{Job, brotli, flac, ricepp};
use crate::dwarfs::{
    Error,
    format::section::{Compression, SectionKind},
    read::index::{Index, Place},
};

/// No block of these archives is longer.
const LIMIT: u64 = 1 << 24;

fn archive(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dwarfs/made").join(name).with_extension("dwarfs")
}

/// The payloads of this codec in an archive.
fn payloads(name: &str, codec: Compression) -> Vec<Vec<u8>> {
    let file = File::open(archive(name)).unwrap();
    let index = Index::open(&file, Place::At { offset: 0, len: None }).unwrap();
    let blocks = index.sections().iter().filter(|section| section.kind == SectionKind::Block);
    let read = blocks.map(|section| index.read(&file, *section).unwrap());
    read.filter(|(found, _)| *found == codec).map(|(_, payload)| payload).collect()
}

/// One of each kind of payload, with as many of the others as a test has time for.
fn samples() -> Vec<(Compression, Vec<u8>)> {
    let sets = [
        ("cx-audio", Compression::Flac, 20),
        ("cx-audio-fixed", Compression::Flac, 20),
        ("cx-fits", Compression::Ricepp, 5),
        ("cx-fits-512", Compression::Ricepp, 5),
        ("cx-brotli-0", Compression::Brotli, 1),
        ("cx-brotli-11", Compression::Brotli, 1),
        ("cx-brotli-large", Compression::Brotli, 1),
    ];
    let mut samples = Vec::new();
    for (name, codec, least) in sets {
        let found = payloads(name, codec);
        assert!(found.len() >= least, "{name} has {} payloads", found.len());
        samples.extend(found.into_iter().map(|payload| (codec, payload)));
    }
    samples
}

fn job(codec: Compression, limit: u64) -> Job {
    Job { section: 3, codec, limit }
}

/// Reads a stream by calls for `step` bytes.
fn in_steps(codec: Compression, payload: Vec<u8>, step: usize) -> Result<Vec<u8>, Error> {
    let job = job(codec, LIMIT);
    let mut stream = match codec {
        Compression::Brotli => brotli::open(job, payload)?,
        Compression::Flac => flac::open(job, payload)?,
        _ => ricepp::open(job, payload)?,
    };
    let (mut bytes, mut buffer) = (Vec::new(), vec![0xee; step]);
    loop {
        let len = stream.read(&mut buffer)?;
        bytes.extend_from_slice(&buffer[..len]);
        if len == 0 {
            assert_eq!(stream.len(), Some(bytes.len() as u64), "{codec}");
            assert_eq!(stream.read(&mut buffer)?, 0, "the end stays the end");
            return Ok(bytes);
        }
    }
}

#[test]
fn every_size_of_a_read_gives_the_same() {
    for (codec, payload) in samples() {
        let whole = job(codec, LIMIT).decompress(payload.clone()).unwrap();
        assert!(!whole.is_empty());
        for step in [1, 3, 4_096, 1 << 20] {
            assert!(in_steps(codec, payload.clone(), step).unwrap() == whole, "{codec} by {step}");
        }
        let limit = whole.len() as u64 - 1;
        let refused = job(codec, limit).decompress(payload).unwrap_err();
        assert!(matches!(refused, Error::Limit { .. }), "{codec}: {refused}");
    }
}

#[test]
fn cut_payloads_are_errors() {
    for (codec, payload) in samples() {
        let step = (payload.len() / 300).max(1);
        let ends = (0..payload.len() - 1).step_by(step).chain([payload.len() - 3]);
        for end in ends {
            // The last bytes of a FLAC frame are a checksum, and the last bits of RICEPP may be padding.
            let result = job(codec, LIMIT).decompress(payload[..end].to_vec());
            assert!(
                matches!(result, Err(Error::Decompress { .. })),
                "{codec} cut at {end} of {}",
                payload.len()
            );
        }
    }
}

#[test]
fn damaged_payloads_end_in_some_way() {
    for (codec, payload) in samples() {
        let step = (payload.len() / 400).max(1);
        for at in (0..payload.len()).step_by(step) {
            let mut damaged = payload.clone();
            damaged[at] ^= 1 << (at % 8);
            if let Ok(bytes) = job(codec, LIMIT).decompress(damaged) {
                assert!(bytes.len() as u64 <= LIMIT);
            }
        }
    }
}

#[test]
fn what_cannot_be_is_refused_before_memory_is_asked_for() {
    // A length of 2^29 before each rest.
    let huge = [0x80, 0x80, 0x80, 0x80, 0x02];
    for (codec, payload) in samples() {
        let start = payload.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let claims = [&huge, &payload[start..]].concat();
        let result = job(codec, 1 << 30).decompress(claims);
        assert!(matches!(result, Err(Error::Decompress { .. })), "{codec}");
    }
}

/// Something like programs: calls of a few places, in the manner of several processors.
fn code() -> Vec<u8> {
    let mut code = Vec::new();
    for number in 0..3_000_u32 {
        let to = (number % 7 * 0x1_0204).wrapping_sub(u32::try_from(code.len()).unwrap());
        match number % 6 {
            0 => code.extend([&[0xe8], &to.to_le_bytes()[..], &[0x90, 0x90, 0x90]].concat()),
            1 => code.extend((0xeb00_0000 | to >> 2 & 0x00ff_ffff).to_le_bytes()),
            2 => code.extend((0x9400_0000 | to >> 2 & 0x03ff_ffff).to_le_bytes()),
            3 => code.extend((0x4800_0001 | to & 0x03ff_fffc).to_be_bytes()),
            4 => code.extend((0x4000_0000 | to >> 2 & 0x003f_ffff).to_be_bytes()),
            _ => code.extend((0x0000_00ef | to << 12).to_le_bytes()),
        }
    }
    code
}

fn pack(filters: &Filters, bytes: &[u8]) -> Vec<u8> {
    let encoder = Encoder::new_stream_encoder(filters, Check::Crc64).unwrap();
    let mut writer = liblzma::write::XzEncoder::new_stream(Vec::new(), encoder);
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

#[test]
fn every_branch_filter_of_xz_is_decoded() {
    type Add = fn(&mut Filters) -> &mut Filters;
    let all: [(&str, Add); 8] = [
        ("x86", Filters::x86),
        ("arm", Filters::arm),
        ("armthumb", Filters::arm_thumb),
        ("arm64", Filters::arm64),
        ("powerpc", Filters::powerpc),
        ("ia64", Filters::ia64),
        ("sparc", Filters::sparc),
        ("riscv", Filters::riscv),
    ];
    let (code, mut options) = (code(), LzmaOptions::new_preset(6).unwrap());
    options.dict_size(1 << 16);
    let mut plain = Filters::new();
    let plain = pack(plain.lzma2(&options), &code);
    for (name, add) in all {
        let mut filters = Filters::new();
        add(&mut filters).lzma2(&options);
        let payload = pack(&filters, &code);
        assert_ne!(payload, plain, "{name} does something");
        assert!(job(Compression::Lzma, LIMIT).decompress(payload.clone()).unwrap() == code, "{name}");
        // A second stream with another filter, and padding between them.
        let two = [&payload[..], &[0; 8], &plain].concat();
        let expected = [&code[..], &code].concat();
        assert!(job(Compression::Lzma, LIMIT).decompress(two).unwrap() == expected, "{name} and another");
    }
}

#[test]
fn streams_of_the_xz_program_are_decoded() {
    let code = code();
    for filter in
        ["--x86", "--arm", "--armthumb", "--arm64", "--powerpc", "--ia64", "--sparc", "--riscv", "--delta"]
    {
        let arguments = ["--compress", "--stdout", "--check=sha256", "--block-size=10000", filter, "--lzma2"];
        let mut command = Command::new("xz");
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut child) = command.spawn() else {
            println!("skipped: there is no xz program");
            return;
        };
        let mut input = child.stdin.take().unwrap();
        let bytes = code.clone();
        // A program that does not know the filter goes without reading.
        let feeder = std::thread::spawn(move || drop(input.write_all(&bytes)));
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        if !output.status.success() {
            println!("skipped: this xz program has no {filter}");
            continue;
        }
        assert!(job(Compression::Lzma, LIMIT).decompress(output.stdout).unwrap() == code, "{filter}");
    }
}
