//! Access control lists, where the overlay must look into them.
//!
//! The kernel enforces and remembers them, and the file system of the upper keeps them and what of them is in the mode.
//! What is left: a new object gets the mode that its directory's list allows, in place of what the umask leaves; a list
//! that cannot be kept must not let its group in further than it did; and ids that a user namespace does not know
//! are not shown, because the kernel takes no list that has one.
//!
//! ```text
//! u32 version (2), entry*                              little endian, as getxattr(2) gives it
//! entry  u16 tag, u16 permissions, u32 id              linux/posix_acl_xattr.h
//! ```

use super::{
    Overlay, Squash,
    marks::{ACL, DEFAULT_ACL},
    node::Node,
};
use crate::{
    sync::atomic::{AtomicU8, Ordering},
    vfs::{Caller, NewKind, NodeId, Result, SetAttr},
};

/// Length of the version in bytes.
const HEAD: usize = 4;
/// Length of an entry in bytes.
const ENTRY: usize = 8;

/// The bits of a mode that a list has as well.
const MODE: u16 = 0o777;
const GROUP_BITS: u16 = 0o070;
const SET_GID: u16 = 0o2000;

/// Whether a directory hands a list down: not asked yet, no, yes.
#[derive(Debug, Default)]
pub(super) struct HandsDown(AtomicU8);

impl HandsDown {
    const NO: u8 = 1;
    const YES: u8 = 2;

    /// It must be asked again.
    pub(super) fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// A directory that was just made in `parent` does as that does.
    pub(super) fn as_parent(&self, parent: &Self) {
        self.0.store(parent.0.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Who an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Owner,
    User,
    OwningGroup,
    Group,
    Mask,
    Other,
}

impl Tag {
    fn parse(raw: u16) -> Option<Self> {
        Some(match raw {
            0x01 => Self::Owner,
            0x02 => Self::User,
            0x04 => Self::OwningGroup,
            0x08 => Self::Group,
            0x10 => Self::Mask,
            0x20 => Self::Other,
            _ => return None,
        })
    }
}

/// The entries of a list: who, what, and the id of a user or group. What cannot be read is left out.
fn entries(list: &[u8]) -> impl Iterator<Item = (Tag, u16, u32)> {
    list.get(HEAD..).unwrap_or_default().chunks_exact(ENTRY).filter_map(parse_entry)
}

fn parse_entry(entry: &[u8]) -> Option<(Tag, u16, u32)> {
    let two = |at: usize| Some(u16::from_le_bytes(entry.get(at..at + 2)?.try_into().ok()?));
    let id = u32::from_le_bytes(entry.get(4..ENTRY)?.try_into().ok()?);
    Some((Tag::parse(two(0)?)?, two(2)? & 0o7, id))
}

fn bits(list: &[u8], tag: Tag) -> Option<u16> {
    entries(list).find_map(|(found, bits, _)| (found == tag).then_some(bits))
}

/// The mode of which a new object gets at most what its directory's list allows.
fn allowed(list: &[u8]) -> u16 {
    let of = |tag| bits(list, tag);
    let group = of(Tag::Mask).or_else(|| of(Tag::OwningGroup));
    (of(Tag::Owner).unwrap_or(0) << 6) | (group.unwrap_or(0) << 3) | of(Tag::Other).unwrap_or(0)
}

/// The mode of an object without its list, with no more for its group than the list gave it.
pub(super) fn without_list(perm: u16, list: &[u8]) -> u16 {
    let group = bits(list, Tag::OwningGroup).unwrap_or(0) & bits(list, Tag::Mask).unwrap_or(0o7);
    perm & (!GROUP_BITS | (group << 3))
}

/// A list without entries for ids that do not exist here.
pub(super) fn known_here(list: Vec<u8>, squash: Option<&Squash>) -> Vec<u8> {
    let Some(squash) = squash else { return list };
    let exists = |entry: &&[u8]| match parse_entry(entry) {
        Some((Tag::User, _, id)) => squash.uids.iter().any(|range| range.contains(&id)),
        Some((Tag::Group, _, id)) => squash.gids.iter().any(|range| range.contains(&id)),
        _ => true,
    };
    let (head, rest) = list.split_at(HEAD.min(list.len()));
    let kept = rest.chunks(ENTRY).filter(exists).flatten();
    head.iter().chain(kept).copied().collect()
}

/// Whether `name` is that of a list.
pub(super) fn is_list(name: &[u8]) -> bool {
    name == ACL || name == DEFAULT_ACL
}

impl Overlay {
    /// The permission bits of an object that `caller` makes in the upper directory `dir_id`, which is `dir`.
    pub(super) fn perm_of_new(
        &self,
        caller: Caller,
        (dir, dir_id): (&Node, NodeId),
        kind: NewKind<'_>,
        perm: u16,
    ) -> Result<u16> {
        if matches!(kind, NewKind::Symlink(_)) {
            return Ok(perm);
        }
        let masked = perm & !(caller.umask & MODE);
        let hands_down = &dir.directory()?.hands_down.0;
        if hands_down.load(Ordering::Relaxed) == HandsDown::NO || !self.upper()?.has_acls() {
            return Ok(masked);
        }
        let list = self.upper()?.xattr(dir_id, DEFAULT_ACL)?;
        let answer = if list.is_some() { HandsDown::YES } else { HandsDown::NO };
        hands_down.store(answer, Ordering::Relaxed);
        Ok(list.map_or(masked, |list| perm & (!MODE | allowed(&list))))
    }

    /// Takes the sgid bit of the upper object `id`, which got another list, where the caller may not give it.
    pub(super) fn check_set_gid(&self, caller: Caller, id: NodeId) -> Result<()> {
        let upper = self.upper()?;
        let attr = upper.attr(id)?;
        if attr.perm & SET_GID == 0 || caller.may_set_gid(attr.gid) {
            return Ok(());
        }
        upper.set_attr(id, &SetAttr { perm: Some(attr.perm & !SET_GID), ..SetAttr::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(perm.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    /// user::rwx user:7:rw- group::r-x group:9:rwx mask::rw- other::--x
    fn sample() -> Vec<u8> {
        let none = u32::MAX;
        list(&[(1, 7, none), (2, 6, 7), (4, 5, none), (8, 7, 9), (16, 6, none), (32, 1, none)])
    }

    #[test]
    fn a_new_object_gets_what_the_list_allows() {
        assert_eq!(allowed(&sample()), 0o761);
        let none = u32::MAX;
        assert_eq!(allowed(&list(&[(1, 7, none), (4, 5, none), (32, 0, none)])), 0o750, "without a mask");
        assert_eq!(allowed(b"\x02"), 0, "what cannot be read allows nothing");
    }

    #[test]
    fn a_lost_list_opens_nothing() {
        assert_eq!(without_list(0o2761, &sample()), 0o2741, "group::r-x through mask::rw-");
        assert_eq!(without_list(0o777, b""), 0o707);
    }

    #[test]
    fn ids_that_do_not_exist_are_not_shown() {
        let squash = |ids| Squash { uid: 0, gid: 0, uids: vec![0..=ids], gids: vec![0..=ids] };
        assert_eq!(known_here(sample(), Some(&squash(9))), sample());
        let some = entries(&known_here(sample(), Some(&squash(8)))).map(|(tag, ..)| tag).collect::<Vec<_>>();
        assert_eq!(some, [Tag::Owner, Tag::User, Tag::OwningGroup, Tag::Mask, Tag::Other]);
        assert_eq!(known_here(vec![2], Some(&squash(0))), [2]);
    }
}
