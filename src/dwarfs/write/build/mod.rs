//! Builds the metadata: numbers the inodes, fills the tables and freezes them.
//!
//! Inodes stand in a strict order, from which readers tell their kinds and find their other tables:
//!
//! ```text
//! directories | symlinks | unique files | shared files | devices | fifos and sockets
//!      |           |             \            /               |
//! directories  symlink_table     chunk_table             devices
//! ```
//!
//! Directory entries stand breadth first, those of one directory in one run.

mod chunks;
mod inodes;
mod strings;
mod tables;

use std::collections::HashMap;

use chunks::Chunks;
use inodes::Inodes;
use strings::StringTable;
use tables::{Directories, InodeRows, Map, Owners, Strings, Table, TimeBase};

use super::{
    category::Category,
    codec::Codec,
    error::WriteError,
    object::Content,
    options::{Packing, Times, WriteOptions},
    segment::Segmented,
    tree::Tree,
};
use crate::dwarfs::format::{
    freeze::{Frozen, List, Value, freeze},
    metadata::{
        DEFAULT_MIN_CHUNK_COUNT, FEATURE_SPARSE_FILES, chunk, dir_entry, directory, options as option, root,
        size_cache,
    },
};

/// What writes archives, as their metadata names it.
pub(super) const WRITER: &str = concat!("fim ", env!("CARGO_PKG_VERSION"));

