//! A small archive, right at first, of which each test makes one thing wrong.

use std::io::Write as _;

use super::*;
use crate::dwarfs::format::{
    freeze::{List, Rows, Value, freeze},
    metadata::{chunk, dir_entry, directory, inode, options, root},
    section::{Compression, SectionHeader},
};

/// A list of structs.
struct Table {
    fields: Vec<i16>,
    rows: Vec<Vec<u64>>,
}

impl Rows for Table {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn fields(&self) -> &[i16] {
        &self.fields
    }

    fn value(&self, row: usize, column: usize) -> u64 {
        self.rows[row][column]
    }
}

fn table<const N: usize>(fields: [i16; N], rows: &[[u64; N]]) -> Table {
    Table { fields: fields.into(), rows: rows.iter().map(|row| row.to_vec()).collect() }
}

/// The tables of this tree:
///
/// ```text
/// inode  0 /    1 /d    2 /link -> g    3 /d/f (100 bytes)    4 /g (50 bytes, shared by 5)    5 /h
/// entry  0 /    1 d     2 g             3 h                   4 link                          5 f
/// ```
struct Tree {
    entries: Table,
    directories: Table,
    inodes: Table,
    chunks: Table,
    modes: Vec<u32>,
    names: Vec<Vec<u8>>,
    targets: Vec<Vec<u8>>,
    chunk_table: Vec<u32>,
    symlinks: Vec<u32>,
    shared: Vec<u32>,
    total: u64,
    block: Vec<u8>,
    /// Sections beside block, schema and metadata.
    more: Vec<(SectionKind, Compression, Vec<u8>)>,
}

impl Tree {
    fn sound() -> Self {
        let text = |text: &str| text.as_bytes().to_vec();
        Self {
            entries: table(
                [dir_entry::NAME_INDEX, dir_entry::INODE_NUM],
                &[[0, 0], [0, 1], [2, 4], [3, 5], [4, 2], [1, 3]],
            ),
            directories: table(
                [directory::PARENT_ENTRY, directory::FIRST_ENTRY, directory::SELF_ENTRY],
                &[[0, 1, 0], [0, 5, 1], [0, 6, 0]],
            ),
            inodes: table(
                [inode::MODE_INDEX, inode::NLINK_MINUS_ONE],
                &[[0, 0], [0, 0], [1, 0], [2, 0], [2, 0], [2, 0]],
            ),
            chunks: table([chunk::BLOCK, chunk::OFFSET, chunk::SIZE], &[[0, 0, 100], [0, 100, 50]]),
            modes: vec![0o40755, 0o120_777, 0o100_644],
            names: ["d", "f", "g", "h", "link"].map(text).into(),
            targets: vec![text("g")],
            chunk_table: vec![0, 1, 2],
            symlinks: vec![0],
            shared: vec![0, 0],
            total: 201,
            block: vec![7; 150],
            more: Vec::new(),
        }
    }

    fn archive(&self) -> Vec<u8> {
        let has_nlink = Value::Struct(vec![(options::INODES_HAVE_NLINK, Value::Bool(true))]);
        let mut fields = vec![
            (root::CHUNKS, Value::List(List::Rows(&self.chunks))),
            (root::DIRECTORIES, Value::List(List::Rows(&self.directories))),
            (root::INODES, Value::List(List::Rows(&self.inodes))),
            (root::CHUNK_TABLE, Value::List(List::U32(&self.chunk_table))),
            (root::SYMLINK_TABLE, Value::List(List::U32(&self.symlinks))),
            (root::UIDS, Value::List(List::U32(&[0]))),
            (root::GIDS, Value::List(List::U32(&[0]))),
            (root::MODES, Value::List(List::U32(&self.modes))),
            (root::NAMES, Value::List(List::Strings(&self.names))),
            (root::SYMLINKS, Value::List(List::Strings(&self.targets))),
            (root::BLOCK_SIZE, Value::Int(4_096)),
            (root::TOTAL_FS_SIZE, Value::Int(self.total)),
            (root::OPTIONS, has_nlink.some()),
            (root::DIR_ENTRIES, Value::List(List::Rows(&self.entries)).some()),
            (root::SHARED_FILES_TABLE, Value::List(List::U32(&self.shared)).some()),
        ];
        fields.sort_by_key(|(id, _)| *id);
        let frozen = freeze(&Value::Struct(fields)).unwrap();
        let mut sections = vec![
            (SectionKind::Block, Compression::None, self.block.clone()),
            (SectionKind::Schema, Compression::None, frozen.schema.encode()),
            (SectionKind::Metadata, Compression::None, frozen.metadata),
        ];
        sections.extend(self.more.iter().cloned());
        assemble(&sections)
    }
}

