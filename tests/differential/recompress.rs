//! An archive with other codecs is the same archive.

use std::{
    fs::{self, File},
    num::NonZeroUsize,
    path::Path,
};

use fim::{
    dwarfs::{
        format::section::{Compression, SectionKind},
        read::{Archive, BlockCache, Place, ReadAt},
        write::{
            self, Categorizer, Codec, DirSource, Keep, MergedSource, Times, WriteOptions, compression_of,
            write_archive,
        },
    },
    layer::ArchiveLayer,
    sync::Arc,
};
use proptest::prelude::*;

use crate::{
    drawn::{Palette, layer},
    seen::{self, Seen, differences},
    support, upstream,
};

const START: Place = Place::At { offset: 0, len: None };

fn options(data: Codec, metadata: Codec) -> WriteOptions {
    let threads = NonZeroUsize::new(2).unwrap();
    WriteOptions {
        block_size_bits: 12,
        data,
        metadata,
        threads,
        created: Some(1_700_000_000),
        ..WriteOptions::default()
    }
}

fn open(source: Arc<dyn ReadAt>, place: Place) -> Archive {
    Archive::open(source, place, &BlockCache::new(64 << 20)).unwrap()
}

fn of(bytes: &[u8]) -> Archive {
    let archive = open(Arc::new(bytes.to_vec()), START);
    archive.verify(&mut |_, _| {}).unwrap();
    archive
}

fn look(archive: Archive) -> Seen {
    seen::of(vec![Arc::new(ArchiveLayer::new(archive).unwrap())])
}

fn recompressed(archive: &Archive, options: &WriteOptions, keep: &Keep) -> (Vec<u8>, write::Recompressed) {
    let mut bytes = Vec::new();
    let done = write::recompress(archive, options, keep, &mut bytes, &()).unwrap();
    assert_eq!(done.bytes_out, bytes.len() as u64);
    (bytes, done)
}

/// The metadata and its schema, unpacked.
fn metadata(archive: &Archive) -> Vec<Vec<u8>> {
    let is_metadata = |kind| matches!(kind, SectionKind::Schema | SectionKind::Metadata);
    let sections = archive.index().sections().iter().filter(|section| is_metadata(section.kind));
    sections.map(|section| archive.unpack(*section, archive.stored(*section).unwrap()).unwrap()).collect()
}

fn compressions(archive: &Archive) -> Vec<Compression> {
    archive.block_sections().map(|section| archive.stored(section).unwrap().compression).collect()
}

fn codecs() -> Vec<Codec> {
    let words =
        ["null", "zstd:level=1", "zstd:level=3:long=20", "lzma:level=1", "lz4", "lz4hc", "brotli:quality=3"];
    words.iter().map(|word| word.parse().unwrap()).collect()
}

#[test]
fn each_codec_and_back() {
    let tree = tempfile::tempdir().unwrap();
    let text = |seed: u32| (0..4_000_u32).map(|at| format!("{} ", at * seed % 977)).collect::<String>();
    (1..6).for_each(|seed| fs::write(tree.path().join(format!("{seed}")), text(seed)).unwrap());
    let mut first = Vec::new();
    let start = options(codecs()[1], Codec::None);
    write_archive(&DirSource::open(tree.path()).unwrap(), &start, &mut first, &()).unwrap();
    let before = of(&first);
    let mut last = first.clone();
    for codec in codecs() {
        let (bytes, done) = recompressed(&of(&last), &options(codec, codec), &Keep::NOTHING);
        let after = of(&bytes);
        assert_eq!(done.repacked, before.figures().blocks as u64);
        assert!(compressions(&after).iter().all(|found| *found == compression_of(codec)), "{codec}");
        assert_eq!(metadata(&after), metadata(&before), "{codec}");
        assert!(differences(&look(after), &look(of(&first))).is_empty(), "{codec}");
        last = bytes;
    }
    let (back, _) = recompressed(&of(&last), &start, &Keep::NOTHING);
    let (back, before) = (of(&back), of(&first));
    let stored = |archive: &Archive| -> Vec<_> {
        archive.block_sections().map(|section| archive.stored(section).unwrap()).collect()
    };
    assert!(stored(&back) == stored(&before), "the blocks are what they were");
    let entries = back.history().unwrap().entries;
    assert_eq!(entries.len(), 2 + codecs().len());
    assert_eq!(entries[..1], before.history().unwrap().entries);
}

