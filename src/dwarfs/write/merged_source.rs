//! Archives as a source: trees whose files lie in archives, in one or in several.
//!
//! Whoever merges archives makes the [`Tree`] as it sees fit, of objects that [`FromArchives`] takes out of them. Each
//! file has an [`Origin`]: the archive and the inode that have its contents, which are read from there, or not at all
//! where whole blocks are taken over (`reuse.rs`).

use std::{
    collections::HashMap,
    io,
    ops::{ControlFlow, Range},
};

use super::{
    error::WriteError,
    faults::Faults,
    object::{Content, Device, FileContent, Object, Timestamp},
    progress::Progress,
    source::{Contents, Source},
    tree::{EntryId, ObjectId, Tree},
};
use crate::{
    dwarfs::{
        Error,
        format::sidecar::Xattrs,
        read::{self, Archive, Inode, Kind, Piece},
    },
    sync::Mutex,
};

/// An object of one of several archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The archive, by its place among all of them.
    pub archive: usize,
    /// The object in it.
    pub inode: Inode,
}

/// Takes objects out of archives.
#[derive(Debug)]
pub struct FromArchives<'a> {
    archives: Vec<&'a Archive>,
    /// Where the contents of files are; a file's locator is its place here, counted from 1.
    origins: Vec<Origin>,
}

impl<'a> FromArchives<'a> {
    /// Begins with nothing taken.
    #[must_use]
    pub const fn new(archives: Vec<&'a Archive>) -> Self {
        Self { archives, origins: Vec::new() }
    }

    /// Takes an object; where it is a file, with the contents of the file `data`, which mostly is the same.
    ///
    /// # Errors
    ///
    /// What is wrong with an archive.
    pub fn object(&mut self, of: Origin, data: Origin) -> Result<Object, WriteError> {
        self.read_object(of, data).map_err(WriteError::Archive)
    }

    fn read_object(&mut self, of: Origin, data: Origin) -> Result<Object, Error> {
        let archive = archive_of(&self.archives, of)?;
        let stat = archive.attr(of.inode)?;
        let content = match stat.kind {
            Kind::Directory => Content::Directory,
            Kind::Symlink => Content::Symlink(archive.read_link(of.inode)?.into()),
            Kind::Regular => Content::File(self.file(data, stat.size)?),
            Kind::CharDevice => Content::CharDevice(device(stat.rdev)),
            Kind::BlockDevice => Content::BlockDevice(device(stat.rdev)),
            Kind::Fifo => Content::Fifo,
            Kind::Socket => Content::Socket,
        };
        let (perm, uid, gid) = (stat.perm, stat.uid, stat.gid);
        let (mtime, atime, ctime) = (time(stat.mtime), time(stat.atime), time(stat.ctime));
        Ok(Object { uid, gid, mtime, atime, ctime, ..Object::new(content, perm) })
    }

    fn file(&mut self, data: Origin, size: u64) -> Result<FileContent, Error> {
        let archive = archive_of(&self.archives, data)?;
        let extents = ranges(archive, data.inode, size, |_| true)?;
        let is_whole = matches!(extents.as_slice(), [only] if *only == (0..size)) || size == 0;
        self.origins.push(data);
        let locator = self.origins.len() as u64;
        Ok(FileContent { size, extents: (!is_whole).then(|| extents.into()), locator })
    }

    /// The source of a tree that is made of the objects that were taken.
    #[must_use]
    pub fn source(self, tree: Tree) -> MergedSource<'a> {
        MergedSource { archives: self.archives, origins: self.origins, tree: Mutex::new(Some(tree)) }
    }
}

/// A tree whose files are in archives.
#[derive(Debug)]
pub struct MergedSource<'a> {
    archives: Vec<&'a Archive>,
    origins: Vec<Origin>,
    /// Given away by the scan.
    tree: Mutex<Option<Tree>>,
}

impl<'a> MergedSource<'a> {
    /// The tree of one archive as it is: whiteouts are devices, and the side car is a file in the root.
    ///
    /// # Errors
    ///
    /// What is wrong with the archive.
    pub fn of_archive(archive: &'a Archive) -> Result<Self, WriteError> {
        let mut from = FromArchives::new(vec![archive]);
        let root = Origin { archive: 0, inode: archive.root() };
        let mut tree = Tree::new(from.object(root, root)?, Xattrs::new())?;
        // Names of one file; all else has one name in an archive.
        let mut known: HashMap<Inode, ObjectId> = HashMap::new();
        let mut queue = vec![(EntryId::ROOT, archive.root())];
        let mut next = 0;
        while let Some((directory, inode)) = queue.get(next).copied() {
            next += 1;
            let mut children = Vec::new();
            let mut inodes = Vec::new();
            for (name, inode) in entries(archive, inode).map_err(WriteError::Archive)? {
                let origin = Origin { archive: 0, inode };
                let object = match known.get(&inode) {
                    Some(object) => *object,
                    None => tree.add_object(from.object(origin, origin)?, Xattrs::new())?,
                };
                known.insert(inode, object);
                inodes.push((name.clone(), inode));
                children.push((name, object));
            }
            inodes.sort();
            for (number, (_, inode)) in tree.fill_directory(directory, children)?.zip(inodes) {
                let entry = EntryId::from_number(number);
                if tree.object(tree.object_of(entry)).is_some_and(Object::is_directory) {
                    queue.push((entry, inode));
                }
            }
        }
        Ok(from.source(tree))
    }

