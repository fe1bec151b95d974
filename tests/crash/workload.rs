//! A program that changes everything in every way, as a seed decides, and keeps its history.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::{
        fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink},
        io::AsFd as _,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, XattrFlags};

use crate::{
    history::{History, Id, Meta, Promise, Tree, Version, XATTR, begin, dump, join},
    rng::Rng,
};

/// Names that entries get.
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Most directories in one another.
const DEPTH: usize = 4;

/// Most objects, so that there is something to look at and looking does not take for ever.
const MOST: usize = 45;

/// Files that stay open and are written to.
const HELD: usize = 3;

/// Makes the layer that the workload begins with.
pub(crate) fn make_lower(at: &Path, rng: &mut Rng) {
    for name in ["", "a", "a/a", "a/a/b", "b", "b/c", "c", "d"] {
        fs::create_dir(at.join(name)).unwrap();
    }
    let sizes = [10, 3000, 9000, 70_000, 200_000, 270_001];
    for (number, name) in
        ["e", "f", "a/c", "a/d", "a/a/a", "a/a/b/e", "b/a", "b/c/f", "c/a"].iter().enumerate()
    {
        fs::write(at.join(name), rng.bytes(sizes[number % sizes.len()])).unwrap();
    }
    for (name, target) in [("b/b", "b/a"), ("a/a/c", "b/a"), ("c/b", "a/d"), ("a/a/b/a", "a/a/a")] {
        fs::hard_link(at.join(target), at.join(name)).unwrap();
    }
    symlink("e", at.join("c/c")).unwrap();
}

/// The program.
pub(crate) struct Workload<'a> {
    root: PathBuf,
    rng: Rng,
    pub(crate) history: History,
    /// Number of steps that have returned.
    pub(crate) done: usize,
    held: Vec<(Id, File)>,
    /// How much the disk has noted.
    now: &'a dyn Fn() -> usize,
    /// Whether what is closed is as safe as what was synced: the kernel below lives on.
    pub(crate) closing_is_enough: bool,
}

impl<'a> Workload<'a> {
    pub(crate) fn new(root: &Path, seed: u64, now: &'a dyn Fn() -> usize) -> Self {
        let history = begin(&dump(root));
        let rng = Rng::new(seed);
        Self { root: root.to_owned(), rng, history, done: 0, held: Vec::new(), now, closing_is_enough: false }
    }

