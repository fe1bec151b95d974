//! The metadata's tables, resolved against their schema: which bits hold what.
//!
//! Nothing is unpacked here. Two generations differ in where entries and inodes are; here they look the same:
//!
//! ```text
//! from 2.3   dir_entries[e] -> name, inode number      inodes[inode number] -> attributes
//! until 2.2  inodes[e]      -> name, inode number      inodes[entry_table[inode number]] -> attributes
//! ```

use std::ops::Range;

use super::{
    categories::Categories,
    frozen::{Column, Frozen, View},
    map::Map,
    metadata::{self, chunk, dir_entry, directory, inode, options, root, size_cache},
    schema::Schema,
    strings::Strings,
};
use crate::{
    dwarfs::{Error, limits},
    sync::Arc,
};

/// The tables. Columns are read with the data that they were resolved against.
#[derive(Debug)]
pub struct Tables {
    /// Block of each chunk.
    pub chunk_block: Column,
    /// Offset of each chunk.
    pub chunk_offset: Column,
    /// Length of each chunk.
    pub chunk_size: Column,
    /// Parent of each directory: an entry, until 2.2 an inode number.
    pub dir_parent: Column,
    /// First entry of each directory.
    pub dir_first: Column,
    /// Entry of each directory itself.
    pub dir_self: Column,
    /// First chunk of each file.
    pub chunk_table: Column,
    /// Name of each entry.
    pub entry_name: Column,
    /// Inode number of each entry.
    pub entry_inode: Column,
    /// Index into the inodes for each inode number (until 2.2).
    pub entry_table: Option<Column>,
    /// The inodes.
    pub inode: InodeColumns,
    /// Target of each symlink.
    pub symlink_table: Column,
    /// Owners; empty where inodes hold them themselves.
    pub uids: Column,
    /// Groups; empty where inodes hold them themselves.
    pub gids: Column,
    /// Modes.
    pub modes: Column,
    /// Device numbers.
    pub devices: Option<Column>,
    /// Shared files.
    pub shared_files: Column,
    /// Names of entries.
    pub names: Strings,
    /// Targets of symlinks.
    pub targets: Strings,
    /// What times count from.
    pub timestamp_base: u64,
    /// Largest length of a block.
    pub block_size: u64,
    /// Size of all files.
    pub total_fs_size: u64,
    /// Size of all files without holes.
    pub total_allocated_fs_size: Option<u64>,
    /// Options.
    pub options: Options,
    /// Separator in targets of symlinks.
    pub separator: u8,
    /// Sizes of files with many chunks.
    pub size_cache: Option<SizeCache>,
    /// The block number that means a hole.
    pub hole_block: Option<u32>,
    /// Lengths of large holes.
    pub large_holes: Column,
    /// Size that hard links save.
    pub hardlink_size: u64,
    /// What the blocks hold, or why that cannot be known.
    pub categories: Result<Categories, Arc<Error>>,
    /// Version of the writer.
    pub writer: Range<usize>,
    /// When it was written.
    pub created: Option<u64>,
}

/// The columns of the inodes.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields are described where their numbers are")]
pub struct InodeColumns {
    pub mode_index: Column,
    pub owner_index: Column,
    pub group_index: Column,
    pub atime: TimeColumns,
    pub mtime: TimeColumns,
    pub ctime: TimeColumns,
    pub btime: TimeColumns,
    pub nlink_minus_one: Column,
}

/// The columns of a time.
#[derive(Clone, Copy, Debug)]
pub struct TimeColumns {
    /// From the time base.
    pub offset: Column,
    /// Fraction of a second.
    pub subsec: Column,
}

/// The options.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are the format's own flags")]
pub struct Options {
    /// All times are that of the last change of content.
    pub mtime_only: bool,
    /// Unit of times in seconds.
    pub time_resolution: u64,
    /// Unit of fractions in nanoseconds; 0 where there are none.
    pub subsec_nanos: u64,
    /// The chunk table holds differences.
    pub packed_chunk_table: bool,
    /// The directories hold differences.
    pub packed_directories: bool,
    /// The shared files are counts.
    pub packed_shared_files: bool,
    /// Creation times are valid.
    pub has_btime: bool,
    /// Link counts are valid.
    pub has_nlink: bool,
}

