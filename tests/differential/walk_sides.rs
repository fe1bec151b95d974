//! The readers of the differential walk: a layer in this process, or a mounted tree.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use fim::{
    sys::{process::Pidfd, signal::Signal},
    vfs::{Attr, FileKind, Layer, Name, NodeId},
};
use xxhash_rust::xxh3::Xxh3;

use crate::{support::list, upstream::Mounted};

/// Longest file whose contents are read as a whole; what is longer is nearly all holes.
const HASHED: u64 = 1 << 30;

/// Bytes of one read of a file's contents.
const STEP: usize = 1 << 20;

/// Threads that read from one reader at a time.
const THREADS: usize = 4;

/// What can be seen of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u64,
    pub(crate) rdev: u64,
    pub(crate) size: u64,
    pub(crate) blocks: u64,
    pub(crate) ino: u64,
    pub(crate) atime: (i64, i64),
    pub(crate) mtime: (i64, i64),
    pub(crate) ctime: (i64, i64),
    /// Of a symlink.
    pub(crate) target: Vec<u8>,
    /// Digest of a regular file's contents, or the errno of reading them; `None` where they are too long.
    pub(crate) contents: Option<Result<u64, i32>>,
}

/// Facts by path.
pub(crate) type Tree = BTreeMap<Vec<u8>, Facts>;

impl Facts {
    pub(crate) fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    pub(crate) fn is_symlink(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFLNK
    }

    /// The facts that differ, with both their values.
    pub(crate) fn differences(&self, other: &Self) -> String {
        let lines = |facts: &Self| format!("{facts:#?}").replace(",\n        ", " ");
        let (ours, theirs) = (lines(self), lines(other));
        let different = ours.lines().zip(theirs.lines()).filter(|(ours, theirs)| ours != theirs);
        different
            .map(|(ours, theirs)| format!("{} / {}", ours.trim(), theirs.trim()))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// A reader of one archive.
pub(crate) trait Side: Sync {
    /// What it is called.
    fn name(&self) -> &str;

    /// Everything that can be seen.
    fn walk(&self) -> Tree;

    /// Reads up to `len` bytes of a file; fewer only at its end.
    fn read(&self, path: &[u8], offset: u64, len: usize) -> Result<Vec<u8>, i32>;
}

/// A layer in this process.
pub(crate) struct LayerSide<L> {
    name: &'static str,
    layer: L,
}

impl<L: Layer> LayerSide<L> {
    pub(crate) fn new(name: &'static str, layer: L) -> Self {
        Self { name, layer }
    }

    fn find(&self, path: &[u8]) -> NodeId {
        path.split(|byte| *byte == b'/').fold(self.layer.root(), |node, name| {
            self.layer.lookup(node, Name::new(name).unwrap()).unwrap().expect("it was listed").0
        })
    }

    fn add(
        &self,
        node: NodeId,
        attr: &Attr,
        path: &[u8],
        tree: &mut Tree,
        files: &mut Vec<(NodeId, Vec<u8>)>,
    ) {
        let mut facts = Facts {
            mode: attr.kind.mode_bits() | u32::from(attr.perm),
            uid: attr.uid,
            gid: attr.gid,
            nlink: attr.nlink.into(),
            rdev: libc::makedev(attr.rdev.major, attr.rdev.minor),
            size: attr.size,
            blocks: attr.blocks,
            ino: attr.ino,
            atime: (attr.atime.seconds, attr.atime.nanos.into()),
            mtime: (attr.mtime.seconds, attr.mtime.nanos.into()),
            ctime: (attr.ctime.seconds, attr.ctime.nanos.into()),
            ..Facts::default()
        };
        match attr.kind {
            FileKind::Symlink => facts.target = self.layer.read_link(node).unwrap(),
            FileKind::Regular => files.push((node, path.to_vec())),
            FileKind::Directory => {
                for (name, listed) in list(&self.layer, node) {
                    let (child, attr) = listed.expect("the archive is whole");
                    self.add(child, &attr, &join(path, &name), tree, files);
                }
            }
            _ => {}
        }
        tree.insert(path.to_vec(), facts);
    }
}

impl<L: Layer> Side for LayerSide<L> {
    fn name(&self) -> &str {
        self.name
    }

    fn walk(&self) -> Tree {
        let (mut tree, mut files) = (Tree::new(), Vec::new());
        let root = self.layer.root();
        self.add(root, &self.layer.attr(root).unwrap(), b"", &mut tree, &mut files);
        // In the order of the archive: each block is decoded about once.
        files.sort();
        let contents = in_parallel(&files, |(node, path)| {
            digest(tree[path].size, |offset, buffer| {
                let data =
                    self.layer.read(*node, offset, buffer.len()).map_err(|error| error.errno() as i32)?;
                let bytes = data.contiguous();
                buffer[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            })
        });
        for ((_, path), contents) in files.iter().zip(contents) {
            tree.get_mut(path).unwrap().contents = contents;
        }
        tree
    }

    fn read(&self, path: &[u8], offset: u64, len: usize) -> Result<Vec<u8>, i32> {
        let data = self.layer.read(self.find(path), offset, len).map_err(|error| error.errno() as i32)?;
        Ok(data.contiguous().into_owned())
    }
}

/// A mounted tree, with what keeps it mounted.
pub(crate) struct Host<M> {
    name: &'static str,
    mount: M,
}

/// What keeps a tree mounted until it is dropped.
pub(crate) trait Mount: Sync {
    /// The root of the tree.
    fn path(&self) -> &Path;
}

impl Mount for Mounted {
    fn path(&self) -> &Path {
        Self::path(self)
    }
}

impl Mount for FimMount {
    fn path(&self) -> &Path {
        self.point.path()
    }
}

impl<M: Mount> Host<M> {
    pub(crate) fn of(name: &'static str, mount: M) -> Self {
        Self { name, mount }
    }

    fn path(&self, path: &[u8]) -> PathBuf {
        self.mount.path().join(OsStr::from_bytes(path))
    }
}

impl<M: Mount> Side for Host<M> {
    fn name(&self) -> &str {
        self.name
    }

    fn walk(&self) -> Tree {
        let (mut tree, mut files, mut left) = (Tree::new(), Vec::new(), vec![Vec::new()]);
        while let Some(path) = left.pop() {
            let host = self.path(&path);
            let stat = fs::symlink_metadata(&host).unwrap();
            let mut facts = Facts {
                mode: stat.mode(),
                uid: stat.uid(),
                gid: stat.gid(),
                nlink: stat.nlink(),
                rdev: stat.rdev(),
                size: stat.size(),
                blocks: stat.blocks(),
                ino: stat.ino(),
                atime: (stat.atime(), stat.atime_nsec()),
                mtime: (stat.mtime(), stat.mtime_nsec()),
                ctime: (stat.ctime(), stat.ctime_nsec()),
                ..Facts::default()
            };
            if stat.is_dir() {
                for entry in fs::read_dir(&host).unwrap() {
                    left.push(join(&path, entry.unwrap().file_name().as_bytes()));
                }
            } else if stat.is_symlink() {
                facts.target = fs::read_link(&host).unwrap().as_os_str().as_bytes().to_vec();
            } else if stat.is_file() {
                files.push((stat.ino(), path.clone()));
            }
            tree.insert(path, facts);
        }
        files.sort();
        let contents = in_parallel(&files, |(_, path)| {
            let file = File::open(self.path(path)).unwrap();
            digest(tree[path].size, |offset, buffer| read_at(&file, offset, buffer))
        });
        for ((_, path), contents) in files.iter().zip(contents) {
            tree.get_mut(path).unwrap().contents = contents;
        }
        tree
    }

    fn read(&self, path: &[u8], offset: u64, len: usize) -> Result<Vec<u8>, i32> {
        let mut buffer = vec![0; len];
        let file = File::open(self.path(path)).map_err(|error| error.raw_os_error().unwrap())?;
        let count = read_at(&file, offset, &mut buffer)?;
        buffer.truncate(count);
        Ok(buffer)
    }
}

/// Does some work on all items in several threads, which take them in their order.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        while let index = next.fetch_add(1, Ordering::Relaxed)
            && let Some(item) = items.get(index)
        {
            done.push((index, work(item)));
        }
        done
    };
    let mut done: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..THREADS).map(|_| scope.spawn(take)).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Reads until the buffer is full or the file ends.
fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> Result<usize, i32> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) => return Err(error.raw_os_error().unwrap()),
        }
    }
    Ok(done)
}

