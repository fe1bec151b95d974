//! What the fuzz targets share: archives out of arbitrary bytes, and a walk that touches everything.

pub mod mutate;
pub mod pack;

use std::{
    ops::ControlFlow,
    sync::{Arc, LazyLock, OnceLock},
};

use fim::{
    dwarfs::{
        format::{
            freeze::{List, Rows, Value, freeze},
            metadata::{chunk, dir_entry, directory, inode, root},
            section::{Compression, HEADER_LEN, SectionHeader, SectionKind},
        },
        read::{Archive, BlockCache, Depth, Place, ReadAt, check},
    },
    layer::ArchiveLayer,
    vfs::{FileKind, Layer, Name, NodeId, SeekWhence},
};

/// One cache for all runs, as in a server: what one archive leaves behind must not hurt the next.
static CACHE: LazyLock<Arc<BlockCache>> = LazyLock::new(|| BlockCache::new(1 << 20));

/// The codecs by the numbers that the target `codec` gives them.
pub const CODECS: [Compression; 6] = [
    Compression::Flac,
    Compression::Ricepp,
    Compression::Brotli,
    Compression::Lzma,
    Compression::Zstd,
    Compression::Lz4,
];

/// The cache of all runs.
pub fn cache() -> &'static Arc<BlockCache> {
    &CACHE
}

/// How much of one archive is read: a damaged one may claim anything.
const OBJECTS: u32 = 2_000;
const BYTES: u64 = 1 << 20;

/// Opens an archive and reads all that can be read.
pub fn read_all(bytes: Vec<u8>, place: Place) {
    let source: Arc<dyn ReadAt> = Arc::new(bytes);
    let report = check(&source, place, Depth::Everything, 1, &mut |done, total| assert!(done <= total));
    // What a check calls whole must be readable to the last byte.
    let strict = report.is_ok_and(|report| report.is_whole());
    let Ok(archive) = Archive::open(source, place, &CACHE) else { return assert!(!strict, "it opens") };
    let _ = archive.history();
    let _ = archive.figures();
    let Ok(layer) = ArchiveLayer::new(archive) else { return };
    let _ = layer.stat_fs();
    let mut walk = Walk { layer: &layer, objects: OBJECTS, bytes: BYTES, strict };
    walk.visit(layer.root());
    // Objects that no directory names.
    walk.strict = false;
    (0..64).for_each(|number| walk.look_at(NodeId::new(number)));
}

struct Walk<'a> {
    layer: &'a ArchiveLayer,
    objects: u32,
    bytes: u64,
    /// Whether an error is a failure of the target.
    strict: bool,
}

impl Walk<'_> {
    fn visit(&mut self, node: NodeId) {
        self.look_at(node);
        let mut names = Vec::new();
        let listed = self.layer.read_dir(node, 0, &mut |entry| {
            names.push(entry.name.as_bytes().to_vec());
            if names.len() < 1_000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        self.expect(&listed);
        for name in names {
            // A look-up finds what a listing shows.
            let Some(left) = self.objects.checked_sub(1) else { return };
            self.objects = left;
            let name = Name::new(&name).expect("a layer shows only valid names");
            match self.layer.lookup(node, name) {
                Ok(Some((child, attr))) if attr.kind == FileKind::Directory => self.visit(child),
                Ok(Some((child, _))) => self.look_at(child),
                Ok(None) | Err(_) => assert!(!self.strict, "what is listed is found"),
            }
        }
    }

    fn expect<T, E: std::fmt::Debug>(&self, result: &Result<T, E>) {
        assert!(!self.strict || result.is_ok(), "{:?}", result.as_ref().err());
    }

    fn look_at(&mut self, node: NodeId) {
        let attr = self.layer.attr(node);
        self.expect(&attr);
        let Ok(attr) = attr else { return };
        let target = self.layer.read_link(node);
        if attr.kind == FileKind::Symlink {
            self.expect(&target);
        }
        let _ = self.layer.seek(node, attr.size / 3, SeekWhence::Data);
        let _ = self.layer.seek(node, 0, SeekWhence::Hole);
        if attr.kind != FileKind::Regular {
            return;
        }
        for offset in [0, attr.size / 2, attr.size.saturating_sub(100), u64::MAX - 5] {
            let len = usize::try_from(self.bytes.min(70_000)).expect("it is small");
            let data = self.layer.read(node, offset, len);
            self.expect(&data);
            let Ok(data) = data else { continue };
            assert!(data.len() <= len, "no more than asked for");
            assert!(offset <= attr.size || data.is_empty(), "nothing behind the end");
            let sum: u64 =
                data.slices().flat_map(|slice| slice.as_bytes()).map(|byte| u64::from(*byte)).sum();
            std::hint::black_box(sum);
            self.bytes = self.bytes.saturating_sub(data.len() as u64);
        }
    }
}

/// Makes the checksums of all sections right again, so that changed bytes are looked at.
pub fn reseal(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + HEADER_LEN) {
        let Ok(parsed) = SectionHeader::parse(header.try_into().expect("it has the length"), 0) else {
            return;
        };
        let start = at + HEADER_LEN;
        let Some(end) = usize::try_from(parsed.len).ok().and_then(|len| start.checked_add(len)) else {
            return;
        };
        let Some(payload) = bytes.get(start..end) else { return };
        let xxh3 = parsed.hash_xxh3(payload);
        let sealed = SectionHeader { xxh3, ..parsed }.encode();
        bytes[at..start].copy_from_slice(&sealed);
        at = end;
    }
}

