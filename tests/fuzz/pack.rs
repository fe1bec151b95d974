//! Trees out of arbitrary bytes, packed by the writer and read back.

use std::{collections::HashMap, io, num::NonZeroUsize, sync::Arc};

use fim::dwarfs::{
    format::sidecar::Xattrs,
    read::{Archive, Place},
    write::{
        Categorizer, Codec, Content, Contents, Device, EntryId, Faults, FileContent, Object, Order, Packing,
        Progress, Segmentation, Source, Times, Timestamp, Tree, WriteError, WriteOptions, write_archive,
    },
};

use crate::cache;

/// Bytes of the input, taken from the front; zeros when there are no more.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number of up to 64 bits: small ones are frequent.
    pub fn number(&mut self) -> u64 {
        let len = usize::from(self.byte() % 9);
        (0..len).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Longest file with data; holes may be as long as anything.
const MOST_DATA: usize = 200_000;
/// Most objects.
const MOST_OBJECTS: usize = 200;

/// A tree in memory.
#[derive(Default)]
pub struct Made {
    /// Objects, and the data of files (holes not among it).
    objects: Vec<(Object, Vec<u8>)>,
    /// Entries of each directory by its number among the objects: names and objects. The root is 0.
    entries: Vec<(usize, Vec<u8>, usize)>,
}

impl Made {
    /// A tree whose names, sizes, holes, times and links the input says.
    pub fn tree(input: &mut Bytes<'_>) -> Self {
        let mut made = Self::default();
        made.objects.push((Object::new(Content::Directory, 0o755), Vec::new()));
        let mut directories = vec![0];
        while !input.is_empty() && made.objects.len() < MOST_OBJECTS {
            let parent = directories[usize::from(input.byte()) % directories.len()];
            let len = usize::from(input.byte());
            let name: Vec<u8> = (0..len).map(|_| input.byte()).collect();
            let kind = input.byte();
            let number = match kind % 10 {
                // A further name of what is there.
                0 => usize::from(input.byte()) % made.objects.len(),
                _ => {
                    let (object, data) = object(kind, input, &made.objects);
                    made.objects.push((object, data));
                    made.objects.len() - 1
                }
            };
            if kind % 10 == 1 {
                directories.push(number);
            }
            made.entries.push((parent, name, number));
        }
        made
    }

    /// Files alone, whose contents repeat each other in part.
    pub fn files(input: &mut Bytes<'_>) -> Self {
        let mut made = Self::default();
        made.objects.push((Object::new(Content::Directory, 0o755), Vec::new()));
        let mut all: Vec<u8> = Vec::new();
        let mut name = 0_u32;
        while !input.is_empty() && made.objects.len() < MOST_OBJECTS {
            let mut data = Vec::new();
            for _ in 0..input.byte() % 8 + 1 {
                part(input, &all, &mut data);
            }
            all.extend_from_slice(&data);
            all.truncate(MOST_DATA);
            let content = FileContent { size: data.len() as u64, ..FileContent::default() };
            made.objects.push((Object::new(Content::File(content), 0o644), data));
            made.entries.push((0, name.to_string().into_bytes(), made.objects.len() - 1));
            name += 1;
        }
        made
    }
}

/// Adds some bytes: new ones, the same one often, or a part of what there was before.
fn part(input: &mut Bytes<'_>, before: &[u8], data: &mut Vec<u8>) {
    let kind = input.byte();
    let len = usize::try_from(input.number()).unwrap_or(usize::MAX).min(MOST_DATA.saturating_sub(data.len()));
    match kind % 4 {
        0 => data.extend((0..len.min(4_000)).map(|_| input.byte())),
        1 => data.extend(std::iter::repeat_n(input.byte(), len.min(20_000))),
        2 => {
            let mut state = u64::from(kind) | 1;
            data.extend((0..len.min(20_000)).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state.to_le_bytes()[7]
            }));
        }
        _ => {
            let from = usize::try_from(input.number()).unwrap_or_default() % (before.len() + 1);
            let end = from.saturating_add(len).min(before.len());
            data.extend_from_slice(&before[from..end]);
        }
    }
}

