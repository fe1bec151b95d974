//! Owners where the host has one user only: asked for, recorded, and told.
//!
//! Such a user sees everything as his own. What runs programs as root for him takes their chown(2) calls and sets
//! [`OWNER`](super::marks::OWNER) instead, which the upper records; a commit makes real owners of the records.

use super::{
    Overlay,
    copy_up::{Keep, Staged},
    marks::OVERRIDE_STAT,
    node::{LowerRef, Node, Origin},
};
use crate::{
    sync::Arc,
    vfs::{Attr, Caller, DeviceId, Errno, Error, FileKind, Layer, OwnerChange, Result, XattrFlags},
};

impl Overlay {
    /// Records what a chown(2) has asked for, and takes away the privileges that go with one.
    pub(super) fn record_owner(&self, caller: Caller, node: &Arc<Node>, value: &[u8]) -> Result<()> {
        let upper = self.upper()?;
        if !upper.records_owners() {
            return Err(Error::new(Errno::EOPNOTSUPP, "record an owner"));
        }
        let change = parse(value).ok_or(Error::new(Errno::EINVAL, "read whom an object is to belong to"))?;
        let id = self.copy_up(node, Keep::Attributes)?;
        upper.record_owner(id, &change)?;
        if node.kind == FileKind::Regular { self.kill_privileges(caller, node, id) } else { Ok(()) }
    }

    /// Whom `node` really belongs to, as [`OWNER`](super::marks::OWNER) has it.
    pub(super) fn owner_of(&self, node: &Node) -> Result<Vec<u8>> {
        let unknown = || Error::new(Errno::ENODATA, "read an extended attribute");
        let upper = self.stack.upper().filter(|upper| upper.records_owners()).ok_or_else(unknown)?;
        let owner = match node.origin()? {
            Origin::Upper(id) => upper.recorded_owner(id)?.unwrap_or_default(),
            Origin::Lower(lower) => of_lower(&self.stack.layer(lower.layer)?.attr(lower.node)?),
        };
        let (uid, gid) = (owner.uid.unwrap_or(0), owner.gid.unwrap_or(0));
        let device = owner.device.map(|(kind, id)| {
            let letter = if kind == FileKind::BlockDevice { 'b' } else { 'c' };
            format!(":{letter}:{}:{}", id.major, id.minor)
        });
        Ok(format!("{uid}:{gid}{}", device.unwrap_or_default()).into_bytes())
    }

    /// A copy in the upper belongs to whom its original did.
    pub(super) fn record_owner_below(
        &self,
        staged: &Staged<'_>,
        layer: &dyn Layer,
        lower: LowerRef,
        attr: &Attr,
    ) -> Result<()> {
        let upper = self.upper()?;
        if !upper.records_owners() {
            return Ok(());
        }
        let takes_records = matches!(attr.kind, FileKind::Regular | FileKind::Directory);
        if takes_records
            && layer.has_xattrs()
            && let Some(record) = layer.xattr(lower.node, OVERRIDE_STAT)?
        {
            return upper.set_xattr(staged.id, OVERRIDE_STAT, &record, XattrFlags::empty());
        }
        upper.record_owner(staged.id, &of_lower(attr))
    }
}

const fn of_lower(attr: &Attr) -> OwnerChange {
    OwnerChange { uid: Some(attr.uid), gid: Some(attr.gid), device: None }
}

/// Reads a value of [`OWNER`](super::marks::OWNER).
fn parse(value: &[u8]) -> Option<OwnerChange> {
    let mut parts = std::str::from_utf8(value).ok()?.split(':');
    let mut id = || match parts.next()? {
        "-" => Some(None),
        // The last id stands for "no id".
        id => id.parse().ok().filter(|id| *id != u32::MAX).map(Some),
    };
    let (uid, gid) = (id()?, id()?);
    let kind = match parts.next() {
        None => return Some(OwnerChange { uid, gid, device: None }),
        Some("c") => FileKind::CharDevice,
        Some("b") => FileKind::BlockDevice,
        Some(_) => return None,
    };
    let mut number = || parts.next()?.parse().ok();
    let device = DeviceId { major: number()?, minor: number()? };
    parts.next().is_none().then_some(OwnerChange { uid, gid, device: Some((kind, device)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read() {
        let asked = |uid, gid, device| Some(OwnerChange { uid, gid, device });
        let device = (FileKind::CharDevice, DeviceId { major: 5, minor: 1 });
        for (value, expected) in [
            ("1:2", asked(Some(1), Some(2), None)),
            ("-:4294967294", asked(None, Some(4_294_967_294), None)),
            ("0:-:c:5:1", asked(Some(0), None, Some(device))),
            ("4294967295:0", None),
            ("1", None),
            ("1:2:p", None),
            ("1:2:c:1", None),
            ("1:2:c:1:2:3", None),
            ("", None),
            ("x:y", None),
        ] {
            assert_eq!(parse(value.as_bytes()), expected, "{value}");
        }
    }
}
