//! Channels between our processes: frames over a Unix stream socket, with descriptors attached.
//!
//! ```text
//! frame:  length u32 LE | descriptors u8 | payload (length bytes)
//! ```
//!
//! The descriptors travel by `SCM_RIGHTS` with the first byte of their frame. The other side is never trusted: length
//! and number of descriptors are bounded, and a frame that is only half there does not block the reader.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recvmsg, sendmsg, socket_with, socketpair,
};

use super::{
    peer,
    ready::{self, Interest},
};

/// Length of a frame's head, in bytes.
const HEAD: usize = 5;
/// Most descriptors in a frame, and most that may wait to be claimed.
pub const MAX_FDS: usize = 8;
/// Bytes asked of the kernel at a time.
const CHUNK: usize = 16 * 1024;

/// One message.
#[derive(Debug)]
pub struct Frame {
    /// Its bytes.
    pub payload: Vec<u8>,
    /// The descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

/// What there is to read.
#[derive(Debug)]
pub enum Received {
    /// A whole frame.
    Frame(Frame),
    /// Nothing, or half a frame, so far.
    Pending,
    /// The other side has closed its end.
    Closed,
}

/// Who is at the other end, as the kernel saw it when the channel was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Process id, 0 where it lies outside our pid namespace.
    pub pid: i32,
}

/// One end of a channel.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    inbox: Vec<u8>,
    fds: VecDeque<OwnedFd>,
    limit: usize,
    ended: bool,
}

impl Channel {
    /// Takes over a connected stream socket; frames of more than `limit` bytes are refused when they come in.
    #[must_use]
    pub const fn new(socket: OwnedFd, limit: usize) -> Self {
        Self { socket, inbox: Vec::new(), fds: VecDeque::new(), limit, ended: false }
    }

    /// Makes both ends at once.
    ///
    /// # Errors
    ///
    /// What socketpair(2) says.
    pub fn pair(limit: usize) -> io::Result<(Self, Self)> {
        let (one, two) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok((Self::new(one, limit), Self::new(two, limit)))
    }

    /// Connects to the listener at `name` in `directory`, however long the directory's path is.
    ///
    /// # Errors
    ///
    /// `ENOENT` and `ECONNREFUSED` where nobody listens, else what connect(2) says.
    pub fn connect(directory: BorrowedFd<'_>, name: &str, limit: usize) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &address(directory, name)?)?;
        Ok(Self::new(socket, limit))
    }

