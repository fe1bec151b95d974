//! The tree of an archive, out of its metadata in place: names, directories, attributes, chunk lists.
//!
//! Inodes are numbered by class, so that a number tells what it names and where its table begins:
//!
//! ```text
//! 0            directories     symlinks          files              devices           inodes
//! | directories | symlinks      | unique | shared | devices          | fifos, sockets |
//!   directories[i]  symlink_table[i - directories]    devices[i - files]
//!                                   chunk_table[k] .. chunk_table[k + 1], k = i - symlinks, or for a shared
//!                                   file k = unique + shared_files[i - symlinks - unique]
//! ```
//!
//! Opening looks at no inode except for a few binary searches. What cannot be known without looking at all of them
//! (that directories form a tree, that references are in range) is checked where it is used: a directory is only
//! entered through the one entry that its own record names, hence nobody can be led in a circle; and the entries of
//! two directories never overlap, hence a walk is no longer than the table of entries.

use std::{
    cmp::Ordering,
    ops::{ControlFlow, Range},
};

use super::{
    chunks::{self, Chunks, Piece, Size, piece},
    classes::{Ends, mode_of},
    links::{Links, prefix_sums, repeat_counts},
    stat::{Class, Kind, Stat, Timestamp},
};
use crate::{
    dwarfs::{
        Error,
        format::{
            frozen::Column,
            fsst::Text,
            schema::Schema,
            tables::{Tables, TimeColumns},
        },
        limits,
    },
    sync::OnceLock,
};

/// An object of an archive: the row of the inode table that describes it.
///
/// From format 2.3 on that is its inode number. Until 2.2 each name had a row of its own, with its own times, and
/// files of equal content had the same inode number: there a row is the better identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inode(u32);

impl Inode {
    /// Takes a number as an inode's; whether there is such an inode shows where it is used.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Its name, as the archive has it: not checked.
    pub name: &'a [u8],
    /// What it names; `None` where the archive contradicts itself about that.
    pub inode: Option<Inode>,
    /// Its place in the directory, from 0.
    pub position: u32,
}

/// What `st_size` of a directory is: nothing in the archive corresponds to it, and programs expect one block.
const DIRECTORY_SIZE: u64 = 4_096;

const NANOS_IN_SECOND: u64 = 1_000_000_000;

/// The metadata of an archive.
#[derive(Debug)]
pub(super) struct Tree {
    data: Vec<u8>,
    tables: Tables,
    root: Inode,
    /// The ends of the classes, by inode number.
    ends: Ends,
    /// Files whose chunk list is their own.
    unique_files: u32,
    chunks: Chunks,
    /// Unpacked or rebuilt on first use; `None` inside: they are damaged.
    links: OnceLock<Option<Links>>,
    chunk_table: OnceLock<Option<Vec<u32>>>,
    shared_files: OnceLock<Option<Vec<u32>>>,
    link_counts: OnceLock<Vec<u32>>,
    /// Whether the ranges of directories, and of chunk lists, follow each other; looked at on first use.
    directories_ascend: OnceLock<bool>,
    chunk_lists_ascend: OnceLock<bool>,
}

impl Tree {
    /// Resolves and checks the metadata.
    pub(super) fn new(schema: &Schema, data: Vec<u8>) -> Result<Self, Error> {
        let tables = Tables::resolve(schema, &data)?;
        let ends = Ends::find(&tables, &data)?;
        let unique_files = ends.check(&tables)?;
        let root = Inode(tables.inode_row(&data, 0)?);
        Ok(Self {
            data,
            tables,
            root,
            ends,
            unique_files,
            chunks: Chunks::default(),
            links: OnceLock::new(),
            chunk_table: OnceLock::new(),
            shared_files: OnceLock::new(),
            link_counts: OnceLock::new(),
            directories_ascend: OnceLock::new(),
            chunk_lists_ascend: OnceLock::new(),
        })
    }

