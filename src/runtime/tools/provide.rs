//! Putting an image's tools in place.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _, Write as _},
    path::PathBuf,
};

use super::manifest::{MANIFEST, MANIFEST_LIMIT, Manifest, ToolFile, xxh3};
use crate::{
    dwarfs::{
        self,
        read::{Archive, BlockCache, Place},
    },
    image::{ImageFile, LayerEntry},
    sync::Arc,
    sys::own_dir::{OwnDir, OwnDirError},
};

/// Permission bits of directories and files: programs inside run as several users and use them.
const DIR_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o555;
/// Memory for the blocks of the tools archive, in bytes: it is read once, front to back.
const CACHE: usize = 32 << 20;
/// Digits of the archive's digest in the name of its directory.
const DIGITS: usize = 16;
/// The link in `FIM_DIR_APP_SBIN` that says for which tools the other links are; made last.
const DONE: &str = ".tools";

/// Where the tools are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolPaths {
    /// How bubblewrap is started: its path, or its loader with the arguments before the path. None where the image
    /// brings none.
    pub bwrap: Option<Vec<OsString>>,
    /// The static bash.
    pub bash: Option<PathBuf>,
    /// The static busybox.
    pub busybox: Option<PathBuf>,
}

/// Tools that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ToolsError {
    /// The tools archive cannot be read.
    #[error("cannot use the tools archive at offset {offset:#x} of {}", path.display())]
    Archive {
        /// The image.
        path: PathBuf,
        /// Where the archive begins.
        offset: u64,
        /// What was found.
        source: Box<dwarfs::Error>,
    },
    /// The tools archive is readable, but wrong.
    #[error("cannot use the tools archive at offset {offset:#x} of {}: {problem}", path.display())]
    Wrong {
        /// The image.
        path: PathBuf,
        /// Where the archive begins.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// The place is not ours.
    #[error(transparent)]
    Place(#[from] OwnDirError),
    /// The host refused.
    #[error("cannot put the image's tools into {}", path.display())]
    Put {
        /// Where they belong.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
}

/// Reads what an image brings along; none where it brings nothing.
///
/// # Errors
///
/// The tools archive is damaged.
pub fn manifest(image: &ImageFile) -> Result<Option<Manifest>, ToolsError> {
    image.table().tools().map(|entry| Tools::open(image, entry)?.manifest()).transpose()
}

/// Puts the tools of an image in place below `FIM_DIR_APP`, unless they are there, and says where they are.
///
/// Nothing is believed of what lies there: each file is compared with its checksum at each start.
///
/// # Errors
///
/// The tools archive is damaged, or the place cannot be used.
pub fn provide(image: &ImageFile, app: &OwnDir) -> Result<ToolPaths, ToolsError> {
    let Some(entry) = image.table().tools() else { return Ok(ToolPaths::default()) };
    let bin = app.child(OsStr::new("bin"), DIR_MODE)?;
    let name = directory_name(entry);
    let place = bin.child(OsStr::new(&name), DIR_MODE)?;
    let failed = |source| ToolsError::Put { path: place.path().to_owned(), source };
    let manifest = match whole(&place).map_err(failed)? {
        Some(manifest) => manifest,
        None => extract(&Tools::open(image, entry)?, &place)?,
    };
    link(app, &bin, &name, &manifest).map_err(failed)?;
    let path = |file: &str| manifest.has(file).then(|| place.path().join(file));
    Ok(ToolPaths {
        bwrap: path("bin/bwrap").map(|program| match &manifest.loader {
            Some(loader) => vec![
                place.path().join(loader).into(),
                "--library-path".into(),
                place.path().join("lib").into(),
                program.into(),
            ],
            None => vec![program.into()],
        }),
        bash: path("bin/bash"),
        busybox: path("bin/busybox"),
    })
}

/// The name of the directory for the tools of an archive.
fn directory_name(entry: &LayerEntry) -> String {
    let digits = entry.content.rsplit(':').next().unwrap_or_default();
    let digits: String = digits.chars().filter(char::is_ascii_hexdigit).take(DIGITS).collect();
    format!("tools-{digits}")
}

/// The manifest of a directory in which every file is as the manifest says.
fn whole(place: &OwnDir) -> io::Result<Option<Manifest>> {
    let Some(file) = place.file(OsStr::new(MANIFEST))? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(MANIFEST_LIMIT).read_to_end(&mut bytes)?;
    let manifest: Option<Manifest> = serde_json::from_slice(&bytes).ok();
    let Some(manifest) = manifest.filter(Manifest::is_sane) else { return Ok(None) };
    for file in &manifest.files {
        let (directory, name) = within(place, file).map_err(io::Error::other)?;
        let Some(found) = directory.as_ref().unwrap_or(place).file(OsStr::new(name))? else {
            return Ok(None);
        };
        if !is_same(found, file)? {
            return Ok(None);
        }
    }
    Ok(Some(manifest))
}

fn is_same(found: File, expected: &ToolFile) -> io::Result<bool> {
    if found.metadata()?.len() != expected.length {
        return Ok(false);
    }
    let mut bytes = Vec::new();
    found.take(expected.length).read_to_end(&mut bytes)?;
    Ok(xxh3(&bytes) == expected.xxh3)
}

/// Puts every file in place, the manifest last.
fn extract(tools: &Tools<'_>, place: &OwnDir) -> Result<Manifest, ToolsError> {
    let manifest = tools.manifest()?;
    let failed = |source| ToolsError::Put { path: place.path().to_owned(), source };
    for file in &manifest.files {
        let bytes = tools.read(&file.path, file.length)?;
        if xxh3(&bytes) != file.xxh3 {
            return Err(tools.wrong(format!("{} does not match its checksum", file.path)));
        }
        let (directory, name) = within(place, file)?;
        let directory = directory.as_ref().unwrap_or(place);
        directory.put(OsStr::new(name), FILE_MODE, |mut out| out.write_all(&bytes)).map_err(failed)?;
    }
    let bytes = tools.read(MANIFEST, MANIFEST_LIMIT)?;
    place.put(OsStr::new(MANIFEST), 0o444, |mut out| out.write_all(&bytes)).map_err(failed)?;
    Ok(manifest)
}

/// The directory of a file (none: `place` itself), and the file's name in it.
fn within<'a>(place: &OwnDir, file: &'a ToolFile) -> Result<(Option<OwnDir>, &'a str), OwnDirError> {
    match file.path.split_once('/') {
        Some((directory, name)) => Ok((Some(place.child(OsStr::new(directory), DIR_MODE)?), name)),
        None => Ok((None, &file.path)),
    }
}

/// Makes the links that programs inside find the tools by.
fn link(app: &OwnDir, bin: &OwnDir, name: &str, manifest: &Manifest) -> io::Result<()> {
    for program in ["bash", "bwrap", "busybox"] {
        let path = format!("bin/{program}");
        if manifest.has(&path) {
            bin.put_link(OsStr::new(program), OsStr::new(&format!("{name}/{path}")))?;
        }
    }
    let sbin = app.child(OsStr::new("sbin"), DIR_MODE).map_err(io::Error::other)?;
    if sbin.has_link(OsStr::new(DONE), OsStr::new(name)) {
        return Ok(());
    }
    for applet in &manifest.applets {
        sbin.put_link(OsStr::new(applet), OsStr::new("../bin/busybox"))?;
    }
    sbin.put_link(OsStr::new(DONE), OsStr::new(name))
}

/// An open tools archive.
struct Tools<'a> {
    image: &'a ImageFile,
    offset: u64,
    archive: Archive,
}

