//! Extended attributes that mean something to the overlay. Programs neither see nor set them.
//!
//! Opaque directories are marked as kernel overlayfs marks them with `userxattr`. What it does not know in such a mount
//! has names of our own and a note in the work directory, for which it refuses the upper; `export.rs` turns all of it into
//! plain files and directories. What the kernel wrote for itself or for root is understood, by the same values.

use super::links::{LINKS, Links};
use crate::vfs::{FileKind, Ino, Layer, NodeId, Result};

/// "Nothing below this directory shows", as everybody who may write an upper can set it.
pub(super) const OPAQUE: &[u8] = b"user.overlay.opaque";

/// The same, as kernel overlayfs sets it for root.
pub(super) const OPAQUE_TRUSTED: &[u8] = b"trusted.overlay.opaque";

/// "What is below this directory is there under another name": the path in the merged layers below (`/a/b`), or the
/// name in the same directory (`b`).
pub(super) const REDIRECT: &[u8] = b"user.fim.redirect";

/// All its names, that of ours first: the kernel's, which earlier versions wrote as well, and the one of root.
pub(super) const REDIRECTS: [&[u8]; 3] = [REDIRECT, b"user.overlay.redirect", b"trusted.overlay.redirect"];

/// "This file has attributes and length alone: its data are those of the file below it", or of the one to which its
/// [`REDIRECT`] leads.
pub(super) const METACOPY: &[u8] = b"user.fim.metacopy";

/// All its names, that of ours last: as long as it is there the others need not be.
pub(super) const METACOPIES: [&[u8]; 3] = [b"trusted.overlay.metacopy", b"user.overlay.metacopy", METACOPY];

/// The value of [`OPAQUE`] and [`IMPURE`].
pub(super) const YES: &[u8] = b"y";

/// "An entry of this directory, which has nothing below it, may have been copied up": its [`ORIGIN`] and its
/// [`REDIRECT`] must be read.
pub(super) const IMPURE: &[u8] = b"user.overlay.impure";

/// The same, as kernel overlayfs sets it for root.
pub(super) const IMPURE_TRUSTED: &[u8] = b"trusted.overlay.impure";

/// The inode number that a copied-up file had before, eight bytes, little endian.
pub(super) const ORIGIN: &[u8] = b"user.fim.origin";

/// File capabilities: dropped with suid and sgid.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// What the marks of an object say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// Nothing below the directory shows.
    pub(super) opaque: bool,
    /// Where to look for what is below, as it is stored.
    pub(super) redirect: Option<Box<[u8]>>,
    /// The data of the file are below.
    pub(super) metacopy: bool,
    /// The inode number that the object had before it was copied up.
    pub(super) origin: Option<Ino>,
    /// The names of a file in the index.
    pub(super) links: Option<Links>,
}

impl Marks {
    /// Reads the marks of `node`: one question for an object that has none.
    pub(super) fn read(layer: &(impl Layer + ?Sized), node: NodeId, kind: FileKind) -> Result<Self> {
        let mut marks = Self::default();
        if !matches!(kind, FileKind::Directory | FileKind::Regular) || !layer.has_xattrs() {
            return Ok(marks);
        }
        let mut rank = REDIRECTS.len();
        for name in layer.xattr_names(node)?.iter().filter(|name| is_private(name)) {
            let Some(value) = layer.xattr(node, name)? else { continue };
            match REDIRECTS.iter().position(|known| name == known) {
                Some(known) if known < rank => (rank, marks.redirect) = (known, Some(value.into())),
                Some(_) => {}
                None => marks.take(name, &value),
            }
        }
        Ok(marks)
    }

    fn take(&mut self, name: &[u8], value: &[u8]) {
        match name {
            OPAQUE | OPAQUE_TRUSTED => self.opaque |= value == YES,
            LINKS => self.links = Links::parse(value),
            _ if METACOPIES.contains(&name) => self.metacopy = true,
            ORIGIN => {
                let number = <[u8; 8]>::try_from(value).map(u64::from_le_bytes);
                self.origin = number.ok().map(Ino::new).filter(|ino| *ino > Ino::ROOT);
            }
            _ => {}
        }
    }
}

/// The access control list of an object, and the one that a directory hands down.
pub(super) const ACL: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Whom an object is to belong to, where the host has one user only: `UID:GID`, `-` for "as it is", and `:c:MAJOR:MINOR`
/// (or `b`) for a file that stands for a device. What runs programs as root inside sets it in place of chown(2), and reads it in place of
/// stat(2). Attributes of this class can be set on symlinks as well.
pub(super) const OWNER: &[u8] = b"system.fim.owner";

/// The record itself, as containers/storage and fuse-overlayfs have it.
pub(super) const OVERRIDE_STAT: &[u8] = b"user.containers.override_stat";

/// Prefixes of attributes that are the overlay's own, and the record of an owner that the host could not store.
const PRIVATE: [&[u8]; 5] =
    [b"user.overlay.", b"trusted.overlay.", b"user.fim.", b"system.fim.", OVERRIDE_STAT];

/// Whether `name` is the overlay's own.
pub(super) fn is_private(name: &[u8]) -> bool {
    PRIVATE.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_names_are_told_from_those_of_programs() {
        for (name, expected) in [
            (OPAQUE, true),
            (OPAQUE_TRUSTED, true),
            (ORIGIN, true),
            (b"user.overlay", false),
            (b"user.overlays.x", false),
            (CAPABILITY, false),
            (b"user.mime_type", false),
        ] {
            assert_eq!(is_private(name), expected, "{}", name.escape_ascii());
        }
    }
}