    /// The tables, for figures.
    pub(super) const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The metadata as it is stored.
    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }

    /// Number of inodes.
    pub(super) const fn inode_count(&self) -> u32 {
        self.ends.inodes
    }

    /// Number of directories.
    pub(super) const fn directory_count(&self) -> u32 {
        self.ends.directories
    }

    /// All regular files, each once however many names it has. `None` in formats that cannot tell.
    pub(super) fn files(&self) -> Option<impl Iterator<Item = Inode>> {
        self.tables.entry_table.is_none().then(|| (self.ends.symlinks..self.ends.files).map(Inode))
    }

    /// The root directory.
    pub(super) const fn root(&self) -> Inode {
        self.root
    }

    /// Finds `name` in a directory.
    pub(super) fn lookup(&self, directory: Inode, name: &[u8]) -> Result<Option<Inode>, Error> {
        let Range { start: mut low, end: mut high } = self.entries(directory)?;
        while low < high {
            let middle = low.midpoint(high);
            let name_index = self.tables.entry_name.at32(&self.data, middle, "directory entry")?;
            match self.tables.names.compare(&self.data, name_index, name)? {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return self.target(directory, middle).map(Some),
                Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    /// Visits the entries of a directory from place `from` on, until `visit` breaks. An entry whose name cannot be
    /// read is passed over: the others are still of use.
    pub(super) fn read_dir(
        &self,
        directory: Inode,
        from: u32,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let range = self.entries(directory)?;
        let mut name = Text::new();
        for entry in range.start.saturating_add(from)..range.end {
            let name_index = self.tables.entry_name.at32(&self.data, entry, "directory entry")?;
            if self.tables.names.read(&self.data, name_index, limits::MAX_NAME_LEN, &mut name).is_err() {
                continue;
            }
            let inode = self.target(directory, entry).ok();
            let position = entry - range.start;
            if visit(DirEntry { name: &name, inode, position }).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The target of a symlink.
    pub(super) fn read_link(&self, inode: Inode) -> Result<Vec<u8>, Error> {
        let number = self.target_number(inode)?;
        let mut target = Text::new();
        self.tables.targets.read(&self.data, number, limits::MAX_TARGET_LEN, &mut target)?;
        let separator = self.tables.separator;
        if separator != b'/' {
            target.iter_mut().filter(|byte| **byte == separator).for_each(|byte| *byte = b'/');
        }
        Ok(target.into_vec())
    }

    /// The inode number of an object.
    pub(super) fn number(&self, inode: Inode) -> Result<u32, Error> {
        match self.tables.entry_table {
            Some(_) => self.tables.entry_inode.at32(&self.data, inode.0, "inode"),
            None => Ok(inode.0),
        }
    }

    /// The inode number of an object of this class, or an error that says that it is of another.
    fn number_of(&self, inode: Inode, class: Class, other: Error) -> Result<u32, Error> {
        let number = self.number(inode)?;
        if self.ends.class(number)? == class { Ok(number) } else { Err(other) }
    }

    /// What an inode is.
    pub(super) fn kind(&self, inode: Inode) -> Result<Kind, Error> {
        let class = self.ends.class(self.number(inode)?)?;
        Kind::from_mode(self.mode(inode.0)?)
            .filter(|kind| kind.class() == class)
            .ok_or(Error::Damaged { what: "the mode does not fit the inode's number", inode: inode.0 })
    }

    /// All attributes.
    pub(super) fn stat(&self, inode: Inode) -> Result<Stat, Error> {
        let kind = self.kind(inode)?;
        let row = inode.0;
        let size = self.size(inode, kind)?;
        let columns = &self.tables.inode;
        let mtime = self.time(row, &columns.mtime)?;
        let other = |column| if self.tables.options.mtime_only { Ok(mtime) } else { self.time(row, column) };
        Ok(Stat {
            kind,
            perm: u16::try_from(self.mode(row)? & 0o7777).unwrap_or_default(),
            nlink: if kind == Kind::Regular { self.link_count(inode, row)? } else { 1 },
            uid: self.owner(
                columns.owner_index.at32(&self.data, row, "inode")?,
                &self.tables.uids,
                "owner",
            )?,
            gid: self.owner(
                columns.group_index.at32(&self.data, row, "inode")?,
                &self.tables.gids,
                "group",
            )?,
            rdev: self.device(inode, kind)?,
            size: size.total,
            allocated: size.allocated,
            atime: other(&columns.atime)?,
            mtime,
            ctime: other(&columns.ctime)?,
            btime: match self.tables.options.has_btime {
                true => Some(self.time(row, &columns.btime)?),
                false => None,
            },
        })
    }

    /// Length of a regular file.
    pub(super) fn file_size(&self, inode: Inode) -> Result<Size, Error> {
        let index = self.chunk_index(inode)?;
        let chunks = self.chunks_at(index)?;
        if let Some(cache) = &self.tables.size_cache
            && u64::from(chunks.end - chunks.start) >= cache.min_chunk_count
            && let Some(total) = cache.size(&self.data, index)
        {
            let allocated = cache.allocated(&self.data, index).unwrap_or(total);
            return Ok(Size { total, allocated });
        }
        // Short lists are summed up each time. Long ones could make that a product of two tables, if they overlapped.
        let column = &self.tables.chunk_table;
        if chunks.len() >= chunks::LONG_LIST
            && !self.tables.options.packed_chunk_table
            && !*self.chunk_lists_ascend.get_or_init(|| ascends(column, &self.data))
        {
            let what = "the chunk lists do not stand in order";
            return Err(Error::Damaged { what, inode: inode.0 });
        }
        self.chunks.size(&self.tables, &self.data, &chunks)
    }

    /// Visits the pieces of a file from the one at `offset` on, with their offsets, until `visit` breaks.
    pub(super) fn pieces(
        &self,
        inode: Inode,
        offset: u64,
        visit: &mut dyn FnMut(u64, Piece) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let chunks = self.chunks_at(self.chunk_index(inode)?)?;
        let (first, mut start) = self.chunks.seek(&self.tables, &self.data, &chunks, offset)?;
        for number in first..chunks.end {
            let piece = piece(&self.tables, &self.data, number)?;
            let end = start.checked_add(piece.len()).ok_or(Error::Limit {
                what: "file size",
                found: u64::MAX,
                limit: i64::MAX.cast_unsigned(),
            })?;
            if end > offset && visit(start, piece)?.is_break() {
                break;
            }
            start = end;
        }
        Ok(())
    }

    /// The entries of a directory.
    pub(super) fn entries(&self, directory: Inode) -> Result<Range<u32>, Error> {
        let other = Error::NotADirectory { inode: directory.0 };
        self.entries_of(self.number_of(directory, Class::Directory, other)?, directory)
    }

    /// The entries of the directory with this inode number.
    pub(super) fn entries_of(&self, number: u32, directory: Inode) -> Result<Range<u32>, Error> {
        let range = self.first_entry(number)?..self.first_entry(number + 1)?;
        if range.start > range.end || range.end > self.tables.entry_inode.len() {
            let what = "the entries of a directory are not a range of all entries";
            return Err(Error::Damaged { what, inode: directory.0 });
        }
        Ok(range)
    }

    /// The name of an entry.
    pub(super) fn name_of_entry(&self, entry: u32) -> Result<Text, Error> {
        let name_index = self.tables.entry_name.at32(&self.data, entry, "directory entry")?;
        let mut name = Text::new();
        self.tables.names.read(&self.data, name_index, limits::MAX_NAME_LEN, &mut name)?;
        Ok(name)
    }

    /// Whether an object is a directory.
    pub(super) fn is_directory(&self, inode: Inode) -> bool {
        self.number(inode).is_ok_and(|number| number < self.ends.directories)
    }

    /// The first entry that names an object.
    pub(super) fn first_entry_of(&self, inode: Inode) -> Result<u32, Error> {
        if self.tables.entry_table.is_some() {
            return Ok(inode.0);
        }
        let column = &self.tables.entry_inode;
        let names = |entry: &u32| column.get(&self.data, *entry) == Some(u64::from(inode.0));
        let none = Error::Damaged { what: "no directory has an entry of the inode", inode: inode.0 };
        (0..column.len()).find(names).ok_or(none)
    }

    /// The number of the directory that holds an entry: the last one whose entries do not begin behind it.
    pub(super) fn holder_of(&self, entry: u32) -> Result<u32, Error> {
        let (mut low, mut high) = (0, self.ends.directories);
        while low < high {
            let middle = low.midpoint(high);
            if self.first_entry(middle)? <= entry { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1).ok_or(Error::Damaged { what: "no directory holds an entry", inode: 0 })
    }

    /// Where the entries of the directory with this inode number begin; of the number behind the last: where all end.
    ///
    /// Directories whose ranges overlap would make a walk as long as the product of both tables: they are refused.
    fn first_entry(&self, directory: u32) -> Result<u32, Error> {
        if self.tables.options.packed_directories {
            return at(&self.links()?.first, directory, "directory");
        }
        let column = &self.tables.dir_first;
        if !*self.directories_ascend.get_or_init(|| ascends(column, &self.data)) {
            return Err(Error::Damaged { what: "the directories do not stand in order", inode: 0 });
        }
        column.at32(&self.data, directory, "directory")
    }

    /// What an entry of a directory names. A directory that is named by any entry but its own is refused: following
    /// it could lead in a circle.
    pub(super) fn target(&self, directory: Inode, entry: u32) -> Result<Inode, Error> {
        let number = self.tables.entry_inode.at32(&self.data, entry, "directory entry")?;
        if self.ends.class(number)? == Class::Directory
            && (number == 0
                || self.own_entry(number)? != entry
                || self.parent(number)? != self.number(directory)?)
        {
            let what = "a directory is named by an entry that is not its own";
            return Err(Error::Damaged { what, inode: number });
        }
        Ok(Inode(if self.tables.entry_table.is_some() { entry } else { number }))
    }

    /// The entry that names the directory with this inode number.
    pub(super) fn own_entry(&self, directory: u32) -> Result<u32, Error> {
        match self.rebuilds_links() {
            true => at(&self.links()?.own, directory, "directory"),
            false => self.tables.dir_self.at32(&self.data, directory, "directory"),
        }
    }

    /// The inode number of the directory that a directory is in.
    pub(super) fn parent(&self, directory: u32) -> Result<u32, Error> {
        if self.rebuilds_links() {
            return at(&self.links()?.parent, directory, "directory");
        }
        let entry = self.tables.dir_parent.at32(&self.data, directory, "directory")?;
        self.tables.entry_inode.at32(&self.data, entry, "parent entry")
    }

    /// Whether parents and own entries have to be found out: they are packed, or older than their fields.
    fn rebuilds_links(&self) -> bool {
        self.tables.options.packed_directories
            || self.tables.entry_table.is_some()
            || !self.tables.dir_self.is_stored()
    }

    fn links(&self) -> Result<&Links, Error> {
        let build = || Links::build(&self.tables, &self.data, self.ends.directories);
        let damaged = Error::Damaged { what: "the directories do not stand in order", inode: 0 };
        self.links.get_or_init(build).as_ref().ok_or(damaged)
    }

    /// The index into the chunk table of a regular file.
    pub(super) fn chunk_index(&self, inode: Inode) -> Result<u32, Error> {
        let number = self.number_of(inode, Class::Regular, Error::NotAFile { inode: inode.0 })?;
        let file = number - self.ends.symlinks;
        let Some(shared) = file.checked_sub(self.unique_files) else { return Ok(file) };
        let list = match self.tables.options.packed_shared_files {
            true => at(self.unpacked_shared_files()?, shared, "shared file")?,
            false => self.tables.shared_files.at32(&self.data, shared, "shared file")?,
        };
        self.unique_files.checked_add(list).ok_or(Error::OutOfRange {
            what: "chunk list",
            found: u64::from(list),
            bound: u64::from(self.tables.chunk_table.len()),
        })
    }

    pub(super) fn chunks_at(&self, index: u32) -> Result<Range<u32>, Error> {
        let first = |number: u32| match self.tables.options.packed_chunk_table {
            true => at(self.unpacked_chunk_table()?, number, "chunk list"),
            false => self.tables.chunk_table.at32(&self.data, number, "chunk list"),
        };
        let range = first(index)?..first(index.saturating_add(1))?;
        if range.start > range.end || range.end > self.tables.chunk_size.len() {
            return Err(Error::OutOfRange {
                what: "chunk",
                found: u64::from(range.end),
                bound: u64::from(self.tables.chunk_size.len()) + 1,
            });
        }
        Ok(range)
    }

    fn unpacked_chunk_table(&self) -> Result<&[u32], Error> {
        let table = &self.tables.chunk_table;
        let unpack = || prefix_sums(table.len(), |number| table.get(&self.data, number));
        let damaged = Error::Damaged { what: "the packed chunk table overflows", inode: 0 };
        self.chunk_table.get_or_init(unpack).as_deref().ok_or(damaged)
    }

    fn unpacked_shared_files(&self) -> Result<&[u32], Error> {
        let table = &self.tables.shared_files;
        let files = self.ends.files - self.ends.symlinks;
        let unpack = || repeat_counts(table.len(), files, |number| table.get(&self.data, number));
        let damaged = Error::Damaged { what: "there are more shared files than files", inode: 0 };
        self.shared_files.get_or_init(unpack).as_deref().ok_or(damaged)
    }

    fn size(&self, inode: Inode, kind: Kind) -> Result<Size, Error> {
        match kind {
            Kind::Regular => self.file_size(inode),
            Kind::Directory => Ok(Size { total: DIRECTORY_SIZE, allocated: DIRECTORY_SIZE }),
            Kind::Symlink => {
                let number = self.target_number(inode)?;
                let len = self.tables.targets.len_of(&self.data, number, limits::MAX_TARGET_LEN)?;
                Ok(Size { total: len as u64, allocated: 0 })
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo | Kind::Socket => Ok(Size::default()),
        }
    }

    fn target_number(&self, inode: Inode) -> Result<u32, Error> {
        let number = self.number_of(inode, Class::Symlink, Error::NotASymlink { inode: inode.0 })?;
        self.tables.symlink_table.at32(&self.data, number - self.ends.directories, "symlink")
    }

    fn mode(&self, row: u32) -> Result<u32, Error> {
        mode_of(&self.tables, &self.data, row)
    }

    /// An owner or group: by table, or in archives of upstream until 0.7 the id itself.
    fn owner(&self, index: u32, table: &Column, what: &'static str) -> Result<u32, Error> {
        if table.is_empty() { Ok(index) } else { table.at32(&self.data, index, what) }
    }

    fn device(&self, inode: Inode, kind: Kind) -> Result<u64, Error> {
        match (kind, &self.tables.devices) {
            (Kind::CharDevice | Kind::BlockDevice, Some(devices)) => {
                devices.at(&self.data, self.number(inode)? - self.ends.files, "device")
            }
            _ => Ok(0),
        }
    }

    fn link_count(&self, inode: Inode, row: u32) -> Result<u32, Error> {
        if self.tables.options.has_nlink {
            let less_one = self.tables.inode.nlink_minus_one.at32(&self.data, row, "inode")?;
            return Ok(less_one.saturating_add(1));
        }
        let counts = self.link_counts.get_or_init(|| self.count_links());
        let file = usize::try_from(self.number(inode)? - self.ends.symlinks).unwrap_or(usize::MAX);
        Ok(counts.get(file).copied().unwrap_or_default().max(1))
    }

    /// Counts the entries of each file, for archives that do not say.
    fn count_links(&self) -> Vec<u32> {
        let files = self.ends.files - self.ends.symlinks;
        let mut counts = vec![0_u32; usize::try_from(files).unwrap_or_default()];
        for entry in 0..self.tables.entry_inode.len() {
            let inode = self.tables.entry_inode.get(&self.data, entry).unwrap_or_default();
            let file = inode.checked_sub(u64::from(self.ends.symlinks));
            let count = file.and_then(|file| counts.get_mut(usize::try_from(file).ok()?));
            if let Some(count) = count {
                *count = count.saturating_add(1);
            }
        }
        counts
    }

    fn time(&self, row: u32, columns: &TimeColumns) -> Result<Timestamp, Error> {
        let offset = columns.offset.at(&self.data, row, "inode")?;
        let options = &self.tables.options;
        let units = self.tables.timestamp_base.wrapping_add(offset);
        let seconds = units.wrapping_mul(options.time_resolution).cast_signed();
        let subsec = columns.subsec.at(&self.data, row, "inode")?;
        let nanos = subsec.saturating_mul(options.subsec_nanos).min(NANOS_IN_SECOND - 1);
        Ok(Timestamp { seconds, nanos: u32::try_from(nanos).unwrap_or_default() })
    }
}

/// Whether no value of a table is less than the one before it.
fn ascends(column: &Column, data: &[u8]) -> bool {
    let mut before = 0;
    (0..column.len()).all(|number| {
        let value = column.get(data, number).unwrap_or_default();
        std::mem::replace(&mut before, value) <= value
    })
}

fn at(table: &[u32], number: u32, what: &'static str) -> Result<u32, Error> {
    let found = usize::try_from(number).ok().and_then(|number| table.get(number)).copied();
    found.ok_or(Error::OutOfRange { what, found: u64::from(number), bound: table.len() as u64 })
}
