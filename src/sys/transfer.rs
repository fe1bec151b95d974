//! Copying bytes between files, shared instead of copied where the file system can.

use std::{fs::File, io};

use rustix::{fs, io::Errno};

/// Bytes a call: large enough to cost nothing, small enough to be interrupted by a signal.
const PIECE: usize = 1 << 20;
/// Buffer of the fallback in bytes.
const BUFFER: usize = 256 << 10;

/// Copies `length` bytes; `after` hears of each piece.
///
/// # Errors
///
/// What the host says; `UnexpectedEof` where `from` ends early.
pub fn copy_range(
    from: &File,
    from_offset: u64,
    to: &File,
    to_offset: u64,
    length: u64,
    mut after: impl FnMut(u64),
) -> io::Result<()> {
    let mut done = 0;
    while done < length {
        let piece = usize::try_from(length - done).unwrap_or(PIECE).min(PIECE);
        let (mut source, mut target) = (from_offset.saturating_add(done), to_offset.saturating_add(done));
        match fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                done += count as u64;
                after(count as u64);
            }
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => {
                return copy_by_hand(from, source, to, target, length - done, after);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(
    from: &File,
    from_offset: u64,
    to: &File,
    to_offset: u64,
    length: u64,
    mut after: impl FnMut(u64),
) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let mut buffer = vec![0; BUFFER];
    let mut done = 0;
    while done < length {
        let want = usize::try_from(length - done).unwrap_or(BUFFER).min(BUFFER);
        let piece = buffer.get_mut(..want).unwrap_or_default();
        from.read_exact_at(piece, from_offset.saturating_add(done))?;
        to.write_all_at(piece, to_offset.saturating_add(done))?;
        done += want as u64;
        after(want as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};

    use super::*;

    #[test]
    fn ranges_arrive_at_their_place() {
        for copy in [
            copy_range as fn(&File, u64, &File, u64, u64, fn(u64)) -> io::Result<()>,
            copy_by_hand as fn(&File, u64, &File, u64, u64, fn(u64)) -> io::Result<()>,
        ] {
            let mut from = tempfile::tempfile().unwrap();
            let bytes: Vec<u8> = (0..3 * PIECE + 5).map(|at| u8::try_from(at % 251).unwrap()).collect();
            from.write_all(&bytes).unwrap();
            let mut to = tempfile::tempfile().unwrap();
            copy(&from, 7, &to, 3, 2 * PIECE as u64 + 100, |_| {}).unwrap();
            let mut got = Vec::new();
            to.rewind().unwrap();
            to.read_to_end(&mut got).unwrap();
            assert_eq!(got[3..], bytes[7..2 * PIECE + 107]);
            let error = copy(&from, 7, &to, 3, 4 * PIECE as u64, |_| {}).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
