//! Making objects.

use super::{
    Overlay,
    copy_up::Keep,
    fold::Spelled,
    marks::{ACL, DEFAULT_ACL, OPAQUE, YES},
    node::Node,
    stack::Found,
};
use crate::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    vfs::{
        Attr, Caller, DeviceId, Entry, Errno, Error, FileKind, Ino, Name, NewKind, NewObject, NodeId,
        RenameMode, Result, SetAttr, Spot, XattrFlags,
    },
};

/// The bit that makes entries of a directory inherit its group.
const SET_GID: u16 = 0o2000;

/// What is in the way of a new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vacancy {
    /// Nothing.
    Free,
    /// A whiteout in the upper.
    Whiteout,
}

impl Overlay {
    pub(super) fn do_mknod(
        &self,
        caller: Caller,
        parent: Ino,
        name: Name<'_>,
        kind: FileKind,
        perm: u16,
        rdev: DeviceId,
    ) -> Result<Entry> {
        let kind = match kind {
            FileKind::Regular => NewKind::Regular,
            FileKind::CharDevice if rdev == DeviceId::default() => {
                return Err(Error::new(Errno::EPERM, "make a device that means a deleted name"));
            }
            FileKind::CharDevice => NewKind::CharDevice(rdev),
            FileKind::BlockDevice => NewKind::BlockDevice(rdev),
            FileKind::Fifo => NewKind::Fifo,
            FileKind::Socket => NewKind::Socket,
            FileKind::Directory | FileKind::Symlink => return Err(Error::new(Errno::EINVAL, "make a node")),
        };
        self.make(caller, parent, name, kind, perm)
    }

    /// Makes an object as `name` in `parent`.
    pub(super) fn make(
        &self,
        caller: Caller,
        parent: Ino,
        name: Name<'_>,
        kind: NewKind<'_>,
        perm: u16,
    ) -> Result<Entry> {
        let _gate = self.gate.read();
        let _topology = self.topology.read();
        let dir = self.changing_dir(parent)?;
        let _renaming = self.renaming.read();
        let _entries = dir.directory()?.lock.write();
        self.check_not_removed(&dir)?;
        self.check_spelling_is_new(&dir, name)?;
        let vacancy = match self.lower_has(&dir, name)? {
            true => self.vacancy(&dir, name)?,
            // Whether the upper has it, making it tells.
            false => Vacancy::Free,
        };
        let dir_id = self.copy_up(&dir, Keep::All)?;
        let perm = self.perm_of_new(caller, (&dir, dir_id), kind, perm)?;
        let new = self.inherit(caller, dir_id, kind, perm)?;
        let made = match vacancy {
            Vacancy::Free => self.upper()?.create(dir_id, name, &new),
            Vacancy::Whiteout => self.replace_whiteout(dir_id, name, &new),
        };
        let (id, attr) = match made {
            Err(error) if error.errno() == Errno::EEXIST && vacancy == Vacancy::Free => {
                match self.vacancy(&dir, name)? {
                    Vacancy::Whiteout => self.replace_whiteout(dir_id, name, &new)?,
                    Vacancy::Free => return Err(error),
                }
            }
            made => made?,
        };
        self.enter(&dir, name, id, attr)
    }

    /// Looks whether `name` can be made in `dir`.
    pub(super) fn vacancy(&self, dir: &Arc<Node>, name: Name<'_>) -> Result<Vacancy> {
        let (dir_upper, _) = dir.parts();
        self.check_spelling_is_new(dir, name)?;
        if let Some(dir_upper) = dir_upper
            && let Some(attr) = self.upper()?.peek(dir_upper, name)?
        {
            return match attr.is_whiteout() {
                true => Ok(Vacancy::Whiteout),
                false => Err(Error::new(Errno::EEXIST, "make a name")),
            };
        }
        match self.lower_has(dir, name)? {
            true => Err(Error::new(Errno::EEXIST, "make a name")),
            false => Ok(Vacancy::Free),
        }
    }

