//! A directory of the host as a source.
//!
//! Everything is reached from one descriptor of the root by paths that the kernel resolves beneath it without
//! following links, so that a tree which changes meanwhile can lead nowhere else.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs::File,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::FileExt as _,
    },
    path::{Path, PathBuf},
};

use super::{
    error::WriteError,
    faults::Faults,
    object::{Content, Device, FileContent, Object, Timestamp},
    progress::Progress,
    source::{Contents, Source},
    tree::{EntryId, ObjectId, Tree},
    xattrs,
};
use crate::{
    dwarfs::format::{
        owner::{ENTRIES, EntryOwners},
        sidecar::Xattrs,
    },
    sys::{
        beneath,
        scan::{self, Kind, Stat, XattrReader},
    },
};

/// A directory of the host, to be archived with everything below it.
#[derive(Debug)]
pub struct DirSource {
    root: OwnedFd,
    one_file_system: bool,
    skipped: Vec<Vec<u8>>,
    single: Option<(u32, u32)>,
}

impl DirSource {
    /// Opens the directory; links on the way to it are followed.
    ///
    /// # Errors
    /// Passes on what the host says.
    pub fn open(path: &Path) -> Result<Self, WriteError> {
        let root = scan::open_root(path).map_err(|source| {
            let path = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).into();
            WriteError::Source { action: "open", path, source }
        })?;
        Ok(Self { root, one_file_system: false, skipped: Vec::new(), single: None })
    }

    /// Stops at mount points: of a mounted directory only the directory itself is archived, of a mounted file nothing.
    #[must_use]
    pub fn one_file_system(mut self, yes: bool) -> Self {
        self.one_file_system = yes;
        self
    }

    /// The tree was written where there was one user only, who has these ids on the host: he stands for root. Whom else
    /// something belongs to, records say.
    #[must_use]
    pub const fn of_single_user(mut self, ids: (u32, u32)) -> Self {
        self.single = Some(ids);
        self
    }

    /// Leaves out these paths (relative to the root) with everything below them.
    #[must_use]
    pub fn skip(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let bytes = |path: PathBuf| std::os::unix::ffi::OsStringExt::into_vec(path.into_os_string());
        self.skipped.extend(paths.into_iter().map(bytes));
        self
    }
}

impl Source for DirSource {
    fn scan(&self, faults: &Faults<'_>, progress: &dyn Progress) -> Result<Tree, WriteError> {
        let mut scanner = Scanner::new(self, faults)?;
        while let Some(directory) = scanner.queue.pop_front() {
            let found = scanner.scan_directory(directory)?;
            progress.files(found as u64);
        }
        Ok(scanner.tree)
    }

    fn open(&self, path: &[u8], _file: &Object) -> Result<Box<dyn Contents + '_>, WriteError> {
        let open = || {
            let fd = scan::open_beneath(self.root.as_fd(), path, Kind::File)?;
            is_file(&scan::stat(fd.as_fd())?).then(|| File::from(fd)).ok_or_else(replaced)
        };
        let file =
            open().map_err(|source| WriteError::Source { action: "open", path: path.into(), source })?;
        Ok(Box::new(HostFile { file }))
    }
}

fn is_file(stat: &Stat) -> bool {
    stat.mode & TYPE_BITS == TYPE_FILE
}

fn replaced() -> io::Error {
    io::Error::other("it has been replaced by something that is not a file")
}

const TYPE_BITS: u32 = 0o170_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_DIRECTORY: u32 = 0o040_000;

struct HostFile {
    file: File,
}

impl Contents for HostFile {
    fn is_unchanged(&self, known: &Object) -> io::Result<bool> {
        let stat = scan::stat(self.file.as_fd())?;
        let same_file =
            known.file().is_some_and(|file| (file.size, file.locator) == (stat.size, stat.identity.1));
        Ok(same_file && (known.mtime, known.ctime) == (timestamp(stat.mtime), timestamp(stat.ctime)))
    }

