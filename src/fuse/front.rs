//! Decode a request, call the file system, reply. No decision is made here.
//!
//! What fuser 0.18 cannot carry, with its effect: `TMPFILE`, `STATX` and `SYNCFS` are answered `ENOSYS` (`O_TMPFILE`
//! gives `EOPNOTSUPP`, no creation times, syncfs(2) syncs what the kernel holds and no more); of `KILLPRIV_V2` only
//! the bit of WRITE arrives, so that the file system clears suid and sgid on truncate and chown by looking at the
//! caller. INTERRUPT is refused, after which the kernel sends none: requests are short.

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, TimeOrNow, WriteFlags,
};

use super::{
    bare::{Lister, Listing},
    convert::{self, FOREVER, caller, creator, perm},
    fill::Fill,
    options::{MAX_BACKGROUND, MAX_TRANSFER, Opens, Options},
    reply,
    requests::{self, Figures, Request, Requests},
    respell,
};
use crate::{
    sync::Arc,
    sys::fuse_figures,
    vfs::{
        self, Errno, FallocateMode, FileKind, FileSystem, Ino, Lookup, Name, RenameFlags, SeekWhence,
        SetAttr, XattrFlags,
    },
};

/// The handle in every answer: none, since the file system works by node.
const NO_HANDLE: FileHandle = FileHandle(0);

/// Largest length of a COPY_FILE_RANGE answer, which has 32 bits, in whole pages.
const MAX_COPY: u64 = 0xffff_f000;

/// The question for the flags of an object (`FS_IOC_GETFLAGS`), the same on all 64-bit architectures that Linux has in use.
const GET_FLAGS: u32 = 0x8008_6601;

/// "Names in this directory are folded" (`FS_CASEFOLD_FL`): Wine looks for it, and then does not search by itself.
const FOLDS_NAMES: u32 = 0x4000_0000;

/// A file system with the way it is served.
pub(super) struct Front {
    fs: Arc<dyn FileSystem>,
    options: Options,
    /// Whether nothing in the tree has or can get extended attributes.
    no_xattrs: bool,
    /// Whether any directory folds names.
    folds_names: bool,
    /// Whether entries may be found and changed under several names, so that those of files do not last.
    respells: bool,
    /// Whether the kernel may hold bytes that the file system has not seen.
    writes_back: bool,
    requests: Arc<Requests>,
    /// What hears of reads, where nobody can change what is read.
    fill: Option<Arc<Fill>>,
    /// What hears of listings, where the front answers them itself.
    lister: Option<Lister>,
    /// What is told to those who ask for the figures of the mount.
    figures: Option<Figures>,
}

impl Front {
    /// Serves `fs` as `options` say.
    pub(super) fn new(
        fs: Arc<dyn FileSystem>,
        options: Options,
        requests: Arc<Requests>,
        fill: Option<Arc<Fill>>,
        lister: Option<Lister>,
        figures: Option<Figures>,
    ) -> Self {
        let read_only = fs.is_read_only();
        let no_xattrs = read_only && !fs.has_xattrs();
        let (folds_names, writes_back) = (fs.folds_names(), options.writes_back(read_only));
        let respells = folds_names && !read_only;
        Self { fs, options, no_xattrs, folds_names, respells, writes_back, requests, fill, lister, figures }
    }
}

impl Front {
    /// How long the kernel may believe that an object of this kind is what it found in `parent`.
    fn lasting(&self, parent: Ino, kind: FileKind) -> Duration {
        let changes =
            self.respells && kind != FileKind::Directory && self.fs.is_folded(parent).unwrap_or(true);
        if changes { Duration::ZERO } else { FOREVER }
    }
}

