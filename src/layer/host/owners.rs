//! Owners that the host cannot store, for its user namespace has one user only: records of them.
//!
//! Everything belongs to that user, who is root inside. Whom else an object is to belong to is written to it
//! ([`OVERRIDE_STAT`]), or to its directory where it takes no attributes ([`ENTRIES`]); what has no record is root's.
//! Permission bits stand in a record, too, and follow those of the object.
//!
//! A record of a directory's entry moves with it: the new one is written before the rename, the old one goes behind it.
//! Between the two both names have it, and each object is told by its inode number.

use std::os::fd::{AsFd as _, BorrowedFd};

use super::{
    host,
    node::{HostNode, Place},
    open::perm_of,
    upper::HostUpper,
};
use crate::{
    dwarfs::format::owner::{ENTRIES, EntryOwners, OVERRIDE_STAT, Owner, Stands},
    sync::Arc,
    sys::{
        beneath::{self, OpenFor},
        users::KnownIds,
        xattr,
    },
    vfs::{DeviceId, Errno, FileKind, Name, NodeId, OwnerChange, Result},
};

/// Whether the calling process knows one user and one group, and so cannot give files away.
pub(super) fn are_recorded() -> bool {
    KnownIds::here().is_ok_and(|known| {
        let is_one =
            |ranges: &[std::ops::RangeInclusive<u32>]| matches!(ranges, [only] if only.start() == only.end());
        is_one(&known.uids) && is_one(&known.gids)
    })
}

/// An object that gets another name, or one more.
pub(super) struct Moving<'a> {
    pub(super) node: &'a Arc<HostNode>,
    pub(super) from: (&'a Arc<HostNode>, &'a [u8]),
    pub(super) to: (&'a Arc<HostNode>, &'a [u8]),
    /// Whether the old name goes.
    pub(super) leaves: bool,
}

impl HostUpper {
    /// Records what was asked for.
    pub(super) fn record(&self, id: NodeId, change: &OwnerChange) -> Result<()> {
        let failed = host("record an owner");
        if !self.records {
            return Err(failed(Errno::EOPNOTSUPP));
        }
        let node = self.tree.node(id)?;
        let _guard = self.owners.lock();
        let perm = perm_of(&self.tree.stat(&node).map_err(&failed)?);
        let old = self.record_of(&node).map_err(&failed)?;
        let plain = Owner { uid: 0, gid: 0, perm, stands: Stands::Itself };
        let was = old.unwrap_or(plain);
        let stands = match (change.device, node.kind) {
            (Some((FileKind::CharDevice, id)), FileKind::Regular) => Stands::CharDevice(id.major, id.minor),
            (Some((FileKind::BlockDevice, id)), FileKind::Regular) => Stands::BlockDevice(id.major, id.minor),
            _ => was.stands,
        };
        let (uid, gid) = (change.uid.unwrap_or(was.uid), change.gid.unwrap_or(was.gid));
        let new = Owner { uid, gid, perm, stands };
        if old == Some(new) || (old.is_none() && new.is_plain()) {
            return Ok(());
        }
        self.put(&node, Some(new).filter(|new| !new.is_plain())).map_err(failed)
    }

    /// What is recorded of a node.
    pub(super) fn recorded(&self, id: NodeId) -> Result<Option<OwnerChange>> {
        if !self.records {
            return Ok(None);
        }
        let node = self.tree.node(id)?;
        let owner = self.record_of(&node).map_err(host("read the record of an owner"))?;
        Ok(owner.map(|owner| OwnerChange {
            uid: Some(owner.uid),
            gid: Some(owner.gid),
            device: match owner.stands {
                Stands::CharDevice(major, minor) => Some((FileKind::CharDevice, DeviceId { major, minor })),
                Stands::BlockDevice(major, minor) => Some((FileKind::BlockDevice, DeviceId { major, minor })),
                Stands::Itself | Stands::Fifo | Stands::Socket => None,
            },
        }))
    }

    /// The permission bits of a node have changed: its record says the same.
    pub(super) fn record_follows(&self, node: &Arc<HostNode>) -> Result<(), Errno> {
        if !self.records || takes_none(node.kind) {
            return Ok(());
        }
        let _guard = self.owners.lock();
        let Some(owner) = self.record_of(node)? else { return Ok(()) };
        let perm = perm_of(&self.tree.stat(node)?);
        if perm == owner.perm { Ok(()) } else { self.put(node, Some(Owner { perm, ..owner })) }
    }

    /// What was just made in a directory that hands its group down has that of its record.
    pub(super) fn record_inherited(
        &self,
        dir: &Arc<HostNode>,
        hands_down: bool,
        made: &Arc<HostNode>,
        name: &[u8],
    ) -> Result<(), Errno> {
        if !self.records {
            return Ok(());
        }
        let _guard = self.owners.lock();
        if takes_none(made.kind) {
            // An object of this name that is gone may have left its own.
            self.change_entries(dir, |entries| entries.keep_only(name, None))?;
        }
        let gid = if hands_down { self.record_of(dir)?.map_or(0, |owner| owner.gid) } else { 0 };
        if gid == 0 {
            return Ok(());
        }
        let perm = perm_of(&self.tree.stat(made)?);
        self.put(made, Some(Owner { uid: 0, gid, perm, stands: Stands::Itself }))
    }

