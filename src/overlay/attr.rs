//! Attributes.

use super::{
    Overlay,
    copy_up::Keep,
    marks::CAPABILITY,
    node::{Contents, Node, Origin},
};
use crate::{
    sync::Arc,
    vfs::{Attr, Caller, Errno, Error, Ino, NodeId, Result, SetAttr, SetTime},
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
        if (SetAttr { ctime: None, ..changes }) == SetAttr::default() {
            return self.attr_of(&node);
        }
        if node.upper().is_none() && self.are_flushed_times(&node, &changes)? {
            return self.attr_of(&node);
        }
        let id = self.copy_up(&node, keep)?;
        let upper = self.upper()?;
        upper.set_attr(id, &changes)?;
        if changes.size.is_some() && caller.uid != 0 {
            self.kill_privileges(id)?;
        }
        self.attr_of(&node)
    }

    /// Whether this is the kernel giving back the times of an inode that only lost a name: it keeps times itself when
    /// it caches writes. There is nothing to bring into the upper for that.
    fn are_flushed_times(&self, node: &Node, changes: &SetAttr) -> Result<bool> {
        let only_times = changes.ctime.is_some()
            && (SetAttr { atime: None, mtime: None, ctime: None, ..*changes }) == SetAttr::default();
        if !only_times {
            return Ok(false);
        }
        let attr = self.attr_of(node)?;
        let is_kept = |new: Option<SetTime>, old| new.is_none_or(|new| new == SetTime::At(old));
        Ok(is_kept(changes.atime, attr.atime) && is_kept(changes.mtime, attr.mtime))
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

    /// Clears suid, sgid (where the group may execute) and file capabilities of an upper object.
    pub(super) fn kill_privileges(&self, id: NodeId) -> Result<()> {
        let upper = self.upper()?;
        let perm = upper.attr(id)?.perm;
        let mut kept = perm & !SET_UID;
        if perm & GROUP_EXECUTE != 0 {
            kept &= !SET_GID;
        }
        if kept != perm {
            upper.set_attr(id, &SetAttr { perm: Some(kept), ..SetAttr::default() })?;
        }
        match upper.remove_xattr(id, CAPABILITY) {
            Err(error) if !matches!(error.errno(), Errno::ENODATA | Errno::EOPNOTSUPP | Errno::EPERM) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}
