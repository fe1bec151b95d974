//! `fim info` and `fim-layer info`: what is known of archives and images without reading their contents.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use serde::Serialize;
use thiserror::Error;

use super::{site::real_path, stack};
use crate::{
    dwarfs::{
        self,
        read::{Archive, BlockCache, Figures, Place},
    },
    image::{ArchiveKind, ImageError, ImageFile, LayerEntry, open_regular},
    sync::Arc,
};

/// Memory for blocks, in bytes: none is read.
const CACHE: usize = 1 << 20;

/// Why there is nothing to tell.
#[derive(Debug, Error)]
pub enum InfoError {
    /// The file, or the image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A layer beside the image.
    #[error(transparent)]
    Layer(#[from] stack::Error),
    /// An archive.
    #[error("cannot read the archive in {} at offset {offset:#x}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Where it was looked for.
        offset: u64,
        /// What is wrong with it.
        source: Box<dwarfs::Error>,
    },
}

/// An archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ArchiveInfo {
    /// Its file.
    pub path: PathBuf,
    /// Where it begins.
    pub offset: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Version of the format.
    pub format: String,
    /// Who wrote it.
    pub writer: String,
    /// When, in seconds since the epoch.
    pub created: Option<u64>,
    /// Objects in it.
    pub inodes: u32,
    /// Bytes of all files, hard links counted once.
    pub contents: u64,
    /// The same without holes.
    pub allocated: u64,
    /// Blocks.
    pub blocks: usize,
    /// Longest block in bytes, uncompressed.
    pub block_size: u64,
    /// How the blocks are stored: how many, and bytes in the file, by method.
    pub methods: BTreeMap<String, Method>,
    /// Blocks by what their writer took the data for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub categories: BTreeMap<String, usize>,
    /// Each writing of it, oldest first.
    pub history: Vec<Writing>,
    /// What its image knows about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known: Option<Known>,
}

/// Blocks of one method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Method {
    /// How many.
    pub blocks: usize,
    /// Bytes in the file.
    pub stored: u64,
}

/// One writing of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Writing {
    /// Version of the writer.
    pub version: String,
    /// When, in seconds since the epoch.
    pub time: Option<u64>,
    /// Its command line.
    pub arguments: Vec<String>,
}

