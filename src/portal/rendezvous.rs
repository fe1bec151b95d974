//! The socket where somebody waits who has announced a request.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    time::Instant,
};

use super::{Announcement, announce};
use crate::sys::{
    process,
    ready::{self, Interest},
    scm::{Channel, Listener},
    tree::DirFd,
    users::effective_ids,
};

/// Which side of the wall serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wall {
    /// Inside: process 1.
    Guest,
    /// Outside: the host daemon.
    Host,
}

impl Wall {
    /// The name of its pipe.
    #[must_use]
    pub const fn fifo(self) -> &'static str {
        match self {
            Self::Guest => "guest.fifo",
            Self::Host => "host.fifo",
        }
    }

    /// Where those listen who ask it, below the portal's directory.
    #[must_use]
    pub const fn dispatcher(self) -> &'static str {
        match self {
            Self::Guest => "dispatcher/guest",
            Self::Host => "dispatcher/host",
        }
    }
}

/// A socket of ours, announced. It goes with this.
#[derive(Debug)]
pub struct Rendezvous {
    listener: Listener,
    directory: DirFd,
    announcement: Announcement,
}

impl Rendezvous {
    /// Listens in the portal of an instance and announces it to the other side.
    ///
    /// # Errors
    ///
    /// `ENXIO` where nobody serves, `EAGAIN` where whoever serves is behind, else what the system says.
    pub fn announce(portal: &Path, wall: Wall, limit: usize) -> io::Result<Self> {
        let directory = DirFd::open(&portal.join(wall.dispatcher()))?;
        let daemon = DirFd::open(&portal.join("daemon"))?;
        // One request a process: its number is free, unless a killed one left its socket.
        let name = format!("{}", process::id());
        let announcement =
            Announcement::new(&name).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        directory.remove(&name)?;
        let listener = Listener::bind(directory.as_fd(), &name, limit)?;
        let this = Self { listener, directory, announcement };
        announce(daemon.as_fd(), wall.fifo(), &this.announcement)?;
        Ok(this)
    }

    /// Waits for the other side, which must be of the same user. `life` becomes readable when nobody can come any more.
    ///
    /// # Errors
    ///
    /// `TimedOut` behind `deadline`, `ConnectionAborted` where `life` ends, else what the system says.
    pub fn wait(self, life: BorrowedFd<'_>, deadline: Instant) -> io::Result<Channel> {
        loop {
            while let Some(channel) = self.listener.accept()? {
                if channel.peer()?.uid == effective_ids().0 {
                    return Ok(channel);
                }
            }
            let waited = [(self.listener.as_fd(), Interest::Read), (life, Interest::Read)];
            match ready::wait(&waited, Some(deadline))?.as_slice() {
                [listener, _] if listener.read => {}
                [_, life] if life.read => return Err(io::ErrorKind::ConnectionAborted.into()),
                _ if deadline <= Instant::now() => return Err(io::ErrorKind::TimedOut.into()),
                _ => {}
            }
        }
    }
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        if let Err(error) = self.directory.remove(self.announcement.name()) {
            tracing::debug!(%error, "cannot remove a socket");
        }
    }
}

/// Connects to whoever has announced a request; `dispatcher` is the directory of the sockets. Nothing but a socket in
/// that very directory is connected to, and whoever listens there must be of the same user.
///
/// # Errors
///
/// What connect(2) says, `PermissionDenied` for another user.
pub fn connect(dispatcher: BorrowedFd<'_>, announcement: &Announcement, limit: usize) -> io::Result<Channel> {
    let channel = Channel::connect_to_entry(dispatcher, announcement.name(), limit)?;
    if channel.peer()?.uid != effective_ids().0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(channel)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, time::Duration};

    use super::*;
    use crate::{portal::Announcements, sys::fifo};

    fn place() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["daemon", "dispatcher/guest", "dispatcher/host"] {
            fs::create_dir_all(folder.path().join("portal").join(name)).unwrap();
        }
        for wall in [Wall::Guest, Wall::Host] {
            fifo::make(&folder.path().join("portal/daemon").join(wall.fifo())).unwrap();
        }
        folder
    }

    #[test]
    fn two_sides_meet_and_leave_nothing() {
        let folder = place();
        let portal = folder.path().join("portal");
        assert!(Rendezvous::announce(&portal, Wall::Host, 100).is_err());
        let daemon = DirFd::open(&portal.join("daemon")).unwrap();
        let mut heard = Announcements::open(daemon.as_fd(), Wall::Host.fifo()).unwrap();
        let rendezvous = Rendezvous::announce(&portal, Wall::Host, 100).unwrap();
        let announcement = heard.hear().unwrap().remove(0);
        let dispatcher = DirFd::open(&portal.join("dispatcher/host")).unwrap();
        let there = connect(dispatcher.as_fd(), &announcement, 100).unwrap();
        let (never, _kept) = std::io::pipe().unwrap();
        let mut here = rendezvous.wait(never.as_fd(), Instant::now() + Duration::from_secs(5)).unwrap();
        there.send(b"x", &[]).unwrap();
        assert_eq!(here.receive_waiting().unwrap().unwrap().payload, b"x");
        assert!(dispatcher.names().unwrap().is_empty());
    }

    #[test]
    fn a_link_to_a_socket_elsewhere_is_not_followed() {
        let folder = place();
        let portal = folder.path().join("portal");
        let elsewhere = DirFd::open(folder.path()).unwrap();
        let _listener = Listener::bind(elsewhere.as_fd(), "other", 100).unwrap();
        symlink(folder.path().join("other"), portal.join("dispatcher/host/7")).unwrap();
        let dispatcher = DirFd::open(&portal.join("dispatcher/host")).unwrap();
        let announcement = Announcement::new("7").unwrap();
        assert!(connect(dispatcher.as_fd(), &announcement, 100).is_err());
        assert!(connect(elsewhere.as_fd(), &Announcement::new("other").unwrap(), 100).is_ok());
    }

    #[test]
    fn who_does_not_come_is_not_waited_for() {
        let folder = place();
        let portal = folder.path().join("portal");
        let daemon = DirFd::open(&portal.join("daemon")).unwrap();
        let _heard = Announcements::open(daemon.as_fd(), Wall::Guest.fifo()).unwrap();
        let (never, kept) = std::io::pipe().unwrap();
        let wait =
            |deadline| Rendezvous::announce(&portal, Wall::Guest, 100).unwrap().wait(never.as_fd(), deadline);
        let soon = Instant::now() + Duration::from_millis(10);
        assert_eq!(wait(soon).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(kept);
        let later = Instant::now() + Duration::from_secs(100);
        assert_eq!(wait(later).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
