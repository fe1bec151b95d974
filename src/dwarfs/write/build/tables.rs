//! The other tables: directories, owners, times and names, and inodes as rows that refer to them.

use std::collections::{BTreeSet, HashMap};

use super::inodes::Inodes;
use crate::dwarfs::{
    format::{
        freeze::Rows,
        metadata::{inode, pair},
    },
    write::{
        error::WriteError,
        object::{Content, Object, Timestamp},
        options::{Overrides, Resolution, Times, WriteOptions},
        tree::{EntryId, ObjectId, Tree},
    },
};

/// A list of structs of 32-bit numbers.
pub(super) struct Table<'a, const N: usize> {
    pub(super) fields: [i16; N],
    pub(super) rows: &'a [[u32; N]],
}

impl<const N: usize> Rows for Table<'_, N> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn fields(&self) -> &[i16] {
        &self.fields
    }

    fn value(&self, row: usize, column: usize) -> u64 {
        self.rows.get(row).and_then(|row| row.get(column)).copied().map_or(0, u64::from)
    }
}

/// A map from 32 to 64 bits; its keys ascend.
pub(super) struct Map<'a>(pub(super) &'a [(u32, u64)]);

impl Rows for Map<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn fields(&self) -> &[i16] {
        &[pair::FIRST, pair::SECOND]
    }

    fn value(&self, row: usize, column: usize) -> u64 {
        self.0.get(row).map_or(0, |(key, value)| if column == 0 { u64::from(*key) } else { *value })
    }
}

/// Directories and their entries.
#[derive(Debug, Default)]
pub(super) struct Directories {
    /// Entry of the parent, first entry, own entry; one more at the end marks where the entries end.
    pub(super) directories: Vec<[u32; 3]>,
    /// Name and inode.
    pub(super) entries: Vec<[u32; 2]>,
}

impl Directories {
    pub(super) fn new(tree: &Tree, inodes: &Inodes, strings: &Strings) -> Self {
        let mut found = Self::default();
        let mut numbers: HashMap<EntryId, u32> = HashMap::new();
        // The root's own entry is the first of all.
        let mut first = 1;
        for (number, entry) in (0_u32..).zip(&inodes.entries) {
            let object = tree.object_of(*entry);
            found.entries.push([strings.name(number), inodes.number(object)]);
            if tree.object(object).is_some_and(Object::is_directory) {
                numbers.insert(*entry, number);
                let parent = numbers.get(&tree.parent(*entry)).copied().unwrap_or_default();
                found.directories.push([parent, first, number]);
                first += u32::try_from(tree.children(*entry).len()).unwrap_or(u32::MAX);
            }
        }
        found.directories.push([0, first, 0]);
        found
    }
}

/// The distinct modes, owners and groups, ascending.
#[derive(Debug)]
pub(super) struct Owners {
    overrides: Overrides,
    pub(super) modes: Vec<u32>,
    pub(super) uids: Vec<u32>,
    pub(super) gids: Vec<u32>,
}

impl Owners {
    pub(super) fn new(tree: &Tree, inodes: &Inodes, overrides: Overrides) -> Self {
        let distinct = |of: &dyn Fn(&Object) -> u32| {
            let objects = inodes.objects.iter().filter_map(|id| tree.object(*id));
            objects.map(of).collect::<BTreeSet<_>>().into_iter().collect()
        };
        Self {
            overrides,
            modes: distinct(&Object::mode),
            uids: distinct(&|object| overrides.uid.unwrap_or(object.uid)),
            gids: distinct(&|object| overrides.gid.unwrap_or(object.gid)),
        }
    }

    fn uid(&self, object: &Object) -> u32 {
        self.overrides.uid.unwrap_or(object.uid)
    }

    fn gid(&self, object: &Object) -> u32 {
        self.overrides.gid.unwrap_or(object.gid)
    }
}

