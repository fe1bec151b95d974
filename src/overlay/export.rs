//! Making an upper plain: what only this engine understands becomes files and directories, so that kernel overlayfs and
//! fuse-overlayfs show the same tree over the same layers.
//!
//! ```text
//!   1  everything in moved directories is copied up, files get their data, copies in the index all their names   sync
//!   2  the index goes, before it is forgotten that there are copies in a directory                               sync
//!   3  moved directories become opaque: from here on nothing below them is needed                               sync
//!   4  whiteouts in them and redirects go                                                                        sync
//!      the notes in the work directory go
//! ```
//!
//! Each step on disk leaves the tree as it looked before, and as long as the notes are there all of it can be done again.
//! So a crash costs time only. A directory that is opaque and redirected has nothing below.

use thiserror::Error;

use super::{
    Overlay,
    copy_up::{Keep, times_of},
    links::{Entries, LINKS, names_in},
    marks::{OPAQUE, OPAQUE_TRUSTED, REDIRECTS, YES},
    node::Node,
};
use crate::{
    sync::Arc,
    vfs::{
        Attr, Errno, Error, FileKind, FileSystem as _, Ino, Lookup, Name, NodeId, Result, Spot, XattrFlags,
    },
};

/// Why an upper is not plain yet. What has been done stays done, and the tree looks as before.
#[derive(Debug, Error)]
#[error("cannot export /{}", String::from_utf8_lossy(path))]
pub struct ExportError {
    /// What was being exported, from the root of the tree; empty where it was no single object.
    path: Vec<u8>,
    /// What the file system said.
    source: Error,
}

/// A directory on the way through the tree.
struct Visit {
    dir: Ino,
    name: Box<[u8]>,
    /// Nothing of it may stay below.
    whole: bool,
    /// It has a redirect itself.
    moved: bool,
    left: std::vec::IntoIter<(Vec<u8>, FileKind)>,
}

impl Overlay {
    /// Makes the upper plain, and calls `done` for each of its objects. Nobody else uses this overlay, which is of no
    /// use afterwards: the stack is to be opened anew.
    ///
    /// # Errors
    ///
    /// [`ExportError`] names the object; exporting again goes on there.
    pub fn export(&self, done: &mut dyn FnMut()) -> Result<(), ExportError> {
        let at = |path: Vec<u8>| move |source| ExportError { path, source };
        let upper = self.upper().map_err(at(Vec::new()))?;
        let _gate = self.gate.write();
        let mut moved = Vec::new();
        let mut way = Vec::new();
        let brought = self.bring_all(&mut way, &mut moved, done);
        let path = way.iter().skip(1).map(|visit| &visit.name[..]).collect::<Vec<_>>().join(&b'/');
        let held = way.iter().skip(1).map(|visit| visit.dir);
        held.for_each(|dir| self.forget(dir, 1));
        let finished = brought.map_err(at(path)).and_then(|()| {
            let rest = self.name_all_in_upper().and_then(|()| self.part_from_below(&moved));
            rest.and_then(|()| upper.clear_notes()).map_err(at(Vec::new()))
        });
        moved.into_iter().for_each(|dir| self.forget(dir, 1));
        finished
    }

    /// Brings everything into the upper that its redirects, notes and missing data refer to. `way` leads to where it
    /// is, and `moved` has, with a look-up each, the directories with redirects.
    fn bring_all(&self, way: &mut Vec<Visit>, moved: &mut Vec<Ino>, done: &mut dyn FnMut()) -> Result<()> {
        self.say_opaque_to_all(&self.root)?;
        way.push(self.visit(Ino::ROOT, b"", false, false)?);
        while let Some(visit) = way.last_mut() {
            let (dir, whole) = (visit.dir, visit.whole);
            let Some((name, kind)) = visit.left.next() else {
                if let Some(visit) = way.pop().filter(|visit| visit.dir != Ino::ROOT) {
                    if visit.moved {
                        moved.push(visit.dir);
                    } else {
                        self.forget(visit.dir, 1);
                    }
                }
                continue;
            };
            let Lookup::Found(entry) = self.lookup(dir, Name::new(&name)?)? else { continue };
            // On the way before anything can fail, so that the error names it.
            way.push(Visit {
                dir: entry.ino,
                name: name.as_slice().into(),
                whole,
                moved: false,
                left: Vec::new().into_iter(),
            });
            let node = self.table.get(entry.ino)?;
            if whole || node.upper().is_some() {
                done();
                if kind == FileKind::Directory {
                    let is_moved = self.bring_directory(&node)?;
                    if let Some(visit) = way.last_mut() {
                        *visit = self.visit(entry.ino, &name, whole || is_moved, is_moved)?;
                    }
                    continue;
                }
                self.bring_file(dir, Name::new(&name)?, &node)?;
            }
            way.pop();
            self.forget(entry.ino, 1);
        }
        Ok(())
    }

    fn visit(&self, dir: Ino, name: &[u8], whole: bool, moved: bool) -> Result<Visit> {
        let mut entries = Entries::default();
        self.readdir(dir, 0, &mut entries)?;
        Ok(Visit { dir, name: name.into(), whole, moved, left: entries.0.into_iter() })
    }

