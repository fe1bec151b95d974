//! Random trees, written by ours and read by ours.

use std::{collections::BTreeMap, num::NonZeroUsize, ops::ControlFlow, ops::Range, sync::Arc};

use proptest::{collection::vec, option, prelude::*, sample};

use super::memory::{MemorySource, Node};
use crate::dwarfs::{
    format::sidecar::{FILE_NAME, Sidecar, Xattrs},
    read::{Archive, BlockCache, Inode, Kind, Place, Seek},
    write::{
        Categorizer, Codec, Content, Device, FileContent, Object, Packing, Summary, Times, Timestamp,
        WriteOptions, write_archive,
    },
};

/// An archive of a source, opened, and what was said of it.
pub(super) fn written(source: &MemorySource, options: &WriteOptions) -> (Archive, Summary) {
    let mut bytes = Vec::new();
    let summary = write_archive(source, options, &mut bytes, &()).unwrap();
    assert_eq!(summary.bytes_out, bytes.len() as u64);
    let archive =
        Archive::open(Arc::new(bytes), Place::At { offset: 0, len: None }, &BlockCache::new(1 << 24))
            .unwrap();
    archive.verify(&mut |_, _| {}).unwrap();
    (archive, summary)
}

fn walk(archive: &Archive) -> BTreeMap<Vec<u8>, Inode> {
    let mut found = BTreeMap::from([(Vec::new(), Inode::new(0))]);
    let mut stack = vec![(Vec::new(), Inode::new(0))];
    while let Some((path, directory)) = stack.pop() {
        let mut last: Option<Vec<u8>> = None;
        archive
            .read_dir(directory, 0, &mut |entry| {
                assert!(last.as_deref() < Some(entry.name), "names ascend");
                last = Some(entry.name.to_vec());
                let inode = entry.inode.unwrap();
                assert_eq!(archive.lookup(directory, entry.name).unwrap(), Some(inode));
                let path =
                    if path.is_empty() { entry.name.to_vec() } else { [&path, entry.name].join(&b'/') };
                if archive.kind(inode).unwrap() == Kind::Directory {
                    stack.push((path.clone(), inode));
                }
                found.insert(path, inode);
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    found
}

fn kind(content: &Content) -> Kind {
    match content {
        Content::Directory => Kind::Directory,
        Content::Symlink(_) => Kind::Symlink,
        Content::File(_) => Kind::Regular,
        Content::CharDevice(_) => Kind::CharDevice,
        Content::BlockDevice(_) => Kind::BlockDevice,
        Content::Fifo => Kind::Fifo,
        Content::Socket => Kind::Socket,
    }
}

fn read_all(archive: &Archive, inode: Inode) -> Vec<u8> {
    let size = usize::try_from(archive.attr(inode).unwrap().size).unwrap();
    archive.read(inode, 0, size + 1).unwrap().contiguous().into_owned()
}

/// Where the archive has data, by seeking.
fn data_ranges(archive: &Archive, inode: Inode, size: u64) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(start) = archive.seek(inode, at, Seek::Data).unwrap() {
        at = archive.seek(inode, start, Seek::Hole).unwrap().unwrap_or(size);
        ranges.push(start..at);
    }
    ranges
}

fn assert_equal(source: &MemorySource, archive: &Archive, options: &WriteOptions) {
    let mut found = walk(archive);
    let sidecar = found.remove(FILE_NAME).map(|inode| Sidecar::decode(&read_all(archive, inode)).unwrap());
    let carried = sidecar.unwrap_or_default().records;
    let mut expected_xattrs: BTreeMap<Vec<u8>, Xattrs> = BTreeMap::new();
    let links = |target: &[u8]| source.links.iter().filter(|(_, of)| of == target).count();
    assert_eq!(found.len(), 1 + source.nodes.len() + source.links.len());
    for node in &source.nodes {
        let inode = found[&node.path];
        check_node(archive, inode, node, options);
        let is_file = node.object.file().is_some();
        let nlink = if is_file { 1 + links(&node.path) } else { 1 };
        assert_eq!(archive.attr(inode).unwrap().nlink as usize, nlink);
        let names = source.links.iter().filter(|(_, of)| *of == node.path).map(|(name, _)| name);
        for name in names.chain([&node.path]) {
            if is_file {
                assert_eq!(found[name], inode);
            }
            if !node.xattrs.is_empty() {
                expected_xattrs.insert(name.clone(), node.xattrs.clone());
            }
        }
    }
    assert_eq!(carried, expected_xattrs);
}

fn check_node(archive: &Archive, inode: Inode, node: &Node, options: &WriteOptions) {
    let stat = archive.attr(inode).unwrap();
    let object = &node.object;
    assert_eq!(stat.kind, kind(&object.content));
    assert_eq!((stat.perm, stat.uid, stat.gid), (object.perm, object.uid, object.gid));
    let time = |time: Timestamp| {
        let time = options.latest_time.map_or(time, |latest| time.min(latest));
        (time.seconds, time.nanos)
    };
    let (atime, ctime) = match options.times {
        Times::Modified => (object.mtime, object.mtime),
        Times::All => (object.atime, object.ctime),
    };
    assert_eq!((stat.mtime.seconds, stat.mtime.nanos), time(object.mtime));
    assert_eq!((stat.atime.seconds, stat.atime.nanos), time(atime));
    assert_eq!((stat.ctime.seconds, stat.ctime.nanos), time(ctime));
    match &object.content {
        Content::File(file) => {
            assert_eq!(stat.size, file.size);
            assert_eq!(stat.allocated, file.data_len());
            if file.size < 1 << 24 {
                assert!(read_all(archive, inode) == node.bytes, "contents of {}", node.path.escape_ascii());
            }
            assert_eq!(data_ranges(archive, inode, file.size), file.data());
        }
        Content::Symlink(target) => assert_eq!(archive.read_link(inode).unwrap(), target.as_ref()),
        Content::CharDevice(device) | Content::BlockDevice(device) => assert_eq!(stat.rdev, device.to_raw()),
        _ => {}
    }
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let ordinary = sample::select(vec!["a", "b", "c", "ab", "lib"]).prop_map(|name| name.as_bytes().to_vec());
    let hostile = prop_oneof![
        Just(vec![b'n'; 255]),
        Just(b"...".to_vec()),
        Just(b" ".to_vec()),
        vec((1..=255_u8).prop_filter("no slash", |byte| *byte != b'/'), 1..12)
            .prop_filter("no dots", |name| name != b"." && name != b".."),
    ];
    prop_oneof![3 => ordinary, 1 => hostile]
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    let seconds = prop_oneof![
        4 => 1_600_000_000..1_700_000_000_i64,
        1 => Just(0),
        1 => -3_000_000_000..9_000_000_000_i64,
        1 => sample::select(vec![i64::MIN, i64::MAX, -1]),
    ];
    let nanos = prop_oneof![Just(0), 0..1_000_000_000_u32];
    (seconds, nanos).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos })
}