/// What all times count from.
///
/// Offsets and base are 64 bits and added modulo 2^64, so that any time can be stored; the base of a tree with
/// times before 1970 is a negative number in two's complement, as upstream reads it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeBase {
    /// In units of the resolution.
    base: i64,
    resolution: Resolution,
    latest: Option<Timestamp>,
    fixed: Option<Timestamp>,
    pub(super) times: Times,
    /// Whether it is known of all objects when they were made, and kept.
    pub(super) has_births: bool,
    /// Whether any time is not a whole unit of seconds.
    pub(super) has_fractions: bool,
}

impl TimeBase {
    pub(super) fn new(tree: &Tree, inodes: &Inodes, options: &WriteOptions) -> Self {
        let mut objects = inodes.objects.iter().filter_map(|id| tree.object(*id));
        let mut base = Self {
            base: i64::MAX,
            resolution: options.resolution,
            latest: options.latest_time,
            fixed: options.overrides.time,
            times: options.times,
            has_births: options.times == Times::All && objects.all(|object| object.btime.is_some()),
            has_fractions: false,
        };
        for object in inodes.objects.iter().filter_map(|id| tree.object(*id)) {
            for time in base.kept(object) {
                let (whole, fraction) = base.split(time);
                base.base = base.base.min(whole);
                base.has_fractions |= fraction > 0;
            }
        }
        base
    }

    /// The base as it is stored.
    pub(super) fn raw(&self) -> u64 {
        self.base.cast_unsigned()
    }

    /// Seconds of a unit, where that is not one.
    pub(super) fn seconds_of_unit(&self) -> Option<u64> {
        match self.resolution {
            Resolution::Seconds(unit) if unit.get() > 1 => Some(u64::from(unit.get())),
            _ => None,
        }
    }

    /// Nanoseconds of a unit of fractions.
    pub(super) fn fraction_unit(&self) -> u64 {
        match self.resolution {
            Resolution::Nanoseconds(unit) => u64::from(unit.get()),
            Resolution::Seconds(_) => 1,
        }
    }

    fn offset(&self, time: Timestamp) -> u64 {
        self.split(self.clamp(time)).0.wrapping_sub(self.base).cast_unsigned()
    }

    fn fraction(&self, time: Timestamp) -> u64 {
        u64::from(self.split(self.clamp(time)).1)
    }

    /// Whole units and what is left of a time.
    fn split(&self, time: Timestamp) -> (i64, u32) {
        match self.resolution {
            Resolution::Nanoseconds(unit) => (time.seconds, time.nanos / unit),
            Resolution::Seconds(unit) => (time.seconds.div_euclid(i64::from(unit.get())), 0),
        }
    }

    fn clamp(&self, time: Timestamp) -> Timestamp {
        let time = self.fixed.unwrap_or(time);
        self.latest.map_or(time, |latest| time.min(latest))
    }

    fn kept(&self, object: &Object) -> impl Iterator<Item = Timestamp> + use<> {
        let birth = object.btime.filter(|_| self.has_births);
        let others = [object.atime, object.ctime].into_iter().chain(birth);
        let count = match self.times {
            Times::Modified => 0,
            Times::All => usize::MAX,
        };
        let base = *self;
        std::iter::once(object.mtime).chain(others.take(count)).map(move |time| base.clamp(time))
    }
}

/// Distinct names and symlink targets, in the order in which they are first used.
#[derive(Debug, Default)]
pub(super) struct Strings {
    pub(super) names: Vec<Vec<u8>>,
    /// Name by number of directory entry.
    entry_names: Vec<u32>,
    pub(super) targets: Vec<Vec<u8>>,
    /// Target by number of symlink.
    pub(super) symlinks: Vec<u32>,
}

impl Strings {
    pub(super) fn new(tree: &Tree, inodes: &Inodes) -> Result<Self, WriteError> {
        let mut strings = Self { entry_names: vec![0], ..Self::default() };
        let mut known: HashMap<&[u8], u32> = HashMap::new();
        for entry in inodes.entries.iter().skip(1) {
            strings.entry_names.push(intern(tree.name(*entry), &mut known, &mut strings.names)?);
        }
        known.clear();
        for id in inodes.objects.get(inodes.symlinks.clone()).unwrap_or_default() {
            if let Some(Object { content: Content::Symlink(target), .. }) = tree.object(*id) {
                strings.symlinks.push(intern(target, &mut known, &mut strings.targets)?);
            }
        }
        Ok(strings)
    }

