//! Copies out of a tree into a directory of the host.
//!
//! The destination is found by its path once. Below it everything goes by directory descriptor and one name, and no
//! symlink is ever followed, be it one that was there or one that was just copied: nothing is written outside of it.
//!
//! An object is made under a name of its own, filled, given its attributes, and only then renamed to where it belongs:
//! what was there stays until the copy is whole. A directory that is there already is taken, and gets its attributes
//! when all in it is done.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use hashbrown::HashMap;

use super::{Attr, BrowseError, Child, FileKind, Found, Links, Object, Time, Tree, damaged, text};
use crate::{
    causes::one_line,
    dwarfs::write::Phase,
    runtime::create::Report,
    sys::{
        beneath::{self, OpenFor, RenameFlags, TimeChange},
        data,
        errno::Errno,
        scan, users, xattr,
    },
    vfs::{FileSystem as _, SeekWhence},
};

/// Directories in each other that are copied: each keeps a descriptor open, of 1,024 that a process usually has.
const MOST_DEPTH: usize = 512;

/// What to copy, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyPlan {
    /// Paths in the tree.
    pub sources: Vec<Vec<u8>>,
    /// A directory that they are copied into, or the new name of the only one.
    pub destination: PathBuf,
    /// Whether directories are copied with all below them, and symlinks as such.
    pub recursive: bool,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Objects.
    pub objects: u64,
    /// Objects that could not be copied; each has been told.
    pub failures: u64,
}

/// Copies. What cannot be copied is told as a warning, and the rest goes on.
///
/// # Errors
///
/// A source is not there, or the destination cannot be used; nothing has been copied then.
pub fn copy(tree: &Tree, plan: &CopyPlan, report: &dyn Report) -> Result<Copied, BrowseError> {
    let mut jobs = Vec::new();
    for source in &plan.sources {
        jobs.push(plan_one(tree, plan, source)?);
    }
    let bytes = jobs.iter().map(|job| bytes_of(&job.found)).sum();
    report.begin(Phase::Compress, 0, bytes);
    report.step("copying");
    let mut copier = Copier {
        report,
        is_root: users::effective_ids().0 == 0,
        serial: 0,
        names: HashMap::new(),
        copied: Copied::default(),
        told_xattrs: false,
    };
    for job in jobs {
        copier.run(job)?;
    }
    Ok(copier.copied)
}

/// One source with its place.
struct Job<'t> {
    found: Found<'t>,
    /// The directory that it comes into.
    parent: PathBuf,
    /// Its name there; `None`: the directory is there and takes what is below the source.
    name: Option<Vec<u8>>,
}

/// Decides where a source goes.
fn plan_one<'t>(tree: &'t Tree, plan: &CopyPlan, source: &[u8]) -> Result<Job<'t>, BrowseError> {
    let links = if plan.recursive { Links::Keep } else { Links::Follow };
    let found = tree.find(source, links)?;
    if found.object.is_dir() && !plan.recursive {
        return Err(BrowseError::IsADirectory { path: source.to_owned() });
    }
    let destination = &plan.destination;
    let unusable = |kind: io::ErrorKind| BrowseError::Write {
        path: destination.as_os_str().as_bytes().to_owned(),
        source: kind.into(),
    };
    if fs::metadata(destination).is_ok_and(|there| there.is_dir()) {
        let given = source.rsplit(|byte| *byte == b'/').find(|name| !name.is_empty());
        let given = given.filter(|name| *name != b"." && *name != b"..");
        let own = found.path.rsplit(|byte| *byte == b'/').next().filter(|name| !name.is_empty());
        let name = given.or(own).map(<[u8]>::to_owned);
        return Ok(Job { found, parent: destination.clone(), name });
    }
    if plan.sources.len() > 1 {
        return Err(unusable(io::ErrorKind::NotADirectory));
    }
    let name = destination.file_name().ok_or_else(|| unusable(io::ErrorKind::NotFound))?;
    let parent = destination.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok(Job {
        found,
        parent: parent.unwrap_or_else(|| Path::new(".")).to_owned(),
        name: Some(name.as_bytes().to_owned()),
    })
}