/// Contents of few kinds, so that files are equal now and then, with holes now and then.
fn file() -> impl Strategy<Value = (FileContent, Vec<u8>)> {
    let size = prop_oneof![Just(0_usize), 1..50_usize, 1_020..1_030_usize, 0..9_000_usize];
    let ranges = option::weighted(0.3, vec((0..2_000_u64, 1..2_000_u64), 0..4));
    (size, 0..3_u8, ranges).prop_map(|(size, seed, ranges)| {
        let mut bytes: Vec<u8> =
            (0..size).map(|at| (at / 7).to_le_bytes()[0].wrapping_mul(seed) | 1).collect();
        let extents = ranges.map(|ranges| {
            let (mut at, mut extents) = (0, Vec::new());
            for (gap, len) in ranges {
                let start = (at + gap + 1).min(size as u64);
                at = (start + len).min(size as u64);
                if start < at {
                    extents.push(start..at);
                }
            }
            for (place, byte) in bytes.iter_mut().enumerate() {
                if !extents.iter().any(|extent: &Range<u64>| extent.contains(&(place as u64))) {
                    *byte = 0;
                }
            }
            extents.into_boxed_slice()
        });
        let extents = if size == 0 { None } else { extents };
        (FileContent { size: size as u64, extents, locator: 0 }, bytes)
    })
}

