//! The changes of a host upper, one function each.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::{
    ACL, DEFAULT_ACL, host,
    node::{HostNode, IDLE, NOT_WRITING, Place, WRITTEN},
    open::perm_of,
    owners::Moving,
    upper::{HostUpper, SHARED_WHITEOUT},
};
use crate::{
    sync::{Arc, atomic::Ordering},
    sys::{
        beneath::{self, OpenFor, RenameFlags, TimeChange},
        data, xattr,
    },
    vfs::{
        Attr, DeviceId, Errno, FileKind, Name, NewKind, NewObject, NodeId, RenameMode, Result, SetAttr,
        SetTime, Spot,
    },
};

impl HostUpper {
    pub(super) fn peek_name(&self, dir: NodeId, name: Name<'_>) -> Result<Option<Attr>> {
        let dir = self.tree.node(dir)?;
        let fd = self.tree.directory(&dir)?;
        match self.tree.lend(&[&dir], || beneath::stat(fd.as_fd(), name.as_bytes())) {
            Ok(stat) => self.tree.attr_of(&stat).map(Some),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(host("look a name up")(errno)),
        }
    }

    /// Makes an object directly where it comes out with the right owner; else in the work directory first.
    pub(super) fn create_object(
        &self,
        dir: &Arc<HostNode>,
        name: Name<'_>,
        new: &NewObject<'_>,
    ) -> Result<(NodeId, Attr)> {
        let dir_fd = self.tree.directory(dir)?;
        let (uid, gid) = self.own_ids;
        let inherits = new.gid != gid && dir_gid(&dir_fd) == Some(new.gid);
        if Arc::ptr_eq(dir, &self.work) || (new.uid == uid && (new.gid == gid || inherits)) {
            return self.make(dir, &dir_fd, name, new);
        }
        let work_fd = self.tree.directory(&self.work)?;
        let staged = self.staging_name();
        let staged = Name::new(&staged)?;
        let (node, _) = self.make(&self.work, &work_fd, staged, new)?;
        let from = Spot { dir: self.work.id, name: staged, node: Some(node) };
        let to = Spot { dir: dir.id, name, node: None };
        let renamed =
            self.hand_acl_down(&dir_fd, node, new).and_then(|()| self.rename_name(from, to, RenameMode::New));
        match renamed.and_then(|()| self.tree.attr_by_id(node)) {
            Ok(attr) => Ok((node, attr)),
            Err(error) => {
                let _ = if matches!(new.kind, NewKind::Directory) {
                    self.remove_name(from, beneath::remove_directory)
                } else {
                    self.remove_name(from, beneath::remove)
                };
                self.tree.forget(node);
                Err(error)
            }
        }
    }

    /// Gives a staged object the access control list that its directory hands down.
    fn hand_acl_down(&self, dir: &OwnedFd, id: NodeId, new: &NewObject<'_>) -> Result<()> {
        let is_dir = matches!(new.kind, NewKind::Directory);
        let acl = match xattr::get(dir.as_fd(), DEFAULT_ACL) {
            Ok(Some(acl)) if !matches!(new.kind, NewKind::Symlink(_)) => acl,
            _ => return Ok(()),
        };
        let fd = self.tree.descriptor(&self.tree.node(id)?, OpenFor::Path)?;
        let names = [Some(ACL), is_dir.then_some(DEFAULT_ACL)];
        names
            .into_iter()
            .flatten()
            .try_for_each(|name| xattr::set(fd.as_fd(), name, &acl, 0))
            .and_then(|()| beneath::set_perm(fd.as_fd(), new.perm))
            .map_err(host("hand an access control list down"))
    }

