//! What archives hold beside files, against what upstream's tool says of it; and archives of tomorrow.

use std::{fs, path::Path, process::Command, sync::Arc};

use fim::{
    dwarfs::{
        format::{
            freeze::{List, Rows, Value, freeze},
            metadata::{dir_entry, directory, inode, options, root},
            section::{Compression, HEADER_LEN, IndexEntry, SectionHeader, SectionKind, encode_index},
        },
        read::{Archive, BlockCache, Place},
    },
    layer::ArchiveLayer,
};
use serde_json::Value as Json;

use crate::{
    support::{differences, open, read_manifest, test_data, walk},
    upstream::{run, tool},
};

const AT_START: Place = Place::At { offset: 0, len: None };

/// The metadata of an archive as upstream's tool exports it.
fn exported(dwarfsck: &Path, archive: &Path) -> Json {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("metadata.json");
    let option = format!("--export-metadata={}", to.display());
    run(Command::new(dwarfsck).arg(archive).arg("-q").arg("--no-check").arg(option));
    // Names may be of any bytes, and the tool writes them as they are.
    serde_json::from_str(&String::from_utf8_lossy(&fs::read(to).unwrap())).unwrap()
}

#[test]
fn what_is_told_of_archives_equals_upstreams() {
    let (Some(dwarfsck), Some(made), Some(compat)) =
        (tool("dwarfsck"), test_data("made"), test_data("compat"))
    else {
        return;
    };
    let (mut with_category, mut with_description, mut with_hard_links) = (0, 0, 0);
    let paths = [made, compat].into_iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    for path in paths.map(|entry| entry.unwrap().path()) {
        let is_archive = path.extension().is_some_and(|extension| extension == "dwarfs");
        if !is_archive || path.file_stem().unwrap() == "future-features" {
            continue;
        }
        let expected = exported(&dwarfsck, &path);
        let layer = open(&path, Place::Auto).unwrap();
        let (name, figures) = (path.display(), layer.archive().figures());
        let number = |key: &str| expected[key].as_u64().unwrap_or_default();
        assert_eq!(figures.block_size, number("block_size"), "{name}");
        assert_eq!(figures.total_size, number("total_fs_size"), "{name}");
        assert_eq!(figures.hardlink_size, number("total_hardlink_size"), "{name}");
        assert_eq!(figures.created, expected["create_timestamp"].as_u64(), "{name}");
        assert_eq!(figures.writer, expected["dwarfs_version"].as_str().unwrap_or_default(), "{name}");
        if let Some(allocated) = expected["total_allocated_fs_size"].as_u64() {
            assert_eq!(figures.allocated_size, allocated, "{name}");
        }
        with_hard_links += u32::from(figures.hardlink_size > 0);
        for (block, facts) in layer.archive().block_facts().enumerate() {
            let facts = facts.unwrap();
            let category = expected["block_categories"][block]
                .as_u64()
                .and_then(|category| expected["category_names"][usize::try_from(category).unwrap()].as_str());
            let pairs = expected["block_category_metadata"].as_array().into_iter().flatten();
            let pair = pairs.into_iter().find(|pair| pair[0].as_u64() == Some(block as u64));
            let description = pair.and_then(|pair| {
                expected["category_metadata_json"][usize::try_from(pair[1].as_u64()?).unwrap()].as_str()
            });
            assert_eq!(facts.category.as_deref(), category, "{name}: block {block}");
            assert_eq!(facts.description.as_deref(), description, "{name}: block {block}");
            with_category += u32::from(category.is_some());
            with_description += u32::from(description.is_some());
            let stores_samples = matches!(facts.compression, Compression::Flac | Compression::Ricepp);
            assert!(
                !stores_samples || facts.description.is_some() || figures.total_size == 194_274,
                "{name}"
            );
        }
    }
    eprintln!("{with_category} blocks have a category, {with_description} a description");
    // The smaller set of archives, which $FIM_TEST_DATA may name, has 83 and 64 of them; the project's own has more.
    assert!(with_category >= 83 && with_description >= 64 && with_hard_links > 20);
}

