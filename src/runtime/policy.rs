//! The policies of a machine and of a user: files outside of images, see [`Policy`].

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::host::Host;
use crate::config::{ConfigError, POLICY_LIMIT, Policy};

/// The machine's policy; a user's own narrows further.
const MACHINE: &str = "/etc/fim/policy.json";

/// Why a policy could not be taken. Nothing runs then: it might take something away.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// It is there and cannot be read.
    #[error("cannot read the policy {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not understood.
    #[error("cannot use {path}")]
    Content {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
}

/// Reads the policies that there are.
///
/// # Errors
///
/// [`PolicyError`].
pub fn policies(host: &Host) -> Result<Vec<Policy>, PolicyError> {
    let own = host
        .variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|place| place.is_absolute())
        .unwrap_or_else(|| host.user.home.join(".config"));
    [PathBuf::from(MACHINE), own.join("fim/policy.json")]
        .iter()
        .filter_map(|path| read(path).transpose())
        .collect()
}

fn read(path: &Path) -> Result<Option<Policy>, PolicyError> {
    let failed = |source| PolicyError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        other => other.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(POLICY_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > POLICY_LIMIT) {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Policy::decode(&bytes).map(Some).map_err(|source| PolicyError::Content { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_is_there_and_cannot_be_taken_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.json");
        assert_eq!(read(&path).unwrap(), None);
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(read(&path).unwrap(), Some(Policy::default()));
        std::fs::write(&path, r#"{"default":{"deny":["nothing-known"]}}"#).unwrap();
        let error = crate::causes::one_line(&read(&path).unwrap_err());
        assert!(error.contains("policy.json") && error.contains("nothing-known"), "{error}");
        std::fs::write(&path, vec![b' '; usize::try_from(POLICY_LIMIT + 1).unwrap()]).unwrap();
        assert!(matches!(read(&path), Err(PolicyError::Read { .. })));
    }
}
