//! Removing names.

use std::ops::ControlFlow;

use super::{
    Overlay,
    copy_up::{Keep, times_of},
    lookup::Target,
    marks::{OPAQUE, YES},
    node::{Node, Object},
};
use crate::{
    sync::Arc,
    vfs::{
        Errno, Error, Ino, Name, NewKind, NewObject, NodeId, RenameMode, Result, SetAttr, Spot, XattrFlags,
    },
};

/// How many of the names that are left to a file are looked up again when one goes.
const COUNTED_AGAIN: usize = 4;

impl Overlay {
    pub(super) fn do_unlink(&self, parent: Ino, name: Name<'_>) -> Result<()> {
        let _gate = self.gate.read();
        let _topology = self.topology.read();
        let dir = self.changing_dir(parent)?;
        // A file of a layer that has other names is copied up first, with no lock held.
        while let Some(target) = self.unlink_now(&dir, name)? {
            self.copy_up(&target.node, Keep::Attributes)?;
        }
        Ok(())
    }

    /// Removes a name, or returns what has to be copied up for that.
    fn unlink_now(&self, dir: &Arc<Node>, name: Name<'_>) -> Result<Option<Target<'_>>> {
        let _renaming = self.renaming.read();
        let _entries = dir.directory()?.lock.write();
        let spelled = self.spelled(dir, name)?;
        let there = spelled.name()?;
        let target = self.target(dir, there)?.ok_or(Error::new(Errno::ENOENT, "remove a name"))?;
        if target.node.is_dir() {
            return Err(Error::new(Errno::EISDIR, "remove the name of a file"));
        }
        if let Some(waits) = self.hide_others(dir, there, None)? {
            return Ok(Some(waits));
        }
        self.remove_file(dir, there, target)
    }

    /// Removes the name of a file, which is `target`, or returns what has to be copied up for that. The caller holds the
    /// lock of the entries.
    pub(super) fn remove_file<'a>(
        &'a self,
        dir: &Arc<Node>,
        name: Name<'_>,
        target: Target<'a>,
    ) -> Result<Option<Target<'a>>> {
        let node = &target.node;
        if self.must_be_indexed(node) {
            return Ok(Some(target));
        }
        let needs_whiteout = self.lower_has(dir, name)?;
        let dir_id = self.copy_up(dir, Keep::All)?;
        let upper = self.upper()?;
        let link = {
            // No copy-up of this node can be published while its name goes.
            let mut state = node.state.lock();
            let mut in_upper = target.in_upper || upper.peek(dir_id, name)?.is_some();
            if let Some(id) = state.upper.filter(|_| state.indexed.is_some()) {
                if !in_upper {
                    self.name_in_upper(&mut state, id, (dir_id, name))?;
                    in_upper = true;
                }
                self.count_upper_names(&mut state)?;
            }
            let spot = Spot { dir: dir_id, name, node: state.upper };
            match (needs_whiteout, in_upper) {
                (true, true) => self.cover_with_whiteout(spot)?,
                (true, false) => upper.whiteout(dir_id, name)?,
                (false, _) => upper.unlink(spot)?,
            }
            if !in_upper {
                state.lower_names = state.lower_names.saturating_sub(1);
            }
            self.leave_index(&mut state);
            state.take_link(dir, name)
        };
        self.count_again(node);
        self.index_remove(dir, name);
        if let Some(link) = link {
            self.table.release(&self.stack, &link.parent, 1);
        }
        Ok(None)
    }

    /// One of several names of `node` has gone.
    ///
    /// The kernel takes one off its count of names when it hears so. Who asks for the attributes in between has told it
    /// the new count already, and then there is one too few: with none, link(2) is refused before we are asked. So it is
    /// made to look a name up again.
    pub(super) fn count_again(&self, node: &Node) {
        let links: Vec<_> = {
            let state = node.state.lock();
            state.links.iter().take(COUNTED_AGAIN).map(|link| (link.parent.ino, link.name.clone())).collect()
        };
        for (parent, name) in links {
            self.invalidate.entry_afterwards(parent, &name);
        }
    }

    /// Puts a whiteout in the place of a file, in one step.
    fn cover_with_whiteout(&self, spot: Spot<'_>) -> Result<()> {
        let upper = self.upper()?;
        let staged = self.staging_name();
        let from = Spot { dir: upper.work(), name: Name::new(&staged)?, node: None };
        upper.whiteout(from.dir, from.name)?;
        upper.rename(from, spot, RenameMode::Replace).inspect_err(|_| {
            let _ = upper.unlink(from);
        })
    }

    pub(super) fn do_rmdir(&self, parent: Ino, name: Name<'_>) -> Result<()> {
        let _gate = self.gate.read();
        let _topology = self.topology.read();
        let dir = self.changing_dir(parent)?;
        let _renaming = self.renaming.read();
        let _entries = dir.directory()?.lock.write();
        let spelled = self.spelled(&dir, name)?;
        let name = spelled.name()?;
        let target = self.target(&dir, name)?.ok_or(Error::new(Errno::ENOENT, "remove a directory"))?;
        let node = &target.node;
        let _children = node.directory()?.lock.write();
        if !self.is_empty(node)? {
            return Err(Error::new(Errno::ENOTEMPTY, "remove a directory"));
        }
        while let Some(waits) = self.hide_others(&dir, name, None)? {
            self.copy_up(&waits.node, Keep::Attributes)?;
        }
        let needs_whiteout = self.lower_has(&dir, name)?;
        let dir_id = self.copy_up(&dir, Keep::All)?;
        let link = {
            let mut state = node.state.lock();
            match (state.upper, needs_whiteout) {
                (Some(id), true) => {
                    self.exchange_with_whiteout(Spot { dir: dir_id, name, node: Some(id) }, id)?;
                }
                (Some(id), false) => {
                    self.remove_upper_directory(Spot { dir: dir_id, name, node: Some(id) }, id)?;
                }
                (None, _) => self.upper()?.whiteout(dir_id, name)?,
            }
            state.removed = true;
            state.take_link(&dir, name)
        };
        self.index_remove(&dir, name);
        if let Some(link) = link {
            self.table.release(&self.stack, &link.parent, 1);
        }
        Ok(())
    }

    /// Puts a whiteout in the place of a directory in one step, and removes the directory then.
    fn exchange_with_whiteout(&self, spot: Spot<'_>, id: NodeId) -> Result<()> {
        let upper = self.upper()?;
        let staged = self.staging_name();
        let from = Spot { dir: upper.work(), name: Name::new(&staged)?, node: None };
        upper.whiteout(from.dir, from.name)?;
        upper.rename(from, spot, RenameMode::Exchange).inspect_err(|_| {
            let _ = upper.unlink(from);
        })?;
        self.discard_directory(Spot { node: Some(id), ..from }, id);
        Ok(())
    }

    /// Removes a directory that looks empty; whiteouts in it go with it.
    fn remove_upper_directory(&self, spot: Spot<'_>, id: NodeId) -> Result<()> {
        let upper = self.upper()?;
        match upper.rmdir(spot) {
            Err(error) if matches!(error.errno(), Errno::ENOTEMPTY | Errno::EEXIST) => {}
            other => return other,
        }
        let staged = self.staging_name();
        let away = Spot { dir: upper.work(), name: Name::new(&staged)?, node: Some(id) };
        upper.rename(spot, away, RenameMode::New)?;
        self.discard_directory(away, id);
        Ok(())
    }

    /// Removes a directory of the work directory with the whiteouts in it. What stays is swept at the next start.
    pub(super) fn discard_directory(&self, spot: Spot<'_>, id: NodeId) {
        let Ok(upper) = self.upper() else { return };
        let mut names = Vec::new();
        let _ = upper.read_dir(id, 0, &mut |entry| {
            names.push(entry.name.as_bytes().to_vec());
            ControlFlow::Continue(())
        });
        for name in &names {
            if let Ok(name) = Name::new(name) {
                let _ = upper.unlink(Spot { dir: id, name, node: None });
            }
        }
        let _ = upper.rmdir(spot);
    }

    /// Makes sure that the directory `node`, known as `spot` in `dir`, which looks empty, is empty in the upper: nothing
    /// is renamed over a directory with whiteouts in it. Done by exchanging it for a new one that is just like it and
    /// has nothing below, so that neither a crash nor a failure of what follows can be noticed.
    pub(super) fn clear_whiteouts(&self, dir: &Arc<Node>, node: &Arc<Node>, spot: Spot<'_>) -> Result<()> {
        let upper = self.upper()?;
        let Some(id) = node.upper() else { return Ok(()) };
        let mut has_entries = false;
        upper.read_dir(id, 0, &mut |_| {
            has_entries = true;
            ControlFlow::Break(())
        })?;
        if !has_entries {
            return Ok(());
        }
        let attr = upper.attr(id)?;
        let new = NewObject { kind: NewKind::Directory, perm: attr.perm, uid: attr.uid, gid: attr.gid };
        let staged = self.stage(&new)?;
        let perm = self.copy_xattrs(&**upper, id, staged.id, attr.perm)?;
        upper.set_xattr(staged.id, OPAQUE, YES, XattrFlags::empty())?;
        upper.set_attr(staged.id, &SetAttr { perm: Some(perm), ..times_of(&attr) })?;
        upper.rename(staged.spot()?, Spot { node: Some(id), ..spot }, RenameMode::Exchange)?;
        if let Ok(away) = staged.spot() {
            self.discard_directory(Spot { node: Some(id), ..away }, id);
        }
        self.become_cleared(node, id, staged.published());
        self.index_change(dir, spot.name, node);
        Ok(())
    }

    /// Makes `node`, which was the directory `id` of the upper with something below, `cleared` with nothing below.
    fn become_cleared(&self, node: &Arc<Node>, id: NodeId, cleared: NodeId) {
        self.table.register(Object::upper(cleared), node);
        let lowers = {
            let mut state = node.state.lock();
            (state.upper, state.redirect, state.rebased) = (Some(cleared), None, true);
            std::mem::take(&mut state.lowers)
        };
        let given_up = lowers.as_slice().iter().copied().map(Object::lower).chain([Object::upper(id)]);
        for object in given_up {
            self.table.unregister(object, node);
            self.stack.forget(object);
        }
    }
}
