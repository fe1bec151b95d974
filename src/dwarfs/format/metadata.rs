//! The numbers of the metadata's fields, by struct.
//!
//! They are the field numbers of upstream's thrift definition and the only thing that a schema names: types and
//! meaning stand here.

/// Fields of the root struct.
pub mod root {
    /// `list<chunk>`: pieces of blocks, file after file.
    pub const CHUNKS: i16 = 1;
    /// `list<directory>`, one more than there are directories.
    pub const DIRECTORIES: i16 = 2;
    /// `list<inode>`.
    pub const INODES: i16 = 3;
    /// `list<u32>`: first chunk of each file, one more than there are files.
    pub const CHUNK_TABLE: i16 = 4;
    /// `list<u32>`: from inode number to index into the inodes (formats up to 2.2).
    pub const ENTRY_TABLE_V2_2: i16 = 5;
    /// `list<u32>`: target of each symlink.
    pub const SYMLINK_TABLE: i16 = 6;
    /// `list<u32>`: owners.
    pub const UIDS: i16 = 7;
    /// `list<u32>`: groups.
    pub const GIDS: i16 = 8;
    /// `list<u32>`: modes.
    pub const MODES: i16 = 9;
    /// `list<string>`: names, unless they are compact.
    pub const NAMES: i16 = 10;
    /// `list<string>`: symlink targets, unless they are compact.
    pub const SYMLINKS: i16 = 11;
    /// `u64`: what all times count from, in units of the time resolution.
    pub const TIMESTAMP_BASE: i16 = 12;
    /// `u32`: largest uncompressed length of a block.
    pub const BLOCK_SIZE: i16 = 15;
    /// `u64`: size of all files together, hard links counted once.
    pub const TOTAL_FS_SIZE: i16 = 16;
    /// `optional<list<u64>>`: device numbers as `st_rdev` has them.
    pub const DEVICES: i16 = 17;
    /// `optional<options>`.
    pub const OPTIONS: i16 = 18;
    /// `optional<list<dir_entry>>` (format 2.3).
    pub const DIR_ENTRIES: i16 = 19;
    /// `optional<list<u32>>`: which chunk list a shared file uses.
    pub const SHARED_FILES_TABLE: i16 = 20;
    /// `optional<u64>`: size that hard links save.
    pub const TOTAL_HARDLINK_SIZE: i16 = 21;
    /// `optional<string>`: version of the writer.
    pub const DWARFS_VERSION: i16 = 22;
    /// `optional<u64>`: when it was written, in seconds since the epoch.
    pub const CREATE_TIMESTAMP: i16 = 23;
    /// `optional<string_table>`: names.
    pub const COMPACT_NAMES: i16 = 24;
    /// `optional<string_table>`: symlink targets.
    pub const COMPACT_SYMLINKS: i16 = 25;
    /// `optional<u32>`: separator of the creating host.
    pub const PREFERRED_PATH_SEPARATOR: i16 = 26;
    /// `optional<set<string>>`: features without which the archive cannot be read.
    pub const FEATURES: i16 = 27;
    /// `optional<list<string>>`.
    pub const CATEGORY_NAMES: i16 = 28;
    /// `optional<list<u32>>`.
    pub const BLOCK_CATEGORIES: i16 = 29;
    /// `optional<size_cache>`: sizes of files with many chunks.
    pub const REG_FILE_SIZE_CACHE: i16 = 30;
    /// `optional<list<string>>`.
    pub const CATEGORY_METADATA_JSON: i16 = 31;
    /// `optional<map<u32, u32>>`.
    pub const BLOCK_CATEGORY_METADATA: i16 = 32;
    /// `optional<list<history_entry>>`.
    pub const METADATA_VERSION_HISTORY: i16 = 33;
    /// `optional<u32>`: the block number that means a hole.
    pub const HOLE_BLOCK_INDEX: i16 = 34;
    /// `optional<list<u64>>`: sizes of holes that a chunk cannot express.
    pub const LARGE_HOLE_SIZE: i16 = 35;
    /// `optional<u64>`: size of all files without holes.
    pub const TOTAL_ALLOCATED_FS_SIZE: i16 = 36;
}

/// Fields of a chunk.
pub mod chunk {
    /// Number of the block, or the number that means a hole.
    pub const BLOCK: i16 = 1;
    /// Offset in the block.
    pub const OFFSET: i16 = 2;
    /// Length.
    pub const SIZE: i16 = 3;
    /// The offset of a hole whose length is in the table of large ones.
    pub const OFFSET_OF_LARGE_HOLE: u32 = u32::MAX;
}

/// Fields of a directory.
pub mod directory {
    /// Entry of the parent (up to format 2.2: inode number of the parent).
    pub const PARENT_ENTRY: i16 = 1;
    /// First of its entries; they end where those of the next directory begin.
    pub const FIRST_ENTRY: i16 = 2;
    /// Entry of the directory itself.
    pub const SELF_ENTRY: i16 = 3;
}

