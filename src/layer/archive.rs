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
    /// One of these is an access control list.
    has_acls: bool,
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
        let is_acl = |name: &Vec<u8>| name.starts_with(b"system.posix_acl_");
        let has_acls = xattrs.values().any(|attributes| attributes.keys().any(is_acl));
        Ok(Self { archive, xattrs, has_acls })
    }

    /// The archive.
    #[must_use]
    pub const fn archive(&self) -> &Archive {
        &self.archive
    }

    /// The inode of the archive that a node stands for.
    ///
    /// # Errors
    ///
    /// `ESTALE` for what is no node of an archive.
    pub fn inode(&self, node: NodeId) -> Result<Inode> {
        inode_of(node)
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

    fn has_acls(&self) -> bool {
        self.has_acls
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
        | ArchiveError::Replaced { .. }
        | ArchiveError::Decompress { .. }
        | ArchiveError::Limit { .. }
        | ArchiveError::Malformed { .. }
        | ArchiveError::OutOfRange { .. }
        | ArchiveError::Unequal { .. }
        | ArchiveError::Damaged { .. }
        | ArchiveError::Abandoned => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, num::NonZeroUsize, os::unix::fs::symlink, path::Path};

    use tempfile::TempDir;

    use super::*;
    use crate::{
        dwarfs::{
            format::section::{Compression, HEADER_LEN, SectionHeader},
            read::{BlockCache, Place, ReadAt},
            write::{Codec, DirSource, WriteOptions, write_archive},
        },
        sync::{Arc, Mutex, thread},
    };

    /// A file of this length spans blocks of 64 KiB.
    const BIG: u64 = 300_000;

    const ZSTD: Codec = Codec::Zstd { level: 1 };

    fn bytes_at(offset: u64, len: u64) -> Vec<u8> {
        (offset..offset + len).map(|at| u8::try_from(at * at / 7 % 251).unwrap()).collect()
    }

    fn archive_of(tree: &Path, data: Codec) -> Vec<u8> {
        let threads = NonZeroUsize::MIN;
        let options = WriteOptions {
            block_size_bits: 16,
            segmentation: None,
            data,
            threads,
            ..WriteOptions::default()
        };
        let mut bytes = Vec::new();
        write_archive(&DirSource::open(tree).unwrap(), &options, &mut bytes, &()).unwrap();
        bytes
    }

    fn layer_of(source: Arc<dyn ReadAt>) -> Result<ArchiveLayer, ArchiveError> {
        ArchiveLayer::new(Archive::open(
            source,
            Place::At { offset: 0, len: None },
            &BlockCache::new(1 << 20),
        )?)
    }

    fn example(data: Codec) -> (TempDir, Vec<u8>) {
        let tree = tempfile::tempdir().unwrap();
        let path = |name: &str| tree.path().join(name);
        fs::create_dir(path("d")).unwrap();
        fs::write(path("d/big"), bytes_at(0, BIG)).unwrap();
        fs::write(path("d/small"), "small").unwrap();
        fs::hard_link(path("d/small"), path("again")).unwrap();
        symlink("d/big", path("link")).unwrap();
        let xattrs = |name: &str, value: &[u8]| Xattrs::from([(name.as_bytes().to_vec(), value.to_vec())]);
        let records = [
            (b"again".to_vec(), xattrs("user.note", b"\0\xff")),
            (b"d".to_vec(), xattrs("user.overlay.opaque", b"y")),
        ];
        let side_car = Sidecar { records: records.into() }.encode().unwrap();
        fs::write(path(".fim.sidecar"), side_car).unwrap();
        let bytes = archive_of(tree.path(), data);
        (tree, bytes)
    }

    fn look_up(layer: &ArchiveLayer, path: &str) -> Option<(NodeId, Attr)> {
        let mut found = (layer.root(), layer.attr(layer.root()).unwrap());
        for name in path.split('/') {
            found = layer.lookup(found.0, Name::new(name.as_bytes()).unwrap()).unwrap()?;
        }
        Some(found)
    }

    fn names(layer: &ArchiveLayer, dir: NodeId) -> Vec<String> {
        let mut names = Vec::new();
        let visit = &mut |entry: LayerEntry<'_>| {
            names.push(String::from_utf8(entry.name.as_bytes().to_vec()).unwrap());
            ControlFlow::Continue(())
        };
        layer.read_dir(dir, 0, visit).unwrap();
        names
    }

    #[test]
    fn attributes_come_from_the_side_car_which_is_not_shown() {
        let (_tree, bytes) = example(ZSTD);
        let layer = layer_of(Arc::new(bytes)).unwrap();
        assert!(layer.has_xattrs());
        assert_eq!(names(&layer, layer.root()), ["again", "d", "link"]);
        assert_eq!(look_up(&layer, ".fim.sidecar"), None);
        let (dir, _) = look_up(&layer, "d").unwrap();
        assert_eq!(layer.xattr(dir, b"user.overlay.opaque").unwrap(), Some(b"y".to_vec()));
        assert_eq!(layer.xattr(dir, b"user.other").unwrap(), None);
        assert_eq!(layer.xattr_names(dir).unwrap(), [b"user.overlay.opaque".to_vec()]);
        // All names of an object share its attributes.
        let ((small, attr), (again, _)) =
            (look_up(&layer, "d/small").unwrap(), look_up(&layer, "again").unwrap());
        assert_eq!((small, attr.nlink, attr.ino), (again, 2, small.get() + 1));
        assert_eq!(layer.xattr(small, b"user.note").unwrap(), Some(b"\0\xff".to_vec()));
        assert!(layer.xattr_names(layer.root()).unwrap().is_empty());
    }

    #[test]
    fn errors_have_the_numbers_of_the_manual() {
        let (_tree, bytes) = example(ZSTD);
        let layer = layer_of(Arc::new(bytes)).unwrap();
        let (file, link) = (look_up(&layer, "again").unwrap().0, look_up(&layer, "link").unwrap().0);
        let name = Name::new(b"x").unwrap();
        let errno = |error: Error| error.errno();
        assert_eq!(layer.lookup(file, name).map_err(errno), Err(Errno::ENOTDIR));
        assert_eq!(layer.read_link(file).map_err(errno), Err(Errno::EINVAL));
        assert_eq!(layer.read_link(link).unwrap(), b"d/big");
        assert_eq!(layer.seek(file, 5, SeekWhence::Hole).map_err(errno), Err(Errno::ENXIO));
        assert_eq!(layer.seek(file, 4, SeekWhence::Hole).unwrap(), 5);
        assert_eq!(layer.seek(file, 4, SeekWhence::Data).unwrap(), 4);
        assert_eq!(layer.attr(NodeId::new(99)).map_err(errno), Err(Errno::EIO));
        assert_eq!(layer.attr(NodeId::new(u64::MAX)).map_err(errno), Err(Errno::ESTALE));
    }

    #[test]
    fn many_threads_read_the_same_at_random_places() {
        let (_tree, bytes) = example(ZSTD);
        let layer = layer_of(Arc::new(bytes)).unwrap();
        let (file, attr) = look_up(&layer, "d/big").unwrap();
        assert_eq!((attr.size, attr.blocks), (BIG, BIG.div_ceil(512)));
        thread::scope(|scope| {
            for seed in 1..=4_u64 {
                let layer = &layer;
                scope.spawn(move || {
                    let mut state = seed;
                    for _ in 0..200 {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        let (offset, len) = ((state >> 33) % (BIG + 10), (state >> 20) % 100_000);
                        let found = layer.read(file, offset, usize::try_from(len).unwrap()).unwrap();
                        let expected = bytes_at(offset, len.min(BIG.saturating_sub(offset)));
                        assert!(found.contiguous() == expected, "{len} bytes at {offset}");
                    }
                });
            }
        });
        assert!(layer.read(file, u64::MAX, 10).unwrap().is_empty());
    }

    /// A file that somebody cuts off.
    #[derive(Debug)]
    struct Shrinking(Mutex<Vec<u8>>);

    impl ReadAt for Shrinking {
        fn len(&self) -> std::io::Result<u64> {
            Ok(self.0.lock().len() as u64)
        }

        fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
            self.0.lock().read_exact_at(offset, buffer)
        }
    }

    #[test]
    fn an_archive_that_is_cut_off_while_it_is_open_gives_an_error() {
        let (_tree, bytes) = example(ZSTD);
        let source = Arc::new(Shrinking(Mutex::new(bytes)));
        let layer = layer_of(Arc::clone(&source) as Arc<dyn ReadAt>).unwrap();
        source.0.lock().truncate(100);
        let (file, _) = look_up(&layer, "d/big").unwrap();
        let all = usize::try_from(BIG).unwrap();
        assert_eq!(layer.read(file, 0, all).map_err(|error| error.errno()).map(|_| ()), Err(Errno::EIO));
        assert_eq!(names(&layer, layer.root()), ["again", "d", "link"]);
    }

    #[test]
    fn a_damaged_side_car_is_an_error() {
        let (_tree, bytes) = example(Codec::None);
        let layer = layer_of(Arc::new(bytes.clone())).unwrap();
        let magic = b"FIMSIDE1";
        let at = bytes.windows(magic.len()).position(|window| window == magic).expect("blocks are stored");
        let section =
            layer.archive().index().sections().iter().find(|section| section.end > at as u64).unwrap();
        let [start, end] = [section.offset, section.end].map(|at| usize::try_from(at).unwrap());
        let mut damaged = bytes;
        damaged[at] ^= 1;
        assert!(matches!(layer_of(Arc::new(damaged.clone())), Err(ArchiveError::Checksum { .. })));
        let (header, payload) = damaged[start..end].split_at_mut(HEADER_LEN);
        let sealed = SectionHeader::seal(section.number, section.kind, Compression::None, payload).encode();
        header.copy_from_slice(&sealed);
        assert!(matches!(layer_of(Arc::new(damaged)), Err(ArchiveError::Malformed { what: "side car", .. })));
    }
}
