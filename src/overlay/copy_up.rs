//! From a layer to the upper: the only place where lower data reaches it.
//!
//! An object is made in the work directory with everything it has, brought to stable storage, and then renamed to its
//! place: whatever happens, the place shows the old object or the whole new one. Directories above it come first.
//!
//! Where only attributes change a large file is copied without its data: as a hole of the right length with a mark.
//! The data come at the first change of theirs, into the hole. Until the mark goes they are read from the layer.

use std::os::fd::AsFd as _;

use super::{
    Overlay, acl,
    links::{LINKS, Links},
    marks::{ACL, METACOPIES, METACOPY, ORIGIN, is_private},
    node::{Contents, LowerRef, Node, Object, Origin, State},
    stack::lower_ino,
};
use crate::{
    sync::{Arc, atomic::Ordering},
    vfs::{
        Attr, Errno, Error, Feature, FileKind, Layer, Name, NewKind, NewObject, NodeId, RenameMode, Result,
        SeekWhence, SetAttr, SetTime, Spot, Upper, XattrFlags,
    },
};

/// How much is read from a layer and written to the upper at a time, in bytes.
const CHUNK: usize = 1 << 20;

/// Shorter files are not searched for holes.
const SMALLEST_SPARSE: u64 = 64 * 1024;

/// How often a copy-up looks for another name because the one it was for has gone.
const NAMES: usize = 64;

/// How much of the data a copy-up needs to bring along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// None: only attributes are about to change. Short files come whole all the same.
    Attributes,
    /// All of it.
    All,
    /// The first so many bytes: the rest is about to be truncated.
    First(u64),
}

impl Keep {
    /// Whether a file of `size` bytes becomes shorter by it.
    fn shortens(self, size: u64) -> bool {
        matches!(self, Self::First(len) if len < size)
    }

    /// Whether no byte of a file of `size` bytes is kept.
    fn leaves_nothing(self, size: u64) -> bool {
        size == 0 || self == Self::First(0)
    }
}

/// What a copy-up has led to.
pub(super) struct Copy {
    /// The object in the upper.
    pub(super) id: NodeId,
    /// It has become shorter with the copy-up. Everybody has seen that: whoever truncates does not do it once more, for
    /// somebody may have written behind the new end by then.
    pub(super) is_cut: bool,
}

/// What a copy-up makes.
struct Plan {
    keep: Keep,
    /// Where the data are afterwards.
    contents: Contents,
    /// For a file with several names.
    links: Option<Links>,
}

/// An object in the work directory. Removed again unless it has been published.
pub(super) struct Staged<'a> {
    overlay: &'a Overlay,
    upper: &'a Arc<dyn Upper>,
    name: Vec<u8>,
    pub(super) id: NodeId,
    is_dir: bool,
    is_there: bool,
}

impl Staged<'_> {
    /// Where it is staged.
    pub(super) fn spot(&self) -> Result<Spot<'_>> {
        Ok(Spot { dir: self.upper.work(), name: Name::new(&self.name)?, node: Some(self.id) })
    }

    /// It has left the work directory, and its reference belongs to somebody else now.
    pub(super) fn published(mut self) -> NodeId {
        self.is_there = false;
        self.id
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.is_there {
            // What cannot be removed is swept away at the next start.
            if let Ok(spot) = self.spot() {
                let _ = if self.is_dir { self.upper.rmdir(spot) } else { self.upper.unlink(spot) };
            }
            self.overlay.stack.forget(Object::upper(self.id));
        }
    }
}