fn assemble(sections: &[(SectionKind, Compression, Vec<u8>)]) -> Vec<u8> {
    let sealed = (0..).zip(sections).map(|(number, (kind, codec, payload))| {
        [&SectionHeader::seal(number, *kind, *codec, payload).encode()[..], payload].concat()
    });
    sealed.collect::<Vec<_>>().concat()
}

const AT_START: Place = Place::At { offset: 0, len: None };

fn report(bytes: Vec<u8>) -> Report {
    let source: Arc<dyn ReadAt> = Arc::new(bytes);
    check(&source, AT_START, Depth::Everything, 1, &mut |_, _| {}).unwrap()
}

fn messages(report: &Report) -> Vec<String> {
    report.findings.list.iter().map(|finding| format!("{}: {}", finding.part.name(), finding.error)).collect()
}

#[test]
fn a_sound_archive_is_whole() {
    let report = report(Tree::sound().archive());
    assert_eq!(messages(&report), [""; 0]);
    assert_eq!((report.blocks, report.inodes, report.entries, report.decoded), (1, 6, 5, 150));
    assert_eq!(report.hit, Some(HitFiles::default()));
}

#[test]
fn every_broken_reference_is_found() {
    type Change = fn(&mut Tree);
    let changes: [(&str, Change); 22] = [
        ("first entry of a directory is 2, expected 1", |tree| tree.directories.rows[0][1] = 2),
        ("number of entries of all directories is 5, expected 6", |tree| tree.directories.rows[2][1] = 5),
        ("a directory is named by an entry that is not its own", |tree| tree.directories.rows[1][2] = 2),
        ("a directory is named by an entry that is not its own", |tree| tree.directories.rows[1][0] = 1),
        ("no directory names the inode (inode 5)", |tree| tree.entries.rows[3][1] = 4),
        ("no directory names the inode (inode 1)", |tree| tree.entries.rows[1][1] = 4),
        ("inode number 7 is out of range", |tree| tree.entries.rows[3][1] = 7),
        ("the name of an entry cannot be read (inode 1)", |tree| tree.entries.rows[5][0] = 6),
        ("not in the order of their names (inode 0)", |tree| tree.entries.rows[2][0] = 4),
        ("a name that no file can have", |tree| tree.names[1] = b"a/b".to_vec()),
        ("a name that no file can have", |tree| tree.names[1] = b"..".to_vec()),
        ("the name of an entry cannot be read", |tree| tree.names[1] = vec![b'a'; 256]),
        ("mode 3 is out of range", |tree| tree.inodes.rows[3][0] = 3),
        ("the mode does not fit the inode's number (inode 4)", |tree| tree.inodes.rows[4][0] = 0),
        ("number of links of a file is 2, expected 1", |tree| tree.inodes.rows[3][1] = 1),
        ("string 1 is out of range", |tree| tree.symlinks[0] = 1),
        ("the target of a symlink is empty", |tree| tree.targets[0].clear()),
        ("first chunk of a file is 1, expected 0", |tree| tree.chunk_table[0] = 1),
        ("number of chunks of all files is 1, expected 2", |tree| tree.chunk_table[2] = 1),
        ("block of a chunk 1 is out of range", |tree| tree.chunks.rows[1][0] = 1),
        ("end of a chunk in its block 150 is out of range", |tree| tree.block.truncate(149)),
        ("size of all files and links is 199, expected 201", |tree| tree.total = 199),
    ];
    for (expected, change) in changes {
        let mut tree = Tree::sound();
        change(&mut tree);
        let found = messages(&report(tree.archive()));
        assert!(found.iter().any(|found| found.contains(expected)), "{expected}: {found:?}");
    }
}

#[test]
fn shared_files_have_to_stand_in_order() {
    let mut tree = Tree::sound();
    tree.chunk_table = vec![0, 0, 1, 2];
    tree.inodes.rows.push(vec![2, 0]);
    tree.entries.rows.insert(5, vec![5, 6]);
    tree.names.push(b"m".to_vec());
    tree.directories.rows[1][1] = 6;
    tree.directories.rows[2][1] = 7;
    tree.shared = vec![1, 0, 0];
    let found = messages(&report(tree.archive()));
    assert!(found.iter().any(|found| found.contains("not in the order of their chunk lists")), "{found:?}");
}