    /// Makes an object and corrects what the process's mask and ids made different from what was asked for.
    fn make(
        &self,
        dir: &Arc<HostNode>,
        dir_fd: &OwnedFd,
        name: Name<'_>,
        new: &NewObject<'_>,
    ) -> Result<(NodeId, Attr)> {
        let file = make_raw(dir_fd.as_fd(), name.as_bytes(), new).map_err(host("make an object"))?;
        let finish = || -> Result<_, Errno> {
            let stat = beneath::stat(dir_fd.as_fd(), name.as_bytes())?;
            let uid = (stat.stx_uid != new.uid).then_some(new.uid);
            let gid = (stat.stx_gid != new.gid).then_some(new.gid);
            let is_link = matches!(new.kind, NewKind::Symlink(_));
            let chowned = uid.is_some() || gid.is_some();
            if chowned {
                // Who may not give files away keeps them.
                match beneath::set_owner(dir_fd.as_fd(), name.as_bytes(), uid, gid) {
                    Ok(()) | Err(Errno::EPERM | Errno::EINVAL) => {}
                    Err(errno) => return Err(errno),
                }
            }
            let modded = !is_link && (chowned || perm_of(&stat) != new.perm);
            if modded {
                let opened;
                let fd = match &file {
                    Some(fd) => fd.as_fd(),
                    None => {
                        opened = beneath::open(dir_fd.as_fd(), name.as_bytes(), OpenFor::Path)?;
                        opened.as_fd()
                    }
                };
                beneath::set_perm(fd, new.perm)?;
            }
            if chowned || modded { beneath::stat(dir_fd.as_fd(), name.as_bytes()) } else { Ok(stat) }
        };
        let stat = finish().map_err(|errno| {
            let removed = beneath::remove(dir_fd.as_fd(), name.as_bytes());
            if removed == Err(Errno::EISDIR) {
                let _ = beneath::remove_directory(dir_fd.as_fd(), name.as_bytes());
            }
            host("set the owner of a new object")(errno)
        })?;
        let (id, attr) = self.tree.adopt(dir, name, &stat)?;
        if self.records {
            let made = self.tree.node(id)?;
            let recorded = self.record_inherited(dir, dir_gid(dir_fd).is_some(), &made, name.as_bytes());
            if let Err(errno) = recorded {
                tracing::warn!(%errno, "the group of a new object is not recorded");
            }
        }
        if let Some(fd) = file {
            let node = self.tree.node(id)?;
            self.tree.keep(&node, OpenFor::Write, fd);
            self.note_writer(&node);
        }
        Ok((id, attr))
    }

    /// Makes a whiteout as a further name of the shared one: no inode for each deleted name.
    pub(super) fn make_whiteout(&self, dir: &Arc<HostNode>, name: Name<'_>) -> Result<()> {
        let dir_fd = self.tree.directory(dir)?;
        let work_fd = self.tree.directory(&self.work)?;
        let make = |dir: BorrowedFd<'_>, name: &[u8]| beneath::make_node(dir, name, libc::S_IFCHR, 0, (0, 0));
        let mut shared = self.shared_whiteout.lock();
        if !*shared {
            *shared = matches!(make(work_fd.as_fd(), SHARED_WHITEOUT), Ok(()) | Err(Errno::EEXIST));
        }
        if *shared {
            let opened = beneath::open(work_fd.as_fd(), SHARED_WHITEOUT, OpenFor::Path);
            match opened.and_then(|fd| beneath::link(fd.as_fd(), dir_fd.as_fd(), name.as_bytes())) {
                Ok(()) => return Ok(()),
                Err(Errno::EMLINK) => {
                    // It has as many names as an inode may have: the next one starts over.
                    let _ = beneath::remove(work_fd.as_fd(), SHARED_WHITEOUT);
                    *shared = false;
                }
                Err(Errno::EPERM | Errno::ENOENT) => *shared = false,
                Err(errno) => return Err(host("make a whiteout")(errno)),
            }
        }
        make(dir_fd.as_fd(), name.as_bytes()).map_err(host("make a whiteout"))
    }

