//! The overlay, called as the kernel would call it.

use std::{path::PathBuf, sync::Arc};

use fim::{
    layer::{HostDir, HostUpper, UpperError},
    overlay::{Folding, Overlay, OverlayOptions},
    vfs::{
        Caller, DeviceId, FallocateMode, FileKind, FileSystem as _, Ino, Layer, Lookup, Name, NoInvalidate,
        RenameFlags, SetAttr, SetTime, Time, Upper, XattrFlags,
    },
};

use crate::ops::{Answer, Errno, Op, Path, SLOTS, Side};

pub(crate) const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0 };

pub(crate) struct Ours {
    lowers: Vec<PathBuf>,
    upper: PathBuf,
    work: PathBuf,
    pub(crate) layers: Vec<Arc<HostDir>>,
    pub(crate) host_upper: Option<Arc<HostUpper>>,
    pub(crate) overlay: Option<Overlay>,
    held: [Option<Ino>; SLOTS],
    pub(crate) casefold: Option<Folding>,
}

impl Ours {
    pub(crate) fn new(lowers: Vec<PathBuf>, upper: PathBuf, work: PathBuf) -> Self {
        let mut ours = Self {
            lowers,
            upper,
            work,
            layers: Vec::new(),
            host_upper: None,
            overlay: None,
            held: [None; SLOTS],
            casefold: None,
        };
        ours.mount();
        ours
    }

    pub(crate) fn fs(&self) -> &Overlay {
        self.overlay.as_ref().unwrap()
    }

    pub(crate) fn mount(&mut self) {
        self.layers = self.lowers.iter().map(|path| Arc::new(HostDir::open(path).unwrap())).collect();
        let upper = Arc::new(open_upper(&self.upper, &self.work));
        self.host_upper = Some(Arc::clone(&upper));
        let layers = self.layers.iter().map(|layer| Arc::clone(layer) as Arc<dyn Layer>).collect();
        let upper = Some(upper as Arc<dyn Upper>);
        // However short, so that every file can be without its data.
        let casefold = self.casefold.clone();
        let options = OverlayOptions { smallest_without_data: 1, casefold, ..OverlayOptions::default() };
        let overlay = Overlay::new(layers, upper, options, Arc::new(NoInvalidate)).unwrap();
        self.overlay = Some(overlay);
    }

    /// Forgets everything, and checks that nothing is left in any table.
    pub(crate) fn unmount(&mut self) {
        for slot in 0..SLOTS {
            self.release(slot);
        }
        assert_eq!(self.fs().live_nodes(), 1, "nodes of the overlay after the last forget");
        for layer in &self.layers {
            assert_eq!(layer.live_nodes(), 1, "nodes of a layer after the last forget");
        }
        let upper = self.host_upper.take().unwrap();
        assert_eq!(upper.live_nodes(), 3, "nodes of the upper after the last forget");
        self.overlay = None;
        self.layers.clear();
        drop(upper);
        let left: Vec<_> = std::fs::read_dir(self.work.join("work"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name != "#whiteout" && name != "incompat")
            .collect();
        assert!(left.is_empty(), "left in the work directory: {left:?}");
    }

    /// Looks everything up once and keeps it, as a kernel with much memory does.
    pub(crate) fn keep_all(&self) -> Vec<Ino> {
        let (_, inos) = crate::dump::ours(self);
        let paths = inos.keys().filter(|path| !path.is_empty());
        let paths = paths.map(|path| path.split('/').map(str::to_owned).collect::<Vec<_>>());
        paths
            .map(|path| {
                let parent = self.walk(&path[..path.len() - 1]).unwrap();
                match self.fs().lookup(parent.last(), last(&path)).unwrap() {
                    Lookup::Found(entry) | Lookup::Respelled(entry) => entry.ino,
                    other => panic!("{path:?}: {other:?}"),
                }
            })
            .collect()
    }

    pub(crate) fn give_back(&self, inos: Vec<Ino>) {
        inos.into_iter().for_each(|ino| self.fs().forget(ino, 1));
    }

    /// Copies the frozen upper as an archive would hold it, and goes on over the copy.
    pub(crate) fn commit(&mut self) {
        let path = self.work.with_file_name(format!("commit{}", self.lowers.len()));
        let fs = self.overlay.as_ref().unwrap();
        let guard = fs.freeze().unwrap();
        let copied = std::process::Command::new("cp").arg("-a").arg(&self.upper).arg(&path).status().unwrap();
        assert!(copied.success());
        let layer = Arc::new(HostDir::open(&path).unwrap());
        fs.rebase(guard, Arc::clone(&layer) as Arc<dyn Layer>).unwrap();
        assert_eq!(std::fs::read_dir(&self.upper).unwrap().count(), 0, "the upper is empty after a commit");
        self.layers.push(layer);
        self.lowers.push(path);
    }

    fn release(&mut self, slot: usize) {
        if let Some(ino) = self.held[slot].take() {
            self.fs().forget(ino, 1);
        }
    }

    /// Looks a path up; each name on it counts one look-up, which `done` gives back.
    pub(crate) fn walk(&self, path: &[String]) -> Result<Walked<'_>, Errno> {
        let mut walked = Walked { overlay: self.fs(), inos: vec![Ino::ROOT] };
        for name in path {
            let name = Name::new(name.as_bytes()).unwrap();
            match self.fs().lookup(walked.last(), name).map_err(raw)? {
                Lookup::Found(entry) | Lookup::Respelled(entry) => walked.inos.push(entry.ino),
                Lookup::Absent | Lookup::AbsentUncached => return Err(libc::ENOENT),
            }
        }
        Ok(walked)
    }

