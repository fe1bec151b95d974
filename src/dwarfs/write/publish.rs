//! Puts a file under its final name only when it is whole.

use std::{
    ffi::OsString,
    fs::{File, Permissions},
    io,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::Path,
};

use thiserror::Error;

use super::error::PathText;

/// A failure to publish.
#[derive(Debug, Error)]
#[error("cannot {action} {path}")]
pub struct PublishError {
    /// What was being done.
    action: &'static str,
    /// On what.
    path: PathText,
    /// What the host said.
    source: io::Error,
}

/// Permissions of a new file before the umask.
const MODE: u32 = 0o666;

/// Writes a file beside `path`, syncs it, lets `verify` read it, renames it to `path` and syncs the directory.
///
/// Whatever fails, and whenever the process ends, `path` is what it was before or the new file, whole. A failure
/// leaves nothing behind; a process that is killed leaves a file whose name begins with a dot and ends in `.part`.
///
/// # Errors
/// Passes on what `write` and `verify` say, and fails if the host does.
pub fn publish<T, E: From<PublishError>>(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<T, E>,
    verify: impl FnOnce(&File) -> Result<(), E>,
) -> Result<T, E> {
    let failed = |action| {
        let path = path.as_os_str().as_bytes().into();
        move |source| PublishError { action, path, source }
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    let mut part = tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(".part")
        .permissions(Permissions::from_mode(MODE))
        .tempfile_in(directory)
        .map_err(failed("create a file beside"))?;
    let result = write(part.as_file_mut())?;
    part.as_file().sync_all().map_err(failed("sync"))?;
    verify(part.as_file())?;
    part.persist(path).map_err(|error| failed("rename to")(error.error))?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("sync the directory of"))?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[derive(Debug, Error)]
    enum TestError {
        #[error(transparent)]
        Publish(#[from] PublishError),
        #[error("bad")]
        Bad,
    }

    fn names(directory: &Path) -> Vec<OsString> {
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn only_a_whole_and_verified_file_gets_the_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        let write = |bytes: &'static [u8]| {
            move |file: &mut File| {
                file.write_all(bytes).unwrap();
                Ok::<_, TestError>(bytes.len())
            }
        };
        assert_eq!(publish(&path, write(b"one"), |_| Ok(())).unwrap(), 3);
        assert!(publish(&path, write(b"two!"), |_| Err(TestError::Bad)).is_err());
        assert!(publish(&path, |_| Err::<(), _>(TestError::Bad), |_| Ok(())).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(names(directory.path()), ["out"]);
        publish(&path, write(b"two!"), |_| Ok(())).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two!");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error =
            publish(Path::new("/nonexistent/x"), |_| Ok::<_, PublishError>(()), |_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "cannot create a file beside /nonexistent/x");
    }
}