fn object(kind: u8, input: &mut Bytes<'_>, known: &[(Object, Vec<u8>)]) -> (Object, Vec<u8>) {
    let mut data = Vec::new();
    let content = match kind % 10 {
        1 => Content::Directory,
        2 => Content::Symlink((0..input.byte()).map(|_| input.byte()).collect()),
        3 => Content::Fifo,
        4 => Content::Socket,
        5 => Content::CharDevice(Device { major: u32::from(input.byte()), minor: u32::from(input.byte()) }),
        6 => {
            // The same as another file.
            let same = known.get(usize::from(input.byte()) % known.len());
            let file = same.filter(|(object, _)| object.file().is_some());
            data = file.map(|(_, data)| data.clone()).unwrap_or_default();
            let content = file.and_then(|(object, _)| object.file().cloned());
            Content::File(content.unwrap_or_default())
        }
        7 => Content::File(sparse(input, &mut data)),
        _ => {
            part(input, &[], &mut data);
            Content::File(FileContent { size: data.len() as u64, ..FileContent::default() })
        }
    };
    let time = |input: &mut Bytes<'_>| Timestamp {
        seconds: input.number().cast_signed(),
        nanos: u32::try_from(input.number() % 1_000_000_000).unwrap_or_default(),
    };
    let mut object = Object::new(content, u16::from(input.byte()) << 4 & 0o7777);
    (object.uid, object.gid) = (u32::from(input.byte()), u32::from(input.byte()));
    object.mtime = time(input);
    object.btime = (kind > 127).then(|| time(input));
    (object, data)
}

/// A file with holes.
fn sparse(input: &mut Bytes<'_>, data: &mut Vec<u8>) -> FileContent {
    let mut extents = Vec::new();
    let mut at = 0_u64;
    for _ in 0..input.byte() % 6 {
        // Readers refuse what is longer than a signed number tells.
        let hole = input.number() >> 16;
        let len = 1 + u64::from(input.byte()) * 7;
        at = at.saturating_add(hole).min(1 << 60);
        extents.push(at..at + len);
        data.extend((0..len).map(|_| input.byte()));
        // Two extents never touch.
        at += len + 1;
    }
    let size = at + (input.number() >> 16);
    FileContent { size: size.min(1 << 61), extents: Some(extents.into()), ..FileContent::default() }
}

impl Source for Made {
    fn scan(&self, _faults: &Faults<'_>, _progress: &dyn Progress) -> Result<Tree, WriteError> {
        let (root, _) = &self.objects[0];
        let mut tree = Tree::new(root.clone(), Xattrs::new())?;
        let mut ids = Vec::new();
        for (number, (object, _)) in self.objects.iter().enumerate() {
            let mut object = object.clone();
            if let Content::File(file) = &mut object.content {
                file.locator = number as u64;
            }
            ids.push(if number == 0 {
                tree.object_of(EntryId::ROOT)
            } else {
                tree.add_object(object, Xattrs::new())?
            });
        }
        let mut queue = vec![(EntryId::ROOT, 0)];
        while let Some((directory, number)) = queue.pop() {
            let of_it: Vec<_> = self.entries.iter().filter(|(parent, ..)| *parent == number).collect();
            let children = of_it.iter().map(|(_, name, object)| (name.clone(), ids[*object])).collect();
            let by_id: HashMap<_, _> = of_it.iter().map(|(_, _, object)| (ids[*object], *object)).collect();
            for entry in tree.fill_directory(directory, children)? {
                let entry = EntryId::from_number(entry);
                let object = tree.object_of(entry);
                if tree.object(object).is_some_and(Object::is_directory) {
                    queue.push((entry, by_id[&object]));
                }
            }
        }
        Ok(tree)
    }

    fn open(&self, _path: &[u8], file: &Object) -> Result<Box<dyn Contents + '_>, WriteError> {
        let number = file.file().and_then(|file| usize::try_from(file.locator).ok()).unwrap_or_default();
        Ok(Box::new(Open(&self.objects[number])))
    }
}

struct Open<'a>(&'a (Object, Vec<u8>));