impl Filesystem for Front {
    fn init(&mut self, _: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in self.options.capabilities(self.fs.is_read_only(), self.fs.has_acls()).iter() {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!(?flag, "the kernel lacks a capability");
            }
        }
        // A refused size answers the nearest one that is allowed.
        let _ = config.set_max_write(MAX_TRANSFER);
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, request: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.requests.note(Request::Lookup);
        let work = || {
            let (parent, name) = (ino(parent), named(name)?);
            let found = self.fs.lookup(parent, name)?;
            Ok(match found {
                Lookup::Respelled(_) => respell::told(&*self.fs, request.pid(), parent, name, found),
                found => found,
            })
        };
        reply::answer(request, reply, work, |reply, found| {
            if let (Some(lister), Lookup::Found(entry) | Lookup::Respelled(entry)) = (&self.lister, &found)
                && entry.attr.kind != FileKind::Directory
            {
                lister.wanted(ino(parent));
            }
            reply::lookup(reply, &found, |kind| self.lasting(ino(parent), kind));
        });
    }

    fn forget(&self, _: &fuser::Request, node: INodeNo, count: u64) {
        self.requests.note(Request::Forget);
        reply::silently(|| self.fs.forget(ino(node), count));
    }

    fn getattr(&self, request: &fuser::Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.requests.note(Request::GetAttr);
        let node = ino(node);
        let send = |reply: ReplyAttr, attr| reply.attr(&FOREVER, &convert::attr(node, &attr));
        reply::answer(request, reply, || self.fs.getattr(node), send);
    }

    fn setattr(
        &self,
        request: &fuser::Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.requests.note(Request::SetAttr);
        let (node, perm, ctime) = (ino(node), mode.map(perm), ctime.map(convert::received_time));
        let (atime, mtime) = (atime.map(convert::set_time), mtime.map(convert::set_time));
        let changes = SetAttr { perm, uid, gid, size, atime, mtime, ctime };
        let send = |reply: ReplyAttr, attr| reply.attr(&FOREVER, &convert::attr(node, &attr));
        reply::answer(request, reply, || self.fs.setattr(caller(request), node, &changes), send);
    }

    fn readlink(&self, request: &fuser::Request, node: INodeNo, reply: ReplyData) {
        self.requests.note(Request::ReadLink);
        let work = || self.fs.readlink(ino(node));
        reply::answer(request, reply, work, |reply, target| reply.data(&target));
    }

    fn mknod(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.requests.note(Request::MkNod);
        let work = || {
            let kind = FileKind::from_mode(mode).ok_or_else(|| invalid("make a node of this type"))?;
            let rdev = convert::decode_device(rdev);
            self.fs.mknod(creator(request, umask), ino(parent), named(name)?, kind, perm(mode), rdev)
        };
        reply::answer(request, reply, work, |reply, entry| {
            reply::entry(reply, &entry, self.lasting(ino(parent), entry.attr.kind));
        });
    }

    fn mkdir(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        self.requests.note(Request::MkDir);
        let work = || self.fs.mkdir(creator(request, umask), ino(parent), named(name)?, perm(mode));
        reply::answer(request, reply, work, |reply, entry| {
            reply::entry(reply, &entry, self.lasting(ino(parent), entry.attr.kind));
        });
    }

    fn unlink(&self, request: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.requests.note(Request::Unlink);
        let work = || self.fs.unlink(ino(parent), named(name)?);
        reply::answer(request, reply, work, |reply, ()| reply.ok());
    }

    fn rmdir(&self, request: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.requests.note(Request::RmDir);
        let work = || self.fs.rmdir(ino(parent), named(name)?);
        reply::answer(request, reply, work, |reply, ()| reply.ok());
    }

    fn symlink(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.requests.note(Request::SymLink);
        let target = target.as_os_str().as_bytes();
        let work = || self.fs.symlink(caller(request), ino(parent), named(name)?, target);
        reply::answer(request, reply, work, |reply, entry| {
            reply::entry(reply, &entry, self.lasting(ino(parent), entry.attr.kind));
        });
    }

    fn rename(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: fuser::RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.requests.note(Request::Rename);
        let work = || {
            let flags =
                RenameFlags::from_bits(flags.bits()).ok_or_else(|| invalid("rename with these flags"))?;
            let (from, to) = ((ino(parent), named(name)?), (ino(new_parent), named(new_name)?));
            if self.folds_names {
                respell::check_replaced(&*self.fs, caller(request), from, to)?;
            }
            self.fs.rename(from.0, from.1, to.0, to.1, flags)
        };
        reply::answer(request, reply, work, |reply, ()| reply.ok());
    }

    fn link(
        &self,
        request: &fuser::Request,
        node: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        self.requests.note(Request::Link);
        let work = || self.fs.link(ino(node), ino(parent), named(name)?);
        reply::answer(request, reply, work, |reply, entry| {
            reply::entry(reply, &entry, self.lasting(ino(parent), entry.attr.kind));
        });
    }

    fn create(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        self.requests.note(Request::Create);
        let (kind, rdev) = (FileKind::Regular, convert::decode_device(0));
        let work =
            || self.fs.mknod(creator(request, umask), ino(parent), named(name)?, kind, perm(mode), rdev);
        let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
        reply::answer(request, reply, work, |reply, entry| {
            let generation = Generation(entry.generation);
            let lasting = self.lasting(ino(parent), FileKind::Regular);
            reply.created(&lasting, &convert::entry(&entry), generation, NO_HANDLE, flags);
        });
    }

    fn open(&self, _: &fuser::Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.requests.note(Request::Open);
        match self.options.opens {
            Opens::Silent => reply::unsupported(reply),
            Opens::Announced => reply.opened(NO_HANDLE, FopenFlags::FOPEN_KEEP_CACHE),
        }
    }

    fn opendir(&self, _: &fuser::Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.requests.note(Request::OpenDir);
        match self.options.opens {
            Opens::Silent => reply::unsupported(reply),
            Opens::Announced => {
                reply.opened(NO_HANDLE, FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR);
            }
        }
    }

    fn read(
        &self,
        request: &fuser::Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.requests.note(Request::Read);
        let (node, len) = (ino(node), usize::try_from(size).unwrap_or(0));
        let reply = match &self.fill {
            Some(fill) => fill.hear(request.into(), node, offset, len, reply),
            None => Some(reply),
        };
        let Some(reply) = reply else { return };
        let work = || self.fs.read(node, offset, len);
        reply::answer(request, reply, work, |reply, data| reply.data(&data.contiguous()));
    }

    fn write(
        &self,
        request: &fuser::Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.requests.note(Request::Write);
        let kill = flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let work = || self.fs.write(caller(request), ino(node), offset, data, kill);
        // Not longer than MAX_TRANSFER, and written as a whole or not at all.
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        reply::answer(request, reply, work, |reply, ()| reply.written(len));
    }

    fn flush(&self, _: &fuser::Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.requests.note(Request::Flush);
        reply::unsupported(reply);
    }

    fn fsync(
        &self,
        request: &fuser::Request,
        node: INodeNo,
        _: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.requests.note(Request::FSync);
        let work = || self.fs.fsync(ino(node), data_only);
        reply::answer(request, reply, work, |reply, ()| reply.ok());
    }

    fn readdir(
        &self,
        request: &fuser::Request,
        dir: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.requests.note(Request::ReadDir);
        reply::fill(request, reply, |sink| self.fs.readdir(ino(dir), offset, sink), ReplyDirectory::ok);
    }

    fn readdirplus(
        &self,
        request: &fuser::Request,
        dir: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.requests.note(Request::ReadDirPlus);
        if let Some(lister) = &self.lister
            && let Some(offer) = lister.offer(offset)
        {
            let reply = Listing::new(reply, offer);
            let work = |sink: &mut Listing| self.fs.readdirplus(ino(dir), offset, sink);
            return reply::fill(request, reply, work, |reply| {
                lister.listed(ino(dir), offer, reply.has_bare());
                reply.send(lister.device(), request.unique().0);
            });
        }
        let fill = |reply: &mut ReplyDirectoryPlus| {
            let lasting = self.lasting(ino(dir), FileKind::Regular);
            self.fs.readdirplus(ino(dir), offset, &mut reply::Plus { reply, lasting })
        };
        reply::fill(request, reply, fill, ReplyDirectoryPlus::ok);
    }

    fn fsyncdir(
        &self,
        request: &fuser::Request,
        dir: INodeNo,
        _: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.requests.note(Request::FSyncDir);
        let work = || self.fs.fsyncdir(ino(dir), data_only);
        reply::answer(request, reply, work, |reply, ()| reply.ok());
    }

    fn statfs(&self, request: &fuser::Request, _: INodeNo, reply: ReplyStatfs) {
        self.requests.note(Request::StatFs);
        reply::answer(
            request,
            reply,
            || self.fs.statfs(),
            |reply, s| {
                let (blocks, free, available) = (s.blocks, s.blocks_free, s.blocks_available);
                let (unit, name) = (s.block_size, s.name_max);
                reply.statfs(blocks, free, available, s.files, s.files_free, unit, name, unit);
            },
        );
    }

    fn setxattr(
        &self,
        request: &fuser::Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.requests.note(Request::SetXattr);
        let work = || {
            let flags = u32::try_from(flags).ok().and_then(XattrFlags::from_bits);
            let flags = flags.ok_or_else(|| invalid("set the attribute with these flags"))?;
            self.fs.setxattr(caller(request), ino(node), name.as_bytes(), value, flags)
        };
        reply::answer(request, reply, work, |reply, ()| reply.ok());
    }

    fn getxattr(&self, request: &fuser::Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.requests.note(Request::GetXattr);
        if self.no_xattrs {
            return reply::unsupported(reply);
        }
        let work = || self.fs.getxattr(ino(node), name.as_bytes());
        reply::answer(request, reply, work, |reply, value| reply::xattr(reply, size, &value));
    }

    fn listxattr(&self, request: &fuser::Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        self.requests.note(Request::ListXattr);
        if self.no_xattrs {
            return reply::unsupported(reply);
        }
        let work = || self.fs.listxattr(ino(node));
        reply::answer(request, reply, work, |reply, names| reply::xattr(reply, size, &names));
    }

    fn removexattr(&self, request: &fuser::Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.requests.note(Request::RemoveXattr);
        let work = || self.fs.removexattr(caller(request), ino(node), name.as_bytes());
        reply::answer(request, reply, work, |reply, ()| reply.ok());
    }

    fn ioctl(
        &self,
        request: &fuser::Request,
        node: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        command: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        self.requests.note(Request::Ioctl);
        if command == fuse_figures::REQUEST {
            let told = || Ok(requests::told(&self.requests, self.figures.as_ref(), fuse_figures::LENGTH));
            return reply::answer(request, reply, told, |reply, told| reply.ioctl(0, &told));
        }
        if !self.folds_names || command != GET_FLAGS {
            return reply.error(fuser::Errno::ENOTTY);
        }
        let work = || Ok(if self.fs.is_folded(ino(node))? { FOLDS_NAMES } else { 0 });
        reply::answer(request, reply, work, |reply, flags| reply.ioctl(0, &flags.to_ne_bytes()));
    }

    fn fallocate(
        &self,
        request: &fuser::Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.requests.note(Request::FAllocate);
        let work = || {
            let mode = u32::try_from(mode).ok().and_then(FallocateMode::from_bits);
            let mode = mode.ok_or_else(|| vfs::Error::new(Errno::EOPNOTSUPP, "allocate in this mode"))?;
            self.fs.fallocate(caller(request), ino(node), mode, offset, len)
        };
        reply::answer(request, reply, work, |reply, ()| reply.ok());
    }

    fn lseek(
        &self,
        request: &fuser::Request,
        node: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.requests.note(Request::LSeek);
        if self.writes_back {
            // Bytes that only the kernel has are neither data nor hole to us; its own answer (all data) is right.
            return reply::unsupported(reply);
        }
        let work = || {
            let place =
                u64::try_from(offset).map_err(|_| vfs::Error::new(Errno::ENXIO, "seek before the start"))?;
            self.fs.seek(ino(node), place, seek_whence(whence)?)
        };
        let send = |reply: ReplyLseek, found| reply.offset(i64::try_from(found).unwrap_or(i64::MAX));
        reply::answer(request, reply, work, send);
    }

    fn copy_file_range(
        &self,
        request: &fuser::Request,
        from: INodeNo,
        _: FileHandle,
        from_offset: u64,
        to: INodeNo,
        _: FileHandle,
        to_offset: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.requests.note(Request::CopyFileRange);
        let (who, len) = (caller(request), len.min(MAX_COPY));
        let work = || self.fs.copy_range(who, ino(from), from_offset, ino(to), to_offset, len);
        let send = |reply: ReplyWrite, copied| reply.written(u32::try_from(copied).unwrap_or(u32::MAX));
        reply::answer(request, reply, work, send);
    }
}

fn ino(raw: INodeNo) -> Ino {
    Ino::new(raw.0)
}

fn named(name: &OsStr) -> vfs::Result<Name<'_>> {
    Ok(Name::new(name.as_bytes())?)
}

fn seek_whence(whence: i32) -> vfs::Result<SeekWhence> {
    match whence {
        libc::SEEK_DATA => Ok(SeekWhence::Data),
        libc::SEEK_HOLE => Ok(SeekWhence::Hole),
        _ => Err(invalid("seek in this way")),
    }
}

fn invalid(op: &'static str) -> vfs::Error {
    vfs::Error::new(Errno::EINVAL, op)
}
