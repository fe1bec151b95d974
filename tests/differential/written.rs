//! Archives of our writer before upstream's tools: the check, the extractor and the FUSE driver.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    num::{NonZeroU32, NonZeroUsize},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use fim::dwarfs::{
    format::sidecar::{Sidecar, Xattrs},
    read::{Archive, BlockCache, Place},
    write::{
        Categorizer, Codec, DirSource, History, Level, Overrides, Packing, Phase, Progress, Resolution,
        Source, Summary, TarLimits, TarSource, Times, Timestamp, Unreadable, WriteOptions, write_archive,
    },
};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;

use crate::{
    tree_facts::{assert_same, facts},
    upstream,
};

fn options() -> WriteOptions {
    WriteOptions { created: Some(1_700_000_000), data: Codec::Zstd { level: 3 }, ..WriteOptions::default() }
}

/// A directory to be archived, and a place for the archive.
struct Case {
    scratch: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let case = Self { scratch: tempfile::tempdir().unwrap() };
        fs::create_dir(case.tree()).unwrap();
        case
    }

    fn tree(&self) -> PathBuf {
        self.scratch.path().join("tree")
    }

    fn archive(&self) -> PathBuf {
        self.scratch.path().join("archive.dwarfs")
    }

    fn file(&self, path: impl AsRef<Path>, contents: &[u8]) {
        fs::write(self.tree().join(path), contents).unwrap();
    }

    fn write(&self, source: &dyn Source, options: &WriteOptions) -> Summary {
        let mut output = BufWriter::new(File::create(self.archive()).unwrap());
        let summary = write_archive(source, options, &mut output, &()).unwrap();
        output.flush().unwrap();
        assert_eq!(summary.bytes_out, fs::metadata(self.archive()).unwrap().len());
        summary
    }

    /// Archives the tree and has all of upstream's tools look at it. Files longer than `longest` are not compared.
    fn judge_with(&self, options: &WriteOptions, longest: u64) -> Summary {
        let summary = self.write(&DirSource::open(&self.tree()).unwrap(), options);
        self.judge_archive(longest);
        summary
    }

    fn judge_archive(&self, longest: u64) {
        upstream::check(&self.archive());
        let expected = facts(&self.tree(), longest);
        if let Some(mounted) = upstream::Mounted::new(&self.archive()) {
            assert_same(&expected, &facts(mounted.path(), longest));
        }
    }

    /// Has the extractor unpack the archive, and compares contents and types.
    fn judge_extraction(&self) {
        let Some(extractor) = upstream::tool("dwarfsextract") else { return };
        let out = self.scratch.path().join("out");
        fs::create_dir(&out).unwrap();
        upstream::run(Command::new(extractor).arg("-i").arg(self.archive()).arg("-o").arg(&out));
        let plain = |root: &Path| {
            let mut tree = facts(root, u64::MAX);
            // The extractor knows neither owners nor the root itself.
            tree.remove(&b""[..]);
            tree.values_mut().for_each(|facts| (facts.uid, facts.gid, facts.mtime) = (0, 0, (0, 0)));
            tree
        };
        assert_same(&plain(&self.tree()), &plain(&out));
    }

    fn judge(&self) -> Summary {
        let summary = self.judge_with(&options(), u64::MAX);
        self.judge_extraction();
        summary
    }

    fn set_mtime(&self, path: &str, seconds: i64, nanos: i64) {
        let time = TimeSpec::new(seconds, nanos);
        let path = self.tree().join(path);
        utimensat(nix::fcntl::AT_FDCWD, &path, &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
    }

    fn node(&self, name: &str, kind: SFlag, major: u64, minor: u64) -> bool {
        let made =
            mknod(&self.tree().join(name), kind, Mode::from_bits_truncate(0o640), makedev(major, minor));
        if made.is_err() {
            upstream::skip("devices cannot be made here");
        }
        made.is_ok()
    }
}

/// Bytes that do not compress.
fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let step = |seed: &mut u64| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33).to_le_bytes()[0]
    };
    (0..len).map(|_| step(&mut seed)).collect()
}

#[test]
fn an_empty_tree() {
    let case = Case::new();
    let summary = case.judge();
    assert_eq!((summary.directories, summary.files), (1, 0));
}