fn content() -> impl Strategy<Value = (Content, Vec<u8>)> {
    let device = (0..1u32 << 12, any::<u32>()).prop_map(|(major, minor)| Device { major, minor });
    let bare = |content: Content| (content, Vec::new());
    prop_oneof![
        3 => Just(bare(Content::Directory)),
        5 => file().prop_map(|(file, bytes)| (Content::File(file), bytes)),
        1 => vec(1..=255_u8, 1..40).prop_map(move |target| bare(Content::Symlink(target.into()))),
        1 => device.clone().prop_map(move |device| bare(Content::CharDevice(device))),
        1 => Just(bare(Content::CharDevice(Device::WHITEOUT))),
        1 => device.prop_map(move |device| bare(Content::BlockDevice(device))),
        1 => sample::select(vec![Content::Fifo, Content::Socket]).prop_map(bare),
    ]
}

fn xattrs() -> impl Strategy<Value = Xattrs> {
    let some = prop::collection::btree_map(
        sample::select(vec![b"user.a".to_vec(), b"security.capability".to_vec()]),
        vec(any::<u8>(), 0..30),
        1..3,
    );
    prop_oneof![9 => Just(Xattrs::new()), 1 => some]
}

fn object() -> impl Strategy<Value = (Object, Vec<u8>, Xattrs)> {
    let owner = || prop_oneof![Just(0), Just(1_000), any::<u32>()];
    (content(), 0..0o10000_u16, owner(), owner(), [timestamp(), timestamp(), timestamp()], xattrs()).prop_map(
        |((content, bytes), perm, uid, gid, [mtime, atime, ctime], xattrs)| {
            (Object { content, perm, uid, gid, mtime, atime, ctime, btime: None }, bytes, xattrs)
        },
    )
}

fn tree() -> impl Strategy<Value = MemorySource> {
    let entry = (any::<sample::Index>(), name(), object(), option::weighted(0.15, any::<sample::Index>()));
    (object(), vec(entry, 0..40)).prop_map(|(root, entries)| {
        let mut directories = vec![Vec::new()];
        let mut nodes: Vec<Node> = Vec::new();
        let mut links: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (parent, name, (object, bytes, xattrs), link) in entries {
            let parent = parent.get(&directories);
            let path = if parent.is_empty() { name } else { [&parent[..], &name].join(&b'/') };
            if nodes.iter().any(|node| node.path == path) || links.iter().any(|(link, _)| *link == path) {
                continue;
            }
            let targets: Vec<_> = nodes.iter().filter(|node| !node.object.is_directory()).collect();
            if let Some(target) = link.filter(|_| !targets.is_empty()) {
                links.push((path, target.get(&targets).path.clone()));
                continue;
            }
            if object.is_directory() {
                directories.push(path.clone());
            }
            nodes.push(Node { path, object, xattrs, bytes, ..Node::new("", Content::Fifo, 0) });
        }
        let mut source = MemorySource::new(nodes);
        source.links = links;
        source.root = Some(Object { content: Content::Directory, ..root.0 });
        source
    })
}