    fn name(&self, entry: u32) -> u32 {
        self.entry_names.get(entry as usize).copied().unwrap_or_default()
    }
}

fn intern<'a>(
    string: &'a [u8],
    known: &mut HashMap<&'a [u8], u32>,
    all: &mut Vec<Vec<u8>>,
) -> Result<u32, WriteError> {
    if let Some(number) = known.get(string) {
        return Ok(*number);
    }
    let number = u32::try_from(all.len()).map_err(|_| WriteError::TooMany { what: "names" })?;
    all.push(string.to_vec());
    known.insert(string, number);
    Ok(number)
}

/// Inodes as rows, worked out when they are asked for: there may be millions.
pub(super) struct InodeRows<'a> {
    pub(super) tree: &'a Tree,
    pub(super) inodes: &'a Inodes,
    pub(super) owners: &'a Owners,
    pub(super) times: &'a TimeBase,
}

const INODE_FIELDS: [i16; 12] = [
    inode::MODE_INDEX,
    inode::OWNER_INDEX,
    inode::GROUP_INDEX,
    inode::ATIME_OFFSET,
    inode::MTIME_OFFSET,
    inode::CTIME_OFFSET,
    inode::ATIME_SUBSEC,
    inode::MTIME_SUBSEC,
    inode::CTIME_SUBSEC,
    inode::BTIME_OFFSET,
    inode::BTIME_SUBSEC,
    inode::NLINK_MINUS_ONE,
];

impl Rows for InodeRows<'_> {
    fn len(&self) -> usize {
        self.inodes.objects.len()
    }

    fn fields(&self) -> &[i16] {
        &INODE_FIELDS
    }

    fn value(&self, row: usize, column: usize) -> u64 {
        let Some((id, object)) =
            self.inodes.objects.get(row).and_then(|id| Some((*id, self.tree.object(*id)?)))
        else {
            return 0;
        };
        let index = |table: &[u32], value: u32| table.binary_search(&value).map_or(0, |index| index as u64);
        let is_kept = self.times.times == Times::All;
        let extra = |time: Timestamp| is_kept.then_some(time);
        let birth = object.btime.filter(|_| self.times.has_births);
        match INODE_FIELDS.get(column).copied().unwrap_or_default() {
            inode::MODE_INDEX => index(&self.owners.modes, object.mode()),
            inode::OWNER_INDEX => index(&self.owners.uids, self.owners.uid(object)),
            inode::GROUP_INDEX => index(&self.owners.gids, self.owners.gid(object)),
            inode::ATIME_OFFSET => extra(object.atime).map_or(0, |time| self.times.offset(time)),
            inode::MTIME_OFFSET => self.times.offset(object.mtime),
            inode::CTIME_OFFSET => extra(object.ctime).map_or(0, |time| self.times.offset(time)),
            inode::ATIME_SUBSEC => extra(object.atime).map_or(0, |time| self.times.fraction(time)),
            inode::MTIME_SUBSEC => self.times.fraction(object.mtime),
            inode::CTIME_SUBSEC => extra(object.ctime).map_or(0, |time| self.times.fraction(time)),
            inode::BTIME_OFFSET => birth.map_or(0, |time| self.times.offset(time)),
            inode::BTIME_SUBSEC => birth.map_or(0, |time| self.times.fraction(time)),
            inode::NLINK_MINUS_ONE => self.links_less_one(id),
            _ => 0,
        }
    }
}

impl InodeRows<'_> {
    fn links_less_one(&self, id: ObjectId) -> u64 {
        self.inodes.links.get(id.index()).map_or(0, |links| u64::from(links.saturating_sub(1)))
    }
}
