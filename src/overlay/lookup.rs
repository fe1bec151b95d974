//! From a name to a node. What the name is made of is found in `find.rs`.

use super::{
    Overlay,
    marks::{IMPURE, IMPURE_TRUSTED, Marks, YES},
    node::{Contents, Directory, Node},
    stack::{Found, upper_ino},
};
use crate::{
    sync::{Arc, atomic::Ordering},
    vfs::{Entry, Errno, Error, FileKind, Ino, Lookup, Name, Result},
};

/// Whether an upper directory is marked as impure has not been asked yet.
pub(super) const IMPURE_UNKNOWN: u8 = 0;
/// It is not.
pub(super) const IMPURE_NO: u8 = 1;
/// It is.
pub(super) const IMPURE_YES: u8 = 2;

/// A node on which an operation holds a reference.
pub(super) struct Target<'a> {
    overlay: &'a Overlay,
    pub(super) node: Arc<Node>,
    /// The upper has the name. Where it does not, a copy-up may give it the name at any time.
    pub(super) in_upper: bool,
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        self.overlay.table.release(&self.overlay.stack, &self.node, 1);
    }
}

impl Overlay {
    pub(super) fn do_lookup(&self, parent: Ino, name: Name<'_>) -> Result<Lookup> {
        let _topology = self.topology.read();
        let dir = self.table.get(parent)?;
        let directory = dir.directory()?;
        let _entries = directory.lock.read();
        if directory.mode().is_some() {
            return self.lookup_folded(&dir, name);
        }
        Ok(self.entry(&dir, name, || self.find(&dir, name))?.map_or(Lookup::Absent, Lookup::Found))
    }