impl<'a> Tools<'a> {
    fn open(image: &'a ImageFile, entry: &LayerEntry) -> Result<Self, ToolsError> {
        let (offset, path) = (entry.offset, image.path().to_owned());
        let failed = |source| ToolsError::Archive { path: path.clone(), offset, source: Box::new(source) };
        let file = image
            .file()
            .try_clone()
            .map_err(|source| failed(dwarfs::Error::Read { offset, len: entry.length, source }))?;
        let place = Place::At { offset, len: Some(entry.length) };
        let archive = Archive::open(Arc::new(file), place, &BlockCache::new(CACHE)).map_err(failed)?;
        Ok(Self { image, offset, archive })
    }

    fn manifest(&self) -> Result<Manifest, ToolsError> {
        let bytes = self.read(MANIFEST, MANIFEST_LIMIT)?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|error| self.wrong(format!("its manifest: {error}")))?;
        if manifest.is_sane() { Ok(manifest) } else { Err(self.wrong("its manifest names impossible files")) }
    }

    /// Reads a file of at most `limit` bytes.
    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, ToolsError> {
        let failed = |source| ToolsError::Archive {
            path: self.image.path().to_owned(),
            offset: self.offset,
            source: Box::new(source),
        };
        let inode = self.archive.find(path.as_bytes()).map_err(failed)?;
        let inode = inode.ok_or_else(|| self.wrong(format!("it has no {path}")))?;
        let size = self.archive.attr(inode).map_err(failed)?.size;
        let length = usize::try_from(size).ok().filter(|_| size <= limit);
        let length =
            length.ok_or_else(|| self.wrong(format!("{path} has {size} bytes, expected {limit} at most")))?;
        Ok(self.archive.read(inode, 0, length).map_err(failed)?.contiguous().into_owned())
    }

    fn wrong(&self, problem: impl Into<String>) -> ToolsError {
        ToolsError::Wrong { path: self.image.path().to_owned(), offset: self.offset, problem: problem.into() }
    }
}