/// The digest of a file's contents, which must be as long as its size says.
fn digest(size: u64, read: impl Fn(u64, &mut [u8]) -> Result<usize, i32>) -> Option<Result<u64, i32>> {
    if size > HASHED {
        return None;
    }
    let (mut hash, mut buffer, mut offset) = (Xxh3::new(), vec![0; STEP], 0);
    loop {
        match read(offset, &mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hash.update(&buffer[..count]);
                offset += count as u64;
            }
            Err(errno) => return Some(Err(errno)),
        }
    }
    assert_eq!(offset, size, "contents are as long as the size says");
    Some(Ok(hash.digest()))
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
    [path, separator, name].concat()
}

/// An archive served by `fim mount --ro`, in the mount namespace of this thread, until it is dropped.
pub(crate) struct FimMount {
    point: tempfile::TempDir,
    child: Child,
}

impl FimMount {
    /// Further options of the mount, with commas between and before them.
    pub(crate) fn new(archive: &Path, options: &str) -> Self {
        let point = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_fim"))
            .args(["mount", "--ro", "-f", "--json", "-o"])
            .arg(format!("dev,suid{options}"))
            .args([archive, point.path()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("\"read_only\":true"), "fim mount says: {line:?}");
        Self { point, child }
    }
}

impl Drop for FimMount {
    fn drop(&mut self) {
        let ended = Pidfd::open(self.child.id().cast_signed())
            .is_ok_and(|server| server.signal(Signal::SIGTERM).is_ok());
        if !ended {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