    /// The entry `name` of `dir`, which `find` finds, with one more look-up.
    pub(super) fn entry<'a>(
        &'a self,
        dir: &Arc<Node>,
        name: Name<'_>,
        find: impl Fn() -> Result<Option<Found<'a>>>,
    ) -> Result<Option<Entry>> {
        let published = &dir.directory()?.published;
        let now = || (published.load(Ordering::SeqCst), self.copies.load(Ordering::SeqCst));
        loop {
            let before = now();
            let Some(found) = find()? else { return Ok(None) };
            let entry = self.resolve(dir, name, found)?;
            if now() == before {
                return Ok(Some(entry));
            }
            // What was found below may be in the upper now, and the node of that forgotten already.
            self.do_forget(entry.ino, 1);
        }
    }

    /// The node of what was found as `name` in `dir`, as an entry that counts one look-up.
    fn resolve(&self, dir: &Arc<Node>, name: Name<'_>, found: Found<'_>) -> Result<Entry> {
        let (attr, origin) = (found.attr, (found.upper, found.lowers.top()));
        let node = self.obtain(dir, name, found)?;
        let held = Target { overlay: self, node, in_upper: origin.0.is_some() };
        let (upper, lowers) = held.node.parts();
        // Another name of a lower file that has been copied up shows the upper's attributes.
        let attr = if (upper, lowers.top()) == origin || (upper.is_some() && upper == origin.0) {
            self.finish_attr(&held.node, attr)
        } else {
            self.attr_of(&held.node)?
        };
        let entry = Entry { ino: held.node.ino, generation: held.node.generation, attr };
        std::mem::forget(held);
        Ok(entry)
    }

    /// The node of `name` in `dir` for the time of an operation.
    pub(super) fn target(&self, dir: &Arc<Node>, name: Name<'_>) -> Result<Option<Target<'_>>> {
        let published = &dir.directory()?.published;
        let now = || (published.load(Ordering::SeqCst), self.copies.load(Ordering::SeqCst));
        loop {
            let before = now();
            let Some(found) = self.find(dir, name)? else { return Ok(None) };
            let in_upper = found.upper.is_some();
            let node = self.obtain(dir, name, found)?;
            let target = Target { overlay: self, node, in_upper };
            if now() == before {
                return Ok(Some(target));
            }
        }
    }

    fn obtain(&self, dir: &Arc<Node>, name: Name<'_>, found: Found<'_>) -> Result<Arc<Node>> {
        let known = found.object().and_then(|object| self.table.find(object));
        let node = match known {
            Some(node) => node,
            None => {
                let found = self.find_copy(found)?;
                let (ino, names) = (choose_ino(&found), self.count_names(&found)?);
                self.table.obtain(found, ino, names, |found| self.find_data_again(found))?
            }
        };
        self.table.add_link(&node, dir, name);
        Ok(node)
    }

    /// Looks again whether the data of a copied-up file are still below: whoever knew the file when it was found may have
    /// brought them, and written to it, and forgotten it.
    fn find_data_again(&self, found: &mut Found<'_>) -> Result<()> {
        if let Some(id) = found.upper
            && found.contents != Contents::Own
            && !Marks::read(&**self.upper()?, id, found.attr.kind)?.metacopy
        {
            found.contents = Contents::Own;
        }
        Ok(())
    }

    /// Whether a layer below `dir` has `name`, so that a deleted name needs a whiteout.
    pub(super) fn lower_has(&self, dir: &Arc<Node>, name: Name<'_>) -> Result<bool> {
        let (_, lowers) = dir.parts();
        for lower in lowers.as_slice() {
            let layer = self.stack.layer(lower.layer)?;
            if let Some((node, attr)) = layer.lookup(lower.node, name)? {
                layer.forget(node);
                return Ok(!attr.is_whiteout());
            }
        }
        Ok(false)
    }

    /// Whether entries of `dir` may have been copied up.
    pub(super) fn may_have_origins(&self, dir: &Arc<Node>) -> Result<bool> {
        let (upper, lowers) = dir.parts();
        let Some(upper) = upper else { return Ok(false) };
        if !lowers.is_empty() {
            return Ok(true);
        }
        let impure = &dir.directory()?.impure;
        Ok(match impure.load(Ordering::Relaxed) {
            IMPURE_UNKNOWN => {
                let marked = |name| Ok::<_, Error>(self.upper()?.xattr(upper, name)?.as_deref() == Some(YES));
                let marked = marked(IMPURE)? || marked(IMPURE_TRUSTED)?;
                impure.store(if marked { IMPURE_YES } else { IMPURE_NO }, Ordering::Relaxed);
                marked
            }
            known => known == IMPURE_YES,
        })
    }

    /// The directory `ino`, for a change of its entries.
    pub(super) fn changing_dir(&self, ino: Ino) -> Result<Arc<Node>> {
        self.upper()?;
        let dir = self.table.get(ino)?;
        dir.directory()?;
        Ok(dir)
    }

    /// `ENOENT` where `dir` has been removed: nothing can be made in it.
    pub(super) fn check_not_removed(&self, dir: &Node) -> Result<&Self> {
        match dir.state.lock().removed {
            true => Err(Error::new(Errno::ENOENT, "use a removed directory")),
            false => Ok(self),
        }
    }

    pub(super) fn do_forget(&self, ino: Ino, count: u64) {
        if ino == Ino::ROOT {
            return;
        }
        if let Ok(node) = self.table.get(ino) {
            self.table.release(&self.stack, &node, count);
        }
    }
}

/// The inode number of what was found; `None` where a private one is needed.
pub(super) fn choose_ino(found: &Found<'_>) -> Option<Ino> {
    if found.upper.is_none() {
        return found.lower_ino.map(Ino::new);
    }
    let of_layer = match found.attr.kind {
        FileKind::Directory => found.lower_ino.map(Ino::new),
        _ => found.marks.origin,
    };
    of_layer.or_else(|| upper_ino(found.attr.ino).map(Ino::new))
}

impl Directory {
    /// Notes that the directory was just made empty: it holds nothing that was copied up.
    pub(super) fn made_empty(&self) {
        self.impure.store(IMPURE_NO, Ordering::Relaxed);
    }
}
