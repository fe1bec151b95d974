//! Lists of paths: the order in which an archive is to hold its files.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// Longest list in bytes: the paths of a million files.
const MAX_LEN: u64 = 256 << 20;

/// A list that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// What the host says.
    #[error("cannot read the list {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Too long for a list of paths.
    #[error("the list {} has more than {MAX_LEN} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a list: a path a line, from the root of what is archived; `/` or `./` before it, and empty lines, do not count.
///
/// # Errors
///
/// The file cannot be read, or is too long.
pub fn read(path: &Path) -> Result<Vec<Box<[u8]>>, ListError> {
    let failed = |source| ListError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    // One byte more than is read, so that a longer file is refused and not cut.
    File::open(path).map_err(failed)?.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(ListError::TooLong { path: path.to_owned() });
    }
    Ok(paths(&bytes))
}

fn paths(text: &[u8]) -> Vec<Box<[u8]>> {
    let path = |line: &[u8]| {
        let names = line.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
        names.collect::<Vec<_>>().join(&b'/').into_boxed_slice()
    };
    text.split(|byte| *byte == b'\n').map(path).filter(|path| !path.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_paths() {
        let found = paths(b"a/b\n./c\n/d//e\n\n.\n\xff x \nlast");
        assert_eq!(found, [&b"a/b"[..], b"c", b"d/e", b"\xff x ", b"last"].map(Box::from));
    }

    #[test]
    fn a_missing_list_is_named() {
        let error = read(Path::new("/nonexistent/list")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the list /nonexistent/list");
    }
}