/// Freezes the metadata of a tree whose files have been packed.
pub(super) fn build(tree: &Tree, files: &Segmented, options: &WriteOptions) -> Result<Frozen, WriteError> {
    let inodes = Inodes::new(tree, files);
    let strings = Strings::new(tree, &inodes)?;
    let mut directories = Directories::new(tree, &inodes, &strings);
    let mut chunks = Chunks::new(files, &inodes, options.block_size())?;
    let totals = Totals::new(tree, &inodes);
    let owners = Owners::new(tree, &inodes, options.overrides);
    let times = TimeBase::new(tree, &inodes, options);

    let packing = options.packing;
    let shared = if packing.shared_files { repetitions(&inodes.shared) } else { inodes.shared.clone() };
    if packing.chunk_table {
        differences(chunks.table.iter_mut());
    }
    if packing.directories {
        differences(directories.directories.iter_mut().map(|[_, first, _]| first));
        directories.directories.iter_mut().for_each(|[parent, _, own]| (*parent, *own) = (0, 0));
    }
    // A codec finds in plain strings what symbols hide from it.
    let packing = Packing { symbols: packing.symbols && options.metadata == Codec::None, ..packing };
    let names = StringTable::new(&strings.names, packing)?;
    let targets = StringTable::new(&strings.targets, packing)?;
    let devices: Vec<u64> = devices(tree, &inodes);
    let categories = Categories::new(&files.categories);
    let features = [FEATURE_SPARSE_FILES.as_bytes().to_vec()];

    let chunk_rows = Table { fields: [chunk::BLOCK, chunk::OFFSET, chunk::SIZE], rows: &chunks.chunks };
    let directory_fields = [directory::PARENT_ENTRY, directory::FIRST_ENTRY, directory::SELF_ENTRY];
    let directory_rows = Table { fields: directory_fields, rows: &directories.directories };
    let entry_rows =
        Table { fields: [dir_entry::NAME_INDEX, dir_entry::INODE_NUM], rows: &directories.entries };
    let inode_rows = InodeRows { tree, inodes: &inodes, owners: &owners, times: &times };
    let sizes = Map(&chunks.sizes);
    let allocated_sizes = Map(&chunks.allocated_sizes);

    let mut fields = Fields::default();
    fields.set(root::CHUNKS, Value::List(List::Rows(&chunk_rows)));
    fields.set(root::DIRECTORIES, Value::List(List::Rows(&directory_rows)));
    fields.set(root::INODES, Value::List(List::Rows(&inode_rows)));
    fields.set(root::CHUNK_TABLE, Value::List(List::U32(&chunks.table)));
    fields.set(root::SYMLINK_TABLE, Value::List(List::U32(&strings.symlinks)));
    fields.set(root::UIDS, Value::List(List::U32(&owners.uids)));
    fields.set(root::GIDS, Value::List(List::U32(&owners.gids)));
    fields.set(root::MODES, Value::List(List::U32(&owners.modes)));
    if packing.plain_strings {
        fields.set(root::NAMES, Value::List(List::Strings(&strings.names)));
        fields.set(root::SYMLINKS, Value::List(List::Strings(&strings.targets)));
    }
    fields.set(root::TIMESTAMP_BASE, Value::Int(times.raw()));
    fields.set(root::BLOCK_SIZE, Value::Int(u64::from(options.block_size())));
    fields.set(root::TOTAL_FS_SIZE, Value::Int(totals.size));
    fields.some_if(!devices.is_empty(), root::DEVICES, Value::List(List::U64(&devices)));
    fields.set(root::OPTIONS, option_values(packing, &times).some());
    fields.set(root::DIR_ENTRIES, Value::List(List::Rows(&entry_rows)).some());
    fields.some_if(!shared.is_empty(), root::SHARED_FILES_TABLE, Value::List(List::U32(&shared)));
    fields.some_if(totals.hard_links > 0, root::TOTAL_HARDLINK_SIZE, Value::Int(totals.hard_links));
    fields.set(root::DWARFS_VERSION, Value::Bytes(WRITER.as_bytes()).some());
    if let Some(created) = options.created {
        fields.set(root::CREATE_TIMESTAMP, Value::Int(created).some());
    }
    if !packing.plain_strings {
        fields.set(root::COMPACT_NAMES, names.value().some());
        fields.set(root::COMPACT_SYMLINKS, targets.value().some());
    }
    if let Some(hole_block) = chunks.hole_block {
        fields.set(root::FEATURES, Value::List(List::Strings(&features)).some());
        fields.set(root::HOLE_BLOCK_INDEX, Value::Int(u64::from(hole_block)).some());
        fields.set(root::TOTAL_ALLOCATED_FS_SIZE, Value::Int(totals.allocated).some());
    }
    fields.some_if(
        !chunks.large_holes.is_empty(),
        root::LARGE_HOLE_SIZE,
        Value::List(List::U64(&chunks.large_holes)),
    );
    if let Some(categories) = &categories {
        fields.set(root::CATEGORY_NAMES, Value::List(List::Strings(&categories.names)).some());
        fields.set(root::BLOCK_CATEGORIES, Value::List(List::U32(&categories.of_blocks)).some());
    }
    let described = Map(categories.as_ref().map_or(&[][..], |categories| categories.described.as_slice()));
    if let Some(categories) = categories.as_ref().filter(|categories| !categories.described.is_empty()) {
        let descriptions = Value::List(List::Strings(&categories.descriptions));
        fields.set(root::CATEGORY_METADATA_JSON, descriptions.some());
        fields.set(root::BLOCK_CATEGORY_METADATA, Value::List(List::Rows(&described)).some());
    }
    fields.some_if(
        !chunks.sizes.is_empty(),
        root::REG_FILE_SIZE_CACHE,
        Value::Struct(vec![
            (size_cache::SIZE_LOOKUP, Value::List(List::Rows(&sizes))),
            (size_cache::MIN_CHUNK_COUNT, Value::Int(DEFAULT_MIN_CHUNK_COUNT)),
            (size_cache::ALLOCATED_SIZE_LOOKUP, Value::List(List::Rows(&allocated_sizes))),
        ]),
    );
    Ok(freeze(&Value::Struct(fields.0))?)
}

/// Fields of a struct.
#[derive(Default)]
struct Fields<'a>(Vec<(i16, Value<'a>)>);

impl<'a> Fields<'a> {
    fn set(&mut self, id: i16, value: Value<'a>) {
        self.0.push((id, value));
    }

    /// Sets an optional field, if there is any use for it.
    fn some_if(&mut self, is_used: bool, id: i16, value: Value<'a>) {
        if is_used {
            self.set(id, value.some());
        }
    }
}

/// The tables that say of which category each block is, and what more there is to be said of it.
struct Categories {
    names: Vec<Vec<u8>>,
    /// By block: the place of its category among the names.
    of_blocks: Vec<u32>,
    descriptions: Vec<Vec<u8>>,
    /// Blocks that have a description, and its place.
    described: Vec<(u32, u64)>,
}