/// Bytes of all files of a source. What cannot be listed counts nothing: copying it tells.
fn bytes_of(found: &Found<'_>) -> u64 {
    let mut bytes = size(found.object.attr());
    if found.object.is_dir() {
        let start = Found { path: found.path.clone(), object: found.object.clone() };
        let mut walk = super::Walk::below(start, true);
        while let Some(step) = walk.advance() {
            if let super::Step::Object { object, .. } = step {
                bytes += size(object.attr());
            }
        }
    }
    bytes
}

fn size(attr: &Attr) -> u64 {
    if attr.kind == FileKind::Regular { attr.size } else { 0 }
}

/// A directory whose entries are being copied.
struct Level<'t> {
    directory: OwnedFd,
    /// Its object and path in the tree; the attributes come at the end. `None`: they are not ours to set.
    source: Option<Object<'t>>,
    path_len: usize,
    ahead: std::vec::IntoIter<Child<'t>>,
}

/// Where a file with several names was copied to first.
#[derive(Clone, Debug)]
struct FirstName {
    /// Which job's directory its path begins at.
    base: PathBuf,
    path: Vec<u8>,
}

struct Copier<'r> {
    report: &'r dyn Report,
    /// Whether owners can be kept.
    is_root: bool,
    serial: u64,
    /// Files with several names, by inode number.
    names: HashMap<u64, FirstName>,
    copied: Copied,
    told_xattrs: bool,
}

/// Where an object is to be made.
#[derive(Clone, Copy)]
struct Spot<'a> {
    directory: BorrowedFd<'a>,
    name: &'a [u8],
}

