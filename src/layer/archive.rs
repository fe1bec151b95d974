//! A DwarFS archive as a layer.
//!
//! A node is an inode of the archive and lives as long as the layer, so references are not counted; `st_ino` is the
//! inode number plus one. Extended attributes come from the side car, which itself is not shown. Names that no
//! directory can have (`..`, or with a slash) are not shown either.

use std::ops::ControlFlow;

use hashbrown::HashMap;

use crate::{
    dwarfs::{
        Error as ArchiveError,
        format::sidecar::{self, Sidecar, Xattrs},
        limits,
        read::{Archive, Inode, Kind, Seek, Stat, Timestamp},
    },
    pinned::Data,
    vfs::{
        Attr, DeviceId, Errno, Error, FileKind, FsStat, Layer, LayerEntry, Name, NodeId, Result, SeekWhence,
        Time,
    },
};

/// Unit of `st_blocks`.
const BLOCK: u64 = 512;
/// Unit of statfs.
const FS_BLOCK: u32 = 4_096;

/// An archive as a layer.
#[derive(Debug)]
pub struct ArchiveLayer {
    archive: Archive,
    /// Extended attributes by inode number.
    xattrs: HashMap<Inode, Xattrs>,
}

impl ArchiveLayer {
    /// Takes an open archive and reads its side car, where it has one.
    ///
    /// # Errors
    ///
    /// What is wrong with the side car.
    pub fn new(archive: Archive) -> Result<Self, ArchiveError> {
        let xattrs = match archive.lookup(archive.root(), sidecar::FILE_NAME)? {
            Some(inode) if archive.kind(inode)? == Kind::Regular => read_xattrs(&archive, inode)?,
            _ => HashMap::new(),
        };
        Ok(Self { archive, xattrs })
    }

    /// The archive.
    #[must_use]
    pub const fn archive(&self) -> &Archive {
        &self.archive
    }

    fn attr_of(&self, inode: Inode) -> Result<Attr, ArchiveError> {
        self.archive.attr(inode).map(|stat| attr(inode, &stat))
    }

    /// Whether an entry is one that programs may see.
    fn is_hidden(&self, directory: Inode, name: &[u8]) -> bool {
        directory == self.archive.root() && name == sidecar::FILE_NAME
    }
}