impl Categories {
    /// Nothing, where all blocks are of the usual one.
    fn new(of_blocks: &[Category]) -> Option<Self> {
        if of_blocks.iter().all(|category| *category == Category::default()) {
            return None;
        }
        let mut used: Vec<Category> = of_blocks.to_vec();
        used.sort_unstable();
        used.dedup();
        let mut tables = Self {
            names: Vec::new(),
            of_blocks: Vec::new(),
            descriptions: Vec::new(),
            described: Vec::new(),
        };
        let known: HashMap<Category, (u32, Option<u64>)> = used
            .into_iter()
            .map(|category| {
                let name = place(&mut tables.names, category.name().as_bytes());
                let description = category.description();
                let description = description.map(|text| place(&mut tables.descriptions, text.as_bytes()));
                (category, (name, description.map(u64::from)))
            })
            .collect();
        for (block, (name, description)) in
            (0_u32..).zip(of_blocks.iter().filter_map(|category| known.get(category)))
        {
            tables.of_blocks.push(*name);
            tables.described.extend(description.map(|description| (block, description)));
        }
        Some(tables)
    }
}

/// The place of a string in a short list, into which it is put if it is not there.
fn place(list: &mut Vec<Vec<u8>>, string: &[u8]) -> u32 {
    let known = list.iter().position(|known| known == string).unwrap_or_else(|| {
        list.push(string.to_vec());
        list.len() - 1
    });
    u32::try_from(known).unwrap_or(u32::MAX)
}

fn option_values(packing: Packing, times: &TimeBase) -> Value<'static> {
    let mut fields = Fields::default();
    fields.set(option::MTIME_ONLY, Value::Bool(times.times == Times::Modified));
    fields.set(option::PACKED_CHUNK_TABLE, Value::Bool(packing.chunk_table));
    fields.set(option::PACKED_DIRECTORIES, Value::Bool(packing.directories));
    fields.set(option::PACKED_SHARED_FILES_TABLE, Value::Bool(packing.shared_files));
    if let Some(unit) = times.seconds_of_unit() {
        fields.set(option::TIME_RESOLUTION_SEC, Value::Int(unit).some());
    }
    let unit = Value::Int(times.fraction_unit());
    fields.some_if(times.has_fractions, option::SUBSECOND_RESOLUTION_NSEC_MULTIPLIER, unit);
    if times.has_births {
        fields.set(option::HAS_BTIME, Value::Bool(true));
    }
    // Always: it spares every reader counting the directory entries of every inode.
    fields.set(option::INODES_HAVE_NLINK, Value::Bool(true));
    Value::Struct(fields.0)
}

fn devices(tree: &Tree, inodes: &Inodes) -> Vec<u64> {
    let objects = inodes.objects.get(inodes.devices.clone()).unwrap_or_default();
    let contents = objects.iter().filter_map(|id| tree.object(*id)).map(|object| &object.content);
    contents
        .map(|content| match content {
            Content::CharDevice(device) | Content::BlockDevice(device) => device.to_raw(),
            _ => 0,
        })
        .collect()
}

/// Sizes of the whole tree.
#[derive(Debug, Default)]
struct Totals {
    /// All files, each once however many names it has, and symlinks.
    size: u64,
    /// The same without holes.
    allocated: u64,
    /// What further names of files would take.
    hard_links: u64,
}

impl Totals {
    fn new(tree: &Tree, inodes: &Inodes) -> Self {
        let mut totals = Self::default();
        for id in &inodes.objects {
            let (size, allocated) = match tree.object(*id).map(|object| &object.content) {
                Some(Content::File(file)) => (file.size, file.data_len()),
                Some(Content::Symlink(target)) => (target.len() as u64, target.len() as u64),
                _ => continue,
            };
            let more_links = inodes.links.get(id.index()).map_or(0, |links| links.saturating_sub(1));
            totals.size = totals.size.saturating_add(size);
            totals.allocated = totals.allocated.saturating_add(allocated);
            totals.hard_links = totals.hard_links.saturating_add(size.saturating_mul(u64::from(more_links)));
        }
        totals
    }
}

/// Replaces each number but the first by its distance from the one before.
fn differences<'a>(numbers: impl Iterator<Item = &'a mut u32>) {
    let mut last = 0;
    for number in numbers {
        let whole = std::mem::replace(&mut last, *number);
        *number -= whole;
    }
}

/// How often each number of an ascending row occurs, less the two times that it occurs at least.
fn repetitions(numbers: &[u32]) -> Vec<u32> {
    let runs = numbers.chunk_by(|a, b| a == b);
    runs.filter_map(|run| u32::try_from(run.len()).ok()?.checked_sub(2)).collect()
}
