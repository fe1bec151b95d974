//! Announcements: one line a request.
//!
//! ```text
//! \n fim-portal VERSION NAME \n
//! ```

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::sys::fifo;

/// Version of the announcements and of what follows them.
const VERSION: &str = "1";
const WORD: &str = "fim-portal";
/// Longest name of a socket, in bytes.
const LONGEST: usize = 64;

/// Somebody waits at the socket of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    name: String,
}

impl Announcement {
    /// Checks the name: letters, digits and `-` only, so that it is an entry of the one directory and no other.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let is_name = !name.is_empty() && name.len() <= LONGEST && name.bytes().all(known);
        is_name.then(|| Self { name: name.to_owned() })
    }

    /// The name of the socket.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn line(&self) -> String {
        format!("\n{WORD} {VERSION} {}\n", self.name)
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        if words.next()? != WORD || words.next()? != VERSION {
            return None;
        }
        let announcement = Self::new(words.next()?)?;
        words.next().is_none().then_some(announcement)
    }
}

/// Writes an announcement into the named pipe `name` of a directory.
///
/// # Errors
///
/// `ENXIO` where nobody reads there, `EAGAIN` where the reader is behind, else what open(2) and write(2) say.
pub fn announce(directory: BorrowedFd<'_>, name: &str, announcement: &Announcement) -> io::Result<()> {
    let pipe = fifo::open_to_write(directory, name)?;
    fifo::write_whole(pipe, announcement.line().as_bytes())
}

/// The reading end of a named pipe.
#[derive(Debug)]
pub struct Announcements {
    pipe: OwnedFd,
    lines: Lines,
}

/// Bytes on their way to becoming lines.
#[derive(Debug, Default)]
struct Lines {
    half: Vec<u8>,
    /// The line has become too long: what comes is passed over until its end.
    is_lost: bool,
}

impl Announcements {
    /// Opens the named pipe `name` of a directory.
    ///
    /// # Errors
    ///
    /// What open(2) says.
    pub fn open(directory: BorrowedFd<'_>, name: &str) -> io::Result<Self> {
        Ok(Self { pipe: fifo::open_to_read(directory, name)?, lines: Lines::default() })
    }

    /// Reads once, without waiting: what has been announced, in order. A flood is read piece by piece, so that whoever
    /// reads does other things in between.
    ///
    /// # Errors
    ///
    /// What read(2) says.
    pub fn hear(&mut self) -> io::Result<Vec<Announcement>> {
        let mut bytes = [0; fifo::WHOLE];
        let count = fifo::read(&self.pipe, &mut bytes)?.unwrap_or(0);
        Ok(self.lines.take(bytes.get(..count).unwrap_or_default()))
    }
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) -> Vec<Announcement> {
        let mut found = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                if !self.is_lost {
                    found.extend(Announcement::parse(&self.half));
                }
                self.half.clear();
                self.is_lost = false;
            } else if self.half.len() < LONGEST + WORD.len() + VERSION.len() + 2 {
                self.half.push(*byte);
            } else {
                self.is_lost = true;
            }
        }
        found
    }
}

impl AsFd for Announcements {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(lines: &mut Lines, bytes: &[u8]) -> Vec<String> {
        lines.take(bytes).into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn garbage_costs_only_itself() {
        let good = Announcement::new("12-3").unwrap().line();
        let huge = vec![b'x'; 100_000];
        for garbage in [
            &b""[..],
            b"x",
            b"\n",
            b"\xff\0",
            b"fim-portal 1 ",
            b"fim-portal 1 12-3",
            b"fim-portal 1 a b",
            &huge,
        ] {
            let mut lines = Lines::default();
            let mut bytes = garbage.to_vec();
            bytes.extend_from_slice(good.as_bytes());
            let found = names(&mut lines, &bytes);
            assert_eq!(found.last().map(String::as_str), Some("12-3"), "{garbage:?}");
            assert!(lines.half.capacity() < 1000, "{} bytes are kept", lines.half.capacity());
        }
    }

    #[test]
    fn a_line_may_come_in_pieces_and_must_be_of_our_version() {
        let mut lines = Lines::default();
        assert!(names(&mut lines, b"\nfim-por").is_empty());
        assert_eq!(names(&mut lines, b"tal 1 a\n\nfim-portal 2 b\nfim-portal 1 c\n"), ["a", "c"]);
    }

    #[test]
    fn names_stay_in_their_directory() {
        for name in ["", ".", "..", "a/b", "/x", "a b", "a\n", &"x".repeat(65)] {
            assert!(Announcement::new(name).is_none(), "{name}");
        }
    }

    #[test]
    fn nobody_at_the_other_end_is_said_at_once() {
        let folder = tempfile::tempdir().unwrap();
        fifo::make(&folder.path().join("f")).unwrap();
        let directory = crate::sys::tree::DirFd::open(folder.path()).unwrap();
        let one = Announcement::new("a").unwrap();
        let refused = announce(directory.as_fd(), "f", &one).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(crate::sys::errno::Errno::ENXIO as i32));
        let mut heard = Announcements::open(directory.as_fd(), "f").unwrap();
        assert!(heard.hear().unwrap().is_empty());
        announce(directory.as_fd(), "f", &one).unwrap();
        assert_eq!(heard.hear().unwrap(), [one]);
    }
}