    fn parent(&self, path: &Path) -> Result<Walked<'_>, Errno> {
        let parent = self.walk(&path[..path.len() - 1])?;
        match self.fs().getattr(parent.last()).map_err(raw)?.kind {
            FileKind::Directory => Ok(parent),
            _ => Err(libc::ENOTDIR),
        }
    }

    fn stat(&self, ino: Ino) -> Result<Answer, Errno> {
        let attr = self.fs().getattr(ino).map_err(raw)?;
        let is_dir = attr.kind == FileKind::Directory;
        let links = if is_dir { u32::from(attr.nlink > 0) } else { attr.nlink };
        Ok(Answer::Stat(attr.kind.mode_bits(), attr.perm, links, if is_dir { 0 } else { attr.size }))
    }

    fn held(&self, slot: usize) -> Result<Ino, Errno> {
        self.held[slot].ok_or(libc::EBADF)
    }

    fn made(&self, entry: fim::vfs::Result<fim::vfs::Entry>) -> Result<Answer, Errno> {
        self.fs().forget(entry.map_err(raw)?.ino, 1);
        Ok(Answer::Done)
    }

    /// As open(2) looks at it before a file is written.
    fn check_regular(&self, ino: Ino) -> Result<(), Errno> {
        match self.fs().getattr(ino).map_err(raw)?.kind {
            FileKind::Regular => Ok(()),
            FileKind::Directory => Err(libc::EISDIR),
            _ => Err(libc::EINVAL),
        }
    }
}

/// Opens an upper. A process that another test starts may hold a copy of the lock until it has become `cp`.
pub(crate) fn open_upper(upper: &std::path::Path, work: &std::path::Path) -> HostUpper {
    for _ in 0..1000 {
        match HostUpper::open(upper, work) {
            Err(UpperError::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(5)),
            other => return other.unwrap(),
        }
    }
    panic!("the upper stays in use");
}

/// Nodes on a path, each with a look-up.
pub(crate) struct Walked<'a> {
    overlay: &'a Overlay,
    inos: Vec<Ino>,
}

impl Walked<'_> {
    pub(crate) fn last(&self) -> Ino {
        *self.inos.last().unwrap()
    }
}

impl Drop for Walked<'_> {
    fn drop(&mut self) {
        for ino in &self.inos[1..] {
            self.overlay.forget(*ino, 1);
        }
    }
}

impl Side for Ours {
    fn apply(&mut self, op: &Op) -> Result<Answer, Errno> {
        match op {
            Op::Hold(slot, path) => {
                let walked = self.walk(path)?;
                let ino = walked.last();
                // One more look-up, which stays.
                let parent = self.parent(path)?;
                self.fs().lookup(parent.last(), last(path)).map_err(raw)?;
                drop((walked, parent));
                self.release(*slot);
                self.held[*slot] = Some(ino);
            }
            Op::Release(slot) => self.release(*slot),
            Op::Commit => self.commit(),
            _ => return self.answer(op),
        }
        Ok(Answer::Done)
    }
}

