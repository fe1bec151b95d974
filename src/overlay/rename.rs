//! Renaming.
//!
//! Alone among all changes of entries everything is checked, and one step on disk does the rest: a plain rename, one that
//! leaves a whiteout, or an exchange with a whiteout. A file that has to be copied up for that is copied up with no lock
//! held, and the rename starts over.
//!
//! A directory moves alone, whatever it has below: a redirect, set before, leads there from its new place.

use super::{
    Overlay,
    copy_up::Keep,
    fold::Spelled,
    lookup::{IMPURE_NO, IMPURE_YES, Target},
    marks::{IMPURE, OPAQUE, REDIRECT, YES},
    node::{Contents, Node},
    redirect::is_path,
};
use crate::{
    sync::{Arc, RwLockWriteGuard, atomic::Ordering},
    vfs::{Errno, Error, Feature, Ino, Name, NodeId, RenameFlags, RenameMode, Result, Spot, XattrFlags},
};

/// How often a rename starts over because what it is about was not in the upper.
const ATTEMPTS: usize = 16;

/// One side of a rename.
struct Side<'a> {
    dir: &'a Arc<Node>,
    /// The directory in the upper.
    id: NodeId,
    name: Name<'a>,
    /// A layer below the directory has the name.
    below: bool,
}

impl Side<'_> {
    fn spot(&self, node: Option<NodeId>) -> Spot<'_> {
        Spot { dir: self.id, name: self.name, node }
    }
}

impl Overlay {
    pub(super) fn do_rename(
        &self,
        parent: Ino,
        name: Name<'_>,
        new_parent: Ino,
        new_name: Name<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        let exchange = match flags {
            flags if flags == RenameFlags::EXCHANGE => true,
            flags if flags.is_empty() || flags == RenameFlags::NOREPLACE => false,
            _ => return Err(Error::new(Errno::EINVAL, "rename with these flags")),
        };
        let _gate = self.gate.read();
        let _topology = self.topology.read();
        let (dir, new_dir) = (self.changing_dir(parent)?, self.changing_dir(new_parent)?);
        for attempt in 0..ATTEMPTS {
            let done = {
                let _alone = self.renaming.write();
                match exchange {
                    true => self.exchange((&dir, name), (&new_dir, new_name))?,
                    false => self.rename_over((&dir, name), (&new_dir, new_name), flags)?,
                }
            };
            if done {
                return Ok(());
            }
            // Where attributes alone could not be moved the data go along.
            let keep = if attempt == 0 { Keep::Attributes } else { Keep::All };
            self.prepare(&dir, name, keep)?;
            match exchange {
                true => self.prepare(&new_dir, new_name, keep)?,
                false => self.prepare_replaced(&new_dir, new_name)?,
            }
            self.prepare_hidden(&dir, name)?;
            self.prepare_hidden(&new_dir, new_name)?;
        }
        Err(Error::new(Errno::EIO, "rename what is not copied up"))
    }

    /// Copies the file `name` up, with no lock held while its data moves.
    fn prepare(&self, dir: &Arc<Node>, name: Name<'_>, keep: Keep) -> Result<()> {
        let target = {
            let _entries = dir.directory()?.lock.read();
            let there = self.spelled(dir, name)?;
            self.target(dir, there.name()?)?.ok_or(Error::new(Errno::ENOENT, "rename"))?
        };
        if !target.node.is_dir() {
            self.copy_up(&target.node, keep)?;
        }
        Ok(())
    }

    /// Copies a file up that has other names in its layer and is about to lose this one.
    fn prepare_replaced(&self, dir: &Arc<Node>, name: Name<'_>) -> Result<()> {
        let target = {
            let _entries = dir.directory()?.lock.read();
            let there = self.spelled(dir, name)?;
            self.target(dir, there.name()?)?
        };
        if let Some(target) = target.filter(|target| self.must_be_indexed(&target.node)) {
            self.copy_up(&target.node, Keep::Attributes)?;
        }
        Ok(())
    }

