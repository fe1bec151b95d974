//! An image opened for reading.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use super::{
    ImageError,
    elf::{self, ElfError},
    layer_table::LayerTable,
    reserved::Reserved,
    store::Store,
    twin::TwinError,
};
use crate::config::{self, Settings};

/// An image: its settings and its table as they were when it was opened.
///
/// The archives are at their offsets of [`ImageFile::file`] and stay there as long as the file is open, whatever is
/// changed in the image or renamed over its path meanwhile.
#[derive(Debug)]
pub struct ImageFile {
    path: PathBuf,
    file: File,
    elf_end: u64,
    reserved: Reserved,
    settings: Settings,
    table: LayerTable,
}

impl ImageFile {
    /// Opens an image.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is no image, or both copies of its settings or its table are damaged.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let path = path.into();
        Self::of(open_regular(&path)?, path)
    }

    /// Takes an open file as an image; `path` is what messages call it.
    ///
    /// # Errors
    ///
    /// As [`ImageFile::open`].
    pub fn of(file: File, path: PathBuf) -> Result<Self, ImageError> {
        let elf_end = match elf::read(&file) {
            Ok(elf) => elf.end,
            Err(source) => return Err(ImageError::NotElf { path, source }),
        };
        let reserved = Reserved::behind(elf_end);
        if !reserved.is_present(&file) {
            return Err(ImageError::NoArea { path, offset: reserved.start() });
        }
        let settings = read_settings(&file, reserved, &path)?;
        let table = read_table(&file, reserved, &path)?;
        Ok(Self { path, file, elf_end, reserved, settings, table })
    }

    /// Whether a file is an image, and if so, the length of its program in bytes.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn probe(file: &File) -> Result<Option<u64>, ElfError> {
        match elf::read(file) {
            Ok(elf) => Ok(Reserved::behind(elf.end).is_present(file).then_some(elf.end)),
            Err(ElfError::Read(source)) => Err(ElfError::Read(source)),
            Err(_) => Ok(None),
        }
    }

    /// What the image is called in messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Length of the program in bytes.
    #[must_use]
    pub fn elf_end(&self) -> u64 {
        self.elf_end
    }

    /// Where the settings area lies.
    #[must_use]
    pub fn reserved(&self) -> Reserved {
        self.reserved
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The archives.
    #[must_use]
    pub fn table(&self) -> &LayerTable {
        &self.table
    }
}

/// Opens a regular file; a fifo would make the caller wait.
///
/// # Errors
///
/// It is something else, or the host refuses.
pub fn open_regular(path: &Path) -> Result<File, ImageError> {
    let failed = |source| ImageError::Open { path: path.to_owned(), source };
    if !path.metadata().map_err(failed)?.is_file() {
        return Err(ImageError::NotAFile { path: path.to_owned() });
    }
    File::open(path).map_err(failed)
}

/// Reads the settings that count.
pub(super) fn read_settings(
    store: &impl Store,
    reserved: Reserved,
    path: &Path,
) -> Result<Settings, ImageError> {
    let current = reserved.settings().read(store).map_err(|source| twin_failed(path, source))?;
    config::decode(&current.payload).map_err(|source| ImageError::Settings { path: path.to_owned(), source })
}

/// Reads the table that counts.
pub(super) fn read_table(
    store: &impl Store,
    reserved: Reserved,
    path: &Path,
) -> Result<LayerTable, ImageError> {
    let current = reserved.table().read(store).map_err(|source| twin_failed(path, source))?;
    LayerTable::decode(&current.payload, reserved.end())
        .map_err(|source| ImageError::Table { path: path.to_owned(), source })
}

pub(super) fn twin_failed(path: &Path, source: TwinError) -> ImageError {
    ImageError::Twin { path: path.to_owned(), source }
}
