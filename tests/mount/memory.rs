//! A file system in memory: small, writable, counting its requests, and failing on demand.
//!
//! Special names: looking up `panic` panics, `eio` fails with `EIO`, `uncached` is absent and must be asked for again.

use std::collections::BTreeMap;

use fim::{
    pinned::Data,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    vfs::{
        Attr, Caller, DeviceId, DirPlusSink, DirSink, Entry, Errno, Error, FallocateMode, FileKind,
        FileSystem, FsStat, Ino, Lookup, Name, RenameFlags, Result, SeekWhence, SetAttr, SetTime, Time,
        XattrFlags,
    },
};

/// How often each kind of request came.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) lookup: AtomicU64,
    pub(crate) getattr: AtomicU64,
    pub(crate) read: AtomicU64,
    pub(crate) write: AtomicU64,
    pub(crate) readdir: AtomicU64,
    pub(crate) getxattr: AtomicU64,
}

#[derive(Debug)]
struct Node {
    attr: Attr,
    data: Vec<u8>,
    children: BTreeMap<Vec<u8>, Ino>,
    lookups: u64,
}

/// The file system.
#[derive(Debug)]
pub(crate) struct Memory {
    nodes: Mutex<BTreeMap<u64, Node>>,
    next: AtomicU64,
    read_only: bool,
    pub(crate) requests: Requests,
}

impl Memory {
    pub(crate) fn new(read_only: bool) -> Self {
        let memory = Self {
            nodes: Mutex::default(),
            next: AtomicU64::new(1),
            read_only,
            requests: Requests::default(),
        };
        memory.make(FileKind::Directory, 0o755);
        memory
    }

    /// Puts a file into the root as if it had always been there.
    pub(crate) fn with_file(self, name: &str, data: &[u8], mtime: Time) -> Self {
        let ino = self.make(FileKind::Regular, 0o644);
        let mut nodes = self.nodes.lock();
        let node = nodes.get_mut(&ino.get()).unwrap();
        node.data = data.to_vec();
        node.attr.mtime = mtime;
        node.attr.size = data.len() as u64;
        nodes.get_mut(&1).unwrap().children.insert(name.into(), ino);
        drop(nodes);
        self
    }

    /// How many nodes the kernel holds or the tree shows.
    pub(crate) fn len(&self) -> usize {
        self.nodes.lock().len()
    }

    /// The modification time of a file in the root.
    pub(crate) fn mtime(&self, name: &str) -> Time {
        let nodes = self.nodes.lock();
        nodes[&nodes[&1].children[name.as_bytes()].get()].attr.mtime
    }

    fn make(&self, kind: FileKind, perm: u16) -> Ino {
        let ino = self.next.fetch_add(1, Ordering::Relaxed);
        let attr = Attr {
            ino,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: DeviceId::default(),
            size: 0,
            blocks: 0,
            atime: Time::default(),
            mtime: Time::default(),
            ctime: Time::default(),
            btime: None,
        };
        let node = Node { attr, data: Vec::new(), children: BTreeMap::new(), lookups: 0 };
        self.nodes.lock().insert(ino, node);
        Ino::new(ino)
    }

    fn with<T>(&self, ino: Ino, work: impl FnOnce(&mut Node) -> Result<T>) -> Result<T> {
        self.nodes.lock().get_mut(&ino.get()).ok_or(Error::new(Errno::ESTALE, "find the node")).and_then(work)
    }

    fn entry(&self, ino: Ino) -> Result<Entry> {
        self.with(ino, |node| {
            node.lookups += 1;
            Ok(Entry { ino, generation: 0, attr: node.attr })
        })
    }

    fn take(&self, parent: Ino, name: Name<'_>) -> Result<Ino> {
        self.with(parent, |node| {
            node.children.remove(name.as_bytes()).ok_or(Error::new(Errno::ENOENT, "find the name"))
        })
    }

    fn drop_link(&self, ino: Ino) -> Result<()> {
        self.with(ino, |node| {
            node.attr.nlink = 0;
            Ok(())
        })
    }

