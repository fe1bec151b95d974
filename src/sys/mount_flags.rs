//! The words of mount(8) that the kernel itself obeys, whatever is mounted.

use std::path::Path;

use nix::mount::MsFlags;

use super::errno::Errno;

/// Flags of a mount, as mount(2) takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountFlags(u64);

/// A word, the flags that it sets and those that it clears.
type Word = (&'static str, MsFlags, MsFlags);

const NONE: MsFlags = MsFlags::empty();

const WORDS: [Word; 21] = [
    ("defaults", NONE, MsFlags::all()),
    ("ro", MsFlags::MS_RDONLY, NONE),
    ("rw", NONE, MsFlags::MS_RDONLY),
    ("nosuid", MsFlags::MS_NOSUID, NONE),
    ("suid", NONE, MsFlags::MS_NOSUID),
    ("nodev", MsFlags::MS_NODEV, NONE),
    ("dev", NONE, MsFlags::MS_NODEV),
    ("noexec", MsFlags::MS_NOEXEC, NONE),
    ("exec", NONE, MsFlags::MS_NOEXEC),
    ("noatime", MsFlags::MS_NOATIME, MsFlags::MS_RELATIME.union(MsFlags::MS_STRICTATIME)),
    ("atime", NONE, MsFlags::MS_NOATIME),
    ("nodiratime", MsFlags::MS_NODIRATIME, NONE),
    ("diratime", NONE, MsFlags::MS_NODIRATIME),
    ("relatime", MsFlags::MS_RELATIME, MsFlags::MS_NOATIME.union(MsFlags::MS_STRICTATIME)),
    ("norelatime", NONE, MsFlags::MS_RELATIME),
    ("strictatime", MsFlags::MS_STRICTATIME, MsFlags::MS_NOATIME.union(MsFlags::MS_RELATIME)),
    ("sync", MsFlags::MS_SYNCHRONOUS, NONE),
    ("async", NONE, MsFlags::MS_SYNCHRONOUS),
    ("dirsync", MsFlags::MS_DIRSYNC, NONE),
    ("silent", MsFlags::MS_SILENT, NONE),
    ("loud", NONE, MsFlags::MS_SILENT),
];

impl MountFlags {
    /// The flags after one more word; `None` where it is none of these words.
    #[must_use]
    pub fn with(self, word: &str) -> Option<Self> {
        let (_, set, clear) = WORDS.iter().find(|(known, ..)| *known == word)?;
        Some(Self((self.0 & !clear.bits()) | set.bits()))
    }

    /// Whether nothing can be changed through the mount.
    #[must_use]
    pub fn read_only(self) -> bool {
        self.has(MsFlags::MS_RDONLY)
    }

    /// Whether device nodes can be opened.
    #[must_use]
    pub fn devices(self) -> bool {
        !self.has(MsFlags::MS_NODEV)
    }

    /// Whether suid and sgid bits have their effect.
    #[must_use]
    pub fn set_id(self) -> bool {
        !self.has(MsFlags::MS_NOSUID)
    }

    /// Whether there is more to say than what [`devices`](Self::devices) and [`set_id`](Self::set_id) do.
    #[must_use]
    pub fn says_more(self) -> bool {
        self.0 & !(MsFlags::MS_NODEV | MsFlags::MS_NOSUID).bits() != 0
    }

    fn has(self, flag: MsFlags) -> bool {
        self.0 & flag.bits() != 0
    }
}

/// Gives what is mounted on `target` these flags in place of those that it has.
///
/// # Errors
///
/// What mount(2) says: `EBUSY` where a file is open for writing and nothing shall be changed any more.
pub fn remount(target: &Path, flags: MountFlags) -> Result<(), Errno> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::from_bits_truncate(flags.0);
    nix::mount::mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(words: &str) -> MountFlags {
        words.split(',').fold(MountFlags::default(), |flags, word| flags.with(word).unwrap())
    }

    #[test]
    fn the_last_word_counts() {
        assert!(after("rw,ro").read_only() && !after("ro,rw").read_only());
        assert!(!after("nodev,nosuid").devices() && after("nodev,dev").devices());
        assert!(!after("nosuid").set_id() && after("ro,nosuid,noexec,defaults").set_id());
        assert_eq!(after("noatime,relatime"), after("relatime"));
        assert!(after("noexec").says_more() && !after("nodev,nosuid").says_more());
        assert_eq!(MountFlags::default().with("allow_other"), None);
    }
}