impl Overlay {
    /// Makes an object in the work directory.
    pub(super) fn stage(&self, new: &NewObject<'_>) -> Result<Staged<'_>> {
        let upper = self.upper()?;
        let name = self.staging_name();
        let (id, _) = upper.create(upper.work(), Name::new(&name)?, new)?;
        let is_dir = matches!(new.kind, NewKind::Directory);
        Ok(Staged { overlay: self, upper, name, id, is_dir, is_there: true })
    }

    /// The upper object of `node`, which is copied up if it has none.
    pub(super) fn copy_up(&self, node: &Arc<Node>, keep: Keep) -> Result<NodeId> {
        self.copy_up_or_cut(node, keep).map(|copy| copy.id)
    }

    /// The same where it matters whether the copy has become shorter already.
    pub(super) fn copy_up_or_cut(&self, node: &Arc<Node>, keep: Keep) -> Result<Copy> {
        if let Some(id) = node.state.lock().has(keep) {
            return Ok(Copy { id, is_cut: false });
        }
        self.upper()?;
        let mut chain = vec![(Arc::clone(node), keep)];
        let mut parent = node.parent();
        while parent.upper().is_none() && !chain.last().is_some_and(|(last, _)| Arc::ptr_eq(last, &parent)) {
            let next = parent.parent();
            chain.push((parent, Keep::All));
            parent = next;
        }
        let mut copy = None;
        while let Some((node, keep)) = chain.pop() {
            copy = Some(self.copy_one_up(&node, keep)?);
        }
        copy.ok_or(Error::new(Errno::ESTALE, "copy up"))
    }

    /// Copies `node` up, whose parent is in the upper.
    fn copy_one_up(&self, node: &Arc<Node>, keep: Keep) -> Result<Copy> {
        let _copy_up = node.copy_up.lock();
        if let Some(id) = node.state.lock().has(keep) {
            return Ok(Copy { id, is_cut: false });
        }
        let lower = match node.origin()? {
            Origin::Upper(id) => return self.bring_data(node, id, keep),
            Origin::Lower(lower) => lower,
        };
        let layer = self.stack.layer(lower.layer)?;
        let attr = layer.attr(lower.node)?;
        let without_data = attr.kind == FileKind::Regular
            && keep == Keep::Attributes
            && attr.size >= self.options.smallest_without_data.max(1);
        let contents = match node.state.lock().contents {
            _ if !without_data => Contents::Own,
            Contents::Own => Contents::Below(lower),
            known => known,
        };
        // Files with several names go into the index; other objects can have no note of it.
        let names = node.state.lock().lower_names;
        let links =
            (attr.kind == FileKind::Regular && names > 1).then(|| Links::of_lower(lower, &attr, names));
        let plan = Plan { keep, contents, links };
        let staged = self.stage_copy(node, &*layer, lower, &attr, &plan)?;
        // From here on whoever sees the object under its new name finds this node.
        self.table.register(Object::upper(staged.id), node);
        let id = staged.id;
        let published = self.publish(node, staged, plan);
        if published.is_err() {
            self.table.unregister(Object::upper(id), node);
        } else if node.is_dir() {
            // Its link count is another one now.
            self.invalidate.inode(node.ino, false);
        }
        published.map(|id| Copy { id, is_cut: keep.shortens(attr.size) })
    }

    /// Makes the copy in the work directory.
    fn stage_copy(
        &self,
        node: &Arc<Node>,
        layer: &dyn Layer,
        lower: LowerRef,
        attr: &Attr,
        plan: &Plan,
    ) -> Result<Staged<'_>> {
        let target;
        let kind = match attr.kind {
            FileKind::Regular => NewKind::Regular,
            FileKind::Directory => NewKind::Directory,
            FileKind::Symlink => {
                target = layer.read_link(lower.node)?;
                NewKind::Symlink(&target)
            }
            FileKind::CharDevice => NewKind::CharDevice(attr.rdev),
            FileKind::BlockDevice => NewKind::BlockDevice(attr.rdev),
            FileKind::Fifo => NewKind::Fifo,
            FileKind::Socket => NewKind::Socket,
        };
        let shown = self.shown(*attr);
        // Attributes of an own file can only be set while it may be written.
        let perm = if attr.kind == FileKind::Directory { 0o700 } else { 0o600 };
        let staged = self.stage(&NewObject { kind, perm, uid: shown.uid, gid: shown.gid })?;
        let upper = self.upper()?;
        let is_whole = plan.contents == Contents::Own;
        if attr.kind == FileKind::Regular {
            if is_whole {
                self.copy_data(node, staged.id, attr.size, plan.keep)?;
            } else {
                upper.note(Feature::WithoutData)?;
                upper.set_xattr(staged.id, METACOPY, b"", XattrFlags::empty())?;
                upper.set_attr(staged.id, &SetAttr { size: Some(attr.size), ..SetAttr::default() })?;
            }
        }
        let perm = self.copy_xattrs(layer, lower.node, staged.id, attr.perm)?;
        // The number of what was in the upper before a commit is not kept: an inode of the upper may have it by now.
        let (rebased, lowest) = {
            let state = node.state.lock();
            (state.rebased, state.lowers.as_slice().last().copied().unwrap_or(lower))
        };
        let origin = match () {
            () if attr.kind != FileKind::Regular => None,
            () if attr.nlink == 1 && !rebased => Some(node.ino.get()),
            // Under its other names it is found by the lower file, and has the number of that.
            () if plan.links.is_some() && rebased => {
                lower_ino(lowest.layer, self.stack.layer(lowest.layer)?.attr(lowest.node)?.ino)
            }
            () => plan.links.as_ref().map(|_| node.ino.get()),
        };
        if let Some(ino) = origin {
            upper.set_xattr(staged.id, ORIGIN, &ino.to_le_bytes(), XattrFlags::empty())?;
            node.state.lock().has_origin = ino == node.ino.get();
        }
        if let Some(links) = &plan.links {
            upper.set_xattr(staged.id, LINKS, &links.encode(), XattrFlags::empty())?;
        }
        self.record_owner_below(&staged, layer, lower, attr)?;
        let mut changes =
            SetAttr { perm: (attr.kind != FileKind::Symlink).then_some(perm), ..times_of(attr) };
        if is_whole && plan.keep.shortens(attr.size) {
            // As it is published it has been truncated.
            changes.mtime = None;
        }
        upper.set_attr(staged.id, &changes)?;
        // Without data there is nothing that could come after the name.
        let has_data = attr.kind == FileKind::Regular && is_whole && !plan.keep.leaves_nothing(attr.size);
        if has_data && !self.options.volatile {
            upper.sync(staged.id, false)?;
        }
        Ok(staged)
    }

