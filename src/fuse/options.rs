//! What a session asks of the kernel.

use std::num::NonZeroUsize;

use fuser::InitFlags;

use crate::sys::cores;

/// Largest WRITE and READ in bytes: 256 pages, the kernel's own limit unless root raises `fuse.max_pages_limit`.
pub(super) const MAX_TRANSFER: u32 = 1 << 20;

/// Requests that the kernel may have in flight on its own account (readahead, writeback); its default of 12 starves
/// readers of cold files.
pub(super) const MAX_BACKGROUND: u16 = 128;

/// Session threads beyond which the device's queue, not the work, is what they wait for.
const MOST_THREADS: usize = 8;

/// Session threads below which slow reads stop everybody else: who waits for a block keeps his thread, and with two of
/// them two readers of one block keep all other blocks from being decoded. More threads than cores cost nothing.
const FEWEST_THREADS: usize = 4;

/// Where written bytes wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteCache {
    /// In the kernel's page cache until writeback, close or fsync: small writes cost no message.
    #[default]
    Back,
    /// Nowhere: each write(2) is one message.
    Through,
}

/// Whether open(2) of something that the kernel knows costs a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opens {
    /// No: OPEN and OPENDIR are answered once with `ENOSYS`.
    #[default]
    Silent,
    /// Yes, each of them.
    Announced,
}

/// What becomes of access control lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lists {
    /// The kernel asks for that of each object before it lets others than its owner in. It remembers the answer, but not
    /// that for the root of the mount (kernel 6.18), so that each path that they walk from there costs a message.
    #[default]
    Enforced,
    /// They are attributes like others, and cannot be set in a user namespace.
    Ignored,
}

/// Choices of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where written bytes wait; of no meaning for a read-only file system.
    pub write_cache: WriteCache,
    /// Whether opening costs a message.
    pub opens: Opens,
    /// What becomes of access control lists.
    pub lists: Lists,
    /// Number of threads that take requests.
    pub threads: NonZeroUsize,
}

impl Default for Options {
    fn default() -> Self {
        let threads = cores::count().get().clamp(FEWEST_THREADS, MOST_THREADS);
        Self {
            write_cache: WriteCache::default(),
            opens: Opens::default(),
            lists: Lists::default(),
            threads: NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN),
        }
    }
}

impl Options {
    /// The capabilities to ask for; the kernel grants those it has.
    ///
    /// Never among them: `ATOMIC_O_TRUNC` (with silent opens O_TRUNC would be lost), `SETXATTR_EXT` (fuser 0.18
    /// panics on it), `POSIX_LOCKS` and `FLOCK_LOCKS` (the kernel's local locks are right for one host).
    pub(super) fn capabilities(self, read_only: bool, acls: bool) -> InitFlags {
        let mut flags = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_EXPLICIT_INVAL_DATA
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_MAX_PAGES;
        if self.opens == Opens::Silent {
            flags |= InitFlags::FUSE_NO_OPEN_SUPPORT | InitFlags::FUSE_NO_OPENDIR_SUPPORT;
        }
        if acls && self.lists == Lists::Enforced {
            // Where nothing can have one the kernel need not ask.
            flags |= InitFlags::FUSE_POSIX_ACL;
        }
        if !read_only {
            // Where a directory hands an access control list down the umask does not count.
            flags |= InitFlags::FUSE_DONT_MASK;
            // On the host attributes cost a stat an entry, so that the kernel shall guess who wants them. Layers that
            // nobody writes have them at hand, and a wrong guess costs a LOOKUP an entry: walkers list a directory to
            // its end before they look at what is in it, and from the second reply on AUTO takes them for readers.
            flags |= InitFlags::FUSE_HANDLE_KILLPRIV_V2 | InitFlags::FUSE_READDIRPLUS_AUTO;
        }
        if self.writes_back(read_only) {
            flags |= InitFlags::FUSE_WRITEBACK_CACHE;
        }
        flags
    }

    /// Whether the kernel may hold bytes that the file system has not seen.
    pub(super) fn writes_back(self, read_only: bool) -> bool {
        !read_only && self.write_cache == WriteCache::Back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_follow_the_choices() {
        let options = Options::default();
        let writable = options.capabilities(false, true);
        assert!(writable.contains(InitFlags::FUSE_WRITEBACK_CACHE | InitFlags::FUSE_HANDLE_KILLPRIV_V2));
        assert!(writable.contains(InitFlags::FUSE_NO_OPEN_SUPPORT | InitFlags::FUSE_NO_OPENDIR_SUPPORT));
        let read_only = options.capabilities(true, false);
        assert!(!read_only.contains(InitFlags::FUSE_WRITEBACK_CACHE));
        assert!(writable.contains(InitFlags::FUSE_POSIX_ACL | InitFlags::FUSE_DONT_MASK));
        assert!(!read_only.intersects(InitFlags::FUSE_POSIX_ACL), "nothing has a list: no message an inode");
        assert!(!read_only.contains(InitFlags::FUSE_READDIRPLUS_AUTO), "attributes always come along");
        assert!(read_only.contains(InitFlags::FUSE_DO_READDIRPLUS));
        let plain = Options { write_cache: WriteCache::Through, opens: Opens::Announced, ..options };
        assert!(!plain.capabilities(false, true).intersects(
            InitFlags::FUSE_WRITEBACK_CACHE
                | InitFlags::FUSE_NO_OPEN_SUPPORT
                | InitFlags::FUSE_NO_OPENDIR_SUPPORT
        ));
    }

    #[test]
    fn what_breaks_is_never_asked_for() {
        let harmful = InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_SETXATTR_EXT
            | InitFlags::FUSE_POSIX_LOCKS
            | InitFlags::FUSE_FLOCK_LOCKS
            | InitFlags::FUSE_EXPORT_SUPPORT;
        for read_only in [false, true] {
            assert!(!Options::default().capabilities(read_only, true).intersects(harmful));
        }
    }
}