#[test]
fn a_short_block_names_the_files_that_reach_behind_it() {
    let mut tree = Tree::sound();
    tree.block.truncate(149);
    let report = report(tree.archive());
    let expected = [&b"g"[..], b"h", b"d/f"].map(<[u8]>::to_vec).to_vec();
    assert_eq!(report.hit, Some(HitFiles { paths: expected, more: 0 }));
}

#[test]
fn what_stands_beside_the_metadata_is_checked() {
    let mut tree = Tree::sound();
    tree.more.push((SectionKind::History, Compression::None, b"nonsense".to_vec()));
    tree.more.push((SectionKind::Schema, Compression::None, Vec::new()));
    let found = messages(&report(tree.archive()));
    assert!(found.contains(&"index: number of schema sections is 2, expected 1".to_owned()), "{found:?}");
    assert!(found.iter().any(|found| found.starts_with("history: malformed history")), "{found:?}");
    // The side car is a file of the root: here one that is none.
    let mut tree = Tree::sound();
    tree.names[0] = sidecar::FILE_NAME.to_vec();
    tree.entries.rows[1] = vec![0, 3];
    tree.entries.rows[5] = vec![1, 1];
    tree.directories.rows[1] = vec![1, 5, 1];
    let found = messages(&report(tree.archive()));
    assert!(found.contains(&"sidecar: malformed side car at byte 0".to_owned()), "{found:?}");
}

#[test]
fn numbers_of_sections_are_compared() {
    let sound = Tree::sound().archive();
    let index = Index::open(&sound, AT_START).unwrap();
    let mut bytes = Vec::new();
    for section in index.sections() {
        let at = usize::try_from(section.offset).unwrap() + 64;
        let payload = &sound[at..usize::try_from(section.end).unwrap()];
        bytes.extend(
            SectionHeader::seal(section.number + 1, section.kind, Compression::None, payload).encode(),
        );
        bytes.extend(payload);
    }
    let found = messages(&report(bytes));
    assert_eq!(found[0], "block: number of a section is 1, expected 0");
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn damaged_metadata_is_one_finding_and_checksums_are_checked_on() {
    let mut bytes = Tree::sound().archive();
    let index = Index::open(&bytes, AT_START).unwrap();
    for kind in [SectionKind::Metadata, SectionKind::Block] {
        let end = usize::try_from(index.first(kind).unwrap().end).unwrap();
        bytes[end - 1] ^= 1;
    }
    let report = report(bytes);
    let parts: Vec<_> = report.findings.list.iter().map(|finding| finding.part.name()).collect();
    assert_eq!(parts, ["block", "metadata"]);
    assert_eq!((report.hit, report.inodes), (None, 0));
}

#[test]
fn findings_are_counted_beyond_those_that_are_kept() {
    let mut findings = Findings::default();
    for _ in 0..Findings::KEPT + 5 {
        findings.add(Part::Index, Error::Abandoned);
    }
    let mut all = Findings::default();
    all.add(Part::Metadata, Error::Abandoned);
    all.append(findings);
    assert_eq!((all.list.len(), all.more, all.count()), (Findings::KEPT, 6, Findings::KEPT as u64 + 6));
}

#[test]
fn many_threads_find_the_same() {
    let block = |number: u8| (SectionKind::Block, Compression::None, vec![number; 1_000]);
    let blocks: Vec<_> = (0..200).map(block).collect();
    let mut bytes = assemble(&blocks);
    for damaged in [3, 77, 199] {
        bytes[damaged * 1_064 + 500] ^= 1;
    }
    let source: Arc<dyn ReadAt> = Arc::new(bytes);
    let index = Index::open(&*source, AT_START).unwrap();
    let plan =
        sections::Plan { source: &*source, index: &index, depth: Depth::Everything, max_block: Some(1_000) };
    for threads in [1, 2, 8] {
        let (mut last, mut calls) = (0, 0);
        let read = sections::check(&plan, threads, &mut |done, total| {
            assert!(done <= total);
            (last, calls) = (done, calls + 1);
        });
        assert_eq!(last, 200 * 1_064);
        assert!(calls > 0, "progress is told");
        let found: Vec<_> = read.findings.list.iter().map(|finding| finding.part).collect();
        let expected: Vec<_> = [3, 77, 199]
            .map(|at| Part::Section { section: index.sections()[at as usize], block: Some(at) })
            .into();
        assert_eq!(found, expected);
        assert_eq!(read.decoded.iter().flatten().count(), 197);
    }
}

/// Compresses this many zeros.
fn zeros(len: usize) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.set_pledged_src_size(Some(len as u64)).unwrap();
    encoder.include_contentsize(true).unwrap();
    let piece = vec![0; 1 << 20];
    for _ in 0..len >> 20 {
        encoder.write_all(&piece).unwrap();
    }
    encoder.finish().unwrap()
}