    /// Brings the directory itself up; tells whether it has a redirect.
    fn bring_directory(&self, node: &Arc<Node>) -> Result<bool> {
        self.copy_up(node, Keep::All)?;
        self.say_opaque_to_all(node)?;
        Ok(node.state.lock().redirect.is_some())
    }

    /// Brings a file with its data up, under this name.
    fn bring_file(&self, dir: Ino, name: Name<'_>, node: &Arc<Node>) -> Result<()> {
        let id = self.copy_up(node, Keep::All)?;
        let upper = self.upper()?;
        let dir = self.table.get(dir)?;
        if let Some(dir_id) = dir.upper()
            && upper.peek(dir_id, name)?.is_none()
        {
            // It has been copied up under another of its names.
            let before = upper.attr(dir_id)?;
            self.name_in_upper(&mut node.state.lock(), id, (dir_id, name))?;
            upper.set_attr(dir_id, &times_of(&before))?;
        }
        match node.kind {
            FileKind::Regular => {
                let is_indexed = node.state.lock().indexed.is_some();
                // An export that did not come to its end may have left the mark behind.
                let marks = REDIRECTS.iter().copied().chain((!is_indexed).then_some(LINKS));
                self.unmark(id, &marks.collect::<Vec<_>>())
            }
            _ => Ok(()),
        }
    }

    /// Marks an opaque directory for every mount that reads the upper: those with `userxattr`, and, if we may, those of
    /// root.
    fn say_opaque_to_all(&self, node: &Arc<Node>) -> Result<()> {
        let upper = self.upper()?;
        let Some(id) = node.upper() else { return Ok(()) };
        let set = |name| Ok::<_, Error>(upper.xattr(id, name)?.as_deref() == Some(YES));
        let (by_user, by_root) = (set(OPAQUE)?, set(OPAQUE_TRUSTED)?);
        if by_root && !by_user {
            upper.set_xattr(id, OPAQUE, YES, XattrFlags::empty())?;
        }
        if by_user && !by_root {
            // Not ours to set without privileges.
            let _ = upper.set_xattr(id, OPAQUE_TRUSTED, YES, XattrFlags::empty());
        }
        Ok(())
    }

    /// Everything is in the upper: cuts `moved` off from what is below, and takes away what refers to it.
    fn part_from_below(&self, moved: &[Ino]) -> Result<()> {
        let upper = self.upper()?;
        upper.sync_all()?;
        for name in names_in(&**upper, upper.index())? {
            let name = Name::new(&name)?;
            let Some((id, _)) = upper.lookup(upper.index(), name)? else { continue };
            // In this order: the name in the index counts among the names of the file unless the mark says otherwise.
            let removed = upper.unlink(Spot { dir: upper.index(), name, node: Some(id) });
            let removed = removed.and_then(|()| self.unmark(id, &[LINKS]));
            upper.forget(id);
            removed?;
        }
        upper.sync_all()?;
        let mut ids = Vec::with_capacity(moved.len());
        for dir in moved {
            let node = self.table.get(*dir)?;
            let id = node.upper().ok_or(Error::new(Errno::ESTALE, "find a moved directory"))?;
            upper.set_xattr(id, OPAQUE, YES, XattrFlags::empty())?;
            self.say_opaque_to_all(&node)?;
            ids.push(id);
        }
        upper.sync_all()?;
        for id in &ids {
            self.remove_whiteouts(*id)?;
        }
        for id in ids {
            self.unmark(id, &REDIRECTS)?;
        }
        upper.sync_all()
    }

    /// Removes the whiteouts in `top`, which nothing is below, and in all directories in it.
    fn remove_whiteouts(&self, top: NodeId) -> Result<()> {
        let upper = self.upper()?;
        let mut pending = vec![top];
        while let Some(dir) = pending.pop() {
            let removed = self.remove_whiteouts_in(dir, &mut pending);
            if dir != top {
                upper.forget(dir);
            }
            if removed.is_err() {
                pending.into_iter().filter(|dir| *dir != top).for_each(|dir| upper.forget(dir));
                return removed;
            }
        }
        Ok(())
    }

    fn remove_whiteouts_in(&self, dir: NodeId, pending: &mut Vec<NodeId>) -> Result<()> {
        let upper = self.upper()?;
        let before = upper.attr(dir)?;
        let mut has_changed = false;
        for name in names_in(&**upper, dir)? {
            let name = Name::new(&name)?;
            match upper.peek(dir, name)? {
                Some(attr) if attr.is_whiteout() => {
                    upper.unlink(Spot { dir, name, node: None })?;
                    has_changed = true;
                }
                Some(Attr { kind: FileKind::Directory, .. }) => {
                    pending.extend(upper.lookup(dir, name)?.map(|(id, _)| id));
                }
                _ => {}
            }
        }
        if has_changed {
            upper.set_attr(dir, &times_of(&before))?;
        }
        Ok(())
    }

    /// Removes those of the marks that an object has.
    fn unmark(&self, id: NodeId, marks: &[&[u8]]) -> Result<()> {
        let upper = self.upper()?;
        for name in upper.xattr_names(id)?.iter().filter(|name| marks.contains(&name.as_slice())) {
            upper.remove_xattr(id, name)?;
        }
        Ok(())
    }
}
