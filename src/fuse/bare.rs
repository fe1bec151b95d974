//! A READDIRPLUS reply in which entries may be bare: names with kind and inode number, but no attributes.
//!
//! The protocol has them (an entry with the node id 0), fuser 0.18 does not: it writes the node id in the place of the
//! inode number as well, and readers take an entry with the number 0 for a deleted one. So such a reply is made here
//! and written to the device. The crate's reply object measures how much fits; its own answer comes second, and the
//! kernel knows no such request any more (`ENOENT`). The device must be the one that the request was read from: a
//! session that answers like this has no clones of it.
//!
//! ```text
//! fuse_out_header   len:u32 error:i32 unique:u64
//! per entry         nodeid:u64 generation:u64 entry_valid:u64 attr_valid:u64 nanoseconds of both:2×u32
//!                   fuse_attr: ino size blocks atime mtime ctime:u64 nanoseconds of the times:3×u32
//!                              mode nlink uid gid rdev blksize flags:u32
//!                   ino:u64 off:u64 namelen:u32 type:u32 name, zeros up to a multiple of 8
//! ```

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use fuser::ReplyDirectoryPlus;

use super::{
    Notices,
    convert::{self, FOREVER},
    listing::{Habit, Offer},
    reply::{self, Answer},
};
use crate::{
    sync::{Arc, Mutex},
    vfs::{DirPlusSink, Entry, FileKind, Full, Ino, Invalidate as _, Time},
};

/// Length of the header of a reply.
const HEADER: usize = 16;

/// Length of what stands before the inode number of an entry: node id, validity, attributes.
const ENTRY_OUT: usize = 40 + 88;

/// Entries begin at multiples of this.
const ALIGNMENT: usize = 8;

/// What answers listings, and knows those who list.
#[derive(Debug)]
pub(super) struct Lister {
    device: OwnedFd,
    habit: Mutex<Habit>,
    notices: Arc<Notices>,
}

impl Lister {
    /// Answers on `device`, the only descriptor that requests are read from; tells `notices` which listings to forget.
    pub(super) fn new(device: OwnedFd, notices: Arc<Notices>) -> Self {
        Self { device, habit: Mutex::default(), notices }
    }

    /// What a listing from `offset` on shall leave bare; `None`: nothing. Nobody waits to be asked.
    pub(super) fn offer(&self, offset: u64) -> Option<Offer> {
        let offer = self.habit.try_lock()?.offer(offset);
        (offer != Offer::All).then_some(offer)
    }

    /// The directory was listed so.
    pub(super) fn listed(&self, dir: Ino, offer: Offer, has_bare: bool) {
        self.habit.lock().listed(dir, offer, has_bare);
    }

    /// Something in the directory, none itself, was looked up.
    pub(super) fn wanted(&self, dir: Ino) {
        let listings = self.habit.lock().wanted(dir);
        for dir in listings {
            self.notices.inode(dir, true);
        }
    }

    pub(super) fn device(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// A reply to READDIRPLUS that leaves entries bare as an [`Offer`] says.
pub(super) struct Listing {
    /// Measures what fits, and is the reply where nothing was left bare.
    whole: ReplyDirectoryPlus,
    /// The reply where something was: entries behind the room for a header.
    bytes: Vec<u8>,
    offer: Offer,
    has_bare: bool,
}

impl Listing {
    pub(super) fn new(reply: ReplyDirectoryPlus, offer: Offer) -> Self {
        Self { whole: reply, bytes: vec![0; HEADER], offer, has_bare: false }
    }

    /// Whether an entry was left bare.
    pub(super) const fn has_bare(&self) -> bool {
        self.has_bare
    }

    /// Answers the request with this number, which was read from `device`.
    pub(super) fn send(mut self, device: BorrowedFd<'_>, unique: u64) {
        if !self.has_bare {
            return self.whole.ok();
        }
        // Never longer than what the kernel asked for, which it counts in 32 bits.
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let header = len.to_ne_bytes().into_iter().chain(0_u32.to_ne_bytes()).chain(unique.to_ne_bytes());
        for (place, byte) in self.bytes.iter_mut().zip(header) {
            *place = byte;
        }
        if let Err(error) = rustix::io::write(device, &self.bytes) {
            // Somebody gave it up meanwhile; any other request gets EIO from what is dropped here.
            tracing::debug!("cannot answer a listing: {error}");
        }
    }

    fn whole(&mut self) -> reply::Plus<'_> {
        reply::Plus { reply: &mut self.whole, lasting: FOREVER }
    }

    fn put_words<const N: usize>(&mut self, words: [u64; N]) {
        for word in words {
            self.bytes.extend_from_slice(&word.to_ne_bytes());
        }
    }

    fn put_entry_out(&mut self, entry: &Entry) {
        let (attr, valid) = (&entry.attr, FOREVER.as_secs());
        let seconds = |time: Time| time.seconds.cast_unsigned();
        self.put_words([entry.ino.get(), entry.generation, valid, valid, 0]);
        self.put_words([entry.ino.get(), attr.size, attr.blocks]);
        self.put_words([seconds(attr.atime), seconds(attr.mtime), seconds(attr.ctime)]);
        let (mode, rdev) = (convert::mode(attr), convert::encode_device(attr.rdev));
        let halves = [
            attr.atime.nanos,
            attr.mtime.nanos,
            attr.ctime.nanos,
            mode,
            attr.nlink,
            attr.uid,
            attr.gid,
            rdev,
            convert::BLOCK_SIZE,
            0,
        ];
        for half in halves {
            self.bytes.extend_from_slice(&half.to_ne_bytes());
        }
    }

    /// What follows the attributes, and the padding. The crate has found that it fits, so the name is a short one.
    fn put_name(&mut self, ino: Ino, kind: FileKind, name: &[u8], next: u64) {
        self.put_words([ino.get(), next]);
        for half in [u32::try_from(name.len()).unwrap_or(0), convert::file_type_bits(kind) >> 12] {
            self.bytes.extend_from_slice(&half.to_ne_bytes());
        }
        self.bytes.extend_from_slice(name);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

impl DirPlusSink for Listing {
    fn wants(&self, kind: FileKind) -> bool {
        kind == FileKind::Directory
            || match self.offer {
                Offer::All => true,
                Offer::AllButOne => self.has_bare,
                Offer::None => false,
            }
    }

    fn push(&mut self, entry: &Entry, name: &[u8], next: u64) -> Result<(), Full> {
        self.whole().push(entry, name, next)?;
        self.put_entry_out(entry);
        self.put_name(entry.ino, entry.attr.kind, name, next);
        Ok(())
    }

    fn push_bare(&mut self, ino: Ino, kind: FileKind, name: &[u8], next: u64) -> Result<(), Full> {
        reply::measure(&mut self.whole, name, next)?;
        self.has_bare = true;
        self.bytes.resize(self.bytes.len() + ENTRY_OUT, 0);
        self.put_name(ino, kind, name, next);
        Ok(())
    }

    fn push_plain(&mut self, kind: FileKind, name: &[u8], next: u64) -> Result<(), Full> {
        self.whole().push_plain(kind, name, next)?;
        self.bytes.resize(self.bytes.len() + ENTRY_OUT, 0);
        self.put_name(Ino::new(convert::UNKNOWN.0), kind, name, next);
        Ok(())
    }
}

impl Answer for Listing {
    fn fail(self, errno: fuser::Errno) {
        self.whole.fail(errno);
    }
}