/// Sizes of files with many chunks, by index into the chunk table.
#[derive(Clone, Copy, Debug)]
pub struct SizeCache {
    /// Number of chunks from which on a file is in it.
    pub min_chunk_count: u64,
    sizes: Map,
    allocated: Map,
}

impl SizeCache {
    /// Size of the file with this index into the chunk table, where it is known.
    #[must_use]
    pub fn size(&self, data: &[u8], index: u32) -> Option<u64> {
        self.sizes.find(data, index)
    }

    /// Size without holes, where it differs from the size.
    #[must_use]
    pub fn allocated(&self, data: &[u8], index: u32) -> Option<u64> {
        self.allocated.find(data, index)
    }
}

impl Tables {
    /// Resolves the metadata and checks what can be checked without looking at each inode.
    ///
    /// # Errors
    ///
    /// What [`Frozen`] says of lists and fields, [`Error::UnknownFeature`], and [`Error::OutOfRange`] where one table
    /// is too long for another.
    pub fn resolve(schema: &Schema, data: &[u8]) -> Result<Self, Error> {
        let frozen = Frozen::new(schema, data);
        let top = frozen.root()?;
        let resolver = Resolver { frozen, data, top };
        resolver.check_features()?;
        let tables = resolver.tables()?;
        tables.check()?;
        Ok(tables)
    }

    /// Number of inodes.
    #[must_use]
    pub fn inode_count(&self) -> u32 {
        self.entry_table.map_or_else(|| self.inode.mode_index.len(), |table| table.len())
    }

    /// The row of the inode table that belongs to an inode number.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] where there is no such inode.
    pub fn inode_row(&self, data: &[u8], number: u32) -> Result<u32, Error> {
        self.entry_table.map_or(Ok(number), |table| table.at32(data, number, "inode number"))
    }

    /// Bounds the lengths of tables by each other. Items may have no bits at all, so that the size of the data does
    /// not bound how many a table claims to have.
    fn check(&self) -> Result<(), Error> {
        let inodes = self.inode_count();
        let rows = self.inode.mode_index.len();
        let entries = self.entry_name.len();
        at_least_one("there are no inodes", inodes)?;
        at_least_one("there are no directories", self.dir_first.len())?;
        at_least_one("there are no chunk table entries", self.chunk_table.len())?;
        at_least_one("there are no directory entries", entries)?;
        at_least_one("there are no modes", self.modes.len())?;
        if self.entry_name.is_free() {
            at_most("number of directory entries", entries, 1)?;
        }
        if self.chunk_size.is_free() {
            at_most("number of chunks", self.chunk_size.len(), 0)?;
        }
        at_most("number of inodes", inodes, entries)?;
        at_most("number of directories", self.dir_first.len(), inodes.saturating_add(1))?;
        at_most("number of files", self.chunk_table.len(), inodes.saturating_add(1))?;
        at_most("number of symlinks", self.symlink_table.len(), inodes)?;
        at_most("number of modes", self.modes.len(), rows)?;
        at_most("number of owners", self.uids.len(), rows)?;
        at_most("number of groups", self.gids.len(), rows)?;
        at_most("number of devices", self.devices.map_or(0, |table| table.len()), inodes)?;
        at_most("number of shared files", self.shared_files.len(), inodes)?;
        if self.names.is_free() {
            at_most("number of names", self.names.len(), entries)?;
        }
        if self.targets.is_free() {
            at_most("number of link targets", self.targets.len(), self.symlink_table.len())?;
        }
        if self.block_size == 0 || self.block_size > limits::MAX_BLOCK_LEN {
            let (found, limit) = (self.block_size, limits::MAX_BLOCK_LEN);
            return Err(Error::Limit { what: "block size", found, limit });
        }
        Ok(())
    }
}

fn at_least_one(what: &'static str, found: u32) -> Result<(), Error> {
    if found == 0 { Err(Error::Damaged { what, inode: 0 }) } else { Ok(()) }
}

fn at_most(what: &'static str, found: u32, most: u32) -> Result<(), Error> {
    if found > most {
        return Err(Error::OutOfRange { what, found: u64::from(found), bound: u64::from(most) + 1 });
    }
    Ok(())
}