    fn refresh(&self, known: &Object) -> io::Result<Object> {
        let stat = scan::stat(self.file.as_fd())?;
        Ok(Object {
            content: Content::File(file_content(self.file.as_fd(), &stat)?),
            mtime: timestamp(stat.mtime),
            atime: timestamp(stat.atime),
            ctime: timestamp(stat.ctime),
            btime: stat.btime.map(timestamp),
            ..known.clone()
        })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

fn timestamp((seconds, nanos): (i64, u32)) -> Timestamp {
    Timestamp { seconds, nanos }
}

fn file_content(fd: BorrowedFd<'_>, stat: &Stat) -> io::Result<FileContent> {
    let extents = if may_have_holes(stat) { scan::data_ranges(fd, stat.size)? } else { None };
    Ok(FileContent { size: stat.size, extents: extents.map(Vec::into_boxed_slice), locator: stat.identity.1 })
}

/// Whether a file takes less space than its length; only then is it worth asking for its holes.
fn may_have_holes(stat: &Stat) -> bool {
    stat.blocks.saturating_mul(512) < stat.size
}

/// The walk through a tree, breadth first.
struct Scanner<'a> {
    source: &'a DirSource,
    faults: &'a Faults<'a>,
    tree: Tree,
    queue: VecDeque<EntryId>,
    /// Objects that may be met again under another name.
    linked: HashMap<(u64, u64), ObjectId>,
    xattrs: XattrReader,
    root: Stat,
}

impl<'a> Scanner<'a> {
    fn new(source: &'a DirSource, faults: &'a Faults<'a>) -> Result<Self, WriteError> {
        let failed = |source| WriteError::Source { action: "read", path: b"".as_slice().into(), source };
        let mut reader = XattrReader::default();
        let root = scan::stat(source.root.as_fd()).map_err(failed)?;
        let mut object = object(&root, Content::Directory, source.single);
        let found = reader.read(source.root.as_fd(), b"", xattrs::is_wanted).map_err(failed)?;
        let kept = xattrs::normalise(&mut object, found);
        Ok(Self {
            source,
            faults,
            tree: Tree::new(object, kept)?,
            queue: VecDeque::from([EntryId::ROOT]),
            linked: HashMap::new(),
            xattrs: reader,
            root,
        })
    }