impl Ours {
    /// Carries out what any thread may.
    pub(crate) fn answer(&self, op: &Op) -> Result<Answer, Errno> {
        let fs = self.fs();
        match op {
            Op::Create(path, perm) => {
                let parent = self.parent(path)?;
                let made =
                    fs.mknod(ROOT, parent.last(), last(path), FileKind::Regular, *perm, DeviceId::default());
                return self.made(made);
            }
            Op::Mkdir(path, perm) => {
                let parent = self.parent(path)?;
                return self.made(fs.mkdir(ROOT, parent.last(), last(path), *perm));
            }
            Op::Symlink(path, target) => {
                let parent = self.parent(path)?;
                return self.made(fs.symlink(ROOT, parent.last(), last(path), target.as_bytes()));
            }
            Op::Fifo(path) => {
                let parent = self.parent(path)?;
                let made =
                    fs.mknod(ROOT, parent.last(), last(path), FileKind::Fifo, 0o600, DeviceId::default());
                return self.made(made);
            }
            Op::Whiteout(path) => {
                let parent = self.parent(path)?;
                let made =
                    fs.mknod(ROOT, parent.last(), last(path), FileKind::CharDevice, 0, DeviceId::default());
                return self.made(made);
            }
            Op::Unlink(path) => fs.unlink(self.parent(path)?.last(), last(path)).map_err(raw)?,
            Op::Rmdir(path) => fs.rmdir(self.parent(path)?.last(), last(path)).map_err(raw)?,
            Op::Rename(from, to, flags) => {
                let (old, new) = (self.parent(from)?, self.parent(to)?);
                let flags = RenameFlags::from_bits_retain(*flags);
                fs.rename(old.last(), last(from), new.last(), last(to), flags).map_err(raw)?;
            }
            Op::Link(from, to) => {
                let (object, parent) = (self.walk(from)?, self.parent(to)?);
                return self.made(fs.link(object.last(), parent.last(), last(to)));
            }
            Op::Write(path, offset, byte, len) => {
                let file = self.walk(path)?;
                self.check_regular(file.last())?;
                fs.write(ROOT, file.last(), *offset, &vec![*byte; *len], false).map_err(raw)?;
            }
            Op::Read(path) => {
                let file = self.walk(path)?;
                let data = fs.read(file.last(), 0, 1 << 16).map_err(raw)?;
                return Ok(Answer::Bytes(data.contiguous().into_owned()));
            }
            Op::Truncate(path, len) => {
                let file = self.walk(path)?;
                self.check_regular(file.last())?;
                set(fs, file.last(), SetAttr { size: Some(*len), ..SetAttr::default() })?;
            }
            Op::Punch(path, offset, len) => {
                let file = self.walk(path)?;
                let mode = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
                fs.fallocate(ROOT, file.last(), mode, *offset, *len).map_err(raw)?;
            }
            Op::Allocate(path, mode, offset, len) => {
                let file = self.walk(path)?;
                let mode = FallocateMode::from_bits(*mode).unwrap();
                fs.fallocate(ROOT, file.last(), mode, *offset, *len).map_err(raw)?;
            }
            Op::Chmod(path, perm) => {
                let object = self.walk(path)?;
                if fs.getattr(object.last()).map_err(raw)?.kind == FileKind::Symlink {
                    return Err(libc::EOPNOTSUPP);
                }
                set(fs, object.last(), SetAttr { perm: Some(*perm), ..SetAttr::default() })?;
            }
            Op::Touch(path, seconds) => {
                let object = self.walk(path)?;
                let time = Some(SetTime::At(Time { seconds: *seconds, nanos: 1 }));
                set(fs, object.last(), SetAttr { atime: time, mtime: time, ..SetAttr::default() })?;
            }
            Op::SetXattr(path, value, flags) => {
                let object = self.walk(path)?;
                let flags = XattrFlags::from_bits_retain(*flags);
                fs.setxattr(ROOT, object.last(), b"user.x", value, flags).map_err(raw)?;
            }
            Op::RemoveXattr(path) => {
                fs.removexattr(ROOT, self.walk(path)?.last(), b"user.x").map_err(raw)?;
            }
            Op::Stat(path) => return self.stat(self.walk(path)?.last()),
            Op::Readlink(path) => {
                let object = self.walk(path)?;
                return fs.readlink(object.last()).map(Answer::Bytes).map_err(raw);
            }
            Op::CopyRange(from, to, len) => {
                let from = self.walk(from)?;
                self.check_regular(from.last())?;
                let to = self.walk(to)?;
                self.check_regular(to.last())?;
                if from.last() == to.last() {
                    return Err(libc::EBUSY);
                }
                fs.copy_range(ROOT, from.last(), 0, to.last(), 0, *len).map_err(raw)?;
            }
            Op::HeldWrite(slot, offset, len) => {
                let ino = self.held(*slot)?;
                self.check_regular(ino)?;
                fs.write(ROOT, ino, *offset, &vec![b'h'; *len], false).map_err(raw)?;
            }
            Op::HeldTruncate(slot, len) => {
                let ino = self.held(*slot)?;
                self.check_regular(ino)?;
                set(fs, ino, SetAttr { size: Some(*len), ..SetAttr::default() })?;
            }
            Op::HeldStat(slot) => return self.stat(self.held(*slot)?),
            Op::HeldCreate(slot, name) => {
                let name = Name::new(name.as_bytes()).unwrap();
                let made =
                    fs.mknod(ROOT, self.held(*slot)?, name, FileKind::Regular, 0o644, DeviceId::default());
                return self.made(made);
            }
            Op::Fsync(path) => fs.fsync(self.walk(path)?.last(), false).map_err(raw)?,
            Op::Hold(..) | Op::Release(_) | Op::Commit | Op::Check | Op::Remount => {}
        }
        Ok(Answer::Done)
    }
}

fn set(fs: &Overlay, ino: Ino, changes: SetAttr) -> Result<(), Errno> {
    fs.setattr(ROOT, ino, &changes).map(|_| ()).map_err(raw)
}

fn last(path: &Path) -> Name<'_> {
    Name::new(path.last().unwrap().as_bytes()).unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "it is for map_err")]
pub(crate) fn raw(error: fim::vfs::Error) -> Errno {
    error.errno() as i32
}
