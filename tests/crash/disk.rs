//! A disk that remembers: a FUSE file system with one file, the image, for a loop device.
//!
//! Writes and flushes are noted in the order in which they come, by one thread. A write that is noted before a flush
//! is on the disk for good with it; of those after the last flush a power failure may take any away, in pieces of
//! [`PIECE`].

use std::{
    ffi::OsStr,
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fim::sys::{
    fuse_dev,
    mount::{Access, FuseMount, Unmount, Visitors, mount_fuse, unmount},
};
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, SessionACL,
    WriteFlags,
};

use crate::rng::Rng;

/// What reaches a disk as a whole or not at all, in bytes.
const PIECE: usize = 4096;

/// Something that happened to the disk.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Write { offset: usize, data: Arc<[u8]> },
    Flush,
}

#[derive(Default)]
struct State {
    image: Vec<u8>,
    log: Vec<Event>,
    /// What writes and flushes are answered from now on.
    failure: Option<Errno>,
}

/// The disk, served as `PLACE/image` until it is dropped.
pub(crate) struct Disk {
    state: Arc<Mutex<State>>,
    place: PathBuf,
    session: Option<JoinHandle<()>>,
}

impl Disk {
    /// Serves `image` in the directory `place`.
    pub(crate) fn serve(place: &Path, image: Vec<u8>) -> Self {
        let state = Arc::new(Mutex::new(State { image, ..State::default() }));
        fs::create_dir_all(place).unwrap();
        let device = fuse_dev::open().unwrap();
        let mount = FuseMount {
            target: place,
            source: "disk".as_ref(),
            access: Access::ReadWrite,
            visitors: Visitors::All,
            devices: false,
            set_id: false,
        };
        mount_fuse(&mount, device.as_fd(), 0, 0).unwrap();
        let server = Server(Arc::clone(&state));
        let session = fuser::Session::from_fd(server, device, SessionACL::All, Config::default()).unwrap();
        let session = std::thread::spawn(move || session.run().unwrap());
        Self { state, place: place.to_owned(), session: Some(session) }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.place.join("image")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Number of events so far.
    pub(crate) fn now(&self) -> usize {
        self.state().log.len()
    }

    /// What has happened.
    pub(crate) fn log(&self) -> Vec<Event> {
        self.state().log.clone()
    }

    /// Puts another image in the place of this one. Nobody uses it.
    pub(crate) fn load(&self, image: Vec<u8>) {
        let mut state = self.state();
        state.image = image;
        state.log = Vec::new();
    }

    /// Writes and flushes fail with `failure`.
    pub(crate) fn fail(&self, failure: Option<Errno>) {
        self.state().failure = failure;
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.place, Unmount::Abort);
        if let Some(session) = self.session.take() {
            let _ = session.join();
        }
    }
}

/// Applies an event to an image.
pub(crate) fn apply(image: &mut [u8], event: &Event) {
    if let Event::Write { offset, data } = event {
        image[*offset..offset + data.len()].copy_from_slice(data);
    }
}

/// Applies some pieces of a write.
pub(crate) fn apply_some(image: &mut [u8], event: &Event, rng: &mut Rng) {
    let Event::Write { offset, data } = event else { return };
    for (number, piece) in data.chunks(PIECE).enumerate() {
        if rng.below(2) == 0 {
            let at = offset + number * PIECE;
            image[at..at + piece.len()].copy_from_slice(piece);
        }
    }
}

struct Server(Arc<Mutex<State>>);

/// The image's inode number; the root has 1.
const IMAGE: INodeNo = INodeNo(2);

const TTL: Duration = Duration::from_secs(3600);

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn attr(&self, ino: INodeNo) -> FileAttr {
        let (kind, perm, size) = match ino == IMAGE {
            true => (FileType::RegularFile, 0o600, self.state().image.len() as u64),
            false => (FileType::Directory, 0o700, 0),
        };
        let time: SystemTime = UNIX_EPOCH;
        FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name == "image" {
            true => reply.entry(&TTL, &self.attr(IMAGE), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // What the loop device writes arrives at once.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.state();
        let start = usize::try_from(offset).unwrap().min(state.image.len());
        let end = (start + size as usize).min(state.image.len());
        reply.data(&state.image[start..end]);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.state();
        if let Some(failure) = state.failure {
            return reply.error(failure);
        }
        let event = Event::Write { offset: usize::try_from(offset).unwrap(), data: data.into() };
        apply(&mut state.image, &event);
        state.log.push(event);
        drop(state);
        reply.written(u32::try_from(data.len()).unwrap());
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.state();
        if let Some(failure) = state.failure {
            return reply.error(failure);
        }
        state.log.push(Event::Flush);
        drop(state);
        reply.ok();
    }
}