    /// Fills the hole of a file that was copied up without its data.
    fn bring_data(&self, node: &Arc<Node>, id: NodeId, keep: Keep) -> Result<Copy> {
        let upper = self.upper()?;
        let before = upper.attr(id)?;
        let mut times = times_of(&before);
        if let Keep::First(len) = keep
            && keep.shortens(before.size)
        {
            // Truncated while the data are still below: what is left of them is right at once.
            upper.set_attr(id, &SetAttr { size: Some(len), ..SetAttr::default() })?;
            times.mtime = None;
        }
        let copied = self.copy_data(node, id, before.size, keep);
        // Also where that failed: programs see no other data than before.
        let timed = upper.set_attr(id, &times);
        copied.and(timed)?;
        if !self.options.volatile {
            upper.sync(id, false)?;
        }
        for mark in METACOPIES {
            match upper.remove_xattr(id, mark) {
                Err(error) if !matches!(error.errno(), Errno::ENODATA | Errno::EPERM) => return Err(error),
                _ => {}
            }
        }
        node.state.lock().contents = Contents::Own;
        Ok(Copy { id, is_cut: keep.shortens(before.size) })
    }

    /// Copies the data of a file of `size` bytes to the upper object `to`.
    fn copy_data(&self, node: &Node, to: NodeId, size: u64, keep: Keep) -> Result<()> {
        if keep == Keep::First(0) {
            return Ok(());
        }
        let Origin::Lower(from) = node.data()? else {
            return Err(Error::new(Errno::EIO, "copy up data that are in the upper"));
        };
        let layer = self.stack.layer(from.layer)?;
        let wanted = match keep {
            Keep::First(len) => size.min(len),
            Keep::All | Keep::Attributes => size,
        };
        let there = layer.attr(from.node)?.size;
        self.copy_contents(&*layer, from.node, to, there, there.min(wanted))?;
        if there < wanted {
            self.upper()?.set_attr(to, &SetAttr { size: Some(wanted), ..SetAttr::default() })?;
        }
        Ok(())
    }

    /// Copies the first `end` of `size` bytes in large pieces; holes stay holes.
    fn copy_contents(&self, layer: &dyn Layer, from: NodeId, to: NodeId, size: u64, end: u64) -> Result<()> {
        let upper = self.upper()?;
        let sparse = size >= SMALLEST_SPARSE;
        let mut file = layer.host_file(from)?;
        let mut offset = 0;
        let mut written = 0;
        while offset < end {
            let mut stop = end;
            if sparse {
                match layer.seek(from, offset, SeekWhence::Data) {
                    Ok(data) => offset = data,
                    Err(error) if error.errno() == Errno::ENXIO => break,
                    Err(error) => return Err(error),
                }
                stop = layer.seek(from, offset, SeekWhence::Hole)?.min(end);
            }
            while offset < stop {
                if let Some(from) = &file {
                    match upper.copy_from((from.as_fd(), offset), (to, offset), stop - offset) {
                        Ok(copied) if copied > 0 => {
                            offset += copied;
                            written = offset;
                            continue;
                        }
                        Err(error) if !is_unable(error.errno()) => return Err(error),
                        _ => file = None,
                    }
                }
                let len = usize::try_from(stop - offset).map_or(CHUNK, |left| left.min(CHUNK));
                let data = layer.read(from, offset, len)?;
                if data.is_empty() {
                    return Err(Error::new(Errno::EIO, "copy up a file that is shorter than its size"));
                }
                for slice in data.slices() {
                    upper.write(to, offset, slice.as_bytes())?;
                    offset += slice.len() as u64;
                }
                written = offset;
            }
        }
        if written < end {
            upper.set_attr(to, &SetAttr { size: Some(end), ..SetAttr::default() })?;
        }
        Ok(())
    }

