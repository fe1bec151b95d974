//! An access profile: which files are read, in the order in which they are first read.
//!
//! Text, a file a line, so that a person can read, cut and join profiles:
//!
//! ```text
//! fim-profile 1                                    the kind of file and its version
//! /usr/bin/python3.11<TAB>0-196608,4194304-4259840   path, and which bytes: ascending, apart, the end exclusive
//! /etc/ld.so.cache                                 no bytes named: all of the file
//! ```
//!
//! Paths begin at the root and have no `.` and `..` in them. Backslash, control characters and whatever is not ASCII
//! are written `\xHH` (backslash, tab and newline also `\\`, `\t`, `\n`); bytes beyond ASCII may stand as they are.
//!
//! Profiles come from anywhere, like archives: every size is bounded.

use std::ops::Range;

use super::limits;

/// The first line, without the number of the version.
const MAGIC: &[u8] = b"fim-profile ";
/// The version that is written, and the only one that is read.
const VERSION: &[u8] = b"1";

/// Longest profile in bytes. A browser's start reads some thousand files, a hundred bytes a line.
pub const MAX_LEN: usize = 4 << 20;
/// Most files of a profile.
pub const MAX_FILES: usize = 1 << 16;
/// Most ranges of a file: beyond this nearly all of it is read anyway.
pub const MAX_RANGES: usize = 64;
/// Longest path in bytes (`PATH_MAX` without its NUL).
pub const MAX_PATH: usize = 4_095;

/// Which files are read, the first first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// The files. A path may be there twice; the first time counts.
    pub files: Vec<FileUse>,
}

/// A file that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileUse {
    /// Names with `/` between them, from the root; none is empty, `.` or `..`.
    pub path: Box<[u8]>,
    /// What is read of it.
    pub part: Part,
}

/// What is read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// These bytes: ascending, apart, none empty.
    Ranges(Vec<Range<u64>>),
}

/// Bytes that are no profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Another kind of file.
    #[error("the first line is not `fim-profile 1`")]
    NotAProfile,
    /// A profile of another version.
    #[error("the profile is of another version: expected version 1")]
    Version,
    /// Too much of something.
    #[error("the profile has {found} {what}: at most {limit} are read")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// How much is read.
        limit: usize,
    },
    /// A line that means nothing.
    #[error("line {line}: {what}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    ///
    /// [`ProfileError`] names the first line that is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProfileError> {
        if bytes.len() > MAX_LEN {
            return Err(ProfileError::Limit { what: "bytes", found: bytes.len(), limit: MAX_LEN });
        }
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let version = lines.next().and_then(|line| line.strip_prefix(MAGIC));
        match version {
            None => return Err(ProfileError::NotAProfile),
            Some(VERSION) => {}
            Some(_) => return Err(ProfileError::Version),
        }
        let mut files = Vec::new();
        for (line, text) in (2..).zip(lines) {
            if text.is_empty() {
                continue;
            }
            if files.len() == MAX_FILES {
                return Err(ProfileError::Limit { what: "files", found: MAX_FILES + 1, limit: MAX_FILES });
            }
            files.push(decode_line(text).map_err(|what| ProfileError::Line { line, what })?);
        }
        Ok(Self { files })
    }

    /// Writes the profile, as far as it can be read again.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_within(MAX_LEN)
    }

    /// Writes the profile in at most `limit` bytes. What does not fit is left out from the end: what is read last
    /// matters least.
    #[must_use]
    pub fn encode_within(&self, limit: usize) -> Vec<u8> {
        let mut bytes = [MAGIC, VERSION, b"\n"].concat();
        for file in self.files.iter().take(MAX_FILES) {
            let whole_lines = bytes.len();
            bytes.extend_from_slice(file.path_text().as_bytes());
            if let Part::Ranges(ranges) = &file.part {
                let mut divider = '\t';
                for range in ranges.iter().take(MAX_RANGES) {
                    bytes.extend_from_slice(format!("{divider}{}-{}", range.start, range.end).as_bytes());
                    divider = ',';
                }
            }
            bytes.push(b'\n');
            if bytes.len() > limit {
                bytes.truncate(whole_lines);
                break;
            }
        }
        bytes
    }
}

impl FileUse {
    /// The path as a profile has it: from the root, with escapes.
    #[must_use]
    pub fn path_text(&self) -> String {
        let mut text = String::from("/");
        for byte in &self.path {
            match byte {
                b'\\' => text.push_str("\\\\"),
                b'\t' => text.push_str("\\t"),
                b'\n' => text.push_str("\\n"),
                b' '..=b'~' => text.push(char::from(*byte)),
                byte => text.push_str(&format!("\\x{byte:02x}")),
            }
        }
        text
    }
}

fn decode_line(line: &[u8]) -> Result<FileUse, &'static str> {
    let (path, ranges) = match line.iter().position(|byte| *byte == b'\t') {
        None => (line, None),
        Some(tab) => (line.get(..tab).unwrap_or_default(), line.get(tab + 1..)),
    };
    let path = decode_path(path)?;
    let part = ranges.map_or(Ok(Part::Whole), |ranges| decode_ranges(ranges).map(Part::Ranges))?;
    Ok(FileUse { path, part })
}

fn decode_path(text: &[u8]) -> Result<Box<[u8]>, &'static str> {
    let path = unescape(text.strip_prefix(b"/").unwrap_or(text))?;
    if path.len() > MAX_PATH {
        return Err("the path is too long");
    }
    let is_name = |name: &[u8]| {
        (1..=limits::MAX_NAME_LEN).contains(&name.len())
            && !matches!(name, b"." | b"..")
            && !name.contains(&0)
    };
    if !path.split(|byte| *byte == b'/').all(is_name) {
        return Err("the path has a name that no directory can hold");
    }
    Ok(path.into())
}