/// Resolves fields of the root struct.
struct Resolver<'a> {
    frozen: Frozen<'a>,
    data: &'a [u8],
    top: View<'a>,
}

impl<'a> Resolver<'a> {
    fn tables(&self) -> Result<Tables, Error> {
        let chunks = self.field(root::CHUNKS)?;
        let directories = self.field(root::DIRECTORIES)?;
        let inodes = self.field(root::INODES)?;
        let dir_entries = self.set(root::DIR_ENTRIES)?;
        let (entries, name_id, inode_id) = match dir_entries {
            Some(_) => (dir_entries, dir_entry::NAME_INDEX, dir_entry::INODE_NUM),
            None => (inodes, inode::NAME_INDEX_V2_2, inode::INODE_V2_2),
        };
        let entry_table = match dir_entries {
            Some(_) => None,
            None => Some(self.frozen.ints(self.field(root::ENTRY_TABLE_V2_2)?, u32::BITS)?),
        };
        Ok(Tables {
            chunk_block: self.frozen.column(chunks, chunk::BLOCK, u32::BITS)?,
            chunk_offset: self.frozen.column(chunks, chunk::OFFSET, u32::BITS)?,
            chunk_size: self.frozen.column(chunks, chunk::SIZE, u32::BITS)?,
            dir_parent: self.frozen.column(directories, directory::PARENT_ENTRY, u32::BITS)?,
            dir_first: self.frozen.column(directories, directory::FIRST_ENTRY, u32::BITS)?,
            dir_self: self.frozen.column(directories, directory::SELF_ENTRY, u32::BITS)?,
            chunk_table: self.frozen.ints(self.field(root::CHUNK_TABLE)?, u32::BITS)?,
            entry_name: self.frozen.column(entries, name_id, u32::BITS)?,
            entry_inode: self.frozen.column(entries, inode_id, u32::BITS)?,
            entry_table,
            inode: self.inode_columns(inodes)?,
            symlink_table: self.frozen.ints(self.field(root::SYMLINK_TABLE)?, u32::BITS)?,
            uids: self.frozen.ints(self.field(root::UIDS)?, u32::BITS)?,
            gids: self.frozen.ints(self.field(root::GIDS)?, u32::BITS)?,
            modes: self.frozen.ints(self.field(root::MODES)?, u32::BITS)?,
            devices: match self.set(root::DEVICES)? {
                Some(view) => Some(self.frozen.ints(Some(view), u64::BITS)?),
                None => None,
            },
            shared_files: self.frozen.ints(self.set(root::SHARED_FILES_TABLE)?, u32::BITS)?,
            names: self.strings(root::NAMES, root::COMPACT_NAMES)?,
            targets: self.strings(root::SYMLINKS, root::COMPACT_SYMLINKS)?,
            timestamp_base: self.frozen.int(self.field(root::TIMESTAMP_BASE)?)?,
            block_size: self.frozen.int(self.field(root::BLOCK_SIZE)?)?,
            total_fs_size: self.frozen.int(self.field(root::TOTAL_FS_SIZE)?)?,
            total_allocated_fs_size: self.optional_int(root::TOTAL_ALLOCATED_FS_SIZE)?,
            options: self.options()?,
            separator: self
                .optional_int(root::PREFERRED_PATH_SEPARATOR)?
                .and_then(|separator| u8::try_from(separator).ok())
                .unwrap_or(b'/'),
            size_cache: self.size_cache()?,
            hole_block: self
                .optional_int(root::HOLE_BLOCK_INDEX)?
                .and_then(|block| u32::try_from(block).ok()),
            large_holes: self.frozen.ints(self.set(root::LARGE_HOLE_SIZE)?, u64::BITS)?,
            hardlink_size: self.optional_int(root::TOTAL_HARDLINK_SIZE)?.unwrap_or(0),
            categories: Categories::resolve(&self.frozen, self.top).map_err(Arc::new),
            writer: self.frozen.string(self.set(root::DWARFS_VERSION)?)?,
            created: self.optional_int(root::CREATE_TIMESTAMP)?,
        })
    }