impl Copier<'_> {
    fn run(&mut self, job: Job<'_>) -> Result<(), BrowseError> {
        let base = job.parent;
        let open = scan::open_root(&base);
        let opened = open
            .map_err(|source| BrowseError::Write { path: base.as_os_str().as_bytes().to_owned(), source })?;
        let Found { path, object } = job.found;
        let mut levels = Vec::new();
        // The path in the tree, and the path below the base.
        let (mut from, mut to) = (path, job.name.clone().unwrap_or_default());
        if object.is_dir() {
            let entered = match &job.name {
                Some(name) => self.enter(Spot { directory: opened.as_fd(), name }, &object, &from),
                None => object.children(&from).map(|ahead| Level {
                    directory: opened,
                    source: None,
                    path_len: 0,
                    ahead: ahead.into_iter(),
                }),
            };
            match entered {
                Ok(level) => levels.push(level),
                Err(error) => self.tell(&error),
            }
        } else if let Some(name) = &job.name {
            let made = self.make(Spot { directory: opened.as_fd(), name }, &object, &from, (&base, &to));
            self.note(made);
        }
        let (from_len, to_len) = (from.len(), to.len());
        loop {
            let depth = levels.len();
            let Some(level) = levels.last_mut() else { return Ok(()) };
            from.truncate(from_len + level.path_len);
            to.truncate(to_len + level.path_len);
            let Some(Child { name, object }) = level.ahead.next() else {
                if let Some(Level { directory, source: Some(object), .. }) = levels.pop() {
                    let finished = self.finish_directory(&directory, &object, &from);
                    self.note(finished);
                }
                continue;
            };
            // One slash too many where a path is empty: `base//name` is the same, and lengths stay in step.
            for path in [&mut from, &mut to] {
                path.push(b'/');
                path.extend_from_slice(&name);
            }
            let path_len = level.path_len + 1 + name.len();
            let spot = Spot { directory: level.directory.as_fd(), name: &name };
            if !object.is_dir() {
                let made = self.make(spot, &object, &from, (&base, &to));
                self.note(made);
            } else if depth >= MOST_DEPTH {
                self.tell(&BrowseError::Write { path: from.clone(), source: too_deep() });
            } else {
                match self.enter(spot, &object, &from) {
                    Ok(entered) => levels.push(Level { path_len, ..entered }),
                    Err(error) => self.tell(&error),
                }
            }
        }
    }

    fn note(&mut self, result: Result<(), BrowseError>) {
        match result {
            Ok(()) => self.copied.objects += 1,
            Err(error) => self.tell(&error),
        }
    }

    fn tell(&mut self, error: &BrowseError) {
        self.copied.failures += 1;
        self.report.warn(&one_line(error));
    }

    /// Makes a directory, or takes the one that is there.
    fn enter<'t>(&self, spot: Spot<'_>, object: &Object<'t>, path: &[u8]) -> Result<Level<'t>, BrowseError> {
        let ahead = object.children(path)?.into_iter();
        match beneath::make_directory(spot.directory, spot.name, 0o700) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(unwritten(path)(errno)),
        }
        // Fails where something else has the name, a symlink to a directory included.
        let directory = beneath::open(spot.directory, spot.name, OpenFor::List).map_err(unwritten(path))?;
        Ok(Level { directory, source: Some(object.clone()), path_len: 0, ahead })
    }

    fn finish_directory(
        &mut self,
        directory: &OwnedFd,
        object: &Object<'_>,
        path: &[u8],
    ) -> Result<(), BrowseError> {
        self.copy_attributes(directory.as_fd(), object, path)
    }

    /// Makes an object under a name of its own and renames it when it is done.
    fn make(
        &mut self,
        spot: Spot<'_>,
        object: &Object<'_>,
        path: &[u8],
        place: (&Path, &[u8]),
    ) -> Result<(), BrowseError> {
        self.serial += 1;
        let staged = format!(".fim-copy-{}-{}", std::process::id(), self.serial).into_bytes();
        let staging = Spot { name: &staged, ..spot };
        let made = self.fill(staging, object, path, place).and_then(|()| {
            let (from, to) = ((spot.directory, &*staged), (spot.directory, spot.name));
            beneath::rename(from, to, RenameFlags::empty()).map_err(unwritten(path))
        });
        // Also where it succeeded: renaming one name of a file to another of the same file does nothing.
        let removed = beneath::remove(spot.directory, &staged);
        if made.is_ok() && removed.is_err_and(|errno| errno != Errno::ENOENT) {
            return removed.map_err(unwritten(path));
        }
        made
    }

    fn fill(
        &mut self,
        spot: Spot<'_>,
        object: &Object<'_>,
        path: &[u8],
        (base, to): (&Path, &[u8]),
    ) -> Result<(), BrowseError> {
        let attr = *object.attr();
        let (directory, name) = (spot.directory, spot.name);
        match attr.kind {
            FileKind::Regular => {
                if attr.nlink > 1 && self.link(spot, attr.ino) {
                    self.report.bytes_in(attr.size);
                    return Ok(());
                }
                let file = beneath::create(directory, name, 0o600).map_err(unwritten(path))?;
                self.copy_data(&file, object, path)?;
                if attr.nlink > 1 {
                    self.names.insert(attr.ino, FirstName { base: base.to_owned(), path: to.to_owned() });
                }
                return self.copy_attributes(file.as_fd(), object, path);
            }
            FileKind::Symlink => {
                let target = object.target(path)?;
                beneath::make_symlink(directory, name, &target).map_err(unwritten(path))?;
            }
            kind => {
                let device = (attr.rdev.major, attr.rdev.minor);
                beneath::make_node(directory, name, kind.mode_bits(), 0o600, device)
                    .map_err(unwritten(path))?;
            }
        }
        let fd = beneath::open(directory, name, OpenFor::Path).map_err(unwritten(path))?;
        self.copy_attributes(fd.as_fd(), object, path)
    }

    /// Gives a file that was copied already one more name; `false` where it must be copied again.
    fn link(&self, spot: Spot<'_>, ino: u64) -> bool {
        let Some(first) = self.names.get(&ino) else { return false };
        let path: Vec<u8> = first.path.iter().copied().skip_while(|byte| *byte == b'/').collect();
        scan::open_root(&first.base)
            .and_then(|base| scan::open_beneath(base.as_fd(), &path, scan::Kind::File))
            .is_ok_and(|file| beneath::link(file.as_fd(), spot.directory, spot.name).is_ok())
    }

    /// Copies contents, and leaves holes where they are.
    fn copy_data(&self, file: &OwnedFd, object: &Object<'_>, path: &[u8]) -> Result<(), BrowseError> {
        let size = object.attr().size;
        let overlay = &object.tree.overlay;
        let seek = |offset, whence| match overlay.seek(object.entry.ino, offset, whence) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.errno() == Errno::ENXIO => Ok(None),
            Err(error) => Err(damaged("read", path)(error)),
        };
        let mut offset = 0;
        while offset < size {
            let Some(start) = seek(offset, SeekWhence::Data)? else { break };
            let end = seek(start, SeekWhence::Hole)?.unwrap_or(size).min(size);
            self.report.bytes_in(start - offset);
            object.range(path, start..end, &mut |at, bytes| {
                data::write_at(file.as_fd(), at, bytes)?;
                self.report.bytes_in(bytes.len() as u64);
                Ok(())
            })?;
            offset = end;
        }
        self.report.bytes_in(size - offset);
        data::set_len(file.as_fd(), size).map_err(unwritten(path))
    }

    /// Copies extended attributes, as far as the destination takes them.
    fn copy_xattrs(
        &mut self,
        fd: BorrowedFd<'_>,
        object: &Object<'_>,
        path: &[u8],
    ) -> Result<(), BrowseError> {
        for (name, value) in object.xattrs(path)? {
            match xattr::set(fd, &name, &value, 0) {
                Ok(()) => {}
                Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSPC | Errno::EINVAL) => {
                    if !self.told_xattrs {
                        let (name, path) = (text::escaped(&name), text::escaped(path));
                        self.report.warn(&format!("cannot keep {name} of {path}, and more like it"));
                    }
                    self.told_xattrs = true;
                }
                Err(errno) => return Err(unwritten(path)(errno)),
            }
        }
        Ok(())
    }

    /// Gives what `fd` (which may be `O_PATH`) refers to its owner, attributes, permissions and times, in this order:
    /// a new owner costs file capabilities and suid, and without write permission no attribute can be set.
    fn copy_attributes(
        &mut self,
        fd: BorrowedFd<'_>,
        object: &Object<'_>,
        path: &[u8],
    ) -> Result<(), BrowseError> {
        let attr = object.attr();
        if self.is_root {
            beneath::set_owner(fd, b"", Some(attr.uid), Some(attr.gid)).map_err(unwritten(path))?;
        }
        self.copy_xattrs(fd, object, path)?;
        if attr.kind != FileKind::Symlink {
            // A program that is not its owner's any more must not run with that one's rights.
            let perm = if self.is_root { attr.perm } else { attr.perm & 0o1777 };
            beneath::set_perm(fd, perm).map_err(unwritten(path))?;
        }
        let at = |time: Time| TimeChange::At(time.seconds, time.nanos);
        beneath::set_times(fd, b"", at(attr.atime), at(attr.mtime)).map_err(unwritten(path))
    }
}

fn unwritten(path: &[u8]) -> impl FnOnce(Errno) -> BrowseError {
    move |errno| BrowseError::Write { path: path.to_owned(), source: errno.into() }
}

fn too_deep() -> io::Error {
    io::Error::other(format!("more than {MOST_DEPTH} directories in each other"))
}