/// An archive of one block, this schema and this metadata, all stored.
pub fn assemble(schema: &[u8], metadata: &[u8]) -> Vec<u8> {
    let block: Vec<u8> = (0..4_096_u32).map(|number| (number % 251) as u8).collect();
    let parts =
        [(SectionKind::Block, &*block), (SectionKind::Schema, schema), (SectionKind::Metadata, metadata)];
    let mut archive = Vec::new();
    for (number, (kind, payload)) in (0..).zip(parts) {
        archive.extend_from_slice(&SectionHeader::seal(number, kind, Compression::None, payload).encode());
        archive.extend_from_slice(payload);
    }
    archive
}

/// Schema and metadata of an archive with the file `f` alone, which is the start of block 0. `len` is also the longest
/// length of a block.
pub fn one_file(len: u32) -> &'static (Vec<u8>, Vec<u8>) {
    static METADATA: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    METADATA.get_or_init(|| {
        let chunks = Table { fields: [chunk::BLOCK, chunk::OFFSET, chunk::SIZE], rows: &[[0, 0, len]] };
        let directories = [directory::PARENT_ENTRY, directory::FIRST_ENTRY, directory::SELF_ENTRY];
        let directories = Table { fields: directories, rows: &[[0, 1, 0], [0, 2, 0]] };
        let inodes = Table { fields: [inode::MODE_INDEX], rows: &[[0], [1]] };
        let entries =
            Table { fields: [dir_entry::NAME_INDEX, dir_entry::INODE_NUM], rows: &[[0, 0], [0, 1]] };
        let names = [b"f".to_vec()];
        let table = |rows| Value::List(List::Rows(rows));
        let value = Value::Struct(vec![
            (root::CHUNKS, table(&chunks)),
            (root::DIRECTORIES, table(&directories)),
            (root::INODES, table(&inodes)),
            (root::CHUNK_TABLE, Value::List(List::U32(&[0, 1]))),
            (root::MODES, Value::List(List::U32(&[0o040_755, 0o100_644]))),
            (root::NAMES, Value::List(List::Strings(&names))),
            (root::BLOCK_SIZE, Value::Int(u64::from(len))),
            (root::DIR_ENTRIES, table(&entries).some()),
        ]);
        let frozen = freeze(&value).expect("it is small");
        (frozen.schema.encode(), frozen.metadata)
    })
}

/// A list of structs of numbers.
struct Table<'a, const N: usize> {
    fields: [i16; N],
    rows: &'a [[u32; N]],
}

impl<const N: usize> Rows for Table<'_, N> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn fields(&self) -> &[i16] {
        &self.fields
    }

    fn value(&self, row: usize, column: usize) -> u64 {
        u64::from(self.rows[row][column])
    }
}
