//! Attributes.

use super::{
    Overlay,
    copy_up::{Copy, Keep},
    marks::CAPABILITY,
    node::{Contents, Node, Origin},
};
use crate::{
    sync::Arc,
    vfs::{Attr, Caller, Errno, Error, FileKind, Ino, NodeId, Result, SetAttr, SetTime},
};

/// Permission bits that let a program run with its owner's or group's rights.
const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o010;

impl Overlay {
    pub(super) fn do_getattr(&self, ino: Ino) -> Result<Attr> {
        let _topology = self.topology.read();
        match self.table.get(ino) {
            Ok(node) => self.attr_of(&node),
            Err(error) => self.attr_of_marker(ino).ok_or(error),
        }
    }

    /// Attributes of `node` as programs see them.
    pub(super) fn attr_of(&self, node: &Node) -> Result<Attr> {
        Ok(self.finish_attr(node, self.attr_at(node.origin()?)?))
    }

    /// Attributes of one object as it is.
    pub(super) fn attr_at(&self, origin: Origin) -> Result<Attr> {
        match origin {
            Origin::Upper(id) => self.upper()?.attr(id),
            Origin::Lower(lower) => self.stack.layer(lower.layer)?.attr(lower.node),
        }
    }

    /// Turns the attributes of the object behind `node` into those that programs see.
    pub(super) fn finish_attr(&self, node: &Node, mut attr: Attr) -> Attr {
        let state = node.state.lock();
        attr.ino = node.ino.get();
        if node.is_dir() {
            let merged = state.lowers.as_slice().len() + usize::from(state.upper.is_some()) > 1;
            // A merged directory does not know its subdirectories; 1 is what find(1) takes for "unknown".
            attr.nlink = match () {
                () if state.removed => 0,
                () if merged => 1,
                () => attr.nlink,
            };
        } else if state.upper.is_some() {
            attr.nlink += state.lower_names;
            attr.nlink = attr.nlink.saturating_sub(u32::from(state.indexed.is_some()));
        } else {
            attr.nlink = state.lower_names;
        }
        let contents = state.contents;
        drop(state);
        if let Contents::Below(lower) = contents
            && let Ok(below) = self.attr_at(Origin::Lower(lower))
        {
            attr.blocks = below.blocks;
        }
        self.shown(attr)
    }

    pub(super) fn do_setattr(&self, caller: Caller, ino: Ino, changes: &SetAttr) -> Result<Attr> {
        let _gate = self.gate.read();
        let _topology = self.topology.read();
        let node = self.table.get(ino)?;
        let keep = match changes.size {
            Some(_) if node.is_dir() => return Err(Error::new(Errno::EISDIR, "truncate")),
            Some(size) => Keep::First(size),
            None => Keep::Attributes,
        };
        let changes = self.without_squashed(&node, changes)?;
        if changes == SetAttr::default() {
            // Comes before a write that drops privileges, and that says so itself.
            return self.attr_of(&node);
        }
        if (SetAttr { ctime: None, ..changes }) == SetAttr::default() {
            return self.do_chown_to_nobody_else(caller, &node);
        }
        if node.upper().is_none() && self.are_flushed_times(&node, &changes)? {
            return self.attr_of(&node);
        }
        let Copy { id, is_cut } = self.copy_up_or_cut(&node, keep)?;
        let upper = self.upper()?;
        if is_flush(&changes) {
            return self.flush_times(&node, id, &changes);
        }
        upper.set_attr(id, &SetAttr { size: changes.size.filter(|_| !is_cut), ..changes })?;
        if changes.size.is_some() && caller.uid != 0 {
            self.kill_privileges(&node, id)?;
        }
        self.attr_of(&node)
    }

    /// What is left of a chown(2) that names neither owner nor group: it drops privileges all the same.
    fn do_chown_to_nobody_else(&self, caller: Caller, node: &Arc<Node>) -> Result<Attr> {
        let attr = self.attr_of(node)?;
        if attr.kind != FileKind::Directory && without_privileges(attr.perm) != attr.perm {
            if caller.uid != 0 && caller.uid != attr.uid {
                return Err(Error::new(Errno::EPERM, "drop the privileges of a file"));
            }
            let id = self.copy_up(node, Keep::Attributes)?;
            self.kill_privileges(node, id)?;
            return self.attr_of(node);
        }
        Ok(attr)
    }

    /// Whether this is the kernel giving back the times of an inode that only lost a name: it keeps times itself when
    /// it caches writes. There is nothing to bring into the upper for that.
    fn are_flushed_times(&self, node: &Node, changes: &SetAttr) -> Result<bool> {
        if !is_flush(changes) {
            return Ok(false);
        }
        let attr = self.attr_of(node)?;
        Ok(has_times(&attr, changes))
    }

    /// Sets the times of the upper object `id` where it does not have them anyway: a rename or a removal has just made
    /// its ctime new, and the kernel then gives the times that it keeps back, one message for each.
    fn flush_times(&self, node: &Node, id: NodeId, changes: &SetAttr) -> Result<Attr> {
        let upper = self.upper()?;
        let mut attr = upper.attr(id)?;
        if !has_times(&attr, changes) || changes.ctime.is_some_and(|ctime| attr.ctime < ctime) {
            upper.set_attr(id, changes)?;
            attr = upper.attr(id)?;
        }
        Ok(self.finish_attr(node, attr))
    }

    /// Drops changes of owner and group to what is shown in place of the real ones.
    fn without_squashed(&self, node: &Arc<Node>, changes: &SetAttr) -> Result<SetAttr> {
        let mut changes = *changes;
        if self.options.squash.is_some() && (changes.uid.is_some() || changes.gid.is_some()) {
            let shown = self.attr_of(node)?;
            let real = self.attr_at(node.origin()?)?;
            changes.uid = changes.uid.filter(|uid| shown.uid != *uid || real.uid == *uid);
            changes.gid = changes.gid.filter(|gid| shown.gid != *gid || real.gid == *gid);
        }
        Ok(changes)
    }

    /// Clears suid, sgid (where the group may execute) and file capabilities of `node`, in the upper `id`. The kernel
    /// hears of it: no reply to a write or the like tells it attributes.
    pub(super) fn kill_privileges(&self, node: &Node, id: NodeId) -> Result<()> {
        let upper = self.upper()?;
        let perm = upper.attr(id)?.perm;
        let kept = without_privileges(perm);
        if kept != perm {
            upper.set_attr(id, &SetAttr { perm: Some(kept), ..SetAttr::default() })?;
            self.invalidate.inode(node.ino, false);
        }
        match upper.remove_xattr(id, CAPABILITY) {
            Err(error) if !matches!(error.errno(), Errno::ENODATA | Errno::EOPNOTSUPP | Errno::EPERM) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}

/// Permissions without suid, and without sgid where the group may execute.
const fn without_privileges(perm: u16) -> u16 {
    let kept = perm & !SET_UID;
    if perm & GROUP_EXECUTE == 0 { kept } else { kept & !SET_GID }
}

/// Whether these are times with a ctime among them, and nothing else: only a kernel that caches writes sends that.
fn is_flush(changes: &SetAttr) -> bool {
    changes.ctime.is_some()
        && (SetAttr { atime: None, mtime: None, ctime: None, ..*changes }) == SetAttr::default()
}

/// Whether access and modification times are already what they shall become.
fn has_times(attr: &Attr, changes: &SetAttr) -> bool {
    let is_kept = |new: Option<SetTime>, old| new.is_none_or(|new| new == SetTime::At(old));
    is_kept(changes.atime, attr.atime) && is_kept(changes.mtime, attr.mtime)
}