#[test]
fn what_needs_no_change_is_copied() {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("text"), "some text, and again ".repeat(2_000)).unwrap();
    fs::write(tree.path().join("noise"), crate::squash::noise(20_000, 3)).unwrap();
    let mut bytes = Vec::new();
    let start =
        WriteOptions { categorizers: vec![Categorizer::Incompressible], ..options(codecs()[1], Codec::None) };
    write_archive(&DirSource::open(tree.path()).unwrap(), &start, &mut bytes, &()).unwrap();
    let archive = of(&bytes);
    let hopeless = compressions(&archive).iter().filter(|found| **found == Compression::None).count() as u64;
    let all = archive.figures().blocks as u64;
    assert!(hopeless == 5 && all > 10);
    let copied = |wished: &str, keep: &Keep| {
        let (bytes, done) = recompressed(&archive, &options(wished.parse().unwrap(), Codec::None), keep);
        assert!(differences(&look(of(&bytes)), &look(of(&bytes))).is_empty());
        assert_eq!(done.copied + done.repacked, all);
        done.copied
    };
    assert_eq!(copied("lzma:level=1", &Keep::default()), hopeless);
    assert_eq!(copied("lzma:level=1", &Keep::NOTHING), 0);
    let same = Keep { codecs: vec![Compression::Zstd], ..Keep::default() };
    assert_eq!(copied("zstd:level=9", &same), all);
    assert_eq!(copied("null", &Keep::NOTHING), hopeless, "stored blocks are as they are wished");
}

/// Archives of upstream: every codec, every packing, formats from 2.0 on.
#[test]
fn archives_of_upstream_with_other_codecs() {
    let mut done = 0;
    for folder in ["made", "compat"] {
        let Some(folder) = support::test_data(folder) else { continue };
        let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "dwarfs"));
        paths.sort();
        for path in paths {
            let source = || Arc::new(File::open(&path).unwrap());
            let opened = Archive::open(source(), Place::Auto, &BlockCache::new(64 << 20));
            let Ok(archive) = opened else { continue };
            if archive.figures().total_size > 64 << 20 {
                continue;
            }
            upstream_with_other_codecs(&path, &archive, done % 6 == 0);
            done += 1;
        }
    }
    println!("{done} archives");
}

fn upstream_with_other_codecs(path: &Path, archive: &Archive, is_judged: bool) {
    let keep = [Keep::default(), Keep::NOTHING];
    let codecs = [("zstd:level=1", "lz4"), ("lz4", "null")];
    let expected = look(open(Arc::new(File::open(path).unwrap()), Place::Auto));
    for (keep, (data, meta)) in keep.iter().zip(codecs) {
        let options = options(data.parse().unwrap(), meta.parse().unwrap());
        let (bytes, _) = recompressed(archive, &options, keep);
        let after = of(&bytes);
        assert_eq!(metadata(&after), metadata(archive), "{}", path.display());
        let found = differences(&look(after), &expected);
        assert!(found.is_empty(), "{}: {found:#?}", path.display());
        if is_judged {
            judge(&bytes);
        }
    }
    let times = if archive.has_all_times() { Times::All } else { Times::Modified };
    let options = WriteOptions { times, ..options("zstd:level=1".parse().unwrap(), Codec::None) };
    let mut bytes = Vec::new();
    write_archive(&MergedSource::of_archive(archive).unwrap(), &options, &mut bytes, &()).unwrap();
    let mut found = look(of(&bytes));
    let mut expected = expected;
    // Our writer stores no birth times.
    found.values_mut().chain(expected.values_mut()).for_each(|object| object.attr.btime = None);
    let found = differences(&found, &expected);
    assert!(found.is_empty(), "{} anew: {found:#?}", path.display());
    if is_judged {
        judge(&bytes);
    }
}

fn judge(bytes: &[u8]) {
    let scratch = tempfile::NamedTempFile::new().unwrap();
    fs::write(scratch.path(), bytes).unwrap();
    upstream::check(scratch.path());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_stay_what_they_are(
        drawn in layer(Palette { marks: true, metacopies: false }),
        codec in prop::sample::select(codecs()),
    ) {
        let mut bytes = Vec::new();
        write_archive(&drawn, &options(Codec::Zstd { level: 1 }, Codec::None), &mut bytes, &()).unwrap();
        let archive = of(&bytes);
        let (other, _) = recompressed(&archive, &options(codec, codec), &Keep::default());
        prop_assert_eq!(metadata(&of(&other)), metadata(&archive));
        prop_assert_eq!(sidecar(&of(&other)), sidecar(&archive));
        let mut anew = Vec::new();
        let options = WriteOptions { block_size_bits: 15, ..options(codec, codec) };
        write_archive(&MergedSource::of_archive(&archive).unwrap(), &options, &mut anew, &()).unwrap();
        prop_assert_eq!(sidecar(&of(&anew)), sidecar(&archive));
        let expected = look(archive);
        for bytes in [&other, &anew] {
            let found = differences(&look(of(bytes)), &expected);
            prop_assert!(found.is_empty(), "{found:#?}");
        }
    }
}

/// The side car of an archive, if it has one: marks and attributes that a look does not show.
fn sidecar(archive: &Archive) -> Option<Vec<u8>> {
    let inode = archive.find(b".fim.sidecar").unwrap()?;
    let len = usize::try_from(archive.attr(inode).unwrap().size).unwrap();
    Some(archive.read(inode, 0, len).unwrap().contiguous().into_owned())
}
