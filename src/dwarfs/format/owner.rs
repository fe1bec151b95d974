//! Owners that a host could not store, as text.
//!
//! ```text
//! user.containers.override_stat   on a file or directory, as containers/storage and fuse-overlayfs have it:
//!                                 UID ":" GID ":" MODE (octal) [":" KIND]
//! user.fim.owners                 on a directory, for entries that take no attribute (symlinks, fifos, sockets):
//!                                 { NAME 0x00 INODE ":" UID ":" GID ":" MODE [":" KIND] 0x00 } ...
//! KIND                            pipe | socket | char-MAJOR-MINOR | block-MAJOR-MINOR; others mean what is there
//! ```
//!
//! An entry is found by name and inode number; where the number is nowhere, for the tree has been copied, by the name
//! alone. So two objects can have a record under one name, and a rename needs no record to change at the same moment.

/// The attribute of a file or directory.
pub const OVERRIDE_STAT: &[u8] = b"user.containers.override_stat";

/// The attribute of a directory, for its entries.
pub const ENTRIES: &[u8] = b"user.fim.owners";

/// Most bytes of a value of [`ENTRIES`] that are looked at: what Linux allows.
const MAX_LEN: usize = 64 << 10;

/// What an object stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// Itself.
    Itself,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device with this number.
    CharDevice(u32, u32),
    /// A block device with this number.
    BlockDevice(u32, u32),
}

/// Whom an object belongs to, and what else its host could not store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permission bits.
    pub perm: u16,
    /// What it really is.
    pub stands: Stands,
}

impl Owner {
    /// Whether it is what everything is that has no record.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        (self.uid, self.gid, self.stands) == (0, 0, Stands::Itself)
    }

    /// Reads a value; `None` where it is none.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.trim_end_matches('\0');
        let mut parts = text.splitn(4, ':');
        let uid = parts.next()?.parse().ok()?;
        let gid = parts.next()?.parse().ok()?;
        let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
        let perm = u16::try_from(mode & 0o7777).ok()?;
        Some(Self { uid, gid, perm, stands: parts.next().map_or(Stands::Itself, Stands::parse) })
    }

    /// As a value.
    #[must_use]
    pub fn to_value(self) -> Vec<u8> {
        let Self { uid, gid, perm, stands } = self;
        format!("{uid}:{gid}:{perm:04o}{}", stands.suffix()).into_bytes()
    }
}

impl Stands {
    /// Reads a kind; what is none of them means that the object is what it is.
    #[must_use]
    pub fn parse(kind: &str) -> Self {
        let mut parts = kind.split('-');
        let word = parts.next();
        let mut number = || parts.next().and_then(|number| number.parse().ok());
        match word {
            Some("pipe") => Self::Fifo,
            Some("socket") => Self::Socket,
            Some("char") => match (number(), number()) {
                (Some(major), Some(minor)) => Self::CharDevice(major, minor),
                _ => Self::Itself,
            },
            Some("block") => match (number(), number()) {
                (Some(major), Some(minor)) => Self::BlockDevice(major, minor),
                _ => Self::Itself,
            },
            _ => Self::Itself,
        }
    }

    /// As the end of a value.
    #[must_use]
    pub fn suffix(self) -> String {
        match self {
            Self::Itself => String::new(),
            Self::Fifo => ":pipe".to_owned(),
            Self::Socket => ":socket".to_owned(),
            Self::CharDevice(major, minor) => format!(":char-{major}-{minor}"),
            Self::BlockDevice(major, minor) => format!(":block-{major}-{minor}"),
        }
    }
}

/// The records of a directory's entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryOwners(Vec<(Box<[u8]>, u64, Owner)>);