#[test]
fn files_links_and_directories() {
    let case = Case::new();
    case.file("hello", b"hello world\n");
    case.file("empty", b"");
    fs::create_dir_all(case.tree().join("a/b/c")).unwrap();
    fs::create_dir(case.tree().join("nothing in here")).unwrap();
    case.file("a/b/c/deep", &b"deep ".repeat(5_000));
    case.file("a/noise", &noise(300_000, 1));
    symlink("hello", case.tree().join("link")).unwrap();
    symlink("../../nowhere", case.tree().join("a/b/dangling")).unwrap();
    symlink("hello", case.tree().join("a/second link to the same")).unwrap();
    fs::set_permissions(case.tree().join("hello"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(case.tree().join("a"), fs::Permissions::from_mode(0o1777)).unwrap();
    case.judge();
}

#[test]
fn every_special_file() {
    let case = Case::new();
    let nodes = [
        ("whiteout", SFlag::S_IFCHR, 0, 0),
        ("null", SFlag::S_IFCHR, 1, 3),
        ("disk", SFlag::S_IFBLK, 259, 70_000),
        ("fifo", SFlag::S_IFIFO, 0, 0),
        ("socket", SFlag::S_IFSOCK, 0, 0),
    ];
    if nodes.into_iter().all(|(name, kind, major, minor)| case.node(name, kind, major, minor)) {
        case.file("file", b"x");
        let summary = case.judge_with(&options(), u64::MAX);
        assert_eq!(summary.specials, 5);
    }
}

#[test]
fn strange_names() {
    let case = Case::new();
    let names: [&[u8]; 6] = [
        b"\xff\xfe\x01",
        &[b'n'; 255],
        &[0xe4; 255],
        b" \n\t\\\"",
        b"-rf",
        "\u{65e5}\u{672c}\u{8a9e}".as_bytes(),
    ];
    for name in names {
        let directory = Path::new(std::ffi::OsStr::from_bytes(name)).to_owned();
        fs::create_dir(case.tree().join(&directory)).unwrap();
        case.file(directory.join(&directory), name);
        symlink(&directory, case.tree().join(&directory).join("link")).unwrap();
    }
    case.judge_with(&options(), u64::MAX);
}

#[test]
fn hard_links_and_duplicates() {
    let case = Case::new();
    let shared = noise(100_000, 7);
    for name in ["a", "b", "c"] {
        case.file(name, &shared);
        case.file(format!("{name}.small"), b"the same everywhere");
    }
    case.file("same size only", &noise(100_000, 8));
    fs::create_dir(case.tree().join("d")).unwrap();
    for link in ["a.1", "d/a.2", "d/z"] {
        fs::hard_link(case.tree().join("a"), case.tree().join(link)).unwrap();
    }
    symlink("a", case.tree().join("s")).unwrap();
    fs::hard_link(case.tree().join("s"), case.tree().join("d/s")).unwrap();
    let summary = case.judge();
    assert_eq!((summary.files, summary.duplicates, summary.hard_links), (7, 4, 3));
    assert_eq!(summary.symlinks, 2);
    assert_eq!(summary.bytes_packed, 200_000 + 19);
}

#[test]
fn files_longer_than_blocks() {
    let case = Case::new();
    for (name, len) in
        [("one", 1 << 12), ("one and a bit", (1 << 12) + 1), ("many", 700_001), ("less", 4_095)]
    {
        case.file(name, &noise(len, len as u64));
    }
    for bits in [10, 12, 16] {
        case.judge_with(&WriteOptions { block_size_bits: bits, ..options() }, u64::MAX);
    }
}

#[test]
fn sparse_files() {
    let case = Case::new();
    let make = |name: &str, len: u64, data: &[u64]| {
        let file = File::create(case.tree().join(name)).unwrap();
        file.set_len(len).unwrap();
        data.iter().for_each(|at| file.write_all_at(&noise(4_096, *at), *at).unwrap());
    };
    make("all hole", 1 << 20, &[]);
    make("all hole, and longer", (1 << 20) + 5, &[]);
    case.judge_with(&options(), 1 << 24);
    make("begins with data", 1 << 20, &[0]);
    make("ends with data", 1 << 20, &[(1 << 20) - 4_096]);
    make("in the middle", 10_000_000, &[1 << 16, 1 << 20]);
    make("a copy of it", 10_000_000, &[1 << 16, 1 << 20]);
    make("one terabyte", 1 << 40, &[1 << 39]);
    let summary = case.judge_with(&options(), 1 << 24);
    assert_eq!(summary.duplicates, 1);
    case.judge_with(&WriteOptions { block_size_bits: 10, ..options() }, 1 << 24);
    // Its holes are longer than a chunk of so many blocks of 1 KiB can say.
    make("six terabytes", 6 << 40, &[1 << 20]);
    case.judge_with(&WriteOptions { block_size_bits: 10, ..options() }, 1 << 24);
    make("holes by the hundred", 400 << 16, &(0..200).map(|at| at << 17).collect::<Vec<_>>());
    case.judge_with(&options(), 1 << 24);
}

#[test]
fn times_of_all_ages() {
    let case = Case::new();
    let times = [
        ("epoch", 0, 0),
        ("before", -1, 999_999_999),
        ("1901", -2_147_483_648, 5),
        ("now", 1_700_000_000, 123_456_789),
        ("2106", 4_294_967_296, 1),
    ];
    for (name, seconds, nanos) in times {
        case.file(name, name.as_bytes());
        case.set_mtime(name, seconds, nanos);
    }
    case.judge_with(&options(), u64::MAX);
    case.judge_with(&WriteOptions { times: Times::All, ..options() }, u64::MAX);
}

#[test]
fn every_packing() {
    let case = Case::new();
    fs::create_dir_all(case.tree().join("x/y")).unwrap();
    for name in ["a", "b", "x/c", "x/y/d", "x/y/e"] {
        case.file(name, b"five equal files");
        case.file(format!("{name}.own"), name.as_bytes());
        symlink(name, case.tree().join(format!("{name}.link"))).unwrap();
    }
    let all = Packing {
        chunk_table: true,
        directories: true,
        shared_files: true,
        string_index: true,
        plain_strings: false,
        symbols: true,
    };
    let none = Packing::default();
    let each = [
        Packing { chunk_table: true, ..none },
        Packing { directories: true, ..none },
        Packing { shared_files: true, ..none },
        Packing { string_index: true, ..none },
        Packing { plain_strings: true, ..none },
        Packing { symbols: true, ..none },
        all,
    ];
    for packing in each {
        for metadata in [Codec::None, Codec::Zstd { level: 11 }] {
            case.judge_with(&WriteOptions { packing, metadata, ..options() }, u64::MAX);
        }
    }
}

#[test]
fn attributes_travel_in_the_side_car() {
    let case = Case::new();
    fs::create_dir(case.tree().join("d")).unwrap();
    for name in ["a", "d/b", "plain"] {
        case.file(name, name.as_bytes());
    }
    fs::hard_link(case.tree().join("a"), case.tree().join("d/a")).unwrap();
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(case.tree().join(path), name, value, rustix::fs::XattrFlags::empty())
    };
    if let Err(rustix::io::Errno::NOTSUP) = set("", "user.root", b"") {
        return upstream::skip("there are no user attributes here");
    }
    set("a", "user.b", &[0, 255]).unwrap();
    set("a", "user.a", b"").unwrap();
    set("d", "user.overlay.opaque", b"y").unwrap();
    set("d", "user.fim.origin", b"private").unwrap();
    let expect = |case: &Case| {
        case.write(&DirSource::open(&case.tree()).unwrap(), &options());
        upstream::check(&case.archive());
        let mounted = upstream::Mounted::new(&case.archive())?;
        let bytes = fs::read(mounted.path().join(".fim.sidecar")).unwrap();
        let records = Sidecar::decode(&bytes).unwrap().records;
        let xattrs = |pairs: &[(&str, &[u8])]| -> Xattrs {
            pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect()
        };
        let of_a = xattrs(&[("user.a", b""), ("user.b", &[0, 255])]);
        let expected = [
            (b"".to_vec(), xattrs(&[("user.root", b"")])),
            (b"a".to_vec(), of_a.clone()),
            (b"d".to_vec(), xattrs(&[("user.overlay.opaque", b"y")])),
            (b"d/a".to_vec(), of_a),
        ];
        assert_eq!(records, expected.into());
        let mut found = facts(mounted.path(), u64::MAX);
        found.remove(&b".fim.sidecar"[..]).unwrap();
        let mut there = facts(&case.tree(), u64::MAX);
        there.remove(&b".fim.sidecar"[..]);
        assert_same(&there, &found);
        Some(bytes)
    };
    let Some(bytes) = expect(&case) else { return };
    // A tool that does not know of it unpacks it as a file, and loses the attributes.
    case.file(".fim.sidecar", &bytes);
    for (path, name) in [("", "user.root"), ("a", "user.a"), ("a", "user.b"), ("d", "user.overlay.opaque")] {
        rustix::fs::lremovexattr(case.tree().join(path), name).unwrap();
    }
    expect(&case);
}

#[test]
fn times_are_clamped_and_the_history_is_told() {
    let case = Case::new();
    case.file("old", b"");
    case.file("new", b"");
    case.set_mtime("old", 1_000, 5);
    case.set_mtime("new", 2_000_000_000, 7);
    case.set_mtime("", 3_000, 0);
    let latest_time = Some(Timestamp { seconds: 1_500_000_000, nanos: 0 });
    let history = Some(History { arguments: vec!["fim".into(), "archive".into()], ..History::default() });
    case.write(&DirSource::open(&case.tree()).unwrap(), &WriteOptions { latest_time, history, ..options() });
    if let Some(dwarfsck) = upstream::tool("dwarfsck") {
        let text =
            upstream::run(Command::new(dwarfsck).arg("-i").arg(case.archive()).arg("-d").arg("history"));
        assert!(text.contains("fim archive"), "{text}");
    }
    if let Some(mounted) = upstream::Mounted::new(&case.archive()) {
        let found = facts(mounted.path(), u64::MAX);
        let times: Vec<_> = found.values().map(|facts| facts.mtime).collect();
        assert_eq!(times, [(3_000, 0), (1_500_000_000, 0), (1_000, 5)]);
    }
}

#[test]
fn five_thousand_files() {
    let case = Case::new();
    for directory in 0..50_u64 {
        let name = format!("d{directory}");
        fs::create_dir(case.tree().join(&name)).unwrap();
        for file in 0..100_u64 {
            let len = usize::try_from(directory * file % 4_000).unwrap();
            case.file(format!("{name}/f{file}"), &noise(len, file % 10));
        }
    }
    let summary = case.judge();
    assert_eq!(summary.files, 5_000);
    assert!(summary.duplicates > 0);
}

#[test]
fn the_number_of_threads_makes_no_difference() {
    let case = Case::new();
    for file in 0..40 {
        case.file(format!("f{file}"), &[noise(50_000, file % 30), b"text ".repeat(10_000)].concat());
    }
    let written = |threads| {
        let threads = NonZeroUsize::new(threads).unwrap();
        let options = WriteOptions { threads, block_size_bits: 14, ..options() };
        case.write(&DirSource::open(&case.tree()).unwrap(), &options);
        fs::read(case.archive()).unwrap()
    };
    let one = written(1);
    for threads in [1, 2, 8] {
        assert!(written(threads) == one, "{threads} threads");
    }
}

#[test]
fn a_tar_file_gives_what_its_directory_gives() {
    let case = Case::new();
    let directory = format!("usr/share/{}", "a rather long name for a directory".repeat(2));
    fs::create_dir_all(case.tree().join(&directory)).unwrap();
    let long = format!("{directory}/{}", "x".repeat(150));
    case.file(&long, b"found by a long path");
    case.file("usr/file", &noise(100_000, 3));
    fs::hard_link(case.tree().join("usr/file"), case.tree().join("usr/linked")).unwrap();
    symlink("y".repeat(140), case.tree().join("usr/long link")).unwrap();
    let sparse = File::create(case.tree().join("sparse")).unwrap();
    sparse.set_len(5_000_000).unwrap();
    (0..30).for_each(|at: u64| sparse.write_all_at(&noise(4_096, at), at << 17).unwrap());
    let is_root = case.node("null", SFlag::S_IFCHR, 1, 3) && case.node("fifo", SFlag::S_IFIFO, 0, 0);
    case.set_mtime("usr/file", -5, 250_000_000);
    if !is_root {
        return;
    }
    let formats: [&[&str]; 6] = [
        &["--format=gnu", "-S"],
        &["--format=pax", "--sparse-version=0.0", "-S"],
        &["--format=pax", "--sparse-version=0.1", "-S"],
        &["--format=pax", "--sparse-version=1.0", "-S"],
        &["--format=pax", "-z"],
        &["--format=pax", "-J"],
    ];
    for format in formats {
        let path = case.scratch.path().join("tree.tar");
        upstream::run(
            Command::new("tar").args(format).arg("-cf").arg(&path).arg("-C").arg(case.tree()).arg("."),
        );
        let source = TarSource::open(&path, case.scratch.path(), TarLimits::default()).unwrap();
        case.write(&source, &options());
        upstream::check(&case.archive());
        let Some(mounted) = upstream::Mounted::new(&case.archive()) else { return };
        let (mut expected, mut found) = (facts(&case.tree(), u64::MAX), facts(mounted.path(), u64::MAX));
        if format.contains(&"--format=gnu") {
            // That format knows whole seconds only.
            expected.values_mut().chain(found.values_mut()).for_each(|facts| facts.mtime.1 = 0);
        }
        assert_same(&expected, &found);
    }
}

/// A tree of text, code and noise, in several blocks.
fn mixed(case: &Case) {
    fs::create_dir_all(case.tree().join("x/y")).unwrap();
    let text: Vec<u8> = (0..40_000_u32).flat_map(|at| format!("line {at}\n").into_bytes()).collect();
    case.file("text", &text);
    case.file("noise", &noise(300_000, 7));
    case.file("x/empty", b"");
    case.file("x/y/small", b"a few bytes");
    fs::copy(std::env::current_exe().unwrap(), case.tree().join("x/program")).unwrap();
    let program = File::options().write(true).open(case.tree().join("x/program")).unwrap();
    program.set_len(3_000_000).unwrap();
    symlink("y/small", case.tree().join("x/link")).unwrap();
}

#[test]
fn every_codec_for_data_and_metadata() {
    let case = Case::new();
    mixed(&case);
    for text in [
        "null",
        "zstd:level=-7",
        "zstd:level=1",
        "zstd:level=22",
        "zstd:level=19:long=27",
        "lzma:level=0",
        "lzma:level=9:extreme",
        "lzma:level=6:dict_size=16",
        "lzma:level=6:binary=auto",
        "lzma:level=1:binary=x86",
        "lz4",
        "lz4hc:level=1",
        "lz4hc:level=12",
        "brotli:quality=1:lgwin=10",
        "brotli:quality=9:lgwin=24",
        "brotli:quality=5:lgwin=30",
    ] {
        let codec: Codec = text.parse().unwrap();
        let options = WriteOptions { data: codec, metadata: codec, block_size_bits: 20, ..options() };
        eprintln!("{text}: {}", case.judge_with(&options, u64::MAX).bytes_out);
        case.judge_extraction();
        fs::remove_dir_all(case.scratch.path().join("out")).ok();
    }
}

/// The machine's call of a place from `at`, which is to be in the first block.
fn call(machine: &str, at: u32) -> [u8; 4] {
    let distance = 80_000_u32.wrapping_sub(at);
    match machine {
        "arm" => (0xeb00_0000 | distance.wrapping_sub(8) >> 2 & 0x00ff_ffff).to_le_bytes(),
        "armthumb" => {
            let halves = distance.wrapping_sub(4) >> 1;
            (0xf800_f000 | halves >> 11 & 0x7ff | (halves & 0x7ff) << 16).to_le_bytes()
        }
        "arm64" => (0x9400_0000 | distance >> 2 & 0x03ff_ffff).to_le_bytes(),
        "powerpc" => (0x4800_0001 | distance & 0x03ff_fffc).to_be_bytes(),
        "sparc" => (0x4000_0000 | distance >> 2 & 0x3fff_ffff).to_be_bytes(),
        _ => {
            let bits = |from: u32, count: u32, to: u32| (distance >> from & ((1 << count) - 1)) << to;
            (bits(20, 1, 31) | bits(1, 10, 21) | bits(11, 1, 20) | bits(12, 8, 12) | 0xef).to_le_bytes()
        }
    }
}

#[test]
fn filters_for_every_machine() {
    let case = Case::new();
    for machine in ["arm", "armthumb", "arm64", "powerpc", "sparc", "riscv"] {
        let code: Vec<u8> = (0..40_000_u32).flat_map(|number| call(machine, number * 4)).collect();
        case.file("code", &code);
        let of = |text: &str| WriteOptions { data: text.parse().unwrap(), block_size_bits: 24, ..options() };
        let plain = case.judge_with(&of("lzma:level=1"), u64::MAX).bytes_out;
        let filtered = case.judge_with(&of(&format!("lzma:level=1:binary={machine}")), u64::MAX).bytes_out;
        eprintln!("{machine}: {plain} {filtered}");
        case.judge_extraction();
        fs::remove_dir_all(case.scratch.path().join("out")).ok();
        assert!(filtered < plain, "{machine}: {filtered} of {plain}");
    }
}

#[expect(clippy::cast_possible_truncation, reason = "samples are made within their width")]
/// Two tones and a little noise, as a WAV file of two channels.
fn wav(bytes: usize, frames: u32) -> Vec<u8> {
    let mut samples = Vec::new();
    for (moment, noise) in (0..frames).zip(noise(frames as usize, 3)) {
        for channel in [1.0, 1.3] {
            let tone = (f64::from(moment) * 0.02 * channel).sin() * 0.6 * f64::from(i32::MAX);
            let sample = (tone as i32).wrapping_add(i32::from(noise % 16) << (32 - bytes * 8));
            samples.extend_from_slice(&sample.to_le_bytes()[4 - bytes..]);
        }
    }
    let (bits, frame) = (u16::try_from(bytes * 8).unwrap(), u16::try_from(bytes * 2).unwrap());
    let len = u32::try_from(samples.len()).unwrap();
    let rate = 48_000_u32;
    let mut file = Vec::new();
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(len + 64).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x02\0");
    file.extend_from_slice(&rate.to_le_bytes());
    file.extend_from_slice(&(rate * u32::from(frame)).to_le_bytes());
    file.extend_from_slice(&[frame.to_le_bytes(), bits.to_le_bytes()].concat());
    // So that the samples begin at a whole frame of every kind.
    file.extend_from_slice(b"JUNK\x14\0\0\0");
    file.extend_from_slice(&[0; 20]);
    file.extend_from_slice(b"data");
    file.extend_from_slice(&len.to_le_bytes());
    file.extend_from_slice(&samples);
    file
}

#[test]
fn samples_as_flac() {
    for (bytes, codec) in [
        (2, "flac:level=0:channels=2:bits=16"),
        (2, "flac:level=5:channels=2:bits=16"),
        (2, "flac:level=8:channels=2:bits=16"),
        (2, "flac:level=8:channels=2:bits=16:unsigned"),
        (3, "flac:level=5:channels=2:bits=24"),
        (3, "flac:level=8:channels=2:bits=24"),
        (3, "flac:level=8:channels=3:bits=16:big"),
        (4, "flac:level=8:channels=2:bits=32"),
    ] {
        let case = Case::new();
        // One block with whole frames.
        let mut file = wav(bytes, 120_000);
        let whole = file.len() / 24 * 24;
        file.truncate(whole);
        case.file("sound.wav", &file);
        let of = |text: &str| WriteOptions { data: text.parse().unwrap(), block_size_bits: 24, ..options() };
        let flac = case.judge_with(&of(codec), u64::MAX).bytes_out;
        case.judge_extraction();
        let zstd = case.judge_with(&of("zstd:level=19"), u64::MAX).bytes_out;
        eprintln!("{codec}: {flac}, zstd {zstd}");
        if codec.contains("channels=2") && !codec.contains("unsigned") {
            assert!(flac < zstd, "{codec}: {flac} of {zstd}");
        }
    }
}

#[test]
fn names_by_symbols() {
    let case = Case::new();
    for number in 0..600 {
        let name = format!("libsomething-{number:04}.so.{}", number % 7);
        case.file(&name, b"");
        symlink(format!("../lib/{name}"), case.tree().join(format!("{name}.link"))).unwrap();
    }
    fs::write(case.tree().join(std::ffi::OsStr::from_bytes(b"\xff\xfe\x01 never")), b"").unwrap();
    case.file("n".repeat(255), b"");
    let metadata = Codec::None;
    let none = Packing { symbols: false, ..Packing::default() };
    let plain = case.judge_with(&WriteOptions { packing: none, metadata, ..options() }, u64::MAX).bytes_out;
    for string_index in [false, true] {
        let packing = Packing { symbols: true, string_index, ..none };
        let options = WriteOptions { packing, metadata, ..options() };
        let len = case.judge_with(&options, u64::MAX).bytes_out;
        assert!(len + 15_000 < plain, "{len} of {plain}");
        case.judge_extraction();
        fs::remove_dir_all(case.scratch.path().join("out")).ok();
    }
}

/// Takes a file away when the files are about to be read.
struct Thief(PathBuf);

impl Progress for Thief {
    fn begin(&self, phase: Phase, _files: u64, _bytes: u64) {
        if phase == Phase::Hash {
            fs::remove_file(&self.0).unwrap();
        }
    }
}

#[test]
fn files_that_go_before_they_are_read_are_left_out() {
    let case = Case::new();
    fs::create_dir_all(case.tree().join("d/e")).unwrap();
    for name in ["a", "b", "c", "d/e/f", "g"] {
        case.file(name, name.as_bytes());
        case.file(format!("{name}.same"), b"the same in all of them");
    }
    for victim in ["a", "d/e/f", "b.same", "g.same", "g"] {
        let source = DirSource::open(&case.tree()).unwrap();
        let options = WriteOptions { unreadable: Unreadable::LeaveOut, ..options() };
        let mut output = BufWriter::new(File::create(case.archive()).unwrap());
        let thief = Thief(case.tree().join(victim));
        let summary = write_archive(&source, &options, &mut output, &thief).unwrap();
        output.flush().unwrap();
        assert_eq!(summary.left_out, 1);
        // The directory it was in is younger by now: times are not compared.
        upstream::check(&case.archive());
        case.judge_extraction();
        fs::remove_dir_all(case.scratch.path().join("out")).ok();
    }
}

/// A tree with each kind of data that is treated apart.
fn kinds(case: &Case) {
    mixed(case);
    for (name, bytes, frames) in [("a.wav", 2, 90_000), ("b.wav", 3, 40_001), ("c.wav", 4, 9_000)] {
        let mut file = wav(bytes, frames);
        file.extend_from_slice(b"LIST\x05\0\0\0about");
        case.file(name, &file);
    }
    case.file("x/packed.gz", &noise(200_000, 9));
    case.file("x/y/same.gz", &noise(200_000, 9));
}

#[test]
fn kinds_of_data_are_packed_apart() {
    let case = Case::new();
    kinds(&case);
    let mut before = u64::MAX;
    for (text, categorizers) in [
        ("zstd:level=3", &[][..]),
        ("zstd:level=3", &Categorizer::ALL[..]),
        ("lzma:level=3", &Categorizer::ALL),
        ("null", &Categorizer::ALL),
    ] {
        let options = WriteOptions {
            data: text.parse().unwrap(),
            block_size_bits: 17,
            categorizers: categorizers.to_vec(),
            ..options()
        };
        let summary = case.judge_with(&options, u64::MAX);
        case.judge_extraction();
        fs::remove_dir_all(case.scratch.path().join("out")).ok();
        if text == "zstd:level=3" {
            assert!(summary.bytes_out < before, "{} of {before}", summary.bytes_out);
            before = summary.bytes_out;
        }
        let names: Vec<&str> = summary.categories.iter().map(|category| category.name).collect();
        let all = ["<default>", "binary/x86", "pcmaudio/waveform", "pcmaudio/metadata", "incompressible"];
        assert!(categorizers.is_empty() || cfg!(not(target_arch = "x86_64")) || names == all, "{names:?}");
    }
}

#[test]
fn owners_and_times_are_what_was_asked_for() {
    let case = Case::new();
    mixed(&case);
    case.set_mtime("text", 1_600_000_123, 456_789_123);
    case.set_mtime("noise", -5, 999_999_999);
    let unit = |number| NonZeroU32::new(number).unwrap();
    let second = 1_000_000_000_i64;
    for (resolution, nanos) in [
        (Resolution::Nanoseconds(unit(1)), 1),
        (Resolution::Nanoseconds(unit(1_000)), 1_000),
        (Resolution::Nanoseconds(unit(100_000_000)), 100_000_000),
        (Resolution::Seconds(unit(1)), second),
        (Resolution::Seconds(unit(3_600)), 3_600 * second),
    ] {
        for times in [Times::Modified, Times::All] {
            let overrides = Overrides { uid: Some(7), gid: Some(70_000), time: None };
            let options = WriteOptions { times, resolution, overrides, ..options() };
            case.write(&DirSource::open(&case.tree()).unwrap(), &options);
            upstream::check(&case.archive());
            let mut expected = facts(&case.tree(), u64::MAX);
            for facts in expected.values_mut() {
                (facts.uid, facts.gid) = (7, 70_000);
                let all = i128::from(facts.mtime.0) * i128::from(second) + i128::from(facts.mtime.1);
                let whole = all.div_euclid(i128::from(nanos)) * i128::from(nanos);
                facts.mtime = (
                    i64::try_from(whole.div_euclid(i128::from(second))).unwrap(),
                    i64::try_from(whole.rem_euclid(i128::from(second))).unwrap(),
                );
            }
            if let Some(mounted) = upstream::Mounted::new(&case.archive()) {
                assert_same(&expected, &facts(mounted.path(), u64::MAX));
            }
        }
    }
    let time = Some(Timestamp { seconds: 1_234_567, nanos: 0 });
    let options = WriteOptions { overrides: Overrides { time, ..Overrides::default() }, ..options() };
    case.write(&DirSource::open(&case.tree()).unwrap(), &options);
    upstream::check(&case.archive());
    if let Some(mounted) = upstream::Mounted::new(&case.archive()) {
        assert!(facts(mounted.path(), 0).values().all(|facts| facts.mtime == (1_234_567, 0)));
    }
}

#[test]
fn births_are_kept_where_they_are_known() {
    let case = Case::new();
    mixed(&case);
    let options = WriteOptions { times: Times::All, ..options() };
    case.write(&DirSource::open(&case.tree()).unwrap(), &options);
    upstream::check(&case.archive());
    let archive = Archive::open(
        Arc::new(File::open(case.archive()).unwrap()),
        Place::At { offset: 0, len: None },
        &BlockCache::new(1 << 20),
    )
    .unwrap();
    for path in ["text", "x", "x/y/small"] {
        let Ok(known) = fs::metadata(case.tree().join(path)).unwrap().created() else {
            return upstream::skip("this file system does not know when files were made");
        };
        let since = known.duration_since(std::time::UNIX_EPOCH).unwrap();
        let inode = archive.find(path.as_bytes()).unwrap().unwrap();
        let found = archive.attr(inode).unwrap().btime.unwrap();
        assert_eq!(
            (found.seconds.cast_unsigned(), found.nanos),
            (since.as_secs(), since.subsec_nanos()),
            "{path}"
        );
    }
}

/// Random trees of the host, by numbers.
fn random_tree(case: &Case, mut seed: u64) {
    let mut next = |most: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % most
    };
    let mut directories = vec![PathBuf::new()];
    let mut files: Vec<PathBuf> = Vec::new();
    for number in 0..next(60) + 1 {
        let place = usize::try_from(next(directories.len() as u64)).unwrap();
        let mut name = format!("{number}-").into_bytes();
        name.extend(
            (0..next(40)).map(|_| u8::try_from(next(255)).unwrap().max(1)).filter(|byte| *byte != b'/'),
        );
        let path = directories[place].join(std::ffi::OsStr::from_bytes(&name));
        let full = case.tree().join(&path);
        match next(12) {
            0 | 1 => {
                fs::create_dir(&full).unwrap();
                directories.push(path);
                continue;
            }
            2 => symlink(std::ffi::OsStr::from_bytes(&name), &full).unwrap(),
            3 if !files.is_empty() => {
                let old = usize::try_from(next(files.len() as u64)).unwrap();
                fs::hard_link(case.tree().join(&files[old]), &full).unwrap();
            }
            4 => {
                let file = File::create(&full).unwrap();
                file.set_len(next(3_000_000)).unwrap();
                file.write_all_at(b"in a hole", next(2_000_000)).unwrap();
            }
            5 => fs::write(&full, wav(2, u32::try_from(next(9_000)).unwrap())).unwrap(),
            6 if !files.is_empty() => {
                let old = usize::try_from(next(files.len() as u64)).unwrap();
                let mut again = fs::read(case.tree().join(&files[old])).unwrap();
                again.extend_from_slice(&noise(usize::try_from(next(500)).unwrap(), next(9)));
                fs::write(&full, again).unwrap();
            }
            7 => fs::write(&full, noise(usize::try_from(next(90_000)).unwrap(), next(99))).unwrap(),
            _ => fs::write(&full, format!("{} ", next(99)).repeat(usize::try_from(next(9_000)).unwrap()))
                .unwrap(),
        }
        fs::set_permissions(&full, fs::Permissions::from_mode(u32::try_from(next(0o1000)).unwrap() | 0o400))
            .ok();
        if full.is_file() && !full.is_symlink() {
            files.push(path);
        }
    }
}

#[test]
fn random_trees_at_every_level() {
    for level in 0..=9 {
        let case = Case::new();
        random_tree(&case, 77 + u64::from(level));
        let options = WriteOptions {
            created: None,
            // Blocks of all levels are larger than these trees.
            block_size_bits: 12 + level,
            categorizers: if level % 2 == 0 { Categorizer::ALL.to_vec() } else { Vec::new() },
            ..WriteOptions::at_level(Level::new(level).unwrap())
        };
        case.judge_with(&options, u64::MAX);
        case.judge_extraction();
    }
}
