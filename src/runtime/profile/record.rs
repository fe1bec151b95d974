//! A recording that is under way.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use super::ProfileError;
use crate::{
    dwarfs::write::publish,
    layer::{Recorded, Recorder},
    sync::Arc,
    vfs::Layer,
};

/// What a stack reads, and the file that is to hold it.
#[derive(Debug)]
pub struct Recording {
    recorder: Arc<Recorder>,
    path: PathBuf,
}

impl Recording {
    /// Begins a recording; makes sure that its file can be made, for at the end it is too late to say.
    ///
    /// # Errors
    ///
    /// Nothing can be made beside the file, or it is a directory.
    pub fn begin(path: &Path) -> Result<Self, ProfileError> {
        let failed = |source| ProfileError::Place { path: path.to_owned(), source };
        if path.is_dir() {
            return Err(failed(std::io::ErrorKind::IsADirectory.into()));
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        tempfile::tempfile_in(directory).map_err(failed)?;
        Ok(Self { recorder: Arc::default(), path: path.to_owned() })
    }

    /// Puts the recorder in front of a layer.
    #[must_use]
    pub fn over(&self, layer: Arc<dyn Layer>) -> Arc<dyn Layer> {
        Arc::new(Recorded::new(layer, Arc::clone(&self.recorder)))
    }

    /// Writes what has been read until now: whole and synced, or not at all.
    ///
    /// # Errors
    ///
    /// What the host says; the file is then as it was.
    pub fn save(&self) -> Result<(), ProfileError> {
        let bytes = self.recorder.profile().encode();
        let write = |file: &mut std::fs::File| {
            file.write_all(&bytes).map_err(|source| ProfileError::Write { path: self.path.clone(), source })
        };
        publish(&self.path, write, |_| Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::profile;

    #[test]
    fn what_cannot_be_written_is_said_before_it_is_late() {
        let place = tempfile::tempdir().unwrap();
        assert!(Recording::begin(&place.path().join("none/file")).is_err());
        assert!(Recording::begin(place.path()).is_err());
        let path = place.path().join("file");
        let recording = Recording::begin(&path).unwrap();
        assert!(!path.exists());
        recording.save().unwrap();
        assert_eq!(profile::read(&path).unwrap().files, []);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
