//! From a name to a node.

use smallvec::SmallVec;

use super::{
    Overlay,
    marks::{IMPURE, ORIGIN, YES},
    merge::{Seen, Walk, pack},
    node::{Directory, LowerRef, Lowers, Node},
    stack::{Found, is_opaque, lower_ino, upper_ino},
};
use crate::{
    sync::{Arc, atomic::Ordering},
    vfs::{Attr, Entry, Errno, Error, FileKind, Ino, Lookup, Name, NodeId, Result},
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
        let _entries = dir.directory()?.lock.read();
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
        loop {
            let before = published.load(Ordering::SeqCst);
            let Some(found) = find()? else { return Ok(None) };
            let entry = self.resolve(dir, name, found)?;
            if published.load(Ordering::SeqCst) == before {
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
        let held = Target { overlay: self, node };
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
        loop {
            let before = published.load(Ordering::SeqCst);
            let Some(found) = self.find(dir, name)? else { return Ok(None) };
            let node = self.obtain(dir, name, found)?;
            let target = Target { overlay: self, node };
            if published.load(Ordering::SeqCst) == before {
                return Ok(Some(target));
            }
        }
    }

    fn obtain(&self, dir: &Arc<Node>, name: Name<'_>, found: Found<'_>) -> Result<Arc<Node>> {
        let known = found.object().and_then(|object| self.table.find(object));
        let node = match known {
            Some(node) => node,
            None => {
                let lower_names = if found.upper.is_none() { found.attr.nlink } else { 0 };
                let ino = self.choose_ino(dir, &found)?;
                self.table.obtain(found, ino, lower_names)?
            }
        };
        self.table.add_link(&node, dir, name);
        Ok(node)
    }

    /// Finds what `name` in `dir` is made of.
    pub(super) fn find(&self, dir: &Arc<Node>, name: Name<'_>) -> Result<Option<Found<'_>>> {
        let (dir_upper, dir_lowers) = dir.parts();
        let mut walk = Walk::default();
        let mut found: Option<(Attr, Option<NodeId>)> = None;
        if let (Some(upper), Some(dir_upper)) = (self.stack.upper(), dir_upper)
            && let Some((node, attr)) = upper.lookup(dir_upper, name)?
        {
            let held = self.stack.found(attr, Some(node), Lowers::None, None);
            let below = !dir_lowers.is_empty();
            let step = walk.step(Seen::new(&attr, || Ok::<_, Error>(below && is_opaque(&**upper, node)?))?);
            if step.stop {
                return Ok(step.take.then_some(held));
            }
            let _ = held.take();
            found = Some((attr, Some(node)));
        }
        self.find_below(&dir_lowers, name, walk, found)
    }

    /// Goes on with the layers.
    fn find_below(
        &self,
        dir_lowers: &Lowers,
        name: Name<'_>,
        mut walk: Walk,
        above: Option<(Attr, Option<NodeId>)>,
    ) -> Result<Option<Found<'_>>> {
        let mut lowers: SmallVec<[LowerRef; 4]> = SmallVec::new();
        let mut top = above;
        let mut ino = None;
        let mut result = Ok(());
        for (index, dir) in dir_lowers.as_slice().iter().enumerate() {
            let mut visit = || -> Result<bool> {
                let layer = self.stack.layer(dir.layer)?;
                let Some((node, attr)) = layer.lookup(dir.node, name)? else { return Ok(false) };
                let last = index + 1 == dir_lowers.as_slice().len();
                let seen = Seen::new(&attr, || Ok::<_, Error>(!last && is_opaque(&*layer, node)?));
                let step = seen.map(|seen| walk.step(seen));
                if matches!(&step, Ok(step) if step.take) {
                    lowers.push(LowerRef { layer: dir.layer, node });
                    // The lowest one decides: a directory keeps its number when a layer is added on top.
                    ino = lower_ino(dir.layer, attr.ino);
                    top.get_or_insert((attr, None));
                } else {
                    layer.forget(node);
                }
                step.map(|step| step.stop)
            };
            match visit() {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let found = top.map(|(attr, upper)| self.stack.found(attr, upper, pack(&lowers), ino));
        result.map(|()| found)
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

    /// The inode number of what was found in `dir`; `None` where a private one is needed.
    pub(super) fn choose_ino(&self, dir: &Arc<Node>, found: &Found<'_>) -> Result<Option<Ino>> {
        let Some(node) = found.upper else { return Ok(found.lower_ino.map(Ino::new)) };
        if found.attr.kind == FileKind::Directory {
            return Ok(found.lower_ino.or(upper_ino(found.attr.ino)).map(Ino::new));
        }
        if found.attr.kind == FileKind::Regular
            && self.may_have_origins(dir)?
            && let Some(value) = self.upper()?.xattr(node, ORIGIN)?
            && let Ok(bytes) = <[u8; 8]>::try_from(value.as_slice())
        {
            return Ok(Some(Ino::new(u64::from_le_bytes(bytes))).filter(|ino| *ino > Ino::ROOT));
        }
        Ok(upper_ino(found.attr.ino).map(Ino::new))
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
                let marked = self.upper()?.xattr(upper, IMPURE)?.as_deref() == Some(YES);
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

impl Directory {
    /// Notes that the directory was just made empty: it holds nothing that was copied up.
    pub(super) fn made_empty(&self) {
        self.impure.store(IMPURE_NO, Ordering::Relaxed);
    }
}