    /// Does `count` steps, or fewer where one fails.
    pub(crate) fn run(&mut self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            self.step()?;
        }
        Ok(())
    }

    fn tree(&self) -> &Tree {
        &self.history.trees.last().unwrap().1
    }

    fn steps(&self) -> usize {
        self.history.trees.len() - 1
    }

    fn full(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A path that is there and fits.
    fn any(&mut self, fits: impl Fn(&Tree, &str) -> bool) -> Option<String> {
        let tree = &self.history.trees.last().unwrap().1;
        let paths: Vec<_> = tree.names.keys().filter(|path| fits(tree, path)).cloned().collect();
        (!paths.is_empty()).then(|| self.rng.pick(&paths).clone())
    }

    fn any_file(&mut self) -> Option<String> {
        self.any(Tree::is_file)
    }

    fn any_entry(&mut self) -> Option<String> {
        self.any(|_, path| !path.is_empty())
    }

    /// A name that is free.
    fn free(&mut self) -> Option<String> {
        let dir = self.any(|tree, path| tree.is_dir(path) && path.split('/').count() < DEPTH)?;
        let path = join(&dir, self.rng.pick::<&str>(&NAMES));
        (!self.tree().names.contains_key(&path)).then_some(path)
    }

    /// One step: where the choice does not fit the tree nothing happens.
    fn step(&mut self) -> io::Result<()> {
        let full = self.tree().names.len() > MOST;
        match self.rng.below(34) {
            0..3 if !full => self.create(),
            3..5 if !full => self.mkdir(),
            5 if !full => self.symlink(),
            6..8 if !full => self.link(),
            8..13 => self.write(),
            13..15 => self.truncate(),
            15 | 16 => self.hold(),
            17..21 => self.rename(),
            21 => self.exchange(),
            22..24 => self.unlink(),
            24 => self.rmdir(),
            25..27 => self.chmod(),
            27 => self.set_xattr(),
            28..31 => self.sync_file(),
            31..33 => self.sync_dir(),
            _ => self.sync_held(),
        }
    }

    /// Carries `act` out as the next step; `change` makes the tree that it leaves.
    fn change(
        &mut self,
        act: impl FnOnce(&Path) -> io::Result<()>,
        change: impl FnOnce(&mut Tree, usize),
    ) -> io::Result<()> {
        let step = self.history.trees.len();
        let mut tree = self.tree().clone();
        change(&mut tree, step);
        tree.prune();
        // Noted before: it may be on the disk before it has returned.
        self.history.trees.push(((self.now)(), tree));
        act(&self.root)?;
        self.done = step;
        Ok(())
    }

    fn create(&mut self) -> io::Result<()> {
        let Some(path) = self.free() else { return Ok(()) };
        let (id, len) = (self.fresh(), self.rng.below(12_000));
        let data = self.rng.bytes(len);
        self.history.versions.insert(id, vec![Version { step: self.steps(), data: Vec::new() }]);
        let mut made = None;
        self.change(
            |root| File::create_new(root.join(&path)).map(|file| made = Some(file)),
            |tree, step| tree.add(&path, id, libc::S_IFREG | 0o644, b"", step),
        )?;
        let made = made.unwrap();
        self.write_at(&made, id, 0, &data)?;
        self.close(made, id)
    }

    fn mkdir(&mut self) -> io::Result<()> {
        let Some(path) = self.free() else { return Ok(()) };
        let id = self.fresh();
        self.change(
            |root| fs::create_dir(root.join(&path)),
            |tree, step| tree.add(&path, id, libc::S_IFDIR | 0o755, b"", step),
        )
    }

    fn symlink(&mut self) -> io::Result<()> {
        let Some(path) = self.free() else { return Ok(()) };
        let (id, target) = (self.fresh(), format!("to {}", self.steps()));
        self.change(
            |root| symlink(&target, root.join(&path)),
            |tree, step| tree.add(&path, id, libc::S_IFLNK | 0o777, target.as_bytes(), step),
        )
    }

    fn link(&mut self) -> io::Result<()> {
        let (Some(from), Some(to)) = (self.any_file(), self.free()) else { return Ok(()) };
        self.change(
            |root| fs::hard_link(root.join(&from), root.join(&to)),
            |tree, step| {
                let id = tree.names[&from];
                tree.names.insert(to.clone(), id);
                tree.touch(&[&to, parent(&to)], step);
            },
        )
    }

    /// Writes somewhere into a file, or at its end.
    fn write(&mut self) -> io::Result<()> {
        let Some(path) = self.any_file() else { return Ok(()) };
        let id = self.tree().names[&path];
        let size = self.latest(id).len();
        let offset = match self.rng.below(3) {
            0 => size,
            _ => self.rng.below(size + 1),
        };
        let len = *self.rng.pick(&[1, 700, 4096, 9000, 30_000]);
        let data = self.rng.bytes(len);
        let file = OpenOptions::new().write(true).open(self.full(&path))?;
        self.write_at(&file, id, offset, &data)?;
        self.close(file, id)
    }

    fn truncate(&mut self) -> io::Result<()> {
        let Some(path) = self.any_file() else { return Ok(()) };
        let id = self.tree().names[&path];
        let size = self.latest(id).len();
        let len = match self.rng.below(4) {
            0 => 0,
            1 => size + self.rng.below(9000),
            _ => self.rng.below(size + 1),
        };
        let mut data = self.latest(id).to_vec();
        data.resize(len, 0);
        self.version(id, data);
        let file = OpenOptions::new().write(true).open(self.full(&path))?;
        file.set_len(len as u64)?;
        self.close(file, id)
    }

    /// Writes to a file and leaves it open.
    fn hold(&mut self) -> io::Result<()> {
        if self.held.len() == HELD {
            let which = self.rng.below(HELD);
            let (id, file) = self.held.swap_remove(which);
            self.close(file, id)?;
        }
        let Some(path) = self.any_file() else { return Ok(()) };
        let id = self.tree().names[&path];
        let file = OpenOptions::new().read(true).write(true).open(self.full(&path))?;
        let (offset, data) = (self.rng.below(self.latest(id).len() + 1), self.rng.bytes(5000));
        self.write_at(&file, id, offset, &data)?;
        self.held.push((id, file));
        Ok(())
    }

    fn rename(&mut self) -> io::Result<()> {
        let Some(from) = self.any_entry() else { return Ok(()) };
        let over = self.rng.below(3) == 0;
        let to = if over { self.any_entry() } else { self.free() };
        let Some(to) = to.filter(|to| self.fits(&from, to)) else { return Ok(()) };
        self.change(
            |root| fs::rename(root.join(&from), root.join(&to)),
            |tree, step| {
                let same = tree.names.get(&from) == tree.names.get(&to);
                if same {
                    return;
                }
                tree.touch(&[&from, &to, parent(&from), parent(&to)], step);
                tree.names.remove(&to);
                tree.rekey(&from, &to);
            },
        )
    }

    /// Whether a rename goes well.
    fn fits(&self, from: &str, to: &str) -> bool {
        let tree = self.tree();
        let inside = |dir: &str, path: &str| path == dir || path.starts_with(&format!("{dir}/"));
        let too_deep = tree.below(from).iter().any(|below| {
            below.split('/').count() - from.split('/').count() + to.split('/').count() > DEPTH + 1
        });
        let takes = match (tree.names.contains_key(to), tree.is_dir(from), tree.is_dir(to)) {
            (false, ..) | (true, false, false) => true,
            (true, true, true) => tree.below(to).is_empty(),
            _ => false,
        };
        takes && !inside(from, to) && !inside(to, from) && !too_deep
    }

    fn exchange(&mut self) -> io::Result<()> {
        let (Some(one), Some(other)) = (self.any_entry(), self.any_entry()) else { return Ok(()) };
        let inside = |dir: &str, path: &str| path == dir || path.starts_with(&format!("{dir}/"));
        if inside(&one, &other) || inside(&other, &one) {
            return Ok(());
        }
        self.change(
            |root| {
                rustix::fs::renameat_with(CWD, root.join(&one), CWD, root.join(&other), RenameFlags::EXCHANGE)
                    .map_err(Into::into)
            },
            |tree, step| {
                if tree.names[&one] == tree.names[&other] {
                    return;
                }
                tree.touch(&[&one, &other, parent(&one), parent(&other)], step);
                tree.rekey(&one, "\u{1}");
                tree.rekey(&other, &one);
                tree.rekey("\u{1}", &other);
            },
        )
    }

    fn unlink(&mut self) -> io::Result<()> {
        let Some(path) = self.any(|tree, path| !tree.is_dir(path)) else { return Ok(()) };
        self.change(
            |root| fs::remove_file(root.join(&path)),
            |tree, step| {
                tree.touch(&[&path, parent(&path)], step);
                tree.names.remove(&path);
            },
        )
    }

    fn rmdir(&mut self) -> io::Result<()> {
        let empty =
            |tree: &Tree, path: &str| !path.is_empty() && tree.is_dir(path) && tree.below(path).is_empty();
        let Some(path) = self.any(empty) else { return Ok(()) };
        self.change(
            |root| fs::remove_dir(root.join(&path)),
            |tree, step| {
                tree.touch(&[parent(&path)], step);
                tree.names.remove(&path);
            },
        )
    }

    fn chmod(&mut self) -> io::Result<()> {
        let Some(path) = self.any(|tree, path| tree.is_dir(path) || tree.is_file(path)) else {
            return Ok(());
        };
        let perm = *self.rng.pick(&[0o600, 0o644, 0o700, 0o755, 0o711]);
        self.change(
            |root| fs::set_permissions(root.join(&path), Permissions::from_mode(perm)),
            |tree, step| {
                tree.touch(&[&path], step);
                let meta = tree.meta(&path);
                meta.mode = meta.mode & libc::S_IFMT | perm;
            },
        )
    }

    fn set_xattr(&mut self) -> io::Result<()> {
        let Some(path) = self.any(|tree, path| tree.is_dir(path) || tree.is_file(path)) else {
            return Ok(());
        };
        let value = self.steps().to_string().into_bytes();
        self.change(
            |root| {
                rustix::fs::setxattr(root.join(&path), XATTR, &value, XattrFlags::empty()).map_err(Into::into)
            },
            |tree, step| {
                tree.touch(&[&path], step);
                tree.meta(&path).xattr = Some(value.clone());
            },
        )
    }

    fn sync_file(&mut self) -> io::Result<()> {
        let Some(path) = self.any_file() else { return Ok(()) };
        let id = self.tree().names[&path];
        let file = File::open(self.full(&path))?;
        match self.rng.below(3) {
            0 => file.sync_data()?,
            _ => file.sync_all()?,
        }
        self.synced(id);
        Ok(())
    }

    fn sync_held(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let which = self.rng.below(self.held.len());
        let (id, file) = &self.held[which];
        let id = *id;
        rustix::fs::fsync(file.as_fd())?;
        if self.tree().metas.contains_key(&id) {
            self.synced(id);
        }
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let Some(path) = self.any(Tree::is_dir) else { return Ok(()) };
        File::open(self.full(&path))?.sync_all()?;
        let step = self.tree().meta_of(&path).touched;
        self.history.promises.push(Promise { at: (self.now)(), step, version: None });
        Ok(())
    }

    /// An fsync of a file has returned.
    fn synced(&mut self, id: Id) {
        let version = Some((id, self.history.versions[&id].len() - 1));
        let step = self.tree().metas[&id].touched;
        self.history.promises.push(Promise { at: (self.now)(), step, version });
    }

    /// Closes a file that was written to, which writes what the kernel holds of it.
    ///
    /// On a mount whose server is gone the kernel drops the data and close(2) returns 0 all the same. What counts is
    /// therefore who answers afterwards: statfs(2) is never answered by the kernel alone.
    fn close(&mut self, file: File, id: Id) -> io::Result<()> {
        nix::unistd::close(file)?;
        if self.closing_is_enough {
            rustix::fs::statfs(&self.root)?;
            let version = Some((id, self.history.versions[&id].len() - 1));
            self.history.promises.push(Promise { at: (self.now)(), step: 0, version });
        }
        Ok(())
    }

    fn latest(&self, id: Id) -> &[u8] {
        &self.history.versions[&id].last().unwrap().data
    }

    fn version(&mut self, id: Id, data: Vec<u8>) {
        let step = self.steps();
        self.history.versions.get_mut(&id).unwrap().push(Version { step, data });
    }

    fn write_at(&mut self, file: &File, id: Id, offset: usize, data: &[u8]) -> io::Result<()> {
        let mut whole = self.latest(id).to_vec();
        whole.resize(whole.len().max(offset + data.len()), 0);
        whole[offset..offset + data.len()].copy_from_slice(data);
        self.version(id, whole);
        file.write_all_at(data, offset as u64)?;
        debug_assert!(file.metadata()?.size() > 0 || data.is_empty());
        Ok(())
    }

    fn fresh(&self) -> Id {
        self.history.versions.keys().last().unwrap().max(self.tree().metas.keys().last().unwrap())
            + 1
            + self.steps()
    }
}

impl Tree {
    fn add(&mut self, path: &str, id: Id, mode: u32, target: &[u8], step: usize) {
        self.names.insert(path.to_owned(), id);
        self.metas.insert(id, Meta { mode, xattr: None, target: target.to_vec(), touched: step });
        self.touch(&[parent(path)], step);
    }

    fn meta(&mut self, path: &str) -> &mut Meta {
        self.metas.get_mut(&self.names[path]).unwrap()
    }

    fn meta_of(&self, path: &str) -> &Meta {
        &self.metas[&self.names[path]]
    }

    /// Notes a change of those that are there.
    fn touch(&mut self, paths: &[&str], step: usize) {
        for path in paths {
            if self.names.contains_key(*path) {
                self.meta(path).touched = step;
            }
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}
