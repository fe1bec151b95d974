//! What a background instance writes, kept in files of bounded size.
//!
//! A process of its own reads the pipes to which the program writes, so that neither a full file nor a slow disk is the
//! program's business, and so that the files can be turned over: `out.log` that is full becomes `out.log.1`. It ends when
//! nobody has the pipes open any more.

use std::{
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
};

use crate::sys::{
    ready::{self, Interest},
    tree::DirFd,
};

/// Names of the files: stdout's and stderr's.
pub const FILES: [&str; 2] = ["out.log", "err.log"];
/// Size at which a file is turned over, in bytes.
const FILE_LIMIT: u64 = 4 << 20;
/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;

/// The name of what a file was before it was turned over.
#[must_use]
pub fn older(name: &str) -> String {
    format!("{name}.1")
}

/// Reads `streams` into the files of `directory` until both have ended. What cannot be written is lost.
///
/// # Errors
///
/// What poll(2) and read(2) say.
pub fn keep(streams: [OwnedFd; 2], directory: &DirFd) -> io::Result<()> {
    let mut streams: Vec<(std::fs::File, &str, u64)> =
        streams.into_iter().zip(FILES).map(|(stream, name)| (std::fs::File::from(stream), name, 0)).collect();
    let mut chunk = vec![0; CHUNK];
    while !streams.is_empty() {
        let waited: Vec<_> = streams.iter().map(|(stream, ..)| (stream.as_fd(), Interest::Read)).collect();
        let ready = ready::wait(&waited, None)?;
        let mut left = Vec::new();
        for ((mut stream, name, mut size), ready) in streams.into_iter().zip(ready) {
            if ready.read {
                let count = stream.read(&mut chunk)?;
                let bytes = chunk.get(..count).unwrap_or_default();
                if bytes.is_empty() {
                    continue;
                }
                // The directory may be gone, or full: the program must not notice.
                let _ = append(directory, name, bytes, &mut size);
            }
            left.push((stream, name, size));
        }
        streams = left;
    }
    Ok(())
}

fn append(directory: &DirFd, name: &str, bytes: &[u8], size: &mut u64) -> io::Result<()> {
    let added = u64::try_from(bytes.len()).unwrap_or(FILE_LIMIT);
    if *size + added > FILE_LIMIT {
        directory.remove(older(name))?;
        directory.rename(name, directory, older(name))?;
        *size = 0;
    }
    *size += added;
    directory.append(name)?.write_all(bytes)
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
}