    /// The archives, by their places.
    pub(super) fn archives(&self) -> &[&'a Archive] {
        &self.archives
    }

    /// Where the contents of a file are; nothing for what no archive has.
    pub(super) fn origin(&self, file: &FileContent) -> Option<Origin> {
        self.origins.get(usize::try_from(file.locator.checked_sub(1)?).ok()?).copied()
    }
}

impl Source for MergedSource<'_> {
    fn scan(&self, _faults: &Faults<'_>, progress: &dyn Progress) -> Result<Tree, WriteError> {
        let tree = self.tree.lock().take().ok_or(WriteError::Worker)?;
        progress.files(tree.entries().len() as u64);
        Ok(tree)
    }

    fn open(&self, path: &[u8], file: &Object) -> Result<Box<dyn Contents + '_>, WriteError> {
        let origin = file.file().and_then(|file| self.origin(file));
        let found = origin.and_then(|origin| Some((*self.archives.get(origin.archive)?, origin.inode)));
        let (archive, inode) = found.ok_or_else(|| WriteError::BadName { path: path.into() })?;
        Ok(Box::new(InArchive { archive, inode }))
    }
}

/// A file of an archive.
struct InArchive<'a> {
    archive: &'a Archive,
    inode: Inode,
}

impl Contents for InArchive<'_> {
    fn is_unchanged(&self, _known: &Object) -> io::Result<bool> {
        Ok(true)
    }

    fn refresh(&self, known: &Object) -> io::Result<Object> {
        Ok(known.clone())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let data = self.archive.read(self.inode, offset, buffer.len()).map_err(io::Error::other)?;
        let mut at = 0;
        for slice in data.slices() {
            let bytes = slice.as_bytes();
            if let Some(to) = buffer.get_mut(at..at + bytes.len()) {
                to.copy_from_slice(bytes);
            }
            at += bytes.len();
        }
        Ok(at)
    }
}

/// The ranges of a file's first `size` bytes that lie in blocks for which `is_wanted` says so, ascending and apart.
pub(super) fn ranges(
    archive: &Archive,
    inode: Inode,
    size: u64,
    is_wanted: impl Fn(u32) -> bool,
) -> Result<Vec<Range<u64>>, Error> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    archive.pieces(inode, 0, &mut |start, piece| {
        let end = start.saturating_add(piece.len()).min(size);
        if let Piece::Data { block, .. } = piece
            && is_wanted(block)
            && start < end
        {
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        Ok(if end < size { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(ranges)
}

/// The archive that an origin speaks of.
pub(super) fn archive_of<'a>(archives: &[&'a Archive], origin: Origin) -> Result<&'a Archive, Error> {
    let bound = archives.len() as u64;
    let none = Error::OutOfRange { what: "archive", found: origin.archive as u64, bound };
    archives.get(origin.archive).copied().ok_or(none)
}

/// The entries of a directory; an entry that leads nowhere is an error here, for it would be lost.
fn entries(archive: &Archive, directory: Inode) -> Result<Vec<(Vec<u8>, Inode)>, Error> {
    let mut entries = Vec::new();
    let mut damage = None;
    archive.read_dir(directory, 0, &mut |entry| {
        match entry.inode {
            Some(inode) => entries.push((entry.name.to_vec(), inode)),
            None => damage = Some(entry.name.to_vec()),
        }
        if damage.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if let Some(name) = damage {
        // Mostly the look-up says what is wrong.
        archive.lookup(directory, &name)?;
        return Err(Error::Damaged { what: "an entry leads nowhere", inode: directory.get() });
    }
    Ok(entries)
}

const fn time(stamp: read::Timestamp) -> Timestamp {
    Timestamp { seconds: stamp.seconds, nanos: stamp.nanos }
}

fn device(raw: u64) -> Device {
    let part = |value: u64| u32::try_from(value).unwrap_or_default();
    let major = (raw >> 8 & 0xfff) | (raw >> 32 & 0xffff_f000);
    let minor = (raw & 0xff) | (raw >> 12 & 0xffff_ff00);
    Device { major: part(major), minor: part(minor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_come_back() {
        for (major, minor) in [(0, 0), (8, 1), (0xfff, 0xff), (0xf_ffff, 0xf_ffff), (u32::MAX, u32::MAX)] {
            let device_number = Device { major, minor };
            assert_eq!(device(device_number.to_raw()), device_number);
        }
    }
}