impl EntryOwners {
    /// Reads a value; what is not understood is left out.
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        let value = value.get(..MAX_LEN).unwrap_or(value);
        let mut words = value.split(|byte| *byte == 0);
        let mut entries = Vec::new();
        while let (Some(name), Some(record)) = (words.next(), words.next()) {
            let Some(colon) = record.iter().position(|byte| *byte == b':') else { continue };
            let (inode, rest) = record.split_at(colon);
            let inode = std::str::from_utf8(inode).ok().and_then(|text| text.parse().ok());
            if let (Some(inode), Some(owner)) = (inode, Owner::parse(rest.get(1..).unwrap_or_default())) {
                entries.push((name.into(), inode, owner));
            }
        }
        Self(entries)
    }

    /// As a value.
    #[must_use]
    pub fn to_value(&self) -> Vec<u8> {
        let mut value = Vec::new();
        for (name, inode, owner) in &self.0 {
            value.extend_from_slice(name);
            value.push(0);
            value.extend_from_slice(format!("{inode}:").as_bytes());
            value.extend_from_slice(&owner.to_value());
            value.push(0);
        }
        value
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The record of the object with the number `inode` under `name`.
    #[must_use]
    pub fn get(&self, name: &[u8], inode: u64) -> Option<Owner> {
        let mut under_name = self.0.iter().filter(|(known, ..)| **known == *name);
        match (under_name.clone().find(|(_, known, _)| *known == inode), under_name.next()) {
            (Some((.., owner)), _) => Some(*owner),
            (None, Some((.., owner))) if under_name.next().is_none() => Some(*owner),
            _ => None,
        }
    }

    /// Sets the record of one object, beside those of others with the same name.
    pub fn set(&mut self, name: &[u8], inode: u64, owner: Owner) {
        self.remove(name, inode);
        self.0.push((name.into(), inode, owner));
    }

    /// Removes the record of one object.
    pub fn remove(&mut self, name: &[u8], inode: u64) {
        self.0.retain(|(known, number, _)| **known != *name || *number != inode);
    }

    /// Keeps of a name the record of the object with the number `inode` alone; with `None` nothing.
    pub fn keep_only(&mut self, name: &[u8], inode: Option<u64>) {
        self.0.retain(|(known, number, _)| **known != *name || Some(*number) == inode);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_containers() {
        for (text, owner) in [
            ("7:8:4755", Owner { uid: 7, gid: 8, perm: 0o4755, stands: Stands::Itself }),
            ("0:43:2775", Owner { uid: 0, gid: 43, perm: 0o2775, stands: Stands::Itself }),
            ("1:2:0600:char-5-1", Owner { uid: 1, gid: 2, perm: 0o600, stands: Stands::CharDevice(5, 1) }),
            ("1:2:0600:pipe", Owner { uid: 1, gid: 2, perm: 0o600, stands: Stands::Fifo }),
        ] {
            assert_eq!(Owner::parse(text.as_bytes()), Some(owner));
            assert_eq!(owner.to_value(), text.as_bytes());
        }
        for (text, stands) in [("0:0:0100644", Stands::Itself), ("0:0:644:dir", Stands::Itself)] {
            let owner = Owner::parse(text.as_bytes()).unwrap();
            assert!(owner.is_plain());
            assert_eq!((owner.perm, owner.stands), (0o644, stands));
        }
        for bad in ["", "1:2", "a:b:c", "1:2:9", "-1:2:0"] {
            assert_eq!(Owner::parse(bad.as_bytes()), None);
        }
    }

    #[test]
    fn entries_are_found_by_number_and_by_name_where_that_is_sure() {
        let owner = |uid| Owner { uid, gid: 1, perm: 0o777, stands: Stands::Itself };
        let mut entries = EntryOwners::default();
        entries.set(b"a:b", 10, owner(1));
        entries.set(b"a:b", 11, owner(2));
        entries.set(b"c", 12, owner(3));
        entries.set(b"c", 12, owner(4));
        let back = EntryOwners::parse(&entries.to_value());
        assert_eq!(back, entries);
        assert_eq!(back.get(b"a:b", 10), Some(owner(1)));
        assert_eq!(back.get(b"a:b", 11), Some(owner(2)));
        assert_eq!(back.get(b"a:b", 12), None);
        assert_eq!(back.get(b"c", 99), Some(owner(4)));
        entries.keep_only(b"a:b", Some(11));
        assert_eq!(entries.get(b"a:b", 10), Some(owner(2)));
        entries.keep_only(b"a:b", None);
        entries.keep_only(b"c", None);
        assert!(entries.is_empty());
        for bad in [&b"x"[..], b"x\0", b"x\0y\0", b"x\x001:2\x00", b"\0\0\0\0"] {
            assert!(EntryOwners::parse(bad).is_empty());
        }
    }
}