fn unescape(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let unknown = "a backslash stands before something other than \\, t, n or xHH";
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'\\' {
            path.push(*byte);
            continue;
        }
        let (kind, behind) = rest.split_first().ok_or(unknown)?;
        rest = behind;
        path.push(match kind {
            b'\\' => b'\\',
            b't' => b'\t',
            b'n' => b'\n',
            b'x' => {
                let (digits, behind) = rest.split_first_chunk::<2>().ok_or(unknown)?;
                rest = behind;
                let digit =
                    |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let [high, low] = digits.map(digit);
                high.ok_or(unknown)? << 4 | low.ok_or(unknown)?
            }
            _ => return Err(unknown),
        });
    }
    Ok(path)
}

fn decode_ranges(text: &[u8]) -> Result<Vec<Range<u64>>, &'static str> {
    let wrong = "expected ranges of bytes as FROM-TO, ascending and apart";
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for range in text.split(|byte| *byte == b',') {
        if ranges.len() == MAX_RANGES {
            return Err("there are more than 64 ranges");
        }
        let (from, to) =
            std::str::from_utf8(range).ok().and_then(|text| text.split_once('-')).ok_or(wrong)?;
        let range = from.parse().map_err(|_| wrong)?..to.parse().map_err(|_| wrong)?;
        let least = ranges.last().map_or(0, |before| before.end);
        if range.start < least || range.is_empty() {
            return Err(wrong);
        }
        ranges.push(range);
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(path: &[u8]) -> FileUse {
        FileUse { path: path.into(), part: Part::Whole }
    }

    #[test]
    fn profiles_come_back_whatever_bytes_a_name_has() {
        let names: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
        let profile = Profile {
            files: vec![
                FileUse {
                    path: (*b"usr/bin/a b").into(),
                    part: Part::Ranges(vec![0..65_536, 70_000..u64::MAX]),
                },
                whole(&names),
                whole(b"...x/-1,2"),
            ],
        };
        let bytes = profile.encode();
        assert!(bytes.starts_with(b"fim-profile 1\n/usr/bin/a b\t0-65536,70000-18446744073709551615\n"));
        assert!(bytes.is_ascii());
        assert_eq!(Profile::decode(&bytes), Ok(profile));
        assert_eq!(Profile::decode(&Profile::default().encode()), Ok(Profile::default()));
    }

    #[test]
    fn a_list_of_paths_is_a_profile() {
        let text = "fim-profile 1\nusr/lib/x\n\n/r\u{e4}ksm\u{f6}rg\u{e5}s\n/last";
        let files = vec![whole(b"usr/lib/x"), whole("r\u{e4}ksm\u{f6}rg\u{e5}s".as_bytes()), whole(b"last")];
        assert_eq!(Profile::decode(text.as_bytes()), Ok(Profile { files }));
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for bytes in [&b""[..], b"\x7fELF", b"fim-profile", b"/usr/bin/x\n", b" fim-profile 1\n"] {
            assert_eq!(Profile::decode(bytes), Err(ProfileError::NotAProfile), "{bytes:?}");
        }
        assert_eq!(Profile::decode(b"fim-profile 2\n/a\n"), Err(ProfileError::Version));
        assert_eq!(Profile::decode(b"fim-profile 1\r\n/a\r\n"), Err(ProfileError::Version));
        let long = vec![b'x'; MAX_LEN + 1];
        assert!(matches!(Profile::decode(&long), Err(ProfileError::Limit { what: "bytes", .. })));
        let many = [&b"fim-profile 1\n"[..], &b"a\n".repeat(MAX_FILES + 1)].concat();
        assert!(matches!(Profile::decode(&many), Err(ProfileError::Limit { what: "files", .. })));
    }

    #[test]
    fn lines_that_mean_nothing_are_named() {
        let name = "n".repeat(256);
        let deep = "d/".repeat(2_100);
        let ranges: Vec<String> = (0..65).map(|at| format!("{}-{}", 2 * at, 2 * at + 1)).collect();
        for line in [
            "/",
            "//a",
            "/a//b",
            "/a/",
            "/../etc/shadow",
            "/a/../b",
            "/a/./b",
            "..",
            "/a\\x2e\\x2e\\x2fb\\",
            "/\\x2e\\x2e/b",
            "/a\\q",
            "/a\\x1",
            "/a\\xg0",
            "/a\\x00b",
            "/a\t",
            "/a\t5",
            "/a\t5-5",
            "/a\t6-5",
            "/a\t0-5,4-9",
            "/a\t-1-5",
            "/a\t0-99999999999999999999",
            "/a\t0-5,",
            &name,
            &format!("{deep}x"),
            &format!("/a\t{}", ranges.join(",")),
        ] {
            let text = format!("fim-profile 1\n/fine\n{line}\n");
            let found = Profile::decode(text.as_bytes());
            assert!(matches!(found, Err(ProfileError::Line { line: 3, .. })), "{line}: {found:?}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let long = FileUse { path: vec![b'\\'; 250].into(), part: Part::Whole };
        let profile = Profile { files: vec![long; MAX_FILES + 5] };
        let bytes = profile.encode();
        assert!(bytes.len() <= MAX_LEN);
        let again = Profile::decode(&bytes).unwrap();
        assert_eq!(again.files.first(), profile.files.first());
        assert!(again.files.len() > 8_000, "{}", again.files.len());
        let many = Profile { files: vec![whole(b"a"); MAX_FILES + 5] };
        assert_eq!(Profile::decode(&many.encode()).unwrap().files.len(), MAX_FILES);
    }
}