/// A section of an archive, taken apart.
struct Piece {
    kind: SectionKind,
    codec: Compression,
    payload: Vec<u8>,
}

fn take_apart(bytes: &[u8]) -> Vec<Piece> {
    let (mut pieces, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let header = SectionHeader::parse(bytes[at..at + HEADER_LEN].try_into().unwrap(), 0).unwrap();
        let end = at + HEADER_LEN + usize::try_from(header.len).unwrap();
        let payload = bytes[at + HEADER_LEN..end].to_vec();
        pieces.push(Piece { kind: header.kind, codec: header.compression, payload });
        at = end;
    }
    pieces.retain(|piece| piece.kind != SectionKind::Index);
    pieces
}

/// Puts an archive together, with a section index or without.
fn put_together(pieces: &[Piece], minor: u8, with_index: bool) -> Vec<u8> {
    let (mut archive, mut entries) = (Vec::new(), Vec::new());
    for (number, piece) in (0..).zip(pieces) {
        entries.push(IndexEntry { kind: piece.kind, offset: archive.len() as u64 });
        append(&mut archive, number, minor, piece);
    }
    if with_index {
        let number = u32::try_from(pieces.len()).unwrap();
        entries.push(IndexEntry { kind: SectionKind::Index, offset: archive.len() as u64 });
        let payload = encode_index(&entries);
        append(
            &mut archive,
            number,
            minor,
            &Piece { kind: SectionKind::Index, codec: Compression::None, payload },
        );
    }
    archive
}

fn append(archive: &mut Vec<u8>, number: u32, minor: u8, piece: &Piece) {
    let header = SectionHeader::seal(number, piece.kind, piece.codec, &piece.payload);
    archive.extend(SectionHeader { minor, ..header }.encode());
    archive.extend(&piece.payload);
}

#[test]
fn unknown_sections_are_passed_over_and_the_next_format_is_read() {
    let Some(folder) = test_data("made") else { return };
    let manifest = read_manifest(&folder.join("pack-all.jsonl"));
    let mut pieces = take_apart(&fs::read(folder.join("pack-all.dwarfs")).unwrap());
    let unknown = |kind| Piece {
        kind: SectionKind::Unknown(kind),
        codec: Compression::Unknown(77),
        payload: b"DWARFS of tomorrow".to_vec(),
    };
    pieces.insert(0, unknown(1_000));
    pieces.insert(2, unknown(11));
    pieces.push(unknown(u16::MAX));
    for minor in [5, 6] {
        for with_index in [false, true] {
            let bytes = put_together(&pieces, minor, with_index);
            for place in [AT_START, Place::Auto] {
                let archive =
                    Archive::open(Arc::new(bytes.clone()), place, &BlockCache::new(1 << 20)).unwrap();
                assert_eq!((archive.index().minor(), archive.index().has_index()), (minor, with_index));
                archive.verify(&mut |_, _| {}).unwrap();
                let layer = ArchiveLayer::new(archive).unwrap();
                assert_eq!(differences(&walk(&layer), &manifest), [""; 0]);
            }
        }
    }
    let error = Archive::open(Arc::new(put_together(&pieces, 7, true)), AT_START, &BlockCache::new(1 << 20));
    assert!(error.unwrap_err().to_string().contains("format version 2.7"));
}

