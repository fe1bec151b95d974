//! What has been written to the desktop, so that exactly that can be taken away.
//!
//! The list is written before the first file, with the directories that are missing by then. A file is removed only if
//! its contents are those that we wrote: what somebody has changed is his.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{DesktopError, Planned};
use crate::config::ImageId;

/// Where the lists are, below `$XDG_DATA_HOME`.
const LISTS: &str = "fim/desktop";
/// Length of a list in bytes.
const LIST_LIMIT: u64 = 1 << 20;

/// `$XDG_DATA_HOME` as one image uses it.
#[derive(Clone, Debug)]
pub struct Home {
    data: PathBuf,
    list: PathBuf,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    /// Files and the digests of their contents.
    files: Vec<WrittenFile>,
    /// Directories that were not there before, outermost first.
    directories: Vec<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WrittenFile {
    path: PathBuf,
    sha256: String,
}

impl Home {
    /// The data directory of a user, for one image.
    #[must_use]
    pub fn new(data: PathBuf, image: ImageId) -> Self {
        let list = data.join(LISTS).join(format!("{image}.json"));
        Self { data, list }
    }

    /// Whether the image was shown here, and these of its files are not as they were written.
    ///
    /// # Errors
    ///
    /// The list of what was written cannot be read.
    pub fn is_outdated(&self, planned: &[Planned]) -> Result<bool, DesktopError> {
        let written = self.read()?;
        let is_there = |planned: &Planned| {
            let same =
                |file: &WrittenFile| file.path == planned.path && file.sha256 == digest(&planned.contents);
            written.files.iter().any(same)
        };
        Ok(!written.files.is_empty() && !planned.iter().all(is_there))
    }

    /// Makes the desktop so: takes away what was written before, and writes what is planned.
    ///
    /// # Errors
    ///
    /// A file cannot be written. What was written by then is listed.
    pub fn put(&self, planned: &[Planned]) -> Result<(), DesktopError> {
        self.remove()?;
        if planned.is_empty() {
            self.refresh();
            return Ok(());
        }
        let mut written = Written::default();
        let paths = planned.iter().map(|file| self.data.join(&file.path)).chain([self.list.clone()]);
        for path in paths {
            let missing = path.ancestors().skip(1).take_while(|place| !place.exists());
            let missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
            for place in missing.into_iter().rev().filter(|place| place.starts_with(&self.data)) {
                if !written.directories.contains(&place) {
                    written.directories.push(place);
                }
            }
        }
        written.files = planned
            .iter()
            .map(|file| WrittenFile { path: file.path.clone(), sha256: digest(&file.contents) })
            .collect();
        let list = serde_json::to_vec(&written)
            .map_err(|source| DesktopError::Record { path: self.list.clone(), source })?;
        write(&self.list, &list)?;
        for file in planned {
            write(&self.data.join(&file.path), &file.contents)?;
        }
        self.refresh();
        Ok(())
    }

    /// Takes away what was written, and nothing else; the paths that somebody has changed, and that stay.
    ///
    /// # Errors
    ///
    /// A file cannot be removed.
    pub fn clean(&self) -> Result<Vec<PathBuf>, DesktopError> {
        let changed = self.remove()?;
        self.refresh();
        Ok(changed)
    }

    fn remove(&self) -> Result<Vec<PathBuf>, DesktopError> {
        let written = self.read()?;
        let mut changed = Vec::new();
        // A list is not believed beyond the data directory.
        for file in written.files.iter().filter(|file| is_inside(&file.path)) {
            let path = self.data.join(&file.path);
            match fs::read(&path) {
                Ok(found) if digest(&found) == file.sha256 => {
                    fs::remove_file(&path).map_err(failed("remove", &path))?;
                }
                Ok(_) => changed.push(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("read", &path)(error)),
            }
        }
        match fs::remove_file(&self.list) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &self.list)(error));
            }
            _ => {}
        }
        for place in written.directories.iter().rev().filter(|place| place.starts_with(&self.data)) {
            // One that is in use by others, or gone, is not ours to remove.
            let _ = fs::remove_dir(place);
        }
        Ok(changed)
    }

    fn read(&self) -> Result<Written, DesktopError> {
        match fs::metadata(&self.list) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Written::default()),
            Ok(status) if status.len() > LIST_LIMIT => {
                return Err(failed("read", &self.list)(io::ErrorKind::FileTooLarge.into()));
            }
            _ => {}
        }
        let bytes = fs::read(&self.list).map_err(failed("read", &self.list))?;
        serde_json::from_slice(&bytes)
            .map_err(|source| DesktopError::Record { path: self.list.clone(), source })
    }

    /// Lets the desktop look again, as far as its tools are there.
    fn refresh(&self) {
        for (tool, place) in [("update-mime-database", "mime"), ("update-desktop-database", "applications")] {
            let place = self.data.join(place);
            if place.is_dir() {
                let run = Command::new(tool)
                    .arg(&place)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status();
                tracing::debug!(tool, ?run, "the desktop looks again");
            }
        }
    }
}

/// Whether a path below the data directory stays there.
fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, std::path::Component::Normal(_)))
}

fn write(path: &Path, contents: &[u8]) -> Result<(), DesktopError> {
    let place = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(place).map_err(failed("make", place))?;
    // Whole or not at all: the desktop may look at any moment.
    let mut part = tempfile::Builder::new()
        .prefix(".fim-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(place)
        .map_err(failed("write", path))?;
    io::Write::write_all(&mut part, contents).map_err(failed("write", path))?;
    part.persist(path).map_err(|error| failed("write", path)(error.error))?;
    Ok(())
}

fn digest(contents: &[u8]) -> String {
    Sha256::digest(contents).iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DesktopError + use<> {
    let path = path.to_owned();
    move |source| DesktopError::File { action, path, source }
}
