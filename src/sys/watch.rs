//! Being told that something in a directory has changed.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};

/// Room for the events that are read at a time: some hundred of them.
const ROOM: usize = 16 << 10;

/// Becomes readable when a file of a directory is written, made or renamed.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// Watches a directory: the one that is there now, whatever it is called later.
    ///
    /// # Errors
    ///
    /// What inotify_add_watch(2) says.
    pub fn on(directory: &Path) -> io::Result<Self> {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let events = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        inotify::add_watch(&watch, directory, events)?;
        Ok(Self(watch))
    }

    /// Takes what has been told.
    ///
    /// # Errors
    ///
    /// What read(2) says.
    pub fn clear(&self) -> io::Result<()> {
        let mut room = [MaybeUninit::uninit(); ROOM];
        loop {
            match inotify::Reader::new(&self.0, &mut room).next() {
                Ok(_) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sys::ready;

    #[test]
    fn a_change_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let watch = Watch::on(folder.path()).unwrap();
        let told = || {
            let soon = Instant::now() + Duration::from_millis(20);
            ready::first_readable(&[watch.as_fd()], Some(soon)).unwrap().is_some()
        };
        assert!(!told());
        std::fs::write(folder.path().join("a"), "x").unwrap();
        assert!(told());
        watch.clear().unwrap();
        assert!(!told());
        assert!(Watch::on(&folder.path().join("a")).is_err());
    }
}
