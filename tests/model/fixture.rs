//! An overlay over one layer, and what tests ask of it.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use fim::{
    layer::HostDir,
    overlay::{Overlay, OverlayOptions},
    vfs::{
        Attr, Caller, DeviceId, DirSink, Errno, FileKind, FileSystem as _, Full, Ino, Layer, Lookup, Name,
        NoInvalidate, RenameFlags, Result, Upper,
    },
};

use crate::{
    ours::open_upper,
    tree::{Tree, scratch},
};

pub(crate) const USER: Caller = Caller { uid: 1234, gid: 5678, pid: 1, umask: 0 };

pub(crate) fn path(text: &str) -> Vec<String> {
    text.split('/').map(str::to_owned).collect()
}

pub(crate) fn file(content: &[u8]) -> Tree {
    Tree::File(content.to_vec(), 0o644)
}

pub(crate) fn dir<const N: usize>(entries: [(&str, Tree); N]) -> Tree {
    let entries = entries.into_iter().map(|(name, entry)| (name.to_owned(), entry)).collect();
    Tree::Directory { opaque: false, perm: 0o755, entries }
}

/// An overlay over one layer.
pub(crate) struct Fixture {
    pub(crate) scratch: tempfile::TempDir,
    pub(crate) fs: Overlay,
}

impl Fixture {
    pub(crate) fn new(lower: &Tree) -> Self {
        Self::with(OverlayOptions::default(), |root| lower.write(root))
    }

    pub(crate) fn with(options: OverlayOptions, fill: impl FnOnce(&Path)) -> Self {
        let scratch = scratch();
        for name in ["lower", "upper", "work"] {
            fs::create_dir(scratch.path().join(name)).unwrap();
        }
        fill(&scratch.path().join("lower"));
        let fs = mount(scratch.path(), options);
        Self { scratch, fs }
    }

    pub(crate) fn upper(&self, path: &str) -> PathBuf {
        self.scratch.path().join("upper").join(path)
    }

    pub(crate) fn ino(&self, path: &str) -> Ino {
        path.split('/').filter(|name| !name.is_empty()).fold(Ino::ROOT, |dir, text| {
            match self.fs.lookup(dir, name(text)).unwrap() {
                Lookup::Found(entry) | Lookup::Respelled(entry) => entry.ino,
                other => panic!("{path}: {other:?}"),
            }
        })
    }

    pub(crate) fn attr(&self, path: &str) -> Attr {
        self.fs.getattr(self.ino(path)).unwrap()
    }

    pub(crate) fn create(&self, caller: Caller, dir: &str, text: &str, perm: u16) -> Ino {
        let dir = self.ino(dir);
        self.fs.mknod(caller, dir, name(text), FileKind::Regular, perm, DeviceId::default()).unwrap().ino
    }

    pub(crate) fn mv(&self, from: &str, to: &str) {
        let split = |path: &str| match path.rsplit_once('/') {
            Some((dir, last)) => (self.ino(dir), last.to_owned()),
            None => (Ino::ROOT, path.to_owned()),
        };
        let ((dir, old), (new_dir, new)) = (split(from), split(to));
        self.fs.rename(dir, name(&old), new_dir, name(&new), RenameFlags::empty()).unwrap();
    }

    pub(crate) fn names(&self, dir: &str) -> Vec<String> {
        list(&self.fs, self.ino(dir))
    }

    pub(crate) fn remounted(self) -> Self {
        let Self { scratch, fs } = self;
        drop(fs);
        Self { fs: mount(scratch.path(), OverlayOptions::default()), scratch }
    }

    pub(crate) fn work_is_clean(&self) -> bool {
        let entries = fs::read_dir(self.scratch.path().join("work/work")).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).all(|name| name == "#whiteout" || name == "incompat")
    }
}

pub(crate) fn mount(scratch: &Path, options: OverlayOptions) -> Overlay {
    let lower = Arc::new(HostDir::open(&scratch.join("lower")).unwrap()) as Arc<dyn Layer>;
    let upper = open_upper(&scratch.join("upper"), &scratch.join("work"));
    let upper = Some(Arc::new(upper) as Arc<dyn Upper>);
    Overlay::new(vec![lower], upper, options, Arc::new(NoInvalidate)).unwrap()
}

/// Takes all names of a directory.
#[derive(Default)]
pub(crate) struct Names(Vec<String>);

impl DirSink for Names {
    fn push(&mut self, _ino: Ino, _kind: FileKind, name: &[u8], _next: u64) -> std::result::Result<(), Full> {
        self.0.push(String::from_utf8_lossy(name).into_owned());
        Ok(())
    }
}

/// The names of a directory, sorted, without those of dots.
pub(crate) fn list(fs: &Overlay, dir: Ino) -> Vec<String> {
    let mut names = Names::default();
    fs.readdir(dir, 0, &mut names).unwrap();
    names.0.retain(|name| name != "." && name != "..");
    names.0.sort();
    names.0
}

pub(crate) fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).unwrap()
}

pub(crate) fn errno<T: std::fmt::Debug>(result: Result<T>) -> Errno {
    result.unwrap_err().errno()
}

pub(crate) fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
}

pub(crate) fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 100];
    let len = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(len);
    Some(value)
}
