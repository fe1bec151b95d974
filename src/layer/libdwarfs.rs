//! A DwarFS archive as a layer, read by upstream's C++ library (feature `libdwarfs`).
//!
//! It shows what [`ArchiveLayer`](super::ArchiveLayer) shows, by another reader: a node is an inode of the archive,
//! `st_ino` the number plus one, and the side car is taken for what it is. What the library cannot tell (the time of
//! creation) is unknown; a directory has the size and the link count that the library gives it. Contents are copied
//! once more than by our own reader.

use std::{ops::ControlFlow, path::Path};

use dwarfs_sys::{Archive, Error as ArchiveError, Inode, Offset, Options, Seek, Stat};
use hashbrown::HashMap;
use thiserror::Error as ErrorDerive;

use crate::{
    dwarfs::{
        Error as FormatError,
        format::sidecar::{self, Sidecar, Xattrs},
        limits,
        read::Place,
    },
    pinned::{Data, Slice},
    vfs::{
        Attr, DeviceId, Errno, Error, FileKind, FsStat, Layer, LayerEntry, Name, NodeId, Result, SeekWhence,
        Time,
    },
};

/// Bits of a mode that are permissions.
const PERMISSIONS: u32 = 0o7777;

/// Longest single read in bytes: the buffer is allocated before the library says how much there is.
const MAX_READ: usize = 16 << 20;

/// An archive read by libdwarfs.
#[derive(Debug)]
pub struct Libdwarfs {
    archive: Archive,
    root: Inode,
    /// Extended attributes by inode number.
    xattrs: HashMap<u32, Xattrs>,
}

