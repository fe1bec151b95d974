//! Making layers, adding them to an image, listing them.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{site, stack};
use crate::{
    dwarfs::{
        read::Place,
        write::{self, DirSource, Progress, PublishError, Source, Summary, WriteError, WriteOptions},
    },
    image::{
        ArchiveKind, Depth, ImageEdit, ImageError, ImageFile, LayerEntry, NewArchive, Published, Verified,
        open_regular, verify_archive,
    },
    sys::transfer,
};

/// A layer that cannot be made or added.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The image, or an archive.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The archive cannot be made.
    #[error("cannot archive {}", path.display())]
    Write {
        /// What was to be archived.
        path: PathBuf,
        /// What happened.
        source: WriteError,
    },
    /// The archive cannot be put in place.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// An image where a layer was expected.
    #[error("cannot add {}: it is an image, not a layer", path.display())]
    IsImage {
        /// The file.
        path: PathBuf,
    },
}

/// A layer that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// What was archived, and how large it became.
    pub summary: Summary,
    /// How long it took.
    pub time: Duration,
}

/// Archives a directory into a file. The file appears when it is whole and verified, as far as `depth` says.
///
/// # Errors
///
/// The directory cannot be read, or the file not be written.
pub fn create(
    directory: &Path,
    output: &Path,
    options: &WriteOptions,
    depth: Depth,
    progress: &dyn Progress,
) -> Result<Made, LayerError> {
    let source = DirSource::open(directory)
        .map_err(|source| LayerError::Write { path: directory.to_owned(), source })?;
    create_from(&source, directory, output, options, depth, progress)
}

/// Archives any source into a file; `name` is what messages call the source.
///
/// # Errors
///
/// As [`create`].
pub fn create_from(
    source: &dyn Source,
    name: &Path,
    output: &Path,
    options: &WriteOptions,
    depth: Depth,
    progress: &dyn Progress,
) -> Result<Made, LayerError> {
    let started = Instant::now();
    let summary = write::publish(
        output,
        |file| {
            let mut buffered = std::io::BufWriter::with_capacity(BUFFER, file);
            write::write_archive(source, options, &mut buffered, progress)
                .map_err(|source| LayerError::Write { path: name.to_owned(), source })
        },
        |file| {
            verify_archive(file, output, WHOLE, depth, &mut |_, _| {})?;
            Ok(())
        },
    )?;
    Ok(Made { summary, time: started.elapsed() })
}

/// Buffer in front of an archive's file, in bytes.
pub(super) const BUFFER: usize = 1 << 20;
/// An archive that is the whole of its file.
const WHOLE: Place = Place::At { offset: 0, len: None };

/// Verifies the archive in a file and appends it to an image. What precedes the archive in the file is left out.
///
/// `watch` hears of bytes done and bytes in all, for verifying and copying one after the other.
///
/// # Errors
///
/// The file holds no whole archive, or the image cannot be changed; it is then as it was.
pub fn add(
    image: &Path,
    file: &Path,
    message: &str,
    created: u64,
    watch: &mut dyn FnMut(u64, u64),
) -> Result<LayerEntry, LayerError> {
    let source = open_regular(file)?;
    if matches!(ImageFile::probe(&source), Ok(Some(_))) {
        return Err(LayerError::IsImage { path: file.to_owned() });
    }
    let found = verify_archive(&source, file, WHOLE, Depth::Checksums, watch).or_else(|error| {
        // an archive may stand behind a prefix; what the plain look found is the better message
        verify_archive(&source, file, Place::Auto, Depth::Checksums, watch).map_err(|_| error)
    })?;
    let archive = NewArchive { kind: ArchiveKind::Layer, created, message: message.to_owned() };
    append(&mut ImageEdit::open(image)?, archive, &source, &found, watch)
}

/// Appends a verified archive of a file to an image.
///
/// # Errors
///
/// The image cannot be changed, or the file changed meanwhile; the image is then as it was.
pub fn append(
    edit: &mut ImageEdit,
    archive: NewArchive,
    source: &File,
    found: &Verified,
    watch: &mut dyn FnMut(u64, u64),
) -> Result<LayerEntry, LayerError> {
    let image = edit.path().to_owned();
    let appended = edit.append(
        archive,
        |target, offset| {
            let mut done = 0;
            transfer::copy_range(source, found.offset, target, offset, found.length, |count| {
                done += count;
                watch(done, found.length);
            })
            .map_err(|source| ImageError::Io {
                action: "write",
                path: image.clone(),
                offset,
                source,
            })?;
            Ok(found.length)
        },
        |target, offset, length| {
            let place = Place::At { offset, len: Some(length) };
            let copied = verify_archive(target, &image, place, Depth::Open, &mut |_, _| {})?;
            if copied.content != found.content {
                return Err(ImageError::Changed { path: image.clone(), offset });
            }
            Ok(Published { content: copied.content })
        },
    )?;
    Ok(appended)
}

/// A layer as `fim-layer list` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its place in the stack, from 0, lowest first.
    pub index: usize,
    /// Where it begins in its file.
    pub offset: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Its file.
    pub path: PathBuf,
    /// What its image knows about it; nothing where it is not in one.
    #[serde(flatten)]
    pub entry: Option<Known>,
}

/// What an image knows about one of its layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Known {
    /// What it is for.
    pub kind: ArchiveKind,
    /// What it holds.
    pub content: String,
    /// When it was made, in seconds since the epoch.
    pub created: u64,
    /// What its maker said about it.
    pub message: String,
}

/// The layers of a stack, lowest first: those in the image, and `further` files and directories above them. A directory
/// has no size.
///
/// # Errors
///
/// A further layer cannot be opened.
pub fn list(image: &ImageFile, further: &[PathBuf]) -> Result<Vec<Listed>, stack::Error> {
    let path = site::real_path(image.path());
    let own = image.table().layers().map(|entry| Listed {
        index: 0,
        offset: entry.offset,
        size: entry.length,
        path: path.clone(),
        entry: Some(Known {
            kind: entry.kind.clone(),
            content: entry.content.clone(),
            created: entry.created,
            message: entry.message.clone(),
        }),
    });
    let mut layers: Vec<Listed> = own.collect();
    for path in further {
        let extents = if path.is_dir() { vec![(0, 0)] } else { stack::extents(path)? };
        let listed = |(offset, size)| Listed { index: 0, offset, size, path: path.clone(), entry: None };
        layers.extend(extents.into_iter().map(listed));
    }
    for (index, layer) in layers.iter_mut().enumerate() {
        layer.index = index;
    }
    Ok(layers)
}