#[test]
fn blocks_of_unknown_codecs_are_named() {
    let Some(folder) = test_data("made") else { return };
    let mut pieces = take_apart(&fs::read(folder.join("onefile.dwarfs")).unwrap());
    pieces[0].codec = Compression::Unknown(77);
    let bytes = put_together(&pieces, 5, true);
    let archive = Archive::open(Arc::new(bytes), AT_START, &BlockCache::new(1 << 20)).unwrap();
    let mut files = Vec::new();
    archive
        .read_dir(archive.root(), 0, &mut |entry| {
            files.extend(entry.inode);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let error = archive.read(files[0], 0, 1).unwrap_err();
    assert!(error.to_string().contains("codec 77, which is not supported"), "{error}");
}

/// A list of structs of numbers.
struct Table<const N: usize>([i16; N], &'static [[u64; N]]);

impl<const N: usize> Rows for Table<N> {
    fn len(&self) -> usize {
        self.1.len()
    }

    fn fields(&self) -> &[i16] {
        &self.0
    }

    fn value(&self, row: usize, column: usize) -> u64 {
        self.1[row][column]
    }
}

/// A root directory alone, with all its times; times count in `resolution` seconds.
fn directory_with_times(resolution: u64, nanos: u64, has_btime: bool) -> Archive {
    let inodes = Table(
        [
            inode::ATIME_OFFSET,
            inode::MTIME_OFFSET,
            inode::CTIME_OFFSET,
            inode::BTIME_OFFSET,
            inode::ATIME_SUBSEC,
            inode::MTIME_SUBSEC,
            inode::CTIME_SUBSEC,
            inode::BTIME_SUBSEC,
        ],
        // The first offset does not fit 32 bits.
        &[[1 << 33, 2, 3, 4, 10, 20, 30, 40]],
    );
    let directories = Table(
        [directory::PARENT_ENTRY, directory::FIRST_ENTRY, directory::SELF_ENTRY],
        &[[0, 1, 0], [0, 1, 0]],
    );
    let entries = Table([dir_entry::NAME_INDEX, dir_entry::INODE_NUM], &[[0, 0]]);
    let table = |rows| Value::List(List::Rows(rows));
    let value = Value::Struct(vec![
        (root::DIRECTORIES, table(&directories)),
        (root::INODES, table(&inodes)),
        (root::CHUNK_TABLE, Value::List(List::U32(&[0]))),
        (root::MODES, Value::List(List::U32(&[0o040_755]))),
        (root::TIMESTAMP_BASE, Value::Int(100)),
        (root::BLOCK_SIZE, Value::Int(1_024)),
        (
            root::OPTIONS,
            Value::Struct(vec![
                (options::TIME_RESOLUTION_SEC, Value::Int(resolution).some()),
                (options::SUBSECOND_RESOLUTION_NSEC_MULTIPLIER, Value::Int(nanos).some()),
                (options::HAS_BTIME, Value::Bool(has_btime)),
            ])
            .some(),
        ),
        (root::DIR_ENTRIES, table(&entries).some()),
    ]);
    let frozen = freeze(&value).unwrap();
    let piece = |kind, payload| Piece { kind, codec: Compression::None, payload };
    let pieces =
        [piece(SectionKind::Schema, frozen.schema.encode()), piece(SectionKind::Metadata, frozen.metadata)];
    Archive::open(Arc::new(put_together(&pieces, 5, true)), AT_START, &BlockCache::new(1 << 20)).unwrap()
}

#[test]
fn all_times_of_an_inode_are_read() {
    let time = |time: fim::dwarfs::read::Timestamp| (time.seconds, time.nanos);
    let archive = directory_with_times(1, 1_000, true);
    let stat = archive.attr(archive.root()).unwrap();
    assert_eq!(time(stat.atime), (100 + (1 << 33), 10_000));
    assert_eq!(time(stat.mtime), (102, 20_000));
    assert_eq!(time(stat.ctime), (103, 30_000));
    assert_eq!(stat.btime.map(time), Some((104, 40_000)));
    let archive = directory_with_times(60, 0, false);
    let stat = archive.attr(archive.root()).unwrap();
    assert_eq!(time(stat.mtime), (102 * 60, 0));
    assert_eq!(stat.btime, None);
}
