//! One archive of several layers: it looks as they do, one above the other, over anything; and upstream reads it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    num::NonZeroUsize,
    path::Path,
    process::Command,
};

use fim::{
    dwarfs::{
        read::{Archive, BlockCache, Place},
        write::{Codec, Source, WriteOptions, write_archive},
    },
    layer::ArchiveLayer,
    runtime::squash::{Below, Layers, MarkCounts, SquashError},
    sync::Arc,
    vfs::FileKind,
};
use proptest::prelude::*;

use crate::{
    drawn::{Drawn, Palette, layer},
    seen::{self, Seen, differences},
    support, upstream,
};

fn options(bits: u8) -> WriteOptions {
    WriteOptions {
        block_size_bits: bits,
        data: Codec::Zstd { level: 1 },
        metadata: Codec::None,
        threads: NonZeroUsize::new(2).unwrap(),
        created: Some(1_700_000_000),
        ..WriteOptions::default()
    }
}

fn opened(bytes: Vec<u8>) -> Arc<ArchiveLayer> {
    let archive =
        Archive::open(Arc::new(bytes), Place::At { offset: 0, len: None }, &BlockCache::new(1 << 24))
            .unwrap();
    archive.verify(&mut |_, _| {}).unwrap();
    Arc::new(ArchiveLayer::new(archive).unwrap())
}

fn archived(source: &dyn Source) -> Arc<ArchiveLayer> {
    let mut bytes = Vec::new();
    write_archive(source, &options(10), &mut bytes, &()).unwrap();
    opened(bytes)
}

/// The squash of layers, and how many blocks were copied; nothing where contents are in no layer.
fn squashed(layers: &[Arc<ArchiveLayer>], below: Below) -> Option<(Vec<u8>, u64, MarkCounts)> {
    let mut bytes = Vec::new();
    match Layers::new(layers.to_vec()).write(below, &options(11), &mut bytes, &()) {
        Ok((reused, marks)) => Some((bytes, reused.copied, marks)),
        Err(SquashError::NoContents { .. }) => None,
        Err(error) => panic!("{}", support::full(&error)),
    }
}

/// What is seen, without what differs where a file of one layer stands for one of another.
fn without_links(mut seen: Seen) -> Seen {
    seen.values_mut().for_each(|object| object.same_as.clear());
    seen
}

