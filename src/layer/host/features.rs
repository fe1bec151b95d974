//! What an upper uses that others who mount it do not know, noted where they look.
//!
//! ```text
//!   WORK/work/incompat/fim-redirect    a note for each feature in use, made before it is used first
//!   WORK/fim.noted                     since the upper was last empty or plain, all of them have been noted
//! ```
//!
//! Kernel overlayfs refuses a work directory with any note in `work/incompat`, and names it. Without the second file
//! the upper is somebody else's, or one of an earlier version: what it uses is known only when it has been searched.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use crate::{
    sync::{
        Mutex,
        atomic::{AtomicU8, Ordering},
    },
    sys::{
        beneath::{self, OpenFor},
        data,
        errno::Errno,
    },
    vfs::Feature,
};

/// The directory of notes in the staging directory.
pub(super) const NOTES: &[u8] = b"incompat";

/// The file that says that the notes are complete.
const COMPLETE: &[u8] = b"fim.noted";

/// The notes of one upper.
#[derive(Debug)]
pub(super) struct Notes {
    /// The work directory, and the staging directory in it.
    work: OwnedFd,
    staging: OwnedFd,
    /// Bits of the features that are noted on disk.
    noted: AtomicU8,
    /// Held while a note is made, and while all of them go.
    changing: Mutex<Completeness>,
}

/// Whether features can be in use that are not noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Completeness {
    Complete,
    Unknown,
}

impl Notes {
    /// Reads the notes of an upper with these directories.
    pub(super) fn read(work: OwnedFd, staging: OwnedFd) -> Result<Self, Errno> {
        let mut noted = 0;
        if let Some(notes) = open(staging.as_fd())? {
            for feature in Feature::ALL {
                if exists(notes.as_fd(), feature.name())? {
                    noted |= bit(feature);
                }
            }
        }
        let state = match exists(work.as_fd(), COMPLETE)? {
            true => Completeness::Complete,
            false => Completeness::Unknown,
        };
        Ok(Self { work, staging, noted: AtomicU8::new(noted), changing: Mutex::new(state) })
    }

    /// Whether everybody who knows the format of overlayfs understands the upper.
    pub(super) fn are_none(&self) -> bool {
        self.noted.load(Ordering::Acquire) == 0 && *self.changing.lock() == Completeness::Complete
    }

    /// Notes a feature on stable storage, if it is not noted already.
    pub(super) fn make(&self, feature: Feature) -> Result<(), Errno> {
        if self.noted.load(Ordering::Acquire) & bit(feature) != 0 {
            return Ok(());
        }
        let _changing = self.changing.lock();
        match beneath::make_directory(self.staging.as_fd(), NOTES, 0o700) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        let notes = beneath::open(self.staging.as_fd(), NOTES, OpenFor::Path)?;
        match beneath::create(notes.as_fd(), feature.name(), 0o600) {
            Ok(_) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        sync(notes.as_fd())?;
        sync(self.staging.as_fd())?;
        self.noted.fetch_or(bit(feature), Ordering::AcqRel);
        Ok(())
    }

    /// Takes all notes away: the upper uses none of the features, on stable storage.
    pub(super) fn clear(&self) -> Result<(), Errno> {
        let mut changing = self.changing.lock();
        if let Some(notes) = open(self.staging.as_fd())? {
            for feature in Feature::ALL {
                absent_is_fine(beneath::remove(notes.as_fd(), feature.name()))?;
            }
            match beneath::remove_directory(self.staging.as_fd(), NOTES) {
                // Somebody else's note, which is not ours to judge.
                Err(Errno::ENOTEMPTY) => {}
                other => absent_is_fine(other)?,
            }
        }
        self.noted.store(0, Ordering::Release);
        if *changing == Completeness::Unknown {
            match beneath::create(self.work.as_fd(), COMPLETE, 0o600) {
                Ok(_) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
            *changing = Completeness::Complete;
        }
        Ok(())
    }
}

fn open(staging: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
    match beneath::open(staging, NOTES, OpenFor::Path) {
        Ok(notes) => Ok(Some(notes)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn exists(dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Errno> {
    match beneath::stat(dir, name) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn sync(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    data::sync(beneath::open_listing(dir)?.as_fd(), false)
}

fn absent_is_fine(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

const fn bit(feature: Feature) -> u8 {
    match feature {
        Feature::Redirect => 1,
        Feature::WithoutData => 2,
        Feature::Index => 4,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn notes(at: &Path) -> Notes {
        let open = |path: &Path| beneath::open_directory(path).unwrap();
        Notes::read(open(at), open(&at.join("work"))).unwrap()
    }

    #[test]
    fn notes_stay_until_all_are_cleared() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        let one = notes(folder.path());
        assert!(!one.are_none(), "an upper that nobody has looked at");
        one.clear().unwrap();
        assert!(one.are_none());
        one.make(Feature::Redirect).unwrap();
        one.make(Feature::Index).unwrap();
        one.make(Feature::Index).unwrap();
        let again = notes(folder.path());
        assert!(!again.are_none());
        assert!(folder.path().join("work/incompat/fim-redirect").exists());
        assert!(!folder.path().join("work/incompat/fim-metacopy").exists());
        again.clear().unwrap();
        assert!(!folder.path().join("work/incompat").exists());
        assert!(notes(folder.path()).are_none());
    }

    #[test]
    fn notes_of_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("work/incompat/volatile")).unwrap();
        let notes = notes(folder.path());
        notes.make(Feature::WithoutData).unwrap();
        notes.clear().unwrap();
        assert!(folder.path().join("work/incompat/volatile").exists());
    }
}