#[test]
fn few_bytes_become_no_gigabytes() {
    let bomb = zeros(256 << 20);
    assert!(bomb.len() < 64 << 10, "{}", bomb.len());
    for (kind, limit) in [
        (SectionKind::Metadata, 64 << 20),
        (SectionKind::Schema, limits::MAX_SCHEMA_LEN),
        (SectionKind::History, limits::MAX_HISTORY_LEN),
    ] {
        let job = crate::dwarfs::read::codec::Job {
            section: 0,
            codec: Compression::Zstd,
            limit: match kind {
                SectionKind::Metadata => limits::max_metadata(bomb.len() as u64),
                SectionKind::Schema => limits::MAX_SCHEMA_LEN,
                _ => limits::MAX_HISTORY_LEN,
            },
        };
        let error = job.decompress(bomb.clone()).unwrap_err();
        assert!(matches!(error, Error::Limit { limit: found, .. } if found == limit), "{error}");
    }
    // Through the door: metadata of the bomb behind a sound schema.
    let sound = Tree::sound().archive();
    let index = Index::open(&sound, AT_START).unwrap();
    let section = index.first(SectionKind::Schema).unwrap();
    let stored =
        sound[usize::try_from(section.offset).unwrap() + 64..usize::try_from(section.end).unwrap()].to_vec();
    let sections =
        [(SectionKind::Schema, Compression::None, stored), (SectionKind::Metadata, Compression::Zstd, bomb)];
    let found = messages(&report(assemble(&sections)));
    assert!(found.iter().any(|found| found.contains("the limit is 67108864")), "{found:?}");
}

/// Entries of one bit each, of which nothing bounds how many there are but the bytes: all name inode 0 or 1.
#[test]
fn inodes_that_no_entry_could_name_are_refused() {
    let many = 100_000;
    let mut tree = Tree::sound();
    tree.entries.rows = vec![vec![0, 0]; many];
    tree.entries.rows[1] = vec![0, 1];
    tree.directories.rows = vec![vec![0, 1, 0]; many + 1];
    tree.inodes.rows = vec![vec![0, 0]; many];
    tree.chunk_table = vec![0];
    (tree.shared, tree.symlinks, tree.targets) = (Vec::new(), Vec::new(), Vec::new());
    tree.names.truncate(1);
    let found = messages(&report(tree.archive()));
    assert!(found.iter().any(|found| found.contains("number of inodes 100000 is out of range")), "{found:?}");
}

#[test]
fn chunk_lists_that_overlap_are_not_followed() {
    let mut tree = Tree::sound();
    let many = 50_000_u32;
    tree.chunks.rows = vec![vec![0, 0, 1]; usize::try_from(many).unwrap()];
    // Every second list is all chunks.
    tree.chunk_table = (0..=many).map(|at| if at % 2 == 0 { 0 } else { many }).collect();
    let count = usize::try_from(many).unwrap();
    tree.inodes.rows = [vec![vec![0, 0]], vec![vec![2, 0]; count]].concat();
    tree.entries.rows = (0..=u64::from(many)).map(|at| vec![at, at]).collect();
    tree.names = (0..=many).map(|at| format!("{at:08}").into_bytes()).collect();
    tree.directories.rows = vec![vec![0, 1, 0], vec![0, u64::from(many) + 1, 0]];
    (tree.shared, tree.symlinks, tree.targets) = (Vec::new(), Vec::new(), Vec::new());
    let start = std::time::Instant::now();
    let report = report(tree.archive());
    let found = messages(&report);
    assert!(!report.is_whole() && report.hit.is_none(), "{found:?}");
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}
