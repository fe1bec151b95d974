//! An image that is being changed.
//!
//! An editor holds a lock on the file (`flock`), so that editors wait for each other; readers need no lock, for each
//! change becomes visible by one flip. The lock is on the file, not on its path: after waiting, the path is looked at
//! again, because an image may have been replaced by a rename meanwhile.
//!
//! ```text
//! append:  cut what a torn append left | write the archive | sync | verify it in place | write the table | sync
//! ```
//!
//! Linux refuses to open a file for writing while a program executes from it, and refuses to execute one that is open
//! for writing. The first is waited for (a starting image leaves its file within milliseconds, see `runtime_copy`);
//! the second is kept short by opening for writing only while bytes are written: syncing and verifying go through a
//! descriptor opened for reading.
//!
//! Why in place, and not by a copy and a rename: a change costs what is changed, not what the image holds; owner,
//! mode, links and extended attributes stay; and a read-only directory is no obstacle.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    ImageError, ImageFile,
    image_file::{open_regular, read_settings, read_table, twin_failed},
    layer_table::{ArchiveKind, LayerEntry, LayerTable},
    reserved::Reserved,
    store::{Medium, Store},
    twin::Twin,
};
use crate::{
    config::{self, Settings},
    sync::thread,
};

/// How long an executing image is waited for: it re-executes from its runtime at once, a busy machine may delay that.
const BUSY_PATIENCE: Duration = Duration::from_secs(3);
const BUSY_STEP: Duration = Duration::from_millis(2);

/// An image locked for changing.
#[derive(Debug)]
pub struct ImageEdit {
    image: Locked,
    reserved: Reserved,
}

/// An archive that is to be appended.
#[derive(Clone, Debug)]
pub struct NewArchive {
    /// What it is for.
    pub kind: ArchiveKind,
    /// When it was made, in seconds since the epoch.
    pub created: u64,
    /// What its maker says about it.
    pub message: String,
}

/// What verifying an appended archive found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The digest of the archive.
    pub content: String,
}

impl ImageEdit {
    /// Opens and locks an image; waits for another editor to end.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, is no image, or cannot be written.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let path = path.into();
        loop {
            let file = open_regular(&path)?;
            file.lock().map_err(|source| ImageError::Lock { path: path.clone(), source })?;
            if !is_at(&file, &path) {
                continue;
            }
            let image =
                ImageFile::of(file.try_clone().map_err(|source| open_failed(&path, source))?, path.clone())?;
            let locked = Locked { path, file };
            // says at once that the place is read-only, before a layer is made for nothing
            drop(locked.writer().map_err(|source| locked.open_failed(source))?);
            return Ok(Self { image: locked, reserved: image.reserved() });
        }
    }

    /// The settings as they are now.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    pub fn settings(&self) -> Result<Settings, ImageError> {
        read_settings(&self.image.file, self.reserved, &self.image.path)
    }

    /// The table as it is now.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn table(&self) -> Result<LayerTable, ImageError> {
        read_table(&self.image.file, self.reserved, &self.image.path)
    }

    /// Publishes settings.
    ///
    /// # Errors
    ///
    /// They are too long or cannot be written; the old ones then still hold.
    pub fn set_settings(&mut self, settings: &Settings) -> Result<(), ImageError> {
        let bytes = config::encode(settings)
            .map_err(|source| ImageError::Settings { path: self.image.path.clone(), source })?;
        publish(&self.image, self.reserved.settings(), bytes, &self.image.path)
    }

    /// Publishes a table.
    ///
    /// # Errors
    ///
    /// It is too long or cannot be written; the old one then still holds.
    pub fn set_table(&mut self, table: &LayerTable) -> Result<(), ImageError> {
        let bytes =
            table.encode().map_err(|source| ImageError::Table { path: self.image.path.clone(), source })?;
        publish(&self.image, self.reserved.table(), bytes, &self.image.path)
    }

    /// Appends an archive: `fill` writes it at an offset and returns its length, `verify` opens it there.
    ///
    /// # Errors
    ///
    /// Anything fails; the image is then as before, and what was written behind its end is cut off.
    pub fn append(
        &mut self,
        archive: NewArchive,
        fill: impl FnOnce(&File, u64) -> Result<u64, ImageError>,
        verify: impl FnOnce(&File, u64, u64) -> Result<Published, ImageError>,
    ) -> Result<LayerEntry, ImageError> {
        let check = |locked: &Locked, offset, length| verify(&locked.file, offset, length);
        append(&self.image, self.reserved, &self.image.path, archive, fill, check)
    }

    /// The image's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.image.path
    }

    /// The file, opened for reading.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.image.file
    }
}