    /// Calls `act`, which gives objects other names, and moves their records where they are in directories.
    pub(super) fn with_records(
        &self,
        moving: &[Moving<'_>],
        act: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        if !self.records || !moving.iter().any(|moving| takes_none(moving.node.kind)) {
            return act();
        }
        let _guard = self.owners.lock();
        let mut moved = Vec::new();
        for step in moving.iter().filter(|step| takes_none(step.node.kind)) {
            let (dir, name) = step.from;
            let inode = step.node.key.inode;
            let owner = self.entries(dir)?.get(name, inode);
            if let Some(owner) = owner {
                self.change_entries(step.to.0, |entries| entries.set(step.to.1, inode, owner))?;
            }
            moved.push((step, inode, owner.is_some()));
        }
        let result = act();
        for (step, inode, has_record) in moved {
            let tidied = match result {
                Ok(()) => self
                    .change_entries(step.to.0, |entries| {
                        entries.keep_only(step.to.1, has_record.then_some(inode));
                    })
                    .and_then(|()| match step.leaves {
                        true => {
                            self.change_entries(step.from.0, |entries| entries.remove(step.from.1, inode))
                        }
                        false => Ok(()),
                    }),
                Err(_) => self.change_entries(step.to.0, |entries| entries.remove(step.to.1, inode)),
            };
            // What is left over is told apart by its inode number.
            if let Err(errno) = tidied {
                tracing::warn!(%errno, "a record of an owner is left behind");
            }
        }
        result
    }

    /// A name of `node` has gone.
    pub(super) fn record_goes(&self, node: &HostNode, dir: &Arc<HostNode>, name: &[u8]) {
        if self.records && takes_none(node.kind) {
            let _guard = self.owners.lock();
            // What stays is cleared when something is made under this name.
            let _ = self.change_entries(dir, |entries| entries.remove(name, node.key.inode));
        }
    }

    /// Makes one more name for a node.
    pub(super) fn link_name(&self, id: NodeId, dir: NodeId, name: Name<'_>) -> Result<()> {
        let (node, dir) = (self.tree.node(id)?, self.tree.node(dir)?);
        let fd = self.tree.descriptor(&node, OpenFor::Path)?;
        let dir_fd = self.tree.directory(&dir)?;
        let place = place_of(&node);
        let moving = place.as_ref().map(|(parent, known)| Moving {
            node: &node,
            from: (parent, known),
            to: (&dir, name.as_bytes()),
            leaves: false,
        });
        self.with_records(moving.as_slice(), || beneath::link(fd.as_fd(), dir_fd.as_fd(), name.as_bytes()))
            .map_err(host("make a hard link"))
    }

    fn record_of(&self, node: &Arc<HostNode>) -> Result<Option<Owner>, Errno> {
        if takes_none(node.kind) {
            let Some((dir, name)) = place_of(node) else { return Ok(None) };
            return Ok(self.entries(&dir)?.get(&name, node.key.inode));
        }
        let fd = self.tree.descriptor(node, OpenFor::Path).map_err(|error| error.errno())?;
        let value = self.tree.lend(&[node], || xattr::get(fd.as_fd(), OVERRIDE_STAT))?;
        Ok(value.as_deref().and_then(Owner::parse))
    }

    fn put(&self, node: &Arc<HostNode>, owner: Option<Owner>) -> Result<(), Errno> {
        if takes_none(node.kind) {
            let Some((dir, name)) = place_of(node) else { return Err(Errno::EOPNOTSUPP) };
            return self.change_entries(&dir, |entries| match owner {
                Some(owner) => entries.set(&name, node.key.inode, owner),
                None => entries.keep_only(&name, None),
            });
        }
        let fd = self.tree.descriptor(node, OpenFor::Path).map_err(|error| error.errno())?;
        let value = owner.map(Owner::to_value);
        self.tree.lend(&[node], || replace(fd.as_fd(), OVERRIDE_STAT, value.as_deref()))
    }

    fn entries(&self, dir: &Arc<HostNode>) -> Result<EntryOwners, Errno> {
        let fd = self.tree.directory(dir).map_err(|error| error.errno())?;
        let value = self.tree.lend(&[dir], || xattr::get(fd.as_fd(), ENTRIES))?;
        Ok(value.as_deref().map(EntryOwners::parse).unwrap_or_default())
    }

    /// Changes the records of a directory's entries, where that makes a difference.
    fn change_entries(
        &self,
        dir: &Arc<HostNode>,
        change: impl FnOnce(&mut EntryOwners),
    ) -> Result<(), Errno> {
        let old = self.entries(dir)?;
        let mut new = old.clone();
        change(&mut new);
        if new == old {
            return Ok(());
        }
        let fd = self.tree.directory(dir).map_err(|error| error.errno())?;
        let value = Some(new.to_value()).filter(|_| !new.is_empty());
        self.tree.lend(&[dir], || replace(fd.as_fd(), ENTRIES, value.as_deref()))
    }
}

/// Whether objects of this kind take no attributes of users.
const fn takes_none(kind: FileKind) -> bool {
    !matches!(kind, FileKind::Regular | FileKind::Directory)
}

fn place_of(node: &HostNode) -> Option<(Arc<HostNode>, Box<[u8]>)> {
    match &*node.place.lock() {
        Place::At { parent, name } => Some((Arc::clone(parent), name.clone())),
        Place::Root | Place::Lost => None,
    }
}

fn replace(fd: BorrowedFd<'_>, name: &[u8], value: Option<&[u8]>) -> Result<(), Errno> {
    match value {
        Some(value) => xattr::set(fd, name, value, 0),
        None => match xattr::remove(fd, name) {
            Err(Errno::ENODATA) => Ok(()),
            other => other,
        },
    }
}