fn check(drawn: &[Drawn], other: &Drawn, metacopies: bool) -> Result<(), TestCaseError> {
    let look = |layers| if metacopies { without_links(seen::of(layers)) } else { seen::of(layers) };
    let layers: Vec<_> = drawn.iter().map(|drawn| archived(drawn)).collect();
    // All of them: nothing lies below, and no mark is left.
    if let Some((bytes, _, marks)) = squashed(&layers, Below::Nothing) {
        let whole = opened(bytes);
        prop_assert_eq!(marks, MarkCounts::default());
        let found = differences(&look(vec![whole]), &look(layers.clone()));
        prop_assert!(found.is_empty(), "the whole stack: {found:#?}");
    }
    // All but the lowest, over the lowest; and over something else that they never knew.
    if let Some((bytes, ..)) = squashed(&layers[1..], Below::Perhaps) {
        let above = opened(bytes);
        for base in [Arc::clone(&layers[0]), archived(other)] {
            let stack = [&[Arc::clone(&base)], &layers[1..]].concat();
            let found = differences(&look(vec![base, Arc::clone(&above)]), &look(stack));
            prop_assert!(found.is_empty(), "all but the lowest layer: {found:#?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_squash_looks_as_its_layers(
        base in layer(Palette { marks: false, metacopies: false }),
        other in layer(Palette { marks: false, metacopies: false }),
        above in prop::collection::vec(layer(Palette { marks: true, metacopies: false }), 1..4),
    ) {
        check(&[vec![base], above].concat(), &other, false)?;
    }

    #[test]
    fn files_without_data_find_them(
        base in layer(Palette { marks: false, metacopies: true }),
        other in layer(Palette { marks: false, metacopies: true }),
        above in prop::collection::vec(layer(Palette { marks: true, metacopies: true }), 1..4),
    ) {
        check(&[vec![base], above].concat(), &other, true)?;
    }
}

proptest! {
    // Upstream's tools start slowly.
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn upstream_reads_squashes(
        layers in prop::collection::vec(layer(Palette { marks: true, metacopies: false }), 2..4),
    ) {
        let layers: Vec<_> = layers.iter().map(|drawn| archived(drawn)).collect();
        let (bytes, ..) = squashed(&layers, Below::Nothing).unwrap();
        judge(&bytes);
    }

    #[test]
    fn upstream_reads_random_trees(drawn in layer(Palette { marks: false, metacopies: false })) {
        let mut bytes = Vec::new();
        write_archive(&drawn, &options(10), &mut bytes, &()).unwrap();
        judge(&bytes);
    }
}

/// Has upstream's tools check and unpack an archive, and compares what they unpack with what we read.
fn judge(bytes: &[u8]) {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("archive.dwarfs");
    fs::write(&path, bytes).unwrap();
    upstream::check(&path);
    let Some(extractor) = upstream::tool("dwarfsextract") else { return };
    let out = scratch.path().join("out");
    fs::create_dir(&out).unwrap();
    upstream::run(Command::new(extractor).arg("-i").arg(&path).arg("-o").arg(&out));
    let theirs = crate::tree_facts::facts(&out, u64::MAX);
    let ours = seen::of(vec![opened(bytes.to_vec())]);
    let sidecar = &b".fim.sidecar"[..];
    let names =
        |all: Vec<&Vec<u8>>| all.into_iter().filter(|path| path != &sidecar).cloned().collect::<Vec<_>>();
    assert_eq!(names(theirs.keys().collect()), names(ours.keys().collect()));
    for (path, object) in ours.iter().filter(|(path, _)| !path.is_empty()) {
        let facts = &theirs[path];
        let mode = object.attr.kind.mode_bits() | u32::from(object.attr.perm);
        // Nobody can give a symlink a mode, and the extractor makes no sockets.
        if matches!(object.attr.kind, FileKind::Regular | FileKind::Directory) {
            assert_eq!(facts.mode, mode, "mode of {}", path.escape_ascii());
        }
        if object.attr.kind == FileKind::Regular {
            let contents = format!("{} {:x}", facts.size, facts.contents);
            assert_eq!(contents, object.contents, "contents of {}", path.escape_ascii());
        }
    }
}

/// A file of archives of upstream's, as a layer.
fn made(path: &Path) -> Option<Arc<ArchiveLayer>> {
    let archive = Archive::open(Arc::new(File::open(path).unwrap()), Place::Auto, &BlockCache::new(64 << 20));
    archive.and_then(ArchiveLayer::new).ok().map(Arc::new)
}

#[test]
fn archives_of_upstream_become_one() {
    let mut archives = Vec::new();
    for folder in ["made", "compat"] {
        let Some(folder) = support::test_data(folder) else { continue };
        let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "dwarfs"));
        paths.sort();
        archives.extend(paths.into_iter().filter_map(|path| Some((made(&path)?, path))));
    }
    let (mut copied, mut squashes) = (0, 0);
    for pair in archives.chunks(3) {
        let layers: Vec<_> = pair.iter().map(|(layer, _)| Arc::clone(layer)).collect();
        let names: Vec<_> = pair.iter().map(|(_, path)| path.file_name().unwrap()).collect();
        let total: u64 = layers.iter().map(|layer| layer.archive().figures().total_size).sum();
        if total > 64 << 20 {
            continue;
        }
        let bits = Layers::new(layers.clone()).block_size_bits();
        for below in [Below::Nothing, Below::Perhaps] {
            let mut bytes = Vec::new();
            let options = options(bits.clamp(12, 24));
            let (reused, _) = Layers::new(layers.clone())
                .write(below, &options, &mut bytes, &())
                .unwrap_or_else(|error| panic!("{names:?}: {}", support::full(&error)));
            copied += reused.copied;
            let found = differences(
                &without_links(seen::of(vec![opened(bytes.clone())])),
                &without_links(seen::of(layers.clone())),
            );
            assert!(found.is_empty(), "{names:?}: {found:#?}");
            if squashes % 8 == 0 {
                judge(&bytes);
            }
            squashes += 1;
        }
    }
    assert!(archives.is_empty() || copied > 100, "{copied} blocks copied in {squashes} squashes");
}