    /// Renames; `false` where the source is not in the upper yet.
    fn rename_over(
        &self,
        (dir, name): (&Arc<Node>, Name<'_>),
        (new_dir, new_name): (&Arc<Node>, Name<'_>),
        flags: RenameFlags,
    ) -> Result<bool> {
        let _parents = lock_both(dir, new_dir)?;
        let new_asked = new_name;
        let (spelled, new_spelled) = (self.spelled(dir, name)?, self.spelled(new_dir, new_name)?);
        let name = spelled.name()?;
        // Only the spelling of the entry changes, where it is the same entry that is replaced.
        let respells = Arc::ptr_eq(dir, new_dir)
            && matches!(new_spelled, Spelled::Otherwise(_))
            && new_spelled.name()? == name;
        let new_name = if respells { new_asked } else { new_spelled.name()? };
        let source = self.target(dir, name)?.ok_or(Error::new(Errno::ENOENT, "rename"))?;
        let replaced = if respells { None } else { self.target(new_dir, new_name)? };
        if replaced.is_some() && flags == RenameFlags::NOREPLACE {
            return Err(Error::new(Errno::EEXIST, "rename"));
        }
        check_no_loop(&source.node, new_dir, Errno::EINVAL)?;
        if let Some(replaced) = &replaced {
            // A directory with the source in it is not empty; and its entries are locked already.
            check_no_loop(&replaced.node, dir, Errno::ENOTEMPTY)?;
            if Arc::ptr_eq(&replaced.node, &source.node) {
                return Ok(true);
            }
        }
        self.check_not_removed(new_dir)?;
        check_kinds(&source.node, replaced.as_ref().map(|target| &target.node))?;
        self.check_same_folding(&source.node, new_dir, new_name)?;
        let _replaced_entries = match &replaced {
            Some(target) if target.node.is_dir() => {
                let guard = target.node.directory()?.lock.write();
                if !self.is_empty(&target.node)? {
                    return Err(Error::new(Errno::ENOTEMPTY, "rename over a directory"));
                }
                Some(guard)
            }
            _ => None,
        };
        if replaced.as_ref().is_some_and(|replaced| self.must_be_indexed(&replaced.node)) {
            return Ok(false);
        }
        let Some(source_id) = self.movable(&source)? else { return Ok(false) };
        // In one directory each of the names may be a spelling of the other; in two it means nothing there.
        let spared = |other| Arc::ptr_eq(dir, new_dir).then_some(other);
        if self.hide_others(dir, name, spared(new_name))?.is_some()
            || (replaced.is_some() && self.hide_others(new_dir, new_name, spared(name))?.is_some())
        {
            return Ok(false);
        }
        let from = self.side(dir, name)?;
        let to = self.side(new_dir, new_name)?;
        self.give_name(&source, source_id, &from)?;
        if !self.keep_below(&source.node, source_id, &from, &to)? {
            return Ok(false);
        }
        // From a directory without marks nothing comes that has any.
        if self.may_have_origins(dir)? {
            self.note_impure(&source.node, new_dir, to.id)?;
        }
        match &replaced {
            Some(replaced) => {
                if replaced.node.is_dir() {
                    self.clear_whiteouts(new_dir, &replaced.node, to.spot(None))?;
                }
                let mut state = replaced.node.state.lock();
                let mut in_upper = replaced.in_upper || self.upper()?.peek(to.id, new_name)?.is_some();
                if let Some(id) = state.upper.filter(|_| state.indexed.is_some()) {
                    if !in_upper {
                        self.name_in_upper(&mut state, id, (to.id, new_name))?;
                        in_upper = true;
                    }
                    self.count_upper_names(&mut state)?;
                }
                self.move_entry(&source.node, source_id, &from, &to, state.upper)?;
                if !in_upper {
                    state.lower_names = state.lower_names.saturating_sub(1);
                }
                self.leave_index(&mut state);
                state.removed = replaced.node.is_dir();
                let link = state.take_link(new_dir, new_name);
                drop(state);
                if let Some(link) = link {
                    self.table.release(&self.stack, &link.parent, 1);
                }
            }
            None => self.move_entry(&source.node, source_id, &from, &to, None)?,
        }
        self.relink(&source.node, (dir, name), (new_dir, new_name));
        self.index_remove(dir, name);
        self.index_insert(new_dir, new_name, &source.node);
        self.forget_lasting(&source.node, dir, (new_dir, new_asked));
        if new_name != new_asked && source.node.is_dir() {
            // The kernel may not know that it has replaced this one.
            self.invalidate.entry(new_dir.ino, new_name.as_bytes());
        }
        Ok(true)
    }

    /// The one step on disk.
    fn move_entry(
        &self,
        source: &Node,
        source_id: NodeId,
        from: &Side<'_>,
        to: &Side<'_>,
        replaced: Option<NodeId>,
    ) -> Result<()> {
        let upper = self.upper()?;
        let source_spot = from.spot(Some(source_id));
        if !from.below && !to.below && replaced.is_none() {
            // Nothing is there, or a whiteout that has nothing to hide: the rename itself tells.
            match upper.rename(source_spot, to.spot(None), RenameMode::New) {
                Err(error) if error.errno() == Errno::EEXIST => {}
                other => return other,
            }
        }
        let covers_whiteout = upper.peek(to.id, to.name)?.is_some_and(|attr| attr.is_whiteout());
        let mode = match (covers_whiteout, from.below) {
            (true, true) => RenameMode::Exchange,
            (true, false) if source.is_dir() => RenameMode::Exchange,
            (_, true) => RenameMode::LeaveWhiteout,
            (_, false) => RenameMode::Replace,
        };
        upper.rename(source_spot, to.spot(replaced), mode)?;
        if mode == RenameMode::Exchange && !from.below {
            // The whiteout that came back has nothing to hide.
            let _ = upper.unlink(from.spot(None));
        }
        Ok(())
    }

    /// Lets two names change places; `false` where one is not in the upper yet.
    fn exchange(
        &self,
        (dir, name): (&Arc<Node>, Name<'_>),
        (new_dir, new_name): (&Arc<Node>, Name<'_>),
    ) -> Result<bool> {
        let _parents = lock_both(dir, new_dir)?;
        let (spelled, new_spelled) = (self.spelled(dir, name)?, self.spelled(new_dir, new_name)?);
        let (name, new_name) = (spelled.name()?, new_spelled.name()?);
        let missing = Error::new(Errno::ENOENT, "exchange");
        let Some(one) = self.target(dir, name)? else { return Err(missing) };
        let Some(other) = self.target(new_dir, new_name)? else { return Err(missing) };
        check_no_loop(&one.node, new_dir, Errno::EINVAL)?;
        check_no_loop(&other.node, dir, Errno::EINVAL)?;
        if Arc::ptr_eq(&one.node, &other.node) {
            return Ok(true);
        }
        self.check_same_folding(&one.node, new_dir, new_name)?;
        self.check_same_folding(&other.node, dir, name)?;
        let (Some(one_id), Some(other_id)) = (self.movable(&one)?, self.movable(&other)?) else {
            return Ok(false);
        };
        let spared = |other| Arc::ptr_eq(dir, new_dir).then_some(other);
        if self.hide_others(dir, name, spared(new_name))?.is_some()
            || self.hide_others(new_dir, new_name, spared(name))?.is_some()
        {
            return Ok(false);
        }
        let from = self.side(dir, name)?;
        let to = self.side(new_dir, new_name)?;
        self.give_name(&one, one_id, &from)?;
        self.give_name(&other, other_id, &to)?;
        for (node, id, old, new) in [(&one.node, one_id, &from, &to), (&other.node, other_id, &to, &from)] {
            if !self.keep_below(node, id, old, new)? {
                return Ok(false);
            }
            self.note_impure(node, new.dir, new.id)?;
        }
        self.upper()?.rename(from.spot(Some(one_id)), to.spot(Some(other_id)), RenameMode::Exchange)?;
        self.relink(&one.node, (dir, name), (new_dir, new_name));
        self.relink(&other.node, (new_dir, new_name), (dir, name));
        self.index_insert(dir, name, &other.node);
        self.index_insert(new_dir, new_name, &one.node);
        self.forget_lasting(&one.node, dir, (new_dir, new_name));
        self.forget_lasting(&other.node, new_dir, (dir, name));
        Ok(true)
    }

    /// The upper object of what is to be moved; `None` where it must be copied up first. A directory is copied up here:
    /// that moves no data.
    fn movable(&self, target: &Target<'_>) -> Result<Option<NodeId>> {
        match target.node.is_dir() {
            true => self.copy_up(&target.node, Keep::All).map(Some),
            false => Ok(target.node.upper()),
        }
    }

    /// Makes sure that an object has the same below it at its new place: a redirect leads to what it has below, and a
    /// directory that has nothing below hides what is below its new name. At the old place neither changes anything.
    /// `false` where a file must get its data first.
    fn keep_below(&self, node: &Arc<Node>, id: NodeId, old: &Side<'_>, new: &Side<'_>) -> Result<bool> {
        let upper = self.upper()?;
        let (has_below, redirect) = {
            let state = node.state.lock();
            let has_below = match node.is_dir() {
                true => !state.lowers.is_empty(),
                false => state.contents != Contents::Own,
            };
            (has_below, state.redirect.clone())
        };
        if !node.is_dir() && !has_below {
            return Ok(true);
        }
        // A file may have names in other directories, for which only a path is right.
        let stays = node.is_dir() && Arc::ptr_eq(old.dir, new.dir);
        let result = match redirect {
            Some(value) if has_below && (stays || is_path(&value)) => Ok(()),
            None if !has_below && !new.below => Ok(()),
            _ if !has_below => upper.set_xattr(id, OPAQUE, YES, XattrFlags::empty()),
            None if stays => self.redirect(node, id, old.name.as_bytes()),
            redirect => {
                let name = redirect.as_deref().unwrap_or(old.name.as_bytes());
                let path = self.path_below(old.dir, name).ok_or(too_deep());
                path.and_then(|path| self.redirect(node, id, &path))
            }
        };
        match result {
            Err(error) if !node.is_dir() && error.errno() == Errno::EXDEV => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Notes at an object of the upper where it finds what is below it.
    pub(super) fn redirect(&self, node: &Node, id: NodeId, value: &[u8]) -> Result<()> {
        let upper = self.upper()?;
        upper.note(Feature::Redirect)?;
        match upper.set_xattr(id, REDIRECT, value, XattrFlags::empty()) {
            // The caller copies and deletes, as on kernel overlayfs.
            Err(error) if matches!(error.errno(), Errno::E2BIG | Errno::ERANGE) => return Err(too_deep()),
            // What does not fit beside other attributes is refused like this as well, however empty the disk is.
            Err(error)
                if error.errno() == Errno::ENOSPC
                    && upper.stat_fs().is_ok_and(|stat| stat.blocks_available > 0) =>
            {
                return Err(too_deep());
            }
            other => other?,
        }
        node.state.lock().redirect = Some(value.into());
        Ok(())
    }

    fn side<'a>(&self, dir: &'a Arc<Node>, name: Name<'a>) -> Result<Side<'a>> {
        let below = self.lower_has(dir, name)?;
        Ok(Side { dir, id: self.copy_up(dir, Keep::All)?, name, below })
    }

    /// Makes sure that the upper has this very name of a copied-up file, which may have been copied up under another.
    fn give_name(&self, target: &Target<'_>, id: NodeId, side: &Side<'_>) -> Result<()> {
        let node = &target.node;
        if node.is_dir() || target.in_upper {
            return Ok(());
        }
        let mut state = node.state.lock();
        if self.upper()?.peek(side.id, side.name)?.is_some() {
            return Ok(());
        }
        self.name_in_upper(&mut state, id, (side.id, side.name))
    }

    /// Notes on disk that a directory with nothing below it gets an entry whose marks must be read.
    pub(super) fn note_impure(&self, node: &Node, dir: &Arc<Node>, dir_id: NodeId) -> Result<()> {
        let is_pure = node.is_dir() && node.state.lock().lowers.is_empty();
        if is_pure || self.may_have_origins(dir)? {
            return Ok(());
        }
        let impure = &dir.directory()?.impure;
        if impure.load(Ordering::Relaxed) == IMPURE_NO {
            self.upper()?.set_xattr(dir_id, IMPURE, YES, XattrFlags::empty())?;
            impure.store(IMPURE_YES, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Replaces a name of `node` by another one.
    fn relink(&self, node: &Arc<Node>, from: (&Arc<Node>, Name<'_>), to: (&Arc<Node>, Name<'_>)) {
        self.table.add_link(node, to.0, to.1);
        let link = node.state.lock().take_link(from.0, from.1);
        if let Some(link) = link {
            self.table.release(&self.stack, &link.parent, 1);
        }
    }
}

const fn too_deep() -> Error {
    Error::new(Errno::EXDEV, "redirect a directory of a layer that lies too deep")
}

/// Locks the entries of two directories, or of one.
fn lock_both<'a>(a: &'a Arc<Node>, b: &'a Arc<Node>) -> Result<[Option<RwLockWriteGuard<'a, ()>>; 2]> {
    let (first, second) = if a.ino <= b.ino { (a, b) } else { (b, a) };
    let guard = first.directory()?.lock.write();
    let other = match Arc::ptr_eq(a, b) {
        true => None,
        false => Some(second.directory()?.lock.write()),
    };
    Ok([Some(guard), other])
}

fn check_kinds(source: &Node, replaced: Option<&Arc<Node>>) -> Result<()> {
    match replaced {
        Some(replaced) if source.is_dir() && !replaced.is_dir() => {
            Err(Error::new(Errno::ENOTDIR, "rename a directory over a file"))
        }
        Some(replaced) if !source.is_dir() && replaced.is_dir() => {
            Err(Error::new(Errno::EISDIR, "rename a file over a directory"))
        }
        _ => Ok(()),
    }
}

/// `errno` where `new_dir` is `source` or inside it.
fn check_no_loop(source: &Arc<Node>, new_dir: &Arc<Node>, errno: Errno) -> Result<()> {
    let mut dir = Arc::clone(new_dir);
    loop {
        if Arc::ptr_eq(&dir, source) {
            return Err(Error::new(errno, "rename a directory into itself"));
        }
        let parent = dir.parent();
        if Arc::ptr_eq(&parent, &dir) {
            return Ok(());
        }
        dir = parent;
    }
}
