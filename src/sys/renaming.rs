//! What a waiting thread asked the kernel for: whether it renames within what looks like one directory, and what to what.
//!
//! Seen through `/proc` (the registers and the memory of a thread that waits in a system call), which takes the right to
//! trace it: root has it, others for processes of their own unless the host forbids tracing. Who may not look sees nothing.

use std::{fs, os::unix::fs::FileExt as _};

/// Longest path that the kernel takes, in bytes.
const LONGEST: usize = 4096;

/// A rename within one directory.
#[derive(Debug, PartialEq, Eq)]
pub struct Renaming {
    /// The name before.
    pub old: Vec<u8>,
    /// The name to be.
    pub new: Vec<u8>,
}

/// A system call with the places of its arguments: descriptor and path of the old and of the new name, and flags.
type Call = (libc::c_long, [Option<usize>; 2], [usize; 2], Option<usize>);

const CALLS: &[Call] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, [None, None], [0, 1], None),
    (libc::SYS_renameat, [Some(0), Some(2)], [1, 3], None),
    (libc::SYS_renameat2, [Some(0), Some(2)], [1, 3], Some(4)),
];

/// What `thread` renames while it waits, if it does, if that is within one directory, no exchange, and we may know.
#[must_use]
pub fn within_directory(thread: u32) -> Option<Renaming> {
    let state = fs::read_to_string(format!("/proc/{thread}/syscall")).ok()?;
    let (number, arguments) = parse(&state)?;
    let (_, directories, paths, flags) = CALLS.iter().find(|call| call.0 == number)?;
    let argument = |at: usize| arguments.get(at).copied();
    // A descriptor has 32 bits, whatever is above them.
    let directory = |at: Option<usize>| at.map(|at| argument(at).map(|value| value & 0xffff_ffff));
    let [old_directory, new_directory] = directories.map(directory);
    let is_exchange =
        flags.and_then(argument).is_some_and(|flags| flags & u64::from(libc::RENAME_EXCHANGE) != 0);
    if old_directory != new_directory || is_exchange {
        return None;
    }
    let memory = fs::File::open(format!("/proc/{thread}/mem")).ok()?;
    let [old, new] = paths.map(|at| argument(at).and_then(|address| text_at(&memory, address)));
    names(&old?, &new?)
}

/// Number and arguments of a system call, as `/proc/PID/syscall` tells them.
fn parse(state: &str) -> Option<(libc::c_long, Vec<u64>)> {
    let mut words = state.split_ascii_whitespace();
    let number = words.next()?.parse().ok()?;
    let value = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    Some((number, words.map_while(value).collect()))
}

/// The bytes up to a NUL.
fn text_at(memory: &fs::File, address: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; LONGEST];
    let len = memory.read_at(&mut bytes, address).ok()?;
    bytes.truncate(len);
    let end = bytes.iter().position(|byte| *byte == 0)?;
    bytes.truncate(end);
    Some(bytes)
}

/// The last names of two paths that are the same up to there, case aside.
fn names(old: &[u8], new: &[u8]) -> Option<Renaming> {
    let start = |path: &[u8]| path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let ((parent, old), (new_parent, new)) = (old.split_at(start(old)), new.split_at(start(new)));
    let plain = |path: &[u8]| String::from_utf8_lossy(path).to_lowercase();
    (plain(parent) == plain(new_parent) && !old.is_empty() && !new.is_empty())
        .then(|| Renaming { old: old.to_vec(), new: new.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_one_directory_give_their_last_names() {
        for (old, new, expected) in [
            ("a", "A", Some(("a", "A"))),
            ("/x/a", "/x/A", Some(("a", "A"))),
            ("/X/a", "/x/A", Some(("a", "A"))),
            ("/x/a", "/y/A", None),
            ("a", "/A", None),
            ("x/", "x/", None),
        ] {
            let found = names(old.as_bytes(), new.as_bytes());
            let expected = expected.map(|(old, new)| Renaming { old: old.into(), new: new.into() });
            assert_eq!(found, expected, "{old} {new}");
        }
    }

    #[test]
    fn what_the_kernel_tells_is_read_and_nonsense_is_not() {
        let line = "316 0xffffff9c 0x7ffc 0xffffff9c 0x7ffd 0x1 0x0 0x7ffc0 0x7f00";
        let (number, arguments) = parse(line).unwrap();
        assert_eq!((number, &arguments[..5]), (316, &[0xffff_ff9c, 0x7ffc, 0xffff_ff9c, 0x7ffd, 1][..]));
        for line in ["running", "", "-1 0x7ffc 0x7f00x"] {
            assert!(parse(line).is_none_or(|(number, _)| number < 0), "{line}");
        }
        assert_eq!(within_directory(std::process::id()), None);
    }
}