/// Fields of an inode.
pub mod inode {
    /// Index into the names (up to format 2.2).
    pub const NAME_INDEX_V2_2: i16 = 1;
    /// Index into the modes.
    pub const MODE_INDEX: i16 = 2;
    /// Inode number (up to format 2.2).
    pub const INODE_V2_2: i16 = 3;
    /// Index into the owners.
    pub const OWNER_INDEX: i16 = 4;
    /// Index into the groups.
    pub const GROUP_INDEX: i16 = 5;
    /// Last access, from the time base.
    pub const ATIME_OFFSET: i16 = 6;
    /// Last change of content, from the time base.
    pub const MTIME_OFFSET: i16 = 7;
    /// Last change of attributes, from the time base.
    pub const CTIME_OFFSET: i16 = 8;
    /// Creation, from the time base.
    pub const BTIME_OFFSET: i16 = 9;
    /// Fraction of a second of the last access.
    pub const ATIME_SUBSEC: i16 = 10;
    /// Fraction of a second of the last change of content.
    pub const MTIME_SUBSEC: i16 = 11;
    /// Fraction of a second of the last change of attributes.
    pub const CTIME_SUBSEC: i16 = 12;
    /// Fraction of a second of the creation.
    pub const BTIME_SUBSEC: i16 = 13;
    /// Hard links less one; valid where the options say so.
    pub const NLINK_MINUS_ONE: i16 = 14;
}

/// Fields of a directory entry.
pub mod dir_entry {
    /// Index into the names; without meaning for entry 0, the root.
    pub const NAME_INDEX: i16 = 1;
    /// Inode number.
    pub const INODE_NUM: i16 = 2;
}

/// Fields of the options.
pub mod options {
    /// `bool`: all times are that of the last change of content.
    pub const MTIME_ONLY: i16 = 1;
    /// `optional<u32>`: unit of times in seconds.
    pub const TIME_RESOLUTION_SEC: i16 = 2;
    /// `bool`: the chunk table holds differences.
    pub const PACKED_CHUNK_TABLE: i16 = 3;
    /// `bool`: the directories hold differences of first entries, and nothing else.
    pub const PACKED_DIRECTORIES: i16 = 4;
    /// `bool`: the table of shared files holds counts of repetitions, less two.
    pub const PACKED_SHARED_FILES_TABLE: i16 = 5;
    /// `optional<u32>`: unit of fractions of a second in nanoseconds.
    pub const SUBSECOND_RESOLUTION_NSEC_MULTIPLIER: i16 = 6;
    /// `bool`: creation times are valid.
    pub const HAS_BTIME: i16 = 7;
    /// `bool`: link counts are valid.
    pub const INODES_HAVE_NLINK: i16 = 8;
}

/// Fields of a compact string table.
pub mod string_table {
    /// `string`: all strings, one after the other.
    pub const BUFFER: i16 = 1;
    /// `optional<string>`: symbol table by which the strings are compressed.
    pub const SYMTAB: i16 = 2;
    /// `list<u32>`: where each string begins.
    pub const INDEX: i16 = 3;
    /// `bool`: the index holds lengths.
    pub const PACKED_INDEX: i16 = 4;
}

/// Fields of the cache of file sizes.
pub mod size_cache {
    /// `map<u32, u64>`: from index into the chunk table to size.
    pub const SIZE_LOOKUP: i16 = 1;
    /// `u64`: number of chunks from which on a file is in the cache.
    pub const MIN_CHUNK_COUNT: i16 = 2;
    /// `map<u32, u64>`: from index into the chunk table to size without holes, where that differs.
    pub const ALLOCATED_SIZE_LOOKUP: i16 = 3;
}

/// Fields of an entry of the metadata's version history.
pub mod history_entry {
    /// Major version.
    pub const MAJOR: i16 = 1;
    /// Minor version.
    pub const MINOR: i16 = 2;
    /// `optional<string>`: version of the writer.
    pub const DWARFS_VERSION: i16 = 3;
    /// Block size.
    pub const BLOCK_SIZE: i16 = 4;
    /// `optional<options>`.
    pub const OPTIONS: i16 = 5;
}

/// Fields of lists, sets, maps and strings.
pub mod list {
    /// Where the data begins, from the start of the struct that holds the list.
    pub const DISTANCE: i16 = 1;
    /// How many items.
    pub const COUNT: i16 = 2;
    /// The layout of an item.
    pub const ITEM: i16 = 3;
}

/// Fields of an optional value.
pub mod optional {
    /// Whether there is one.
    pub const IS_SET: i16 = 1;
    /// The value.
    pub const VALUE: i16 = 2;
}

/// Fields of a map's item.
pub mod pair {
    /// The key.
    pub const FIRST: i16 = 1;
    /// The value.
    pub const SECOND: i16 = 2;
}

/// The feature that archives with holes name.
pub const FEATURE_SPARSE_FILES: &str = "sparsefiles";

/// Number of chunks from which on a file is in the size cache, unless the cache says otherwise.
pub const DEFAULT_MIN_CHUNK_COUNT: u64 = 128;
