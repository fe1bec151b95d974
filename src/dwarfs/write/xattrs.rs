//! Which extended attributes go into an archive, and in which form.
//!
//! DwarFS has no place for them; what is kept here goes into the side car. Marks of the kernel's overlay are kept
//! in their `user.` form, whoever wrote them, so that an unprivileged run understands them. What an unprivileged
//! host could not store as such (owners, devices) is turned back from its attribute into the thing itself.

use super::object::{Content, Device, Object};
use crate::dwarfs::format::{
    owner::{OVERRIDE_STAT, Owner, Stands},
    sidecar::Xattrs,
};

/// Marks of fim's own that a layer needs: everything else below [`PRIVATE`] concerns one upper directory only.
const KEPT_PRIVATE: [&[u8]; 2] = [b"user.fim.redirect", b"user.fim.metacopy"];
/// Prefix of fim's own attributes.
const PRIVATE: &[u8] = b"user.fim.";

/// Prefixes of the overlay's marks.
const OVERLAY: [&[u8]; 2] = [b"user.overlay.", b"trusted.overlay."];
/// Those of the overlay's marks that a layer needs; the others (`origin`, `impure`, `nlink`, ...) describe one mount.
const KEPT_OVERLAY: [&[u8]; 3] = [b"opaque", b"redirect", b"metacopy"];
/// Mark of a regular file that stands for a whiteout, where no device can be made.
const XATTR_WHITEOUT: &[u8] = b"whiteout";

const CAPABILITY: &[u8] = b"security.capability";
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Whether an attribute of this name has any meaning for an archive.
#[must_use]
pub(super) fn is_wanted(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"trusted.overlay.")
        || name == CAPABILITY
        || ACLS.contains(&name)
}

/// Brings what a source found on an object into the form of an archive: changes the object where an attribute says
/// what it really is, and returns the attributes that are to be kept.
#[must_use]
pub(super) fn normalise(object: &mut Object, found: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Xattrs {
    let mut kept = Xattrs::new();
    let mut is_whiteout = false;
    for (name, value) in found {
        let mark = OVERLAY.iter().find_map(|prefix| name.strip_prefix(*prefix));
        if name == OVERRIDE_STAT {
            if let Some(owner) = Owner::parse(&value) {
                apply(owner, object);
            }
        } else if name == CAPABILITY {
            kept.insert(name, plain_capability(value));
        } else if mark == Some(XATTR_WHITEOUT) {
            is_whiteout = true;
        } else if let Some(mark) = mark {
            // `opaque=x` only says that whiteouts of the other form may lie below; they are turned into devices.
            let is_hint = mark == b"opaque" && value != b"y";
            if KEPT_OVERLAY.contains(&mark) && !is_hint {
                kept.insert([b"user.overlay.", mark].concat(), value);
            }
        } else if is_wanted(&name) && (!name.starts_with(PRIVATE) || KEPT_PRIVATE.contains(&name.as_slice()))
        {
            kept.insert(name, value);
        }
    }
    if is_whiteout && object.file().is_some_and(|file| file.size == 0) {
        object.content = Content::CharDevice(Device::WHITEOUT);
        kept.clear();
    }
    kept
}

/// Makes an object what its record says that it is.
pub(super) fn apply(owner: Owner, object: &mut Object) {
    object.uid = owner.uid;
    object.gid = owner.gid;
    object.perm = owner.perm;
    let content = match owner.stands {
        Stands::Itself => return,
        Stands::Fifo => Content::Fifo,
        Stands::Socket => Content::Socket,
        Stands::CharDevice(major, minor) => Content::CharDevice(Device { major, minor }),
        Stands::BlockDevice(major, minor) => Content::BlockDevice(Device { major, minor }),
    };
    // Only a file can stand for something else: it is what the host could make instead.
    if object.file().is_some() {
        object.content = content;
    }
}

/// A file capability of a user namespace (revision 3) carries the namespace's root behind the plain form.
fn plain_capability(value: Vec<u8>) -> Vec<u8> {
    const REVISION_3: [u8; 2] = [0, 3];
    const REVISION_3_LEN: usize = 24;
    const PLAIN_LEN: usize = 20;
    match value.as_slice() {
        [flags, low, rest @ ..]
            if value.len() == REVISION_3_LEN && rest.get(..2) == Some(&REVISION_3[..]) =>
        {
            let body = value.get(4..PLAIN_LEN).unwrap_or_default();
            [&[*flags, *low, 0, 2], body].concat()
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dwarfs::write::object::FileContent;

    fn file() -> Object {
        Object::new(Content::File(FileContent::default()), 0o644)
    }

    fn kept(names: &[(&str, &[u8])]) -> Vec<String> {
        let found = names.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()));
        normalise(&mut file(), found).into_keys().map(|name| String::from_utf8(name).unwrap()).collect()
    }

    #[test]
    fn private_and_foreign_attributes_stay_behind() {
        let names: [(&str, &[u8]); 6] = [
            ("user.mime", b""),
            ("user.fim.origin", b""),
            ("user.fim.redirect", b"/a"),
            ("trusted.other", b""),
            ("security.selinux", b""),
            ("system.posix_acl_access", b""),
        ];
        assert_eq!(kept(&names), ["system.posix_acl_access", "user.fim.redirect", "user.mime"]);
    }

    #[test]
    fn overlay_marks_become_those_of_users() {
        assert_eq!(kept(&[("trusted.overlay.opaque", b"y")]), ["user.overlay.opaque"]);
        assert_eq!(kept(&[("user.overlay.opaque", b"y")]), ["user.overlay.opaque"]);
        assert!(kept(&[("user.overlay.opaque", b"x"), ("trusted.overlay.origin", b"?")]).is_empty());
    }

    #[test]
    fn a_marked_empty_file_is_a_whiteout() {
        let mut object = file();
        assert!(normalise(&mut object, [(b"user.overlay.whiteout".to_vec(), Vec::new())]).is_empty());
        assert_eq!(object.content, Content::CharDevice(Device::WHITEOUT));
    }

    #[test]
    fn an_override_says_what_the_object_really_is() {
        let mut object = file();
        let xattrs = normalise(&mut object, [(OVERRIDE_STAT.to_vec(), b"7:8:0104755:char-5-1".to_vec())]);
        assert!(xattrs.is_empty());
        assert_eq!((object.uid, object.gid, object.perm), (7, 8, 0o4755));
        assert_eq!(object.content, Content::CharDevice(Device { major: 5, minor: 1 }));
        let mut directory = Object::new(Content::Directory, 0o755);
        let _ = normalise(&mut directory, [(OVERRIDE_STAT.to_vec(), b"1:2:0700:pipe".to_vec())]);
        assert_eq!((directory.uid, directory.perm, &directory.content), (1, 0o700, &Content::Directory));
    }

    #[test]
    fn capabilities_lose_their_namespace() {
        let mut third = vec![1, 0, 0, 3];
        third.extend((0..20).collect::<Vec<u8>>());
        let plain = plain_capability(third);
        assert_eq!(plain[..5], [1, 0, 0, 2, 0]);
        assert_eq!(plain.len(), 20);
        assert_eq!(plain_capability(plain.clone()), plain);
    }
}
