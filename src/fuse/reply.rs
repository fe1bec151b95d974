//! The one place that answers a request, and that logs and sends its failure.
//!
//! Every request is answered exactly once: with what the work returned, with its errno, or with `EIO` where the work
//! panicked.

use std::{
    any::Any,
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use fuser::{Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus, ReplyXattr};

use super::convert;
use crate::{
    causes::one_line,
    vfs::{self, DirPlusSink, DirSink, Entry, Errno, FileKind, Full, Ino, Lookup},
};

/// A reply that can carry an errno.
pub(super) trait Answer {
    /// Sends the errno.
    fn fail(self, errno: fuser::Errno);
}

macro_rules! answers {
    ($($reply:ident),+ $(,)?) => {
        $(impl Answer for fuser::$reply {
            fn fail(self, errno: fuser::Errno) {
                self.error(errno);
            }
        })+
    };
}

answers!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyIoctl,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr,
);

/// Who asked, as far as a log needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    uid: u32,
    pid: u32,
}

impl From<&fuser::Request> for Caller {
    fn from(request: &fuser::Request) -> Self {
        Self { uid: request.uid(), pid: request.pid() }
    }
}

/// Does `work` and answers with `send`, or with the errno of its failure.
pub(super) fn answer<R: Answer, T>(
    request: &fuser::Request,
    reply: R,
    work: impl FnOnce() -> vfs::Result<T>,
    send: impl FnOnce(R, T),
) {
    answer_to(Caller::from(request), reply, work, send);
}

/// As [`answer`], where the request itself is gone.
pub(super) fn answer_to<R: Answer, T>(
    caller: Caller,
    reply: R,
    work: impl FnOnce() -> vfs::Result<T>,
    send: impl FnOnce(R, T),
) {
    match guarded(work) {
        Ok(value) => send(reply, value),
        Err(error) => fail(caller, reply, &error),
    }
}

/// As [`answer`] where the work fills the reply itself.
pub(super) fn fill<R: Answer>(
    request: &fuser::Request,
    mut reply: R,
    work: impl FnOnce(&mut R) -> vfs::Result<()>,
    send: impl FnOnce(R),
) {
    match guarded(|| work(&mut reply)) {
        Ok(()) => send(reply),
        Err(error) => fail(Caller::from(request), reply, &error),
    }
}

/// Says that the operation does not exist, after which the kernel does without it.
pub(super) fn unsupported(reply: impl Answer) {
    reply.fail(fuser::Errno::ENOSYS);
}

/// Runs work that has no reply, so that a panic does not end the session thread.
pub(super) fn silently(work: impl FnOnce()) {
    if let Err(error) = guarded(|| {
        work();
        Ok(())
    }) {
        tracing::error!(cause = cause(&error), "{error}");
    }
}

/// Answers a look-up; an absent name is an entry without an inode, or `ENOENT` where it must be asked for again.
pub(super) fn lookup(reply: fuser::ReplyEntry, found: &Lookup, lasting: impl FnOnce(FileKind) -> Duration) {
    match found {
        Lookup::Found(entry) | Lookup::Respelled(entry) => {
            self::entry(reply, entry, lasting(entry.attr.kind));
        }
        Lookup::Absent => reply.entry(&convert::FOREVER, &convert::absent(), Generation(0)),
        Lookup::AbsentUncached => reply.error(fuser::Errno::ENOENT),
    }
}

/// Answers with an entry that lasts so long.
pub(super) fn entry(reply: fuser::ReplyEntry, entry: &Entry, lasting: Duration) {
    let attr = convert::entry(entry);
    reply.entry_with_ttls(&convert::FOREVER, &lasting, &attr, Generation(entry.generation));
}

/// Answers a question for an attribute's value or for the list of names: its length for `size` 0.
pub(super) fn xattr(reply: ReplyXattr, size: u32, value: &[u8]) {
    match u32::try_from(value.len()) {
        Ok(len) if size == 0 => reply.size(len),
        Ok(len) if len <= size => reply.data(value),
        _ => reply.error(fuser::Errno::ERANGE),
    }
}

impl DirSink for ReplyDirectory {
    fn push(&mut self, ino: Ino, kind: FileKind, name: &[u8], next: u64) -> Result<(), Full> {
        let full = self.add(INodeNo(ino.get()), next, convert::file_type(kind), OsStr::from_bytes(name));
        if full { Err(Full) } else { Ok(()) }
    }
}

/// A listing with attributes, with how long entries of files last.
pub(super) struct Plus<'a> {
    pub(super) reply: &'a mut ReplyDirectoryPlus,
    pub(super) lasting: Duration,
}

impl DirPlusSink for Plus<'_> {
    fn push(&mut self, entry: &Entry, name: &[u8], next: u64) -> Result<(), Full> {
        let is_dir = entry.attr.kind == FileKind::Directory;
        let full = self.reply.add(
            INodeNo(entry.ino.get()),
            next,
            OsStr::from_bytes(name),
            if is_dir { &convert::FOREVER } else { &self.lasting },
            &convert::entry(entry),
            Generation(entry.generation),
        );
        if full { Err(Full) } else { Ok(()) }
    }

    fn push_plain(&mut self, kind: FileKind, name: &[u8], next: u64) -> Result<(), Full> {
        let full = self.reply.add(
            convert::UNKNOWN,
            next,
            OsStr::from_bytes(name),
            &Duration::ZERO,
            &convert::unknown(kind),
            Generation(0),
        );
        if full { Err(Full) } else { Ok(()) }
    }
}

/// Adds an entry that is only measured: what the reply says is not sent.
pub(super) fn measure(reply: &mut ReplyDirectoryPlus, name: &[u8], next: u64) -> Result<(), Full> {
    let (name, ino) = (OsStr::from_bytes(name), INodeNo(0));
    let full = reply.add(ino, next, name, &convert::FOREVER, &convert::absent(), Generation(0));
    if full { Err(Full) } else { Ok(()) }
}

/// Turns a panic of `work` into `EIO`.
///
/// Unwind safety: our locks do not poison, and a file system must hold its invariants at every point where it can
/// panic; what breaks after that is the log's first line.
pub(super) fn guarded<T>(work: impl FnOnce() -> vfs::Result<T>) -> vfs::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        Err(vfs::Error::with_source(Errno::EIO, "finish the request", panic_message(payload.as_ref())))
    })
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("without a message"))
}

fn fail(Caller { uid, pid }: Caller, reply: impl Answer, error: &vfs::Error) {
    if error.is_ordinary() {
        tracing::debug!(uid, pid, "{error}");
    } else {
        tracing::warn!(uid, pid, cause = cause(error), "{error}");
    }
    reply.fail(fuser::Errno::from_i32(error.errno() as i32));
}

/// The causes of an error as one text.
fn cause(error: &vfs::Error) -> String {
    std::error::Error::source(error).map(one_line).unwrap_or_default()
}