/// Reads the side car and finds the objects that it speaks of. Records of objects that are not there (somebody
/// repacked the archive without them) are dropped.
fn read_xattrs(archive: &Archive, inode: Inode) -> Result<HashMap<Inode, Xattrs>, ArchiveError> {
    let len = archive.attr(inode)?.size;
    if len > limits::MAX_SIDECAR_LEN {
        let limit = limits::MAX_SIDECAR_LEN;
        return Err(ArchiveError::Limit { what: "length of the side car", found: len, limit });
    }
    let data = archive.read(inode, 0, usize::try_from(len).unwrap_or_default())?;
    let mut xattrs = HashMap::new();
    for (path, attributes) in Sidecar::decode(&data.contiguous())?.records {
        match archive.find(&path) {
            Ok(Some(inode)) => {
                xattrs.insert(inode, attributes);
            }
            Ok(None) | Err(ArchiveError::NotADirectory { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(xattrs)
}

impl Layer for ArchiveLayer {
    fn root(&self) -> NodeId {
        node_of(self.archive.root())
    }

    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<(NodeId, Attr)>> {
        let failed = |error| failed(error, "look up in an archive");
        let directory = inode_of(dir)?;
        if self.is_hidden(directory, name.as_bytes()) {
            return Ok(None);
        }
        match self.archive.lookup(directory, name.as_bytes()).map_err(failed)? {
            Some(inode) => Ok(Some((node_of(inode), self.attr_of(inode).map_err(failed)?))),
            None => Ok(None),
        }
    }

    fn retain(&self, _node: NodeId) {}

    fn forget(&self, _node: NodeId) {}

    fn attr(&self, node: NodeId) -> Result<Attr> {
        self.attr_of(inode_of(node)?).map_err(|error| failed(error, "stat in an archive"))
    }

    fn read_dir(
        &self,
        dir: NodeId,
        after: u64,
        visit: &mut dyn FnMut(LayerEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let directory = inode_of(dir)?;
        // A position that no directory has lists nothing.
        let from = u32::try_from(after).unwrap_or(u32::MAX);
        let listed = self.archive.read_dir(directory, from, &mut |entry| {
            let Ok(name) = Name::new(entry.name) else { return ControlFlow::Continue(()) };
            if self.is_hidden(directory, entry.name) {
                return ControlFlow::Continue(());
            }
            // An object that is damaged is listed; the look-up says what is wrong.
            let node = entry.inode.and_then(|inode| Some((node_of(inode), self.attr_of(inode).ok()?)));
            let kind = node.map_or(FileKind::Regular, |(_, attr)| attr.kind);
            visit(LayerEntry { name, kind, next: u64::from(entry.position) + 1, node })
        });
        listed.map_err(|error| failed(error, "list a directory of an archive"))
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        self.archive.read_link(inode_of(node)?).map_err(|error| failed(error, "read a link of an archive"))
    }

    fn read(&self, node: NodeId, offset: u64, len: usize) -> Result<Data> {
        self.archive.read(inode_of(node)?, offset, len).map_err(|error| failed(error, "read from an archive"))
    }

    fn seek(&self, node: NodeId, offset: u64, whence: SeekWhence) -> Result<u64> {
        let whence = match whence {
            SeekWhence::Data => Seek::Data,
            SeekWhence::Hole => Seek::Hole,
        };
        let found = self.archive.seek(inode_of(node)?, offset, whence);
        found
            .map_err(|error| failed(error, "seek in an archive"))?
            .ok_or(Error::new(Errno::ENXIO, "seek in an archive"))
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.xattrs.get(&inode_of(node)?).and_then(|xattrs| xattrs.get(name)).cloned())
    }

    fn xattr_names(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        let xattrs = self.xattrs.get(&inode_of(node)?);
        Ok(xattrs.map(|xattrs| xattrs.keys().cloned().collect()).unwrap_or_default())
    }

    fn has_xattrs(&self) -> bool {
        !self.xattrs.is_empty()
    }

    fn stat_fs(&self) -> Result<FsStat> {
        let figures = self.archive.figures();
        Ok(FsStat {
            block_size: FS_BLOCK,
            blocks: figures.allocated_size.div_ceil(u64::from(FS_BLOCK)),
            files: u64::from(figures.inodes),
            name_max: u32::try_from(limits::MAX_NAME_LEN).unwrap_or(u32::MAX),
            ..FsStat::default()
        })
    }
}

fn node_of(inode: Inode) -> NodeId {
    NodeId::new(u64::from(inode.get()))
}

fn inode_of(node: NodeId) -> Result<Inode> {
    let number =
        u32::try_from(node.get()).map_err(|_| Error::new(Errno::ESTALE, "find an inode of an archive"))?;
    Ok(Inode::new(number))
}

fn attr(inode: Inode, stat: &Stat) -> Attr {
    Attr {
        ino: u64::from(inode.get()) + 1,
        kind: match stat.kind {
            Kind::Directory => FileKind::Directory,
            Kind::Symlink => FileKind::Symlink,
            Kind::Regular => FileKind::Regular,
            Kind::CharDevice => FileKind::CharDevice,
            Kind::BlockDevice => FileKind::BlockDevice,
            Kind::Fifo => FileKind::Fifo,
            Kind::Socket => FileKind::Socket,
        },
        perm: stat.perm,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        rdev: DeviceId { major: libc::major(stat.rdev), minor: libc::minor(stat.rdev) },
        size: stat.size,
        blocks: stat.allocated.div_ceil(BLOCK),
        atime: time(stat.atime),
        mtime: time(stat.mtime),
        ctime: time(stat.ctime),
        btime: stat.btime.map(time),
    }
}

const fn time(stamp: Timestamp) -> Time {
    Time { seconds: stamp.seconds, nanos: stamp.nanos }
}

/// The one place where errors of archives become errors of file systems.
fn failed(error: ArchiveError, op: &'static str) -> Error {
    let errno = errno_of(&error);
    match errno {
        Errno::ENOTDIR | Errno::EINVAL | Errno::EISDIR => Error::new(errno, op),
        _ => Error::with_source(errno, op, error),
    }
}

fn errno_of(error: &ArchiveError) -> Errno {
    match error {
        ArchiveError::Read { source, .. } => source.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
        ArchiveError::NotADirectory { .. } => Errno::ENOTDIR,
        ArchiveError::NotASymlink { .. } | ArchiveError::NotAFile { .. } => Errno::EINVAL,
        ArchiveError::Shared(shared) => errno_of(shared),
        ArchiveError::UnsupportedCodec { .. }
        | ArchiveError::UnknownFeature { .. }
        | ArchiveError::Version { .. } => Errno::EOPNOTSUPP,
        ArchiveError::Truncated { .. }
        | ArchiveError::NotFound { .. }
        | ArchiveError::Checksum { .. }
        | ArchiveError::MissingSection { .. }
        | ArchiveError::Decompress { .. }
        | ArchiveError::Limit { .. }
        | ArchiveError::Malformed { .. }
        | ArchiveError::OutOfRange { .. }
        | ArchiveError::Damaged { .. } => Errno::EIO,
    }
}
