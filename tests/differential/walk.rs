//! The differential walk: one archive through every reader there is, all attributes, all contents, and random reads at
//! random offsets.
//!
//! The readers are upstream's FUSE driver, our reader in this process, our reader behind a real `fim mount --ro`, and
//! with the feature `libdwarfs` upstream's library in this process and behind a `fim mount` of ours. The first that is there is what the others must equal.
//!
//! `FIM_WALK_ARCHIVES` names large archives (`:` between them), `FIM_WALK_READS` how many random reads each gets, and
//! `FIM_WALK_SEED` which ones.

use std::{collections::BTreeMap, env, fs::File, path::Path, sync::Arc, time::Instant};

use fim::{
    dwarfs::{
        Error,
        read::{Archive, BlockCache, Place},
    },
    layer::ArchiveLayer,
    sys::namespace,
};

use crate::{
    made::place_of,
    support::test_data,
    upstream::{Mounted, skip},
    walk_sides::{Facts, FimMount, Host, LayerSide, Side, Tree, in_parallel},
};

/// Random reads of a small and of a large archive.
const READS: [usize; 2] = [200, 5_000];

/// Bytes of decoded blocks in each reader of this process: files are not read in the order of the blocks, of which
/// some are 16 MiB long.
const CACHE: usize = 512 << 20;

/// Differences that are told of one pair of readers.
const TOLD: usize = 10;

/// What upstream shows in its own way, with which objects, and why ours does not follow it. All else must be equal.
const FREE: [(Field, Which, &str); 4] = [
    (
        |facts| &mut facts.size,
        Which::Directories,
        "upstream tells the number of entries; ours the overlay's choice for any directory",
    ),
    (|facts| &mut facts.blocks, Which::Directories, "follows from the size"),
    (
        |facts| &mut facts.blocks,
        Which::Symlinks,
        "upstream rounds the target up; ours tells none, as file systems do for short ones",
    ),
    (
        |facts| &mut facts.ino,
        Which::All,
        "each chooses its own numbers; which names are one object must be equal",
    ),
];

type Field = fn(&mut Facts) -> &mut u64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    Directories,
    Symlinks,
}

/// What a walk has seen.
#[derive(Debug, Default)]
struct Count {
    entries: usize,
    files: usize,
    bytes: u64,
    reads: usize,
}