    fn list(&self, dir: Ino) -> Result<Vec<(Vec<u8>, Ino)>> {
        self.with(dir, |node| {
            let dots = [(b".".to_vec(), dir), (b"..".to_vec(), Ino::ROOT)];
            Ok(dots.into_iter().chain(node.children.iter().map(|(name, ino)| (name.clone(), *ino))).collect())
        })
    }
}

impl FileSystem for Memory {
    fn lookup(&self, parent: Ino, name: Name<'_>) -> Result<Lookup> {
        self.requests.lookup.fetch_add(1, Ordering::Relaxed);
        match name.as_bytes() {
            b"panic" => panic!("asked for it"),
            b"eio" => return Err(Error::with_source(Errno::EIO, "read the block", "checksum mismatch")),
            b"uncached" => return Ok(Lookup::AbsentUncached),
            _ => {}
        }
        match self.with(parent, |node| Ok(node.children.get(name.as_bytes()).copied()))? {
            Some(ino) => Ok(Lookup::Found(self.entry(ino)?)),
            None => Ok(Lookup::Absent),
        }
    }

    fn forget(&self, ino: Ino, count: u64) {
        let mut nodes = self.nodes.lock();
        if let Some(node) = nodes.get_mut(&ino.get()) {
            node.lookups = node.lookups.checked_sub(count).expect("more look-ups forgotten than made");
            if node.lookups == 0 && node.attr.nlink == 0 {
                nodes.remove(&ino.get());
            }
        }
    }

    fn getattr(&self, ino: Ino) -> Result<Attr> {
        self.requests.getattr.fetch_add(1, Ordering::Relaxed);
        self.with(ino, |node| Ok(node.attr))
    }

    fn setattr(&self, _: Caller, ino: Ino, changes: &SetAttr) -> Result<Attr> {
        self.with(ino, |node| {
            if let Some(size) = changes.size {
                node.data.resize(usize::try_from(size).unwrap(), 0);
                node.attr.size = size;
            }
            if let Some(SetTime::At(time)) = changes.mtime {
                node.attr.mtime = time;
            }
            node.attr.perm = changes.perm.unwrap_or(node.attr.perm);
            Ok(node.attr)
        })
    }

    fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        self.with(ino, |node| Ok(node.data.clone()))
    }

    fn mknod(
        &self,
        caller: Caller,
        parent: Ino,
        name: Name<'_>,
        kind: FileKind,
        perm: u16,
        rdev: DeviceId,
    ) -> Result<Entry> {
        let ino = self.make(kind, perm & !caller.umask);
        self.with(ino, |node| {
            node.attr.rdev = rdev;
            Ok(())
        })?;
        self.with(parent, |node| Ok(node.children.insert(name.as_bytes().to_vec(), ino)))?;
        self.entry(ino)
    }

    fn mkdir(&self, caller: Caller, parent: Ino, name: Name<'_>, perm: u16) -> Result<Entry> {
        self.mknod(caller, parent, name, FileKind::Directory, perm, DeviceId::default())
    }

    fn symlink(&self, caller: Caller, parent: Ino, name: Name<'_>, target: &[u8]) -> Result<Entry> {
        let entry = self.mknod(caller, parent, name, FileKind::Symlink, 0o777, DeviceId::default())?;
        self.with(entry.ino, |node| {
            node.data = target.to_vec();
            node.attr.size = target.len() as u64;
            Ok(Entry { attr: node.attr, ..entry })
        })
    }

    fn link(&self, _: Ino, _: Ino, _: Name<'_>) -> Result<Entry> {
        Err(Error::new(Errno::EPERM, "link"))
    }

    fn unlink(&self, parent: Ino, name: Name<'_>) -> Result<()> {
        let ino = self.take(parent, name)?;
        self.drop_link(ino)
    }

    fn rmdir(&self, parent: Ino, name: Name<'_>) -> Result<()> {
        self.unlink(parent, name)
    }

    fn rename(&self, parent: Ino, name: Name<'_>, to: Ino, new_name: Name<'_>, _: RenameFlags) -> Result<()> {
        let ino = self.take(parent, name)?;
        if let Some(replaced) =
            self.with(to, |node| Ok(node.children.insert(new_name.as_bytes().to_vec(), ino)))?
        {
            self.drop_link(replaced)?;
        }
        Ok(())
    }

    fn readdir(&self, dir: Ino, offset: u64, sink: &mut dyn DirSink) -> Result<()> {
        self.requests.readdir.fetch_add(1, Ordering::Relaxed);
        for (at, (name, ino)) in (1..).zip(self.list(dir)?).skip(usize::try_from(offset).unwrap()) {
            let kind = self.with(ino, |node| Ok(node.attr.kind))?;
            if sink.push(ino, kind, &name, at).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn readdirplus(&self, dir: Ino, offset: u64, sink: &mut dyn DirPlusSink) -> Result<()> {
        self.requests.readdir.fetch_add(1, Ordering::Relaxed);
        for (at, (name, ino)) in (1..).zip(self.list(dir)?).skip(usize::try_from(offset).unwrap()) {
            let counted = u64::from(!matches!(name.as_slice(), b"." | b".."));
            let entry = self.with(ino, |node| Ok(Entry { ino, generation: 0, attr: node.attr }))?;
            if sink.push(&entry, &name, at).is_err() {
                break;
            }
            self.with(ino, |node| {
                node.lookups += counted;
                Ok(())
            })?;
        }
        Ok(())
    }

    fn fsyncdir(&self, _: Ino, _: bool) -> Result<()> {
        Ok(())
    }

    fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Data> {
        self.requests.read.fetch_add(1, Ordering::Relaxed);
        self.with(ino, |node| {
            let start = usize::try_from(offset).unwrap().min(node.data.len());
            let end = start.saturating_add(len).min(node.data.len());
            // In two pieces, so that the front has something to join.
            let middle = start + (end - start) / 2;
            let mut data = Data::from(node.data[start..middle].to_vec());
            for slice in Data::from(node.data[middle..end].to_vec()).slices() {
                data.push(slice.clone());
            }
            Ok(data)
        })
    }

    fn write(&self, _: Caller, ino: Ino, offset: u64, data: &[u8], _: bool) -> Result<()> {
        self.requests.write.fetch_add(1, Ordering::Relaxed);
        self.with(ino, |node| {
            let start = usize::try_from(offset).unwrap();
            let end = start + data.len();
            if node.data.len() < end {
                node.data.resize(end, 0);
            }
            node.data[start..end].copy_from_slice(data);
            node.attr.size = node.data.len() as u64;
            Ok(())
        })
    }

    fn fsync(&self, _: Ino, _: bool) -> Result<()> {
        Ok(())
    }

    fn fallocate(&self, _: Caller, _: Ino, _: FallocateMode, _: u64, _: u64) -> Result<()> {
        Err(Error::new(Errno::EOPNOTSUPP, "allocate"))
    }

    fn seek(&self, _: Ino, offset: u64, _: SeekWhence) -> Result<u64> {
        Ok(offset)
    }

    fn copy_range(&self, _: Caller, _: Ino, _: u64, _: Ino, _: u64, _: u64) -> Result<u64> {
        Err(Error::new(Errno::EOPNOTSUPP, "copy"))
    }

    fn getxattr(&self, _: Ino, name: &[u8]) -> Result<Vec<u8>> {
        self.requests.getxattr.fetch_add(1, Ordering::Relaxed);
        match name {
            b"user.long" => Ok(vec![b'x'; 1000]),
            _ => Err(Error::new(Errno::ENODATA, "find the attribute")),
        }
    }

    fn listxattr(&self, _: Ino) -> Result<Vec<u8>> {
        Ok(b"user.long\0".to_vec())
    }

    fn setxattr(&self, _: Caller, _: Ino, _: &[u8], _: &[u8], _: XattrFlags) -> Result<()> {
        Ok(())
    }

    fn removexattr(&self, _: Caller, _: Ino, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn has_xattrs(&self) -> bool {
        !self.read_only
    }

    fn statfs(&self) -> Result<FsStat> {
        Ok(FsStat { block_size: 4096, blocks: 1000, blocks_free: 900, name_max: 255, ..FsStat::default() })
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }
}