/// Why an archive cannot be opened with libdwarfs.
#[derive(Debug, ErrorDerive)]
pub enum LibdwarfsError {
    /// The library refuses the archive, or cannot read from it.
    #[error("libdwarfs: {0}")]
    Library(#[from] ArchiveError),
    /// The side car is damaged.
    #[error("cannot use the side car")]
    Sidecar(#[from] FormatError),
}

impl Libdwarfs {
    /// Opens the archive at `place` of the file at `path`. The library keeps up to `cache` bytes of decoded blocks.
    ///
    /// # Errors
    ///
    /// What the library says of the archive, or what is wrong with the side car.
    pub fn open(path: &Path, place: Place, cache: usize) -> Result<Self, LibdwarfsError> {
        let (offset, size) = match place {
            Place::At { offset, len } => (Offset::At(offset), len),
            Place::Auto => (Offset::Auto, None),
        };
        let options = Options { offset, size, cache_bytes: cache as u64, ..Options::default() };
        let archive = Archive::open(path, &options)?;
        let root = archive.root()?;
        let xattrs = match archive.find(root, sidecar::FILE_NAME)? {
            Some(inode) => read_xattrs(&archive, root, inode)?,
            None => HashMap::new(),
        };
        Ok(Self { archive, root, xattrs })
    }

    fn attr_of(&self, inode: Inode) -> Result<Attr> {
        let stat = self.archive.stat(inode).map_err(|error| failed(error, "stat in libdwarfs"))?;
        attr(inode, &stat).ok_or(Error::new(Errno::EIO, "stat in libdwarfs"))
    }

    fn is_hidden(&self, directory: Inode, name: &[u8]) -> bool {
        directory == self.root && name == sidecar::FILE_NAME
    }

    /// Attributes by path, for objects that are there.
    fn attributes(&self, node: NodeId) -> Option<&Xattrs> {
        self.xattrs.get(&inode_of(node).ok()?.get())
    }
}

/// Reads the side car and finds the objects that it speaks of; records of others are dropped.
fn read_xattrs(
    archive: &Archive,
    root: Inode,
    sidecar: Inode,
) -> Result<HashMap<u32, Xattrs>, LibdwarfsError> {
    let stat = archive.stat(sidecar)?;
    if FileKind::from_mode(stat.mode) != Some(FileKind::Regular) {
        return Ok(HashMap::new());
    }
    if stat.size > limits::MAX_SIDECAR_LEN {
        let limit = limits::MAX_SIDECAR_LEN;
        return Err(FormatError::Limit { what: "length of the side car", found: stat.size, limit }.into());
    }
    let mut bytes = vec![0; usize::try_from(stat.size).unwrap_or_default()];
    let len = archive.read(sidecar, 0, &mut bytes)?;
    bytes.truncate(len);
    let mut xattrs = HashMap::new();
    for (path, attributes) in Sidecar::decode(&bytes)?.records {
        if let Some(inode) = find(archive, root, &path)? {
            xattrs.insert(inode.get(), attributes);
        }
    }
    Ok(xattrs)
}

/// Finds an object by its path from the root.
fn find(archive: &Archive, root: Inode, path: &[u8]) -> Result<Option<Inode>, ArchiveError> {
    let mut inode = root;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        match archive.find(inode, name) {
            Ok(Some(child)) => inode = child,
            Ok(None) => return Ok(None),
            Err(error) if error.code() == libc::ENOTDIR => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(inode))
}

impl Layer for Libdwarfs {
    fn root(&self) -> NodeId {
        node_of(self.root)
    }

    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<(NodeId, Attr)>> {
        let directory = inode_of(dir)?;
        if self.is_hidden(directory, name.as_bytes()) {
            return Ok(None);
        }
        let found = self.archive.find(directory, name.as_bytes());
        match found.map_err(|error| failed(error, "look up in libdwarfs"))? {
            Some(inode) => Ok(Some((node_of(inode), self.attr_of(inode)?))),
            None => Ok(None),
        }
    }

    fn retain(&self, _node: NodeId) {}

    fn forget(&self, _node: NodeId) {}

    fn attr(&self, node: NodeId) -> Result<Attr> {
        self.attr_of(inode_of(node)?)
    }

    fn read_dir(
        &self,
        dir: NodeId,
        after: u64,
        visit: &mut dyn FnMut(LayerEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let directory = inode_of(dir)?;
        let mut position = after;
        let listed = |error| failed(error, "list a directory with libdwarfs");
        while let Some(entry) = self.archive.entry(directory, position).map_err(listed)? {
            position += 1;
            let (Ok(name), Some(kind)) = (Name::new(&entry.name), FileKind::from_mode(entry.mode)) else {
                continue;
            };
            if self.is_hidden(directory, &entry.name) {
                continue;
            }
            // An object that is damaged is listed; the look-up says what is wrong.
            let node = self.attr_of(entry.inode).ok().map(|attr| (node_of(entry.inode), attr));
            if visit(LayerEntry { name, kind, next: position, node }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let target = self.archive.read_link(inode_of(node)?);
        target.map_err(|error| failed(error, "read a link with libdwarfs"))
    }

    fn read(&self, node: NodeId, offset: u64, len: usize) -> Result<Data> {
        let inode = inode_of(node)?;
        let mut data = Data::empty();
        let (mut offset, mut left) = (offset, len);
        while left > 0 {
            let step = left.min(MAX_READ);
            let mut buffer = vec![0; step];
            let count = self.archive.read(inode, offset, &mut buffer);
            let count = count.map_err(|error| failed(error, "read with libdwarfs"))?;
            buffer.truncate(count);
            data.push(Slice::from_vec(buffer));
            if count < step {
                break;
            }
            offset = offset.saturating_add(count as u64);
            left -= count;
        }
        Ok(data)
    }

    fn seek(&self, node: NodeId, offset: u64, whence: SeekWhence) -> Result<u64> {
        let whence = match whence {
            SeekWhence::Data => Seek::Data,
            SeekWhence::Hole => Seek::Hole,
        };
        let found = self.archive.seek(inode_of(node)?, offset, whence);
        found
            .map_err(|error| failed(error, "seek with libdwarfs"))?
            .ok_or(Error::new(Errno::ENXIO, "seek with libdwarfs"))
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.attributes(node).and_then(|xattrs| xattrs.get(name)).cloned())
    }

    fn xattr_names(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        Ok(self.attributes(node).map(|xattrs| xattrs.keys().cloned().collect()).unwrap_or_default())
    }

    fn has_xattrs(&self) -> bool {
        !self.xattrs.is_empty()
    }

    fn stat_fs(&self) -> Result<FsStat> {
        let figures = self.archive.figures().map_err(|error| failed(error, "statfs with libdwarfs"))?;
        Ok(FsStat {
            block_size: u32::try_from(figures.block_size).unwrap_or(u32::MAX),
            blocks: figures.blocks,
            files: figures.files,
            name_max: u32::try_from(figures.name_max).unwrap_or(u32::MAX),
            ..FsStat::default()
        })
    }
}

fn node_of(inode: Inode) -> NodeId {
    NodeId::new(u64::from(inode.get()))
}

fn inode_of(node: NodeId) -> Result<Inode> {
    let number =
        u32::try_from(node.get()).map_err(|_| Error::new(Errno::ESTALE, "find an inode of libdwarfs"))?;
    Ok(Inode::new(number))
}

fn attr(inode: Inode, stat: &Stat) -> Option<Attr> {
    Some(Attr {
        ino: u64::from(inode.get()) + 1,
        kind: FileKind::from_mode(stat.mode)?,
        perm: u16::try_from(stat.mode & PERMISSIONS).unwrap_or_default(),
        nlink: u32::try_from(stat.nlink).unwrap_or(u32::MAX),
        uid: stat.uid,
        gid: stat.gid,
        rdev: DeviceId { major: libc::major(stat.rdev), minor: libc::minor(stat.rdev) },
        size: stat.size,
        blocks: stat.blocks,
        atime: time(stat.atime),
        mtime: time(stat.mtime),
        ctime: time(stat.ctime),
        btime: None,
    })
}

const fn time(time: dwarfs_sys::Time) -> Time {
    Time { seconds: time.seconds, nanos: time.nanos }
}

fn failed(error: ArchiveError, op: &'static str) -> Error {
    match Errno::from_raw(error.code()) {
        errno @ (Errno::ENOTDIR | Errno::EINVAL) => Error::new(errno, op),
        // An inode that is not there is a fault of the archive, as with our own reader.
        Errno::ENOENT => Error::with_source(Errno::EIO, op, error),
        errno => Error::with_source(errno, op, error),
    }
}