    /// Connects to the socket that is the entry `name` of `directory`: a link there is not followed.
    ///
    /// # Errors
    ///
    /// `ECONNREFUSED` where nobody listens, or where it is no socket, else what connect(2) says.
    pub fn connect_to_entry(directory: BorrowedFd<'_>, name: &str, limit: usize) -> io::Result<Self> {
        use std::os::fd::AsRawFd as _;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = openat(directory, name, flags, Mode::empty())?;
        // The link in /proc of a symlink that was opened leads on to where it leads.
        if FileType::from_raw_mode(fstat(&entry)?.st_mode) != FileType::Socket {
            return Err(rustix::io::Errno::CONNREFUSED.into());
        }
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(format!("/proc/self/fd/{}", entry.as_raw_fd()))?)?;
        Ok(Self::new(socket, limit))
    }

    /// Who is at the other end.
    ///
    /// # Errors
    ///
    /// What `SO_PEERCRED` says.
    pub fn peer(&self) -> io::Result<Peer> {
        let (uid, pid) = peer::of(self.socket.as_fd())?;
        Ok(Peer { uid, pid })
    }

    /// Sends one frame; waits where the other side does not read.
    ///
    /// # Errors
    ///
    /// `EPIPE` where the other side is gone, `EMSGSIZE` where the frame is too large, else what sendmsg(2) says.
    pub fn send(&self, payload: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let too_large = || io::Error::from(rustix::io::Errno::MSGSIZE);
        let length = u32::try_from(payload.len()).map_err(|_| too_large())?;
        let count = u8::try_from(fds.len()).ok().filter(|_| fds.len() <= MAX_FDS).ok_or_else(too_large)?;
        let mut frame = Vec::with_capacity(HEAD + payload.len());
        frame.extend_from_slice(&length.to_le_bytes());
        frame.push(count);
        frame.extend_from_slice(payload);

        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut attached = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !attached.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(too_large());
        }
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            match sendmsg(&self.socket, &[IoSlice::new(rest)], &mut attached, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    attached.clear();
                    rest = rest.get(sent..).unwrap_or_default();
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what is there, without waiting.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` where the other side exceeds a bound, else what recvmsg(2) says.
    pub fn receive(&mut self) -> io::Result<Received> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Received::Frame(frame));
            }
            if self.ended {
                return Ok(Received::Closed);
            }
            if !self.fill()? {
                return Ok(Received::Pending);
            }
        }
    }

    /// Waits for the next frame; `None` where the other side closes first.
    ///
    /// # Errors
    ///
    /// As [`receive`](Self::receive).
    pub fn receive_waiting(&mut self) -> io::Result<Option<Frame>> {
        loop {
            match self.receive()? {
                Received::Frame(frame) => return Ok(Some(frame)),
                Received::Closed => return Ok(None),
                Received::Pending => {
                    ready::wait(&[(self.socket.as_fd(), Interest::Read)], None)?;
                }
            }
        }
    }

    fn take_frame(&mut self) -> io::Result<Option<Frame>> {
        let Some((&[a, b, c, d, count], _)) = self.inbox.split_first_chunk::<HEAD>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let count = usize::from(count);
        if length > self.limit || count > MAX_FDS {
            return Err(rustix::io::Errno::MSGSIZE.into());
        }
        let Some(payload) = self.inbox.get(HEAD..HEAD + length) else { return Ok(None) };
        if count > self.fds.len() {
            return Err(rustix::io::Errno::BADMSG.into());
        }
        let payload = payload.to_vec();
        self.inbox.drain(..HEAD + length);
        Ok(Some(Frame { payload, fds: self.fds.drain(..count).collect() }))
    }

    /// Reads once; `false` where nothing was there.
    fn fill(&mut self) -> io::Result<bool> {
        let mut bytes = [0; CHUNK];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut attached = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let read = match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut attached, flags) {
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::AGAIN) => return Ok(false),
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(error) => return Err(error.into()),
        };
        for message in attached.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                self.fds.extend(received);
            }
        }
        if self.fds.len() > MAX_FDS {
            return Err(rustix::io::Errno::MSGSIZE.into());
        }
        self.ended = read == 0;
        self.inbox.extend_from_slice(bytes.get(..read).unwrap_or_default());
        Ok(true)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket at a path, where others connect.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    limit: usize,
}

impl Listener {
    /// Listens at `name` in `directory`, however long the directory's path is.
    ///
    /// # Errors
    ///
    /// `EADDRINUSE` where the name exists, else what bind(2) and listen(2) say.
    pub fn bind(directory: BorrowedFd<'_>, name: &str, limit: usize) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        bind(&socket, &address(directory, name)?)?;
        listen(&socket, i32::from(u8::MAX))?;
        Ok(Self { socket, limit })
    }

    /// Takes the next client that waits, if any.
    ///
    /// # Errors
    ///
    /// What accept4(2) says.
    pub fn accept(&self) -> io::Result<Option<Channel>> {
        match accept_with(&self.socket, SocketFlags::CLOEXEC) {
            Ok(socket) => Ok(Some(Channel::new(socket, self.limit))),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::CONNABORTED | rustix::io::Errno::INTR) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `sun_path` holds 108 bytes: the directory is named by its descriptor.
fn address(directory: BorrowedFd<'_>, name: &str) -> io::Result<SocketAddrUnix> {
    use std::os::fd::AsRawFd as _;
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))?)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _, os::unix::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn frames_arrive_whole_and_in_order_with_their_descriptors() {
        let (one, mut two) = Channel::pair(1 << 20).unwrap();
        let mut directory = tempfile::tempfile().unwrap();
        let large = vec![7; 100_000];
        one.send(b"plain", &[]).unwrap();
        one.send(&large, &[directory.as_fd()]).unwrap();
        one.send(b"", &[]).unwrap();
        assert_eq!(two.receive_waiting().unwrap().unwrap().payload, b"plain");
        let frame = two.receive_waiting().unwrap().unwrap();
        assert_eq!(frame.payload, large);
        let received = File::from(frame.fds.into_iter().next().unwrap());
        assert_eq!(received.metadata().unwrap().ino(), directory.metadata().unwrap().ino());
        assert!(two.receive_waiting().unwrap().unwrap().fds.is_empty());
        assert!(matches!(two.receive().unwrap(), Received::Pending));
        drop(one);
        assert!(matches!(two.receive().unwrap(), Received::Closed));
        directory.read_to_end(&mut Vec::new()).unwrap();
    }

    #[test]
    fn half_a_frame_does_not_block() {
        let (one, mut two) = Channel::pair(64).unwrap();
        rustix::io::write(&one, &[9, 0, 0, 0, 0, b'x']).unwrap();
        assert!(matches!(two.receive().unwrap(), Received::Pending));
        rustix::io::write(&one, b"12345678").unwrap();
        assert!(matches!(two.receive().unwrap(), Received::Frame(frame) if frame.payload == b"x12345678"));
    }

    #[test]
    fn bounds_are_kept() {
        let (one, mut two) = Channel::pair(64).unwrap();
        one.send(&[0; 65], &[]).unwrap();
        assert!(two.receive().is_err());
        let (one, mut two) = Channel::pair(64).unwrap();
        rustix::io::write(&one, &[0, 0, 0, 0, 3]).unwrap();
        assert!(two.receive().is_err(), "descriptors that never came");
    }

    #[test]
    fn long_paths_can_be_bound() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(200));
        std::fs::create_dir(&long).unwrap();
        let directory = File::open(&long).unwrap();
        let listener = Listener::bind(directory.as_fd(), "socket", 64).unwrap();
        assert!(listener.accept().unwrap().is_none());
        let client = Channel::connect(directory.as_fd(), "socket", 64).unwrap();
        let server = listener.accept().unwrap().unwrap();
        assert_eq!(server.peer().unwrap().pid, super::super::process::id());
        drop(client);
    }
}