/// Blocks of what stays are copied as they are stored; those of which a file is gone are not there any more.
#[test]
fn blocks_that_survive_are_copied() {
    let tree = tempfile::tempdir().unwrap();
    let write = |name: &str, seed: u64| fs::write(tree.path().join(name), noise(5_000, seed)).unwrap();
    (0..20).for_each(|number| write(&format!("{number:02}"), number));
    let mut base = Vec::new();
    let plain = WriteOptions { order: fim::dwarfs::write::Order::Path, ..options(10) };
    let source = fim::dwarfs::write::DirSource::open(tree.path()).unwrap();
    write_archive(&source, &plain, &mut base, &()).unwrap();
    let above = tempfile::tempdir().unwrap();
    fs::write(above.path().join("10"), noise(5_000, 99)).unwrap();
    let mut change = Vec::new();
    let source = fim::dwarfs::write::DirSource::open(above.path()).unwrap();
    write_archive(&source, &plain, &mut change, &()).unwrap();

    let layers = [opened(base.clone()), opened(change)];
    let mut bytes = Vec::new();
    let (reused, _) = Layers::new(layers.to_vec()).write(Below::Nothing, &plain, &mut bytes, &()).unwrap();
    let whole = opened(bytes.clone());
    // 5,000 bytes touch 5 or 6 blocks of 1,024; of the base's 98 no more are gone.
    assert!((97..=98).contains(&reused.copied), "{reused:?}");
    let stored = |layer: &ArchiveLayer| -> Vec<Vec<u8>> {
        let archive = layer.archive();
        archive.block_sections().map(|section| archive.stored(section).unwrap().payload).collect()
    };
    let (before, after) = (stored(&layers[0]), stored(&whole));
    let same = before.iter().filter(|payload| after.contains(payload)).count();
    assert!((92..=93).contains(&same), "{same} of {} blocks are the same", before.len());
    // What the copied blocks lack of whole files, and nothing else, is packed anew.
    assert!(reused.summary.bytes_packed < 2 * 1_024, "{reused:?}");
    assert!(differences(&seen::of(vec![whole]), &seen::of(layers.to_vec())).is_empty());
}

/// Bytes that do not compress.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let step = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33).to_le_bytes()[0]
    };
    (0..len).map(|_| step(&mut state)).collect()
}

/// Sums of what is in a few archives, by hand: a test of the look itself.
#[test]
fn the_look_sees_contents() {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("f"), "one").unwrap();
    fs::hard_link(tree.path().join("f"), tree.path().join("g")).unwrap();
    let one = archived(&fim::dwarfs::write::DirSource::open(tree.path()).unwrap());
    fs::write(tree.path().join("f"), "two").unwrap();
    let two = archived(&fim::dwarfs::write::DirSource::open(tree.path()).unwrap());
    let (one, two) = (seen::of(vec![one]), seen::of(vec![two]));
    assert_eq!(one[&b"g"[..]].same_as, b"f");
    let contents = |seen: &Seen| seen[&b"f"[..]].contents.clone();
    assert_ne!(contents(&one), contents(&two));
    let paths: BTreeMap<_, _> = one.keys().map(|path| (path.clone(), ())).collect();
    assert_eq!(paths.len(), 3);
}