    pub(super) fn remove_name(
        &self,
        spot: Spot<'_>,
        remove: fn(BorrowedFd<'_>, &[u8]) -> Result<(), Errno>,
    ) -> Result<()> {
        let dir = self.tree.node(spot.dir)?;
        let fd = self.tree.directory(&dir)?;
        let leaving = self.leave(&dir, spot)?;
        match self.tree.lend(&[&dir], || remove(fd.as_fd(), spot.name.as_bytes())) {
            Ok(()) => {
                if let Some((node, _)) = &leaving {
                    self.record_goes(node, &dir, spot.name.as_bytes());
                }
                self.settle(leaving);
                Ok(())
            }
            Err(errno) => {
                self.stay(leaving);
                Err(host("remove a name")(errno))
            }
        }
    }

    pub(super) fn rename_name(&self, from: Spot<'_>, to: Spot<'_>, mode: RenameMode) -> Result<()> {
        let (from_dir, to_dir) = (self.tree.node(from.dir)?, self.tree.node(to.dir)?);
        let (from_fd, to_fd) = (self.tree.directory(&from_dir)?, self.tree.directory(&to_dir)?);
        let flags = match mode {
            RenameMode::New => RenameFlags::NOREPLACE,
            RenameMode::Replace => RenameFlags::empty(),
            RenameMode::Exchange => RenameFlags::EXCHANGE,
            RenameMode::LeaveWhiteout => RenameFlags::WHITEOUT,
        };
        let replaced = match mode {
            RenameMode::New | RenameMode::Exchange => None,
            RenameMode::Replace | RenameMode::LeaveWhiteout => self.leave(&to_dir, to)?,
        };
        let (old, new) = (from.name.as_bytes(), to.name.as_bytes());
        let moved = from.node.and_then(|id| self.tree.node(id).ok());
        let other = if mode == RenameMode::Exchange { to.node } else { None };
        let other = other.and_then(|id| self.tree.node(id).ok());
        // A directory that changes its parent must be writable.
        let movers: Vec<_> =
            moved.iter().chain(&other).filter(|node| node.kind == FileKind::Directory).collect();
        let rename = || beneath::rename((from_fd.as_fd(), old), (to_fd.as_fd(), new), flags);
        let (at, goal) = ((&from_dir, old), (&to_dir, new));
        let there = moved.iter().map(|node| Moving { node, from: at, to: goal, leaves: true });
        let back = other.iter().map(|node| Moving { node, from: goal, to: at, leaves: true });
        let moving: Vec<_> = there.chain(back).collect();
        let renamed = self.with_records(&moving, || self.tree.lend(&movers, rename));
        if let Err(errno) = renamed {
            self.stay(replaced);
            return Err(host("rename")(errno));
        }
        if let Some((node, _)) = &replaced {
            self.record_goes(node, &to_dir, new);
        }
        self.settle(replaced);
        let at = |dir: &Arc<HostNode>, name: &[u8]| Place::At { parent: Arc::clone(dir), name: name.into() };
        // Each is asked before any is moved: both names may stand for one object.
        let moves = moved.filter(|node| node.place.lock().is(&from_dir, old));
        let returns = other.filter(|node| node.place.lock().is(&to_dir, new));
        if let Some(node) = moves {
            self.tree.place(&node, at(&to_dir, new));
        }
        if let Some(node) = returns {
            self.tree.place(&node, at(&from_dir, old));
        }
        Ok(())
    }

    /// Prepares the node of a name that is about to go: it keeps a descriptor and has no place.
    fn leave(&self, dir: &Arc<HostNode>, spot: Spot<'_>) -> Result<Option<(Arc<HostNode>, Place)>> {
        let Some(node) = spot.node.and_then(|id| self.tree.node(id).ok()) else { return Ok(None) };
        if !node.place.lock().is(dir, spot.name.as_bytes()) {
            return Ok(None);
        }
        self.tree.pin(&node)?;
        let place = Place::At { parent: Arc::clone(dir), name: spot.name.as_bytes().into() };
        Ok(Some((node, place)))
    }

    /// The name has gone.
    fn settle(&self, left: Option<(Arc<HostNode>, Place)>) {
        let Some((node, _)) = left else { return };
        self.tree.place(&node, Place::Lost);
        let open = node.fds.lock().any();
        let links = open.and_then(|fd| beneath::stat(fd.as_fd(), b"").ok()).map_or(0, |stat| stat.stx_nlink);
        if links == 0 || node.kind == FileKind::Directory {
            self.tree.disown(&node);
        }
    }

    /// The name has stayed.
    fn stay(&self, left: Option<(Arc<HostNode>, Place)>) {
        if let Some((node, _)) = left {
            self.tree.unpin(&node);
        }
    }

    pub(super) fn change_attr(&self, id: NodeId, changes: &SetAttr) -> Result<()> {
        let node = self.tree.node(id)?;
        let change = host("change attributes");
        if let Some(size) = changes.size {
            let fd = self.writer(id)?;
            data::set_len(fd.as_fd(), size).map_err(host("truncate"))?;
        }
        let fd = self.tree.descriptor(&node, OpenFor::Path)?;
        if changes.uid.is_some() || changes.gid.is_some() {
            beneath::set_owner(fd.as_fd(), b"", changes.uid, changes.gid).map_err(&change)?;
        }
        if let Some(perm) = changes.perm {
            beneath::set_perm(fd.as_fd(), perm).map_err(&change)?;
            self.record_follows(&node).map_err(&change)?;
        }
        if changes.atime.is_some() || changes.mtime.is_some() {
            let (access, modification) = (time_change(changes.atime), time_change(changes.mtime));
            beneath::set_times(fd.as_fd(), b"", access, modification).map_err(&change)?;
        }
        Ok(())
    }

    /// A descriptor for writing.
    pub(super) fn writer(&self, id: NodeId) -> Result<Arc<OwnedFd>> {
        let node = self.tree.regular(id)?;
        let fd = self.tree.descriptor(&node, OpenFor::Write)?;
        self.note_writer(&node);
        Ok(fd)
    }

    fn note_writer(&self, node: &HostNode) {
        if node.writing.swap(WRITTEN, Ordering::Relaxed) == NOT_WRITING {
            self.writers.lock().push(node.id);
        }
    }

    /// Closes the writing descriptors of nodes that were not written to since the last call.
    pub(super) fn close_idle_writers(&self) {
        let listed = std::mem::take(&mut *self.writers.lock());
        for id in listed {
            let Ok(node) = self.tree.node(id) else { continue };
            if node.writing.swap(IDLE, Ordering::Relaxed) == WRITTEN {
                self.writers.lock().push(id);
                continue;
            }
            node.writing.store(NOT_WRITING, Ordering::Relaxed);
            let mut fds = node.fds.lock();
            if !fds.pinned || fds.path.is_some() || fds.read.is_some() {
                self.tree.pool.close(fds.write.take().into_iter());
            }
        }
    }

    pub(super) fn sync_node(&self, id: NodeId, data_only: bool) -> Result<()> {
        let node = self.tree.node(id)?;
        let fd = match node.kind {
            FileKind::Directory => {
                let dir = self.tree.directory(&node)?;
                Arc::new(beneath::open_listing(dir.as_fd()).map_err(host("open a directory for syncing"))?)
            }
            FileKind::Regular => self.tree.descriptor(&node, OpenFor::Read)?,
            _ => return Ok(()),
        };
        data::sync(fd.as_fd(), data_only).map_err(host("sync"))
    }
}

/// Makes an object; a regular file comes back open.
fn make_raw(dir: BorrowedFd<'_>, name: &[u8], new: &NewObject<'_>) -> Result<Option<OwnedFd>, Errno> {
    let device = |kind: FileKind, id: DeviceId| {
        beneath::make_node(dir, name, kind.mode_bits(), new.perm, (id.major, id.minor))
    };
    match new.kind {
        NewKind::Regular => return beneath::create(dir, name, new.perm).map(Some),
        NewKind::Directory => beneath::make_directory(dir, name, new.perm),
        NewKind::Symlink(target) => beneath::make_symlink(dir, name, target),
        NewKind::CharDevice(id) => device(FileKind::CharDevice, id),
        NewKind::BlockDevice(id) => device(FileKind::BlockDevice, id),
        NewKind::Fifo => device(FileKind::Fifo, DeviceId::default()),
        NewKind::Socket => device(FileKind::Socket, DeviceId::default()),
    }
    .map(|()| None)
}

/// The group that a setgid directory hands down.
fn dir_gid(dir: &OwnedFd) -> Option<u32> {
    let stat = beneath::stat(dir.as_fd(), b"").ok()?;
    (u32::from(stat.stx_mode) & libc::S_ISGID != 0).then_some(stat.stx_gid)
}

fn time_change(time: Option<SetTime>) -> TimeChange {
    match time {
        None => TimeChange::Keep,
        Some(SetTime::Now) => TimeChange::Now,
        Some(SetTime::At(time)) => TimeChange::At(time.seconds, time.nanos),
    }
}