    /// Refuses archives with features that are not known, by name.
    fn check_features(&self) -> Result<(), Error> {
        let features = self.frozen.strings(self.set(root::FEATURES)?)?;
        if u64::from(features.len()) > limits::MAX_FEATURES {
            let found = u64::from(features.len());
            return Err(Error::Limit { what: "number of features", found, limit: limits::MAX_FEATURES });
        }
        for number in 0..features.len() {
            let name = features.get(self.data, number).unwrap_or_default();
            if name != metadata::FEATURE_SPARSE_FILES.as_bytes() {
                let shown = name.get(..limits::MAX_NAME_LEN).unwrap_or(name);
                return Err(Error::UnknownFeature { name: String::from_utf8_lossy(shown).into_owned() });
            }
        }
        Ok(())
    }

    fn inode_columns(&self, inodes: Option<View<'a>>) -> Result<InodeColumns, Error> {
        let narrow = |id| self.frozen.column(inodes, id, u32::BITS);
        let wide = |id| self.frozen.column(inodes, id, u64::BITS);
        let time =
            |offset, subsec| Ok::<_, Error>(TimeColumns { offset: wide(offset)?, subsec: wide(subsec)? });
        Ok(InodeColumns {
            mode_index: narrow(inode::MODE_INDEX)?,
            owner_index: narrow(inode::OWNER_INDEX)?,
            group_index: narrow(inode::GROUP_INDEX)?,
            atime: time(inode::ATIME_OFFSET, inode::ATIME_SUBSEC)?,
            mtime: time(inode::MTIME_OFFSET, inode::MTIME_SUBSEC)?,
            ctime: time(inode::CTIME_OFFSET, inode::CTIME_SUBSEC)?,
            btime: time(inode::BTIME_OFFSET, inode::BTIME_SUBSEC)?,
            nlink_minus_one: narrow(inode::NLINK_MINUS_ONE)?,
        })
    }

    fn options(&self) -> Result<Options, Error> {
        let view = self.set(root::OPTIONS)?;
        let flag = |id| Ok::<_, Error>(self.frozen.int(self.frozen.field(view, id)?)? != 0);
        let number = |id| match self.frozen.optional(self.frozen.field(view, id)?)? {
            Some(value) => self.frozen.int(Some(value)).map(Some),
            None => Ok(None),
        };
        Ok(Options {
            mtime_only: flag(options::MTIME_ONLY)?,
            time_resolution: number(options::TIME_RESOLUTION_SEC)?.unwrap_or(1),
            subsec_nanos: number(options::SUBSECOND_RESOLUTION_NSEC_MULTIPLIER)?.unwrap_or(0),
            packed_chunk_table: flag(options::PACKED_CHUNK_TABLE)?,
            packed_directories: flag(options::PACKED_DIRECTORIES)?,
            packed_shared_files: flag(options::PACKED_SHARED_FILES_TABLE)?,
            has_btime: flag(options::HAS_BTIME)?,
            has_nlink: flag(options::INODES_HAVE_NLINK)?,
        })
    }

    fn size_cache(&self) -> Result<Option<SizeCache>, Error> {
        let view = self.set(root::REG_FILE_SIZE_CACHE)?;
        if view.is_none() {
            return Ok(None);
        }
        let map = |id| Map::resolve(&self.frozen, self.frozen.field(view, id)?, u64::BITS);
        Ok(Some(SizeCache {
            min_chunk_count: self.frozen.int(self.frozen.field(view, size_cache::MIN_CHUNK_COUNT)?)?,
            sizes: map(size_cache::SIZE_LOOKUP)?,
            allocated: map(size_cache::ALLOCATED_SIZE_LOOKUP)?,
        }))
    }

    fn strings(&self, plain: i16, compact: i16) -> Result<Strings, Error> {
        Strings::resolve(&self.frozen, self.data, self.field(plain)?, self.set(compact)?)
    }

    fn field(&self, id: i16) -> Result<Option<View<'a>>, Error> {
        self.frozen.field(Some(self.top), id)
    }

    /// The value of an optional field.
    fn set(&self, id: i16) -> Result<Option<View<'a>>, Error> {
        self.frozen.optional(self.field(id)?)
    }

    fn optional_int(&self, id: i16) -> Result<Option<u64>, Error> {
        match self.set(id)? {
            Some(view) => self.frozen.int(Some(view)).map(Some),
            None => Ok(None),
        }
    }
}