/// Writes the older copy of a twin and syncs.
///
/// # Errors
///
/// The value is too long or cannot be written; the old one then still holds.
pub fn publish<M: Medium>(medium: &M, twin: Twin, payload: Vec<u8>, path: &Path) -> Result<(), ImageError> {
    let current = twin.read(medium).map_err(|source| twin_failed(path, source))?;
    {
        let writer = medium.writer().map_err(|source| open_failed(path, source))?;
        twin.write(&writer, &current, payload).map_err(|source| twin_failed(path, source))?;
    }
    medium.sync().map_err(|source| io_failed("sync", path, twin.offset, source))
}

/// Appends an archive to an image of any medium, see [`ImageEdit::append`].
///
/// # Errors
///
/// Anything fails; the table is then as before.
pub fn append<M: Medium>(
    medium: &M,
    reserved: Reserved,
    path: &Path,
    archive: NewArchive,
    fill: impl FnOnce(&M::Writer, u64) -> Result<u64, ImageError>,
    verify: impl FnOnce(&M, u64, u64) -> Result<Published, ImageError>,
) -> Result<LayerEntry, ImageError> {
    let mut table = read_table(medium, reserved, path)?;
    let offset = table.next_offset(reserved.end());
    let entry = write_behind(medium, path, offset, fill)
        .and_then(|length| Ok((length, verify(medium, offset, length)?)))
        .and_then(|(length, published)| {
            let entry = LayerEntry {
                kind: archive.kind,
                offset,
                length,
                content: published.content,
                created: archive.created,
                message: archive.message,
                unknown: serde_json::Map::new(),
            };
            table
                .push(entry.clone())
                .and_then(|()| table.encode())
                .map_err(|source| ImageError::Table { path: path.to_owned(), source })
                .map(|bytes| (entry, bytes))
        });
    let (entry, bytes) = match entry {
        Ok(done) => done,
        Err(error) => {
            // nobody refers to the rest: cutting it only gives the space back, now or at the next append
            let _ = medium.writer().and_then(|writer| writer.set_length(offset));
            return Err(error);
        }
    };
    publish(medium, reserved.table(), bytes, path)?;
    Ok(entry)
}

/// Writes at `offset`, behind everything that counts, and syncs; returns how much was written.
fn write_behind<M: Medium>(
    medium: &M,
    path: &Path,
    offset: u64,
    fill: impl FnOnce(&M::Writer, u64) -> Result<u64, ImageError>,
) -> Result<u64, ImageError> {
    let length = {
        let writer = medium.writer().map_err(|source| open_failed(path, source))?;
        writer.set_length(offset).map_err(|source| io_failed("write", path, offset, source))?;
        fill(&writer, offset)?
    };
    medium.sync().map_err(|source| io_failed("sync", path, offset, source))?;
    Ok(length)
}

/// The locked file, opened for reading. The lock ends with the descriptor.
#[derive(Debug)]
struct Locked {
    path: PathBuf,
    file: File,
}

impl Locked {
    fn open_failed(&self, source: io::Error) -> ImageError {
        open_failed(&self.path, source)
    }
}

impl Store for Locked {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Store::read_at(&self.file, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        Store::write_all_at(&self.file, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_length(length)
    }
}

impl Medium for Locked {
    type Writer = File;

    /// Opens the same file for writing, through the descriptor, so that a rename in between does no harm. Waits for
    /// programs that execute from it.
    fn writer(&self) -> io::Result<File> {
        use std::os::fd::AsRawFd as _;
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let started = Instant::now();
        loop {
            match OpenOptions::new().write(true).open(&path) {
                Err(error)
                    if error.kind() == io::ErrorKind::ExecutableFileBusy
                        && started.elapsed() < BUSY_PATIENCE =>
                {
                    thread::sleep(BUSY_STEP);
                }
                other => return other,
            }
        }
    }
}

/// Whether the path still leads to the open file.
fn is_at(file: &File, path: &Path) -> bool {
    let place = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let held = file.metadata().map(place).ok();
    held.is_some() && held == path.metadata().map(place).ok()
}

fn open_failed(path: &Path, source: io::Error) -> ImageError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::ExecutableFileBusy => ImageError::Busy { path },
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            ImageError::ReadOnly { path, source }
        }
        _ => ImageError::Open { path, source },
    }
}

fn io_failed(action: &'static str, path: &Path, offset: u64, source: io::Error) -> ImageError {
    ImageError::Io { action, path: path.to_owned(), offset, source }
}