#[test]
fn small_archives_are_equal_through_every_reader() {
    let Some(folder) = test_data("made") else { return };
    if !is_root() {
        return;
    }
    namespace::enter_private().unwrap();
    let index = std::fs::read_to_string(folder.join("INDEX.tsv")).unwrap();
    let (mut archives, mut total, mut failures) = (0, Count::default(), Vec::new());
    for file in index.lines().filter_map(|line| line.split('\t').next()) {
        let place = place_of(Path::new(file).file_stem().unwrap().to_str().unwrap());
        match walk(&folder.join(file), place, reads(READS[0])) {
            Ok(count) => {
                archives += 1;
                total.add(&count);
            }
            Err(error) => failures.push(format!("{file}: {error}")),
        }
    }
    eprintln!("{archives} archives: {total:?}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(archives >= 60, "only {archives} archives were found");
}

#[test]
fn large_archives_are_equal_through_every_reader() {
    let Some(archives) = env::var_os("FIM_WALK_ARCHIVES") else {
        eprintln!("skipped: FIM_WALK_ARCHIVES names no large archives");
        return;
    };
    if !is_root() {
        return;
    }
    namespace::enter_private().unwrap();
    let mut failures = Vec::new();
    for archive in env::split_paths(&archives) {
        let start = Instant::now();
        match walk(&archive, Place::At { offset: 0, len: None }, reads(READS[1])) {
            Ok(count) => eprintln!("{}: equal, {count:?}, {:.1?}", archive.display(), start.elapsed()),
            Err(error) => failures.push(format!("{}: {error}", archive.display())),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn differences_are_found() {
    let file = Facts { mode: libc::S_IFREG | 0o644, nlink: 2, ino: 5, ..Facts::default() };
    let directory = Facts { mode: libc::S_IFDIR | 0o755, nlink: 1, ..Facts::default() };
    let tree = |file: &Facts, directory: &Facts| -> Tree {
        [("", directory), ("a", file), ("b", file)].map(|(path, facts)| (path.into(), facts.clone())).into()
    };
    let reference = tree(&file, &directory);
    let other_numbers = Facts { ino: 9, ..file.clone() };
    let other_directory = Facts { size: 7, blocks: 8, ..directory.clone() };
    assert!(compare(&reference, &tree(&other_numbers, &other_directory)).is_empty());

    for changed in [
        Facts { nlink: 1, ..file.clone() },
        Facts { blocks: 1, ..file.clone() },
        Facts { mtime: (0, 1), ..file.clone() },
        Facts { contents: Some(Ok(1)), ..file },
    ] {
        assert_eq!(compare(&reference, &tree(&changed, &directory)).len(), 2);
    }
    let mut apart = reference.clone();
    apart.insert(b"b".to_vec(), other_numbers);
    assert_eq!(compare(&reference, &apart).len(), 1, "two objects are not one");
    apart.remove(b"b".as_slice());
    assert_eq!(compare(&reference, &apart).len(), 1);
    assert_eq!(compare(&apart, &reference).len(), 1);
}

/// Takes an archive through every reader, and says what the first sees and the others do not.
fn walk(archive: &Path, place: Place, reads: usize) -> Result<Count, String> {
    let layer = open(archive, place).map_err(|error| crate::support::full(&error))?;
    let ours: [Box<dyn Side>; 2] = [
        Box::new(LayerSide::new("ours", layer)),
        Box::new(Host::of("fim mount", FimMount::new(archive, ""))),
    ];
    let driver = Mounted::at(archive, place);
    let driver = driver.map(|mount| Box::new(Host::of("dwarfs", mount)) as Box<dyn Side>);
    let sides: Vec<Box<dyn Side>> = driver.into_iter().chain(oracle(archive, place)?).chain(ours).collect();

    let (reference, others) = sides.split_first().expect("ours is there");
    let tree = reference.walk();
    let count = Count::of(&tree, reads);
    let reading = random_reads(&tree, reads);
    let expected = read_all(&**reference, &reading);
    let mut failures = Vec::new();
    for side in others {
        let mut differences = compare(&tree, &side.walk());
        for ((read, expected), found) in reading.iter().zip(&expected).zip(read_all(&**side, &reading)) {
            if *expected != found {
                let path = read.path.escape_ascii();
                differences.push(format!(
                    "{} bytes at {} of {path}: {expected:?}, {found:?}",
                    read.len, read.offset
                ));
            }
        }
        if !differences.is_empty() {
            failures.push(format!(
                "{} differs from {} in {} places: {}",
                side.name(),
                reference.name(),
                differences.len(),
                differences.into_iter().take(TOLD).collect::<Vec<_>>().join("; ")
            ));
        }
    }
    if failures.is_empty() { Ok(count) } else { Err(failures.join("\n")) }
}

fn open(archive: &Path, place: Place) -> Result<ArchiveLayer, Error> {
    let source = Arc::new(File::open(archive).expect("the archive can be opened"));
    ArchiveLayer::new(Archive::open(source, place, &BlockCache::new(CACHE))?)
}

/// Upstream's library, in this process and mounted by us.
#[cfg(feature = "libdwarfs")]
fn oracle(archive: &Path, place: Place) -> Result<Vec<Box<dyn Side>>, String> {
    let layer = fim::layer::Libdwarfs::open(archive, place, CACHE);
    let layer = layer.map_err(|error| crate::support::full(&error))?;
    let mount = FimMount::new(archive, ",reader=libdwarfs");
    Ok(vec![
        Box::new(LayerSide::new("libdwarfs", layer)),
        Box::new(Host::of("fim mount -o reader=libdwarfs", mount)),
    ])
}

#[cfg(not(feature = "libdwarfs"))]
fn oracle(_archive: &Path, _place: Place) -> Result<Vec<Box<dyn Side>>, String> {
    Ok(Vec::new())
}

/// Lists what differs.
fn compare(expected: &Tree, found: &Tree) -> Vec<String> {
    let mut differences = Vec::new();
    for path in found.keys().filter(|path| !expected.contains_key(*path)) {
        differences.push(format!("{} should not be there", path.escape_ascii()));
    }
    let (expected_first, found_first) = (first_names(expected), first_names(found));
    for (path, facts) in expected {
        let Some(other) = found.get(path) else {
            differences.push(format!("{} is missing", path.escape_ascii()));
            continue;
        };
        let (expected_ino, found_ino) = (facts.ino, other.ino);
        let (facts, other) = (binding(facts), binding(other));
        let path = path.escape_ascii();
        if facts != other {
            differences.push(format!("{path}: {}", facts.differences(&other)));
        }
        let names = (expected_first[&expected_ino], found_first[&found_ino]);
        if facts.is_file() && names.0 != names.1 {
            let (first, other) = (names.0.escape_ascii(), names.1.escape_ascii());
            differences.push(format!("{path}: is one with {first}, {other}"));
        }
    }
    differences
}

/// Facts without those that are free.
fn binding(facts: &Facts) -> Facts {
    let mut facts = facts.clone();
    for (field, which, _) in FREE {
        let is_free = match which {
            Which::All => true,
            Which::Directories => facts.is_directory(),
            Which::Symlinks => facts.is_symlink(),
        };
        if is_free {
            *field(&mut facts) = 0;
        }
    }
    facts
}

/// The first name of each object, by inode number.
fn first_names(tree: &Tree) -> BTreeMap<u64, &[u8]> {
    let mut first = BTreeMap::new();
    for (path, facts) in tree {
        first.entry(facts.ino).or_insert(path.as_slice());
    }
    first
}

/// A read to be made.
struct Read<'a> {
    path: &'a [u8],
    offset: u64,
    len: usize,
}

/// Reads at random: half of them in a random file, half at a random byte of all files; some go over the end.
fn random_reads(tree: &Tree, count: usize) -> Vec<Read<'_>> {
    let files: Vec<(&[u8], u64)> =
        tree.iter().filter(|(_, facts)| facts.is_file()).map(|(path, facts)| (&**path, facts.size)).collect();
    if files.is_empty() {
        return Vec::new();
    }
    let mut end = 0_u64;
    let ends: Vec<u64> = files
        .iter()
        .map(|(_, size)| {
            end = end.saturating_add(*size);
            end
        })
        .collect();
    let mut random = Random(env::var("FIM_WALK_SEED").map_or(1, |seed| seed.parse().expect("a number")));
    let mut below = |limit: u64| random.next() % limit.max(1);
    (0..count)
        .map(|number| {
            let at = match number % 2 {
                0 => usize::try_from(below(files.len() as u64)).unwrap(),
                _ => {
                    let byte = below(end);
                    ends.partition_point(|end| *end <= byte).min(files.len() - 1)
                }
            };
            let (path, size) = files[at];
            let longest = 2 << below(21);
            let len = 1 + below(longest);
            Read { path, offset: below(size.saturating_add(100)), len: usize::try_from(len).unwrap() }
        })
        .collect()
}

/// Makes all reads in several threads, and returns length and digest of what each gave, or its errno.
fn read_all(side: &dyn Side, reads: &[Read<'_>]) -> Vec<Result<(usize, u64), i32>> {
    in_parallel(reads, |read| {
        let bytes = side.read(read.path, read.offset, read.len)?;
        Ok((bytes.len(), xxhash_rust::xxh3::xxh3_64(&bytes)))
    })
}

/// A generator that is the same everywhere (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Count {
    fn of(tree: &Tree, reads: usize) -> Self {
        let files = tree.values().filter(|facts| facts.is_file());
        let hashed = files.clone().filter(|facts| facts.contents.is_some());
        Self { entries: tree.len(), files: files.count(), bytes: hashed.map(|facts| facts.size).sum(), reads }
    }

    fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.files += other.files;
        self.bytes += other.bytes;
        self.reads += other.reads;
    }
}

fn reads(default: usize) -> usize {
    env::var("FIM_WALK_READS").map_or(default, |count| count.parse().expect("a number of reads"))
}

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skip("mounting needs root");
    }
    is_root
}