/// What an image knows about an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Known {
    /// What it is for.
    pub kind: ArchiveKind,
    /// What it holds.
    pub content: String,
    /// When it was added, in seconds since the epoch.
    pub added: u64,
    /// What its maker said about it.
    pub message: String,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImageInfo {
    /// Its file.
    pub path: PathBuf,
    /// Length of the file.
    pub size: u64,
    /// Who it is.
    pub image_id: String,
    /// Length of its program.
    pub program: u64,
    /// What is stored in it, the profile and scripts by their length alone.
    pub settings: serde_json::Value,
    /// Its archives, those for the engine's own use included.
    pub archives: Vec<ArchiveInfo>,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Info {
    /// An image.
    Image(ImageInfo),
    /// An archive, perhaps behind a prefix.
    Archive(ArchiveInfo),
}

/// Tells what a file is; with an `offset` the archive that begins there.
///
/// # Errors
///
/// [`InfoError`].
pub fn info(path: &Path, offset: Option<u64>) -> Result<Info, InfoError> {
    let file = open_regular(path)?;
    if let Some(offset) = offset {
        return of_archive(&file, path, Place::At { offset, len: None }).map(Info::Archive);
    }
    if matches!(ImageFile::probe(&file), Ok(Some(_))) {
        return of_image(&ImageFile::of(file, path.to_owned())?).map(Info::Image);
    }
    of_archive(&file, path, Place::Auto).map(Info::Archive)
}

/// The layers of a stack, lowest first: those of the image, and `further` files above them.
///
/// # Errors
///
/// [`InfoError`].
pub fn layers(image: &ImageFile, further: &[PathBuf]) -> Result<Vec<ArchiveInfo>, InfoError> {
    let path = real_path(image.path());
    let mut found = Vec::new();
    for entry in image.table().layers() {
        found.push(of_entry(image.file(), &path, entry)?);
    }
    for path in further.iter().filter(|path| path.is_file()) {
        let file = open_regular(path)?;
        for (offset, length) in stack::extents(path)? {
            found.push(of_archive(&file, path, Place::At { offset, len: Some(length) })?);
        }
    }
    Ok(found)
}

fn of_image(image: &ImageFile) -> Result<ImageInfo, InfoError> {
    let path = image.path();
    let entries = image.table().archives().iter();
    Ok(ImageInfo {
        path: path.to_owned(),
        size: image.file().metadata().map_or(0, |status| status.len()),
        image_id: image.settings().image_id.to_string(),
        program: image.elf_end(),
        settings: settings(image),
        archives: entries.map(|entry| of_entry(image.file(), path, entry)).collect::<Result<_, _>>()?,
    })
}

/// The settings, long texts by their length.
fn settings(image: &ImageFile) -> serde_json::Value {
    /// Texts beyond this length are told by it.
    const LONG: usize = 4096;
    let mut value = serde_json::to_value(image.settings()).unwrap_or_default();
    shorten(&mut value, LONG);
    value
}

fn shorten(value: &mut serde_json::Value, limit: usize) {
    use serde_json::Value;
    match value {
        Value::String(text) if text.len() > limit => {
            *value = Value::String(format!("({} bytes)", text.len()));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| shorten(value, limit)),
        Value::Object(map) => map.values_mut().for_each(|value| shorten(value, limit)),
        _ => {}
    }
}

fn of_entry(file: &File, path: &Path, entry: &LayerEntry) -> Result<ArchiveInfo, InfoError> {
    let place = Place::At { offset: entry.offset, len: Some(entry.length) };
    let known = Known {
        kind: entry.kind.clone(),
        content: entry.content.clone(),
        added: entry.created,
        message: entry.message.clone(),
    };
    Ok(ArchiveInfo { known: Some(known), ..of_archive(file, path, place)? })
}

fn of_archive(file: &File, path: &Path, place: Place) -> Result<ArchiveInfo, InfoError> {
    let begin = match place {
        Place::At { offset, .. } => offset,
        Place::Auto => 0,
    };
    let failed =
        |source| InfoError::Archive { path: path.to_owned(), offset: begin, source: Box::new(source) };
    let read_failed = |source| failed(dwarfs::Error::Read { offset: begin, len: 0, source });
    let source = Arc::new(file.try_clone().map_err(read_failed)?);
    let archive = Archive::open(source, place, &BlockCache::new(CACHE)).map_err(failed)?;
    let Figures { minor, inodes, blocks, block_size, total_size, allocated_size, writer, created, .. } =
        archive.figures();
    let mut methods = BTreeMap::<String, Method>::new();
    let mut categories = BTreeMap::<String, usize>::new();
    for facts in archive.block_facts() {
        let facts = facts.map_err(failed)?;
        let method = methods.entry(facts.compression.to_string()).or_default();
        method.blocks += 1;
        method.stored += facts.stored_len;
        if let Some(category) = facts.category {
            *categories.entry(category).or_default() += 1;
        }
    }
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let history = archive.history().map_err(failed)?.entries;
    let history = history.iter().map(|entry| Writing {
        version: format!("{}.{}.{}", entry.version.major, entry.version.minor, entry.version.patch),
        time: entry.timestamp,
        arguments: entry.arguments.iter().flatten().map(text).collect(),
    });
    Ok(ArchiveInfo {
        path: path.to_owned(),
        offset: archive.index().offset(),
        size: archive.index().end().saturating_sub(archive.index().offset()),
        format: format!("2.{minor}"),
        writer,
        created,
        inodes,
        contents: total_size,
        allocated: allocated_size,
        blocks,
        block_size,
        methods,
        categories,
        history: history.collect(),
        known: None,
    })
}
