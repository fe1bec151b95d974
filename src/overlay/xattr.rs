//! Extended attributes. The overlay's own are neither seen nor set through it.

use super::{
    Overlay,
    copy_up::Keep,
    marks::is_private,
    node::{Node, Origin},
};
use crate::vfs::{Errno, Error, FileKind, Ino, Result, XattrFlags};

impl Overlay {
    pub(super) fn do_getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        let _topology = self.topology.read();
        let node = self.table.get(ino)?;
        let value = if is_private(name) { None } else { self.xattr_of(&node, name)? };
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

    pub(super) fn do_setxattr(&self, ino: Ino, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        let _gate = self.gate.read();
        let _topology = self.topology.read();
        check_not_private(name)?;
        let node = self.table.get(ino)?;
        if name.starts_with(b"user.") && !matches!(node.kind, FileKind::Regular | FileKind::Directory) {
            return Err(Error::new(Errno::EPERM, "set a user attribute of what takes none"));
        }
        let id = self.copy_up(&node, Keep::Attributes)?;
        self.upper()?.set_xattr(id, name, value, flags)
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
        let id = self.copy_up(&node, Keep::Attributes)?;
        self.upper()?.remove_xattr(id, name)
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