impl Contents for Open<'_> {
    fn is_unchanged(&self, _known: &Object) -> io::Result<bool> {
        Ok(true)
    }

    fn refresh(&self, known: &Object) -> io::Result<Object> {
        Ok(known.clone())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut skipped = 0;
        for range in self.0.0.file().map(FileContent::data).unwrap_or_default() {
            if range.contains(&offset) {
                let start = usize::try_from(skipped + offset - range.start).map_err(io::Error::other)?;
                let len = usize::try_from(range.end - offset).map_err(io::Error::other)?.min(buffer.len());
                buffer[..len].copy_from_slice(&self.0.1[start..start + len]);
                return Ok(len);
            }
            skipped += range.end - range.start;
        }
        Ok(0)
    }
}

/// Options out of a few bytes.
pub fn options(input: &mut Bytes<'_>) -> WriteOptions {
    let [how, block, window, flags] = [input.byte(), input.byte(), input.byte(), input.byte()];
    let block_size_bits = 10 + block % 7;
    let window_bits = 6 + window % 7;
    let step_shift = (window >> 4) % 4;
    let codec =
        [Codec::None, Codec::Zstd { level: 1 }, Codec::Lz4, Codec::Lz4Hc { level: 3 }][usize::from(how % 4)];
    let order =
        [Order::Path, Order::None, Order::ReversePath, Order::Similarity][usize::from(how >> 2) % 4].clone();
    let flag = |bit: u8| flags >> bit & 1 == 1;
    WriteOptions {
        block_size_bits,
        segmentation: flag(0).then_some(Segmentation { window_bits, step_shift, lookback: 1 + block / 100 }),
        data: codec,
        metadata: if flag(1) { codec } else { Codec::None },
        order,
        times: if flag(2) { Times::All } else { Times::Modified },
        categorizers: if flag(3) { Categorizer::ALL.to_vec() } else { Vec::new() },
        packing: Packing {
            chunk_table: flag(4),
            directories: flag(5),
            shared_files: flag(6),
            string_index: flag(7),
            plain_strings: how > 200,
            symbols: how < 100,
        },
        threads: NonZeroUsize::MIN,
        ..WriteOptions::default()
    }
}

/// Packs a tree and reads every byte back. What cannot be packed must be refused.
pub fn pack(made: &Made, options: &WriteOptions) {
    let mut bytes = Vec::new();
    let Ok(summary) = write_archive(made, options, &mut bytes, &()) else { return };
    assert_eq!(summary.bytes_out, bytes.len() as u64);
    let archive = Archive::open(Arc::new(bytes), Place::At { offset: 0, len: None }, cache())
        .expect("what was written opens");
    archive.verify(&mut |_, _| {}).expect("its checksums are right");
    let mut queue = vec![(Vec::new(), 0)];
    while let Some((path, number)) = queue.pop() {
        compare(&archive, &path, &made.objects[number]);
        for (_, name, child) in made.entries.iter().filter(|(parent, ..)| *parent == number) {
            let child_path = if path.is_empty() { name.clone() } else { [&path[..], name].join(&b'/') };
            queue.push((child_path, *child));
        }
    }
}

fn compare(archive: &Archive, path: &[u8], (object, data): &(Object, Vec<u8>)) {
    let inode = archive.find(path).expect("a look-up").expect("it is there");
    let attr = archive.attr(inode).expect("it has attributes");
    assert_eq!((attr.uid, attr.gid), (object.uid, object.gid));
    let Some(file) = object.file() else { return };
    assert_eq!(attr.size, file.size);
    let mut skipped = 0;
    for range in file.data() {
        let len = usize::try_from(range.end - range.start).expect("it fits");
        let found = archive.read(inode, range.start, len).expect("it can be read");
        assert!(*found.contiguous() == data[skipped..skipped + len], "data of {len} bytes at {}", range.start);
        skipped += len;
        // What is behind it is a hole, or the end.
        if range.end < file.size {
            let behind = archive.read(inode, range.end, 1).expect("it can be read");
            assert!(*behind.contiguous() == [0_u8][..] || file.extents.is_none());
        }
    }
}
