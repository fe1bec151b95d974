//! What a background instance writes, kept in files of bounded size.
//!
//! A process of its own reads the pipes to which the program writes, so that neither a full file nor a slow disk is the
//! program's business, and so that the files can be turned over: `out.log` that is full becomes `out.log.1`. It ends when
//! nobody has the pipes open any more. Beside each file lies another one, `out.log.times`, that tells when it had which length.

use std::{
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
};

use super::state::State;
use crate::sys::{
    ready::{self, Interest},
    tree::DirFd,
};

/// Names of the files: stdout's and stderr's.
pub const FILES: [&str; 2] = ["out.log", "err.log"];
/// Size at which a file is turned over, in bytes.
const FILE_LIMIT: u64 = 4 << 20;
/// Size of the moments of a file at which it is turned over as well, in bytes.
const TIMES_LIMIT: u64 = 1 << 20;
/// How far apart moments are noted, in milliseconds.
const STEP: u64 = 1000;
/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;

/// The name of what a file was before it was turned over.
#[must_use]
pub fn older(name: &str) -> String {
    format!("{name}.1")
}

/// The name of the file with the moments of another one.
#[must_use]
pub fn times(name: &str) -> String {
    format!("{name}.times")
}

/// Where what was written at `moment` (milliseconds since 1970) or later begins in a file, by the moments that were noted;
/// `None` where all is earlier.
#[must_use]
pub fn since(times: &str, moment: u64) -> Option<u64> {
    times.lines().find_map(|line| {
        let (at, offset) = line.split_once(' ')?;
        (at.parse::<u64>().ok()? >= moment).then(|| offset.parse().ok()).flatten()
    })
}

/// One of the files, while it is written.
struct Log {
    stream: std::fs::File,
    name: &'static str,
    /// When its length was noted last.
    noted: u64,
}

/// Reads `streams` into the files of `directory` until both have ended. What cannot be written is lost.
///
/// # Errors
///
/// What poll(2) and read(2) say.
pub fn keep(streams: [OwnedFd; 2], directory: &DirFd) -> io::Result<()> {
    let mut logs: Vec<Log> = streams
        .into_iter()
        .zip(FILES)
        .map(|(stream, name)| Log { stream: stream.into(), name, noted: 0 })
        .collect();
    let mut chunk = vec![0; CHUNK];
    while !logs.is_empty() {
        let waited: Vec<_> = logs.iter().map(|log| (log.stream.as_fd(), Interest::Read)).collect();
        let ready = ready::wait(&waited, None)?;
        let mut left = Vec::new();
        for (mut log, ready) in logs.into_iter().zip(ready) {
            if ready.read {
                let count = log.stream.read(&mut chunk)?;
                let bytes = chunk.get(..count).unwrap_or_default();
                if bytes.is_empty() {
                    continue;
                }
                // The directory may be gone, or full: the program must not notice.
                let _ = log.append(directory, bytes, State::now());
            }
            left.push(log);
        }
        logs = left;
    }
    Ok(())
}

impl Log {
    fn append(&mut self, directory: &DirFd, bytes: &[u8], now: u64) -> io::Result<()> {
        // Scripts write to the same files: what counts is the length that they have.
        let mut file = directory.append(self.name)?;
        let mut length = file.metadata()?.len();
        let added = u64::try_from(bytes.len()).unwrap_or(FILE_LIMIT);
        let moments = times(self.name);
        let is_full = |length: u64| length.saturating_add(added) > FILE_LIMIT;
        if is_full(length) || directory.append(&moments)?.metadata()?.len() > TIMES_LIMIT {
            let before = older(self.name);
            for (from, to) in [(self.name, before.clone()), (moments.as_str(), times(&before))] {
                directory.remove(&to)?;
                directory.rename(from, directory, &to)?;
            }
            file = directory.append(self.name)?;
            (length, self.noted) = (0, 0);
        }
        if now.saturating_sub(self.noted) >= STEP {
            self.noted = now;
            writeln!(directory.append(&moments)?, "{now} {length}")?;
        }
        file.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_turned_over_and_the_last_bytes_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DirFd::open(folder.path()).unwrap();
        let ((out, mut to_out), (err, mut to_err)) = (io::pipe().unwrap(), io::pipe().unwrap());
        let writer = std::thread::spawn(move || {
            for number in 0..u32::try_from(3 * FILE_LIMIT / 8).unwrap() {
                writeln!(to_out, "{number:07}").unwrap();
            }
            to_err.write_all(b"err").unwrap();
        });
        keep([out.into(), err.into()], &directory).unwrap();
        writer.join().unwrap();
        let last = fs::read(folder.path().join("out.log")).unwrap();
        assert!(last.ends_with(format!("{:07}\n", 3 * FILE_LIMIT / 8 - 1).as_bytes()));
        let before = fs::read(folder.path().join("out.log.1")).unwrap();
        assert!(u64::try_from(before.len().max(last.len())).unwrap() <= FILE_LIMIT);
        assert_eq!(fs::read(folder.path().join("err.log")).unwrap(), b"err");
    }

    #[test]
    fn moments_tell_where_to_begin() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DirFd::open(folder.path()).unwrap();
        let (stream, _kept) = io::pipe().unwrap();
        let mut log = Log { stream: std::fs::File::from(OwnedFd::from(stream)), name: "out.log", noted: 0 };
        for (now, bytes) in [(5000, "one"), (5100, "two"), (6000, "three"), (9000, "four")] {
            log.append(&directory, bytes.as_bytes(), now).unwrap();
        }
        let text = fs::read_to_string(folder.path().join(times("out.log"))).unwrap();
        assert_eq!(text, "5000 0\n6000 6\n9000 11\n");
        let found = [0, 5000, 5001, 6001, 9001].map(|moment| since(&text, moment));
        assert_eq!(found, [Some(0), Some(0), Some(6), Some(11), None]);
        assert_eq!(since("nonsense\n7 x\n", 1), None);
    }
}