    /// Adds the entries of one directory to the tree and returns how many there are.
    fn scan_directory(&mut self, id: EntryId) -> Result<usize, WriteError> {
        let path = self.tree.path(id);
        let failed =
            |action, path: Vec<u8>| move |source| WriteError::Source { action, path: path.into(), source };
        let open = || {
            let directory = scan::open_beneath(self.source.root.as_fd(), &path, Kind::Directory)
                .map_err(failed("open", path.clone()))?;
            let names = scan::list(directory.as_fd()).map_err(failed("list", path.clone()))?;
            Ok((directory, names))
        };
        let (directory, mut names) = match open() {
            Ok(opened) => opened,
            // Without the root there is nothing to archive.
            Err(error) if id == EntryId::ROOT => return Err(error),
            Err(error) => return self.faults.leave_out(error).map(|()| 0),
        };
        names.sort_unstable();
        let owners = self.owners(directory.as_fd()).map_err(failed("read", path.clone()))?;

        let mut children = Vec::with_capacity(names.len());
        let mut entered = HashSet::new();
        for name in names {
            let child_path = if path.is_empty() { name.clone() } else { [&path, &name[..]].join(&b'/') };
            if self.source.skipped.contains(&child_path) {
                continue;
            }
            let found = match self.look(directory.as_fd(), &name, &owners) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    self.faults.leave_out(failed("read", child_path)(error))?;
                    continue;
                }
            };
            let Found { stat, object, is_entered } = found;
            let id = match object {
                Seen::Before(id) => id,
                Seen::First(object, xattrs) => self.tree.add_object(object, xattrs)?,
            };
            if stat.nlink > 1 && !is_directory(&stat) {
                self.linked.insert(stat.identity, id);
            }
            if is_entered {
                entered.insert(id);
            }
            children.push((name, id));
        }
        let count = children.len();
        for number in self.tree.fill_directory(id, children)? {
            let child = EntryId::from_number(number);
            if entered.contains(&self.tree.object_of(child)) {
                self.queue.push_back(child);
            }
        }
        Ok(count)
    }

    /// The records of a directory's entries.
    fn owners(&mut self, directory: BorrowedFd<'_>) -> io::Result<EntryOwners> {
        let found = self.xattrs.read(directory, b"", |name| name == ENTRIES)?;
        Ok(found.into_iter().next().map(|(_, value)| EntryOwners::parse(&value)).unwrap_or_default())
    }

    /// Looks at one entry of a directory. `None`: it is not to be archived, or gone since it was listed.
    /// `owners` are the records of its entries.
    fn look(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        owners: &EntryOwners,
    ) -> io::Result<Option<Found>> {
        let stat = match scan::stat_at(directory, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result?,
        };
        let is_foreign = self.source.one_file_system
            && (stat.mount != self.root.mount || stat.identity.0 != self.root.identity.0);
        let is_directory = is_directory(&stat);
        if is_foreign && !is_directory {
            return Ok(None);
        }
        let is_entered = is_directory && !is_foreign;
        if let Some(known) = self.linked.get(&stat.identity).filter(|_| !is_directory) {
            return Ok(Some(Found { stat, object: Seen::Before(*known), is_entered }));
        }
        let Some(content) = read_content(directory, name, &stat)? else { return Ok(None) };
        let takes_none = !matches!(content, Content::Directory | Content::File(_));
        let mut object = object(&stat, content, self.source.single);
        let found = self.xattrs.read(directory, name, xattrs::is_wanted)?;
        let kept = xattrs::normalise(&mut object, found);
        if let Some(owner) = owners.get(name, stat.identity.1).filter(|_| takes_none) {
            xattrs::apply(owner, &mut object);
        }
        Ok(Some(Found { stat, object: Seen::First(object, kept), is_entered }))
    }
}

/// An entry of a directory.
struct Found {
    stat: Stat,
    object: Seen,
    is_entered: bool,
}

/// Whether an object has been met under another name.
enum Seen {
    Before(ObjectId),
    First(Object, Xattrs),
}

fn is_directory(stat: &Stat) -> bool {
    stat.mode & TYPE_BITS == TYPE_DIRECTORY
}

fn object(stat: &Stat, content: Content, single: Option<(u32, u32)>) -> Object {
    let (uid, gid) = single.map_or((None, None), |(uid, gid)| (Some(uid), Some(gid)));
    Object {
        content,
        // Masked, so it fits.
        perm: u16::try_from(stat.mode & 0o7777).unwrap_or_default(),
        uid: if uid == Some(stat.uid) { 0 } else { stat.uid },
        gid: if gid == Some(stat.gid) { 0 } else { stat.gid },
        mtime: timestamp(stat.mtime),
        atime: timestamp(stat.atime),
        ctime: timestamp(stat.ctime),
        btime: stat.btime.map(timestamp),
    }
}

/// Reads what belongs to the kind of an object. `None`: a kind that Linux does not know.
fn read_content(directory: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> io::Result<Option<Content>> {
    let device = Device { major: stat.rdev.0, minor: stat.rdev.1 };
    Ok(Some(match stat.mode & TYPE_BITS {
        TYPE_DIRECTORY => Content::Directory,
        TYPE_FILE if may_have_holes(stat) => {
            let file = scan::open_beneath(directory, name, Kind::File)?;
            Content::File(file_content(file.as_fd(), stat)?)
        }
        TYPE_FILE => Content::File(FileContent { size: stat.size, extents: None, locator: stat.identity.1 }),
        0o120_000 => Content::Symlink(beneath::read_link(directory, name)?.into_boxed_slice()),
        0o020_000 => Content::CharDevice(device),
        0o060_000 => Content::BlockDevice(device),
        0o010_000 => Content::Fifo,
        0o140_000 => Content::Socket,
        _ => return Ok(None),
    }))
}