    /// Fails where `dir` has `name` in another spelling.
    fn check_spelling_is_new(&self, dir: &Arc<Node>, name: Name<'_>) -> Result<()> {
        match self.spelled(dir, name)? {
            Spelled::Otherwise(_) => Err(Error::new(Errno::EEXIST, "make a name")),
            Spelled::AsAsked(_) => Ok(()),
        }
    }

    /// The object to make: who owns it is decided by the caller, and by a setgid directory.
    fn inherit<'a>(
        &self,
        caller: Caller,
        dir: NodeId,
        kind: NewKind<'a>,
        perm: u16,
    ) -> Result<NewObject<'a>> {
        let dir = self.upper()?.attr(dir)?;
        let mut new = NewObject { kind, perm, uid: caller.uid, gid: caller.gid };
        if dir.perm & SET_GID != 0 {
            new.gid = dir.gid;
            if matches!(kind, NewKind::Directory) {
                new.perm |= SET_GID;
            }
        }
        Ok(new)
    }

    /// Puts a new object in the place of a whiteout; a directory hides what is below before it can be seen.
    fn replace_whiteout(&self, dir: NodeId, name: Name<'_>, new: &NewObject<'_>) -> Result<(NodeId, Attr)> {
        let upper = self.upper()?;
        let staged = self.stage(new)?;
        self.hand_acl_down(dir, staged.id, new)?;
        let to = Spot { dir, name, node: None };
        let made = upper.attr(staged.id)?;
        if matches!(new.kind, NewKind::Directory) {
            upper.set_xattr(staged.id, OPAQUE, YES, XattrFlags::empty())?;
            upper.rename(staged.spot()?, to, RenameMode::Exchange)?;
            // The whiteout is in the work directory now.
            let _ = upper.unlink(Spot { node: None, ..staged.spot()? });
        } else {
            upper.rename(staged.spot()?, to, RenameMode::Replace)?;
        }
        let id = staged.published();
        // It is there now, whatever else fails.
        Ok((id, upper.attr(id).unwrap_or(made)))
    }

    /// Gives a staged object the access control list that its directory hands down, as the host does where an object is
    /// made at its place.
    fn hand_acl_down(&self, dir: NodeId, id: NodeId, new: &NewObject<'_>) -> Result<()> {
        let upper = self.upper()?;
        if matches!(new.kind, NewKind::Symlink(_)) {
            return Ok(());
        }
        let Some(acl) = upper.xattr(dir, DEFAULT_ACL)? else { return Ok(()) };
        upper.set_xattr(id, ACL, &acl, XattrFlags::empty())?;
        if matches!(new.kind, NewKind::Directory) {
            upper.set_xattr(id, DEFAULT_ACL, &acl, XattrFlags::empty())?;
        }
        upper.set_attr(id, &SetAttr { perm: Some(new.perm), ..SetAttr::default() })
    }

    /// Makes the upper object `id`, just made as `name` in `dir`, known.
    fn enter(&self, dir: &Arc<Node>, name: Name<'_>, id: NodeId, attr: Attr) -> Result<Entry> {
        let mut found = Found::new(&self.stack, attr);
        found.upper = Some(id);
        let ino = super::stack::upper_ino(attr.ino).map(Ino::new);
        let node = self.table.obtain(found, ino, (0, None), |_| Ok(()))?;
        self.table.add_link(&node, dir, name);
        if let Some(made) = &node.dir {
            made.made_empty();
            made.hands_down.as_parent(&dir.directory()?.hands_down);
        }
        self.index_insert(dir, name, &node);
        Ok(Entry { ino: node.ino, generation: node.generation, attr: self.finish_attr(&node, attr) })
    }

    /// A name for the work directory that nothing there has.
    pub(super) fn staging_name(&self) -> Vec<u8> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        format!("#{:x}", NEXT.fetch_add(1, Ordering::Relaxed)).into_bytes()
    }
}