fn write_options() -> impl Strategy<Value = WriteOptions> {
    let packing = any::<[bool; 6]>().prop_map(
        |[chunk_table, directories, shared_files, string_index, plain_strings, symbols]| Packing {
            chunk_table,
            directories,
            shared_files,
            string_index,
            plain_strings,
            symbols,
        },
    );
    let codec = || sample::select(vec![Codec::None, Codec::Zstd { level: 1 }]);
    let times = sample::select(vec![Times::Modified, Times::All]);
    let latest = option::weighted(0.2, timestamp());
    let categorizers = sample::select(vec![Vec::new(), Categorizer::ALL.to_vec()]);
    (10..15_u8, codec(), codec(), times, packing, 1..4_usize, latest, categorizers).prop_map(
        |(block_size_bits, data, metadata, times, packing, threads, latest_time, categorizers)| {
            WriteOptions {
                categorizers,
                block_size_bits,
                data,
                metadata,
                times,
                packing,
                threads: NonZeroUsize::new(threads).unwrap(),
                latest_time,
                ..WriteOptions::default()
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_back((source, options) in (tree(), write_options())) {
        let (archive, _) = written(&source, &options);
        assert_equal(&source, &archive, &options);
    }

    #[test]
    fn threads_make_no_difference((source, options) in (tree(), write_options())) {
        let bytes = |threads| {
            let mut bytes = Vec::new();
            let threads = NonZeroUsize::new(threads).unwrap();
            let options = WriteOptions { threads, ..options.clone() };
            write_archive(&source, &options, &mut bytes, &()).unwrap();
            bytes
        };
        assert!(bytes(1) == bytes(4));
    }
}

fn small_blocks() -> WriteOptions {
    WriteOptions { block_size_bits: 10, data: Codec::Zstd { level: 1 }, ..WriteOptions::default() }
}

#[test]
fn an_empty_tree() {
    let source = MemorySource::default();
    let (archive, summary) = written(&source, &small_blocks());
    assert_equal(&source, &archive, &small_blocks());
    assert_eq!(summary.directories, 1);
    assert_eq!(archive.figures().blocks, 0);
}

#[test]
fn holes_of_every_length() {
    // With blocks of 1 KiB a chunk says up to 2^42 + 1023 bytes; the next length needs the table.
    let most = (u64::from(u32::MAX) << 10) + 1_023;
    let nodes: Vec<Node> = [1, 1_023, 1_024, 1_025, 1 << 40, most, most + 1, 1 << 62, most + 1]
        .into_iter()
        .enumerate()
        .map(|(number, size)| {
            let content = FileContent { size, extents: Some(Box::new([])), locator: 0 };
            let path = format!("hole {number}");
            Node {
                bytes: vec![0; usize::try_from(size.min(2_000)).unwrap()],
                ..Node::new(&path, Content::File(content), 0o600)
            }
        })
        .collect();
    let source = MemorySource::new(nodes);
    let (archive, summary) = written(&source, &small_blocks());
    let found = walk(&archive);
    for node in &source.nodes {
        let stat = archive.attr(found[&node.path]).unwrap();
        assert_eq!((stat.size, stat.allocated), (node.object.file().unwrap().size, 0));
        assert_eq!(data_ranges(&archive, found[&node.path], stat.size), []);
    }
    assert_eq!((summary.duplicates, summary.bytes_packed), (1, 0));
}

#[test]
fn many_chunks_have_their_sizes_remembered() {
    let bytes: Vec<u8> = (0..200_000_u32).map(|at| at.to_le_bytes()[1] | 1).collect();
    let extents: Box<[Range<u64>]> = (0..100).map(|at| at * 2_000..at * 2_000 + 1_500).collect();
    let mut sparse = bytes.clone();
    for (at, byte) in sparse.iter_mut().enumerate() {
        if at % 2_000 >= 1_500 {
            *byte = 0;
        }
    }
    let content = FileContent { size: 200_000, extents: Some(extents), locator: 0 };
    let node = Node { bytes: sparse, ..Node::new("sparse", Content::File(content), 0o600) };
    let source = MemorySource::new(vec![Node::file("plain", &bytes), node]);
    let (archive, _) = written(&source, &small_blocks());
    assert_equal(&source, &archive, &small_blocks());
}

#[test]
fn twenty_thousand_names_of_one_file() {
    let mut source = MemorySource::new(vec![Node::file("first", b"contents")]);
    source.links = (0..20_000).map(|at| (format!("l{at}").into_bytes(), b"first".to_vec())).collect();
    let (archive, summary) = written(&source, &small_blocks());
    assert_eq!((summary.files, summary.hard_links), (1, 20_000));
    let inode = archive.find(b"l19999").unwrap().unwrap();
    assert_eq!(archive.attr(inode).unwrap().nlink, 20_001);
    assert_eq!(read_all(&archive, inode), b"contents");
}
