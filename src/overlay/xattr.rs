//! Extended attributes. The overlay's own are neither seen nor set through it.

use super::{
    Overlay, acl,
    copy_up::Keep,
    marks::{ACL, DEFAULT_ACL, OWNER, is_private},
    node::{Node, Origin},
};
use crate::{
    sync::RwLockWriteGuard,
    vfs::{Caller, Errno, Error, FileKind, Ino, Result, XattrFlags},
};

impl Overlay {
    pub(super) fn do_getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        let _topology = self.topology.read();
        let node = self.table.get(ino)?;
        if name == OWNER {
            return self.owner_of(&node);
        }
        let mut value = if is_private(name) { None } else { self.xattr_of(&node, name)? };
        if acl::is_list(name) {
            value = value.map(|list| acl::known_here(list, self.options.squash.as_ref()));
        }
        value.ok_or(Error::new(Errno::ENODATA, "read an extended attribute"))
    }

    pub(super) fn do_listxattr(&self, ino: Ino) -> Result<Vec<u8>> {
        let _topology = self.topology.read();
        let names = match self.table.get(ino)?.origin()? {
            Origin::Upper(id) => self.upper()?.xattr_names(id)?,
            Origin::Lower(lower) => self.stack.layer(lower.layer)?.xattr_names(lower.node)?,
        };
        let mut list = Vec::new();
        for name in names.iter().filter(|name| !is_private(name)) {
            list.extend_from_slice(name);
            list.push(0);
        }
        Ok(list)
    }

    pub(super) fn do_setxattr(
        &self,
        caller: Caller,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        let _gate = self.gate.read();
        let _topology = self.topology.read();
        if name == OWNER {
            return self.record_owner(caller, &self.table.get(ino)?, value);
        }
        check_not_private(name)?;
        let node = self.table.get(ino)?;
        if name.starts_with(b"user.") && !matches!(node.kind, FileKind::Regular | FileKind::Directory) {
            return Err(Error::new(Errno::EPERM, "set a user attribute of what takes none"));
        }
        let _entries = self.handing_down(&node, name);
        let id = self.copy_up(&node, Keep::Attributes)?;
        self.upper()?.set_xattr(id, name, value, flags)?;
        if name == ACL { self.check_set_gid(caller, id) } else { Ok(()) }
    }

    pub(super) fn do_removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        let _gate = self.gate.read();
        let _topology = self.topology.read();
        check_not_private(name)?;
        self.upper()?;
        let node = self.table.get(ino)?;
        if self.xattr_of(&node, name)?.is_none() {
            return Err(Error::new(Errno::ENODATA, "remove an extended attribute"));
        }
        let _entries = self.handing_down(&node, name);
        let id = self.copy_up(&node, Keep::Attributes)?;
        self.upper()?.remove_xattr(id, name)
    }

    /// Where what a directory hands down is about to change: nobody makes entries meanwhile, and all ask again.
    fn handing_down<'a>(&self, node: &'a Node, name: &[u8]) -> Option<RwLockWriteGuard<'a, ()>> {
        let dir = node.dir.as_deref().filter(|_| name == DEFAULT_ACL)?;
        let entries = dir.lock.write();
        dir.hands_down.forget();
        Some(entries)
    }

    fn xattr_of(&self, node: &Node, name: &[u8]) -> Result<Option<Vec<u8>>> {
        match node.origin()? {
            Origin::Upper(id) => self.upper()?.xattr(id, name),
            Origin::Lower(lower) => self.stack.layer(lower.layer)?.xattr(lower.node, name),
        }
    }
}

fn check_not_private(name: &[u8]) -> Result<()> {
    match is_private(name) {
        true => Err(Error::new(Errno::EPERM, "set an attribute of the overlay itself")),
        false => Ok(()),
    }
}