    /// Copies extended attributes other than the overlay's own, to an object that is to have the permission bits `perm`.
    /// Returns those that it may have: fewer where an access control list cannot be kept.
    pub(super) fn copy_xattrs(&self, layer: &dyn Layer, from: NodeId, to: NodeId, perm: u16) -> Result<u16> {
        let mut perm = perm;
        if !layer.has_xattrs() {
            return Ok(perm);
        }
        let upper = self.upper()?;
        for name in layer.xattr_names(from)?.iter().filter(|name| !is_private(name)) {
            let Some(mut value) = layer.xattr(from, name)? else { continue };
            if acl::is_list(name) {
                value = acl::known_here(value, self.options.squash.as_ref());
            }
            match upper.set_xattr(to, name, &value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(error)
                    if acl::is_list(name)
                        && matches!(error.errno(), Errno::EPERM | Errno::EOPNOTSUPP | Errno::EINVAL) =>
                {
                    if name.as_slice() == ACL {
                        perm = acl::without_list(perm, &value);
                    }
                }
                // Programs' own attributes must not get lost; others need rights or a file system that has them.
                Err(error)
                    if !name.starts_with(b"user.")
                        && matches!(error.errno(), Errno::EPERM | Errno::EOPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(perm)
    }

    /// Puts a staged copy into the index, from where all names of the file show it, and gives it the name `to`.
    fn publish_in_index(
        &self,
        state: &mut State,
        staged: Staged<'_>,
        links: Links,
        to: Spot<'_>,
    ) -> Result<NodeId> {
        let upper = self.upper()?;
        let key = links.key();
        let indexed = Spot { dir: upper.index(), name: Name::new(&key)?, node: None };
        upper.note(Feature::Index)?;
        // What is there is the copy of something that is no longer there.
        upper.rename(staged.spot()?, indexed, RenameMode::Replace)?;
        let id = staged.published();
        state.indexed = Some(links);
        let named = self.name_in_upper(state, id, (to.dir, to.name));
        named.inspect_err(|_| {
            state.indexed = None;
            let _ = upper.unlink(Spot { node: Some(id), ..indexed });
            upper.forget(id);
        })?;
        Ok(id)
    }

    /// Renames a staged copy to one of the node's names, or leaves it without a name where the node has none.
    fn publish(&self, node: &Arc<Node>, staged: Staged<'_>, plan: Plan) -> Result<NodeId> {
        let upper = self.upper()?;
        let Plan { contents, links, .. } = plan;
        for _ in 0..NAMES {
            let link = node.state.lock().links.first().cloned();
            let Some(link) = link else {
                let mut state = node.state.lock();
                if !state.links.is_empty() {
                    continue;
                }
                let spot = staged.spot()?;
                if node.is_dir() {
                    upper.rmdir(spot)?;
                } else {
                    upper.unlink(spot)?;
                }
                let id = staged.published();
                (state.upper, state.contents) = (Some(id), contents);
                return Ok(id);
            };
            let dir = self.copy_up(&link.parent, Keep::All)?;
            let before = upper.attr(dir)?;
            let name = Name::new(&link.name)?;
            let mut state = node.state.lock();
            if state.link_position(&link.parent, name).is_none() {
                continue;
            }
            let to = Spot { dir, name, node: None };
            let id = match links {
                None => {
                    upper.rename(staged.spot()?, to, RenameMode::New)?;
                    state.lower_names = state.lower_names.saturating_sub(1);
                    staged.published()
                }
                Some(links) => self.publish_in_index(&mut state, staged, links, to)?,
            };
            (state.upper, state.contents) = (Some(id), contents);
            link.parent.directory()?.published.fetch_add(1, Ordering::SeqCst);
            let links = state.links.clone();
            drop(state);
            for link in &links {
                self.index_change(&link.parent, Name::new(&link.name)?, node);
            }
            // The entry is not new: the directory's times stay. It is no loss where that fails.
            let _ = upper.set_attr(dir, &times_of(&before));
            return Ok(id);
        }
        Err(Error::new(Errno::EIO, "publish a copy-up"))
    }
}

/// Whether the kernel cannot copy between two files that can be read and written all the same.
const fn is_unable(errno: Errno) -> bool {
    matches!(errno, Errno::EXDEV | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM)
}

/// The change that gives an object the times of `attr` back.
pub(super) fn times_of(attr: &Attr) -> SetAttr {
    let (atime, mtime) = (Some(SetTime::At(attr.atime)), Some(SetTime::At(attr.mtime)));
    SetAttr { atime, mtime, ..SetAttr::default() }
}

impl State {
    /// The object in the upper, if it has already what is to be kept.
    fn has(&self, keep: Keep) -> Option<NodeId> {
        self.upper.filter(|_| keep == Keep::Attributes || self.contents == Contents::Own)
    }
}
