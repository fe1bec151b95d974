//! The stack of a mount: where the file-system storeys meet the FUSE front, and the only place that names concrete
//! layers.

use std::{
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;

use crate::{
    dwarfs::{
        self,
        read::{Archive, BlockCache, Index, Place},
    },
    fuse::Notices,
    image::{ImageError, ImageFile},
    layer::{ArchiveLayer, HostDir, HostUpper, UpperError},
    overlay::{Overlay, OverlayOptions, Squash},
    sync::{Arc, Weak, thread},
    sys::users::{KnownIds, effective_ids},
    vfs::{self, Layer, Upper},
};

/// Decoded blocks kept in memory by default, in bytes: half of what upstream's driver keeps.
const CACHE: usize = 256 << 20;

/// How long a file of the upper stays open for writing after its last write. Until then nobody can execute it in the
/// upper directory itself.
const IDLE: Duration = Duration::from_secs(5);

/// What a stack is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackPlan {
    /// The read-only layers, lowest first.
    pub layers: Vec<LayerSource>,
    /// The writable tree on top; without it the stack is read-only.
    pub upper: Option<UpperPlan>,
    /// Bound of the decoded blocks in memory, in bytes.
    pub cache: usize,
    /// What reads the archives.
    pub reader: Reader,
}

impl Default for StackPlan {
    fn default() -> Self {
        Self { layers: Vec::new(), upper: None, cache: CACHE, reader: Reader::default() }
    }
}

/// What reads archives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reader {
    /// Ours.
    #[default]
    Own,
    /// Upstream's library. Each archive has a cache of its own.
    #[cfg(feature = "libdwarfs")]
    Libdwarfs,
}

/// Where a layer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerSource {
    /// A directory of the host, an image with all its layers, or a file with an archive behind any prefix.
    Path(PathBuf),
    /// An archive at a place inside a file.
    Section {
        /// The file.
        file: PathBuf,
        /// Where it begins.
        offset: u64,
        /// How long it is.
        len: u64,
    },
}

impl LayerSource {
    /// The file or directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Path(path) | Self::Section { file: path, .. } => path,
        }
    }
}

/// Where the writable tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpperPlan {
    /// The tree.
    pub root: PathBuf,
    /// Scratch space on the same file system, wiped when the stack is opened.
    pub work: PathBuf,
}

/// Why a stack cannot be opened.
#[derive(Debug, Error)]
pub enum Error {
    /// A file cannot be opened.
    #[error("cannot open the layer {}", path.display())]
    File {
        /// The layer.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// An archive is damaged, or none.
    #[error("cannot open the layer {} at offset {offset}", path.display())]
    Archive {
        /// The layer.
        path: PathBuf,
        /// Where the archive begins; 0 where it was looked for.
        offset: u64,
        /// What is wrong with it.
        source: dwarfs::Error,
    },
    /// Upstream's library does not open an archive.
    #[cfg(feature = "libdwarfs")]
    #[error("cannot open the layer {}", path.display())]
    Libdwarfs {
        /// The layer.
        path: PathBuf,
        /// What it said.
        source: crate::layer::LibdwarfsError,
    },
    /// An image's settings or table are damaged.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A directory cannot be opened.
    #[error("cannot open the layer {}", path.display())]
    Directory {
        /// The layer.
        path: PathBuf,
        /// What the host said.
        source: vfs::Error,
    },
    /// The directory of an upper cannot be made.
    #[error("cannot make the upper directory {}", path.display())]
    MakeUpper {
        /// The directory.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// A directory cannot be an upper.
    #[error("cannot use the upper directory")]
    Upper(#[from] UpperError),
    /// The layers do not make a stack.
    #[error("cannot merge the layers")]
    Merge(#[source] vfs::Error),
    /// The ids of the user namespace cannot be read.
    #[error("cannot read which ids the user namespace knows")]
    Ids(#[source] io::Error),
    /// No thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// A stack that is open.
pub struct MountStack {
    /// The merged file system.
    pub overlay: Arc<Overlay>,
    /// What it tells the kernel to forget.
    pub notices: Arc<Notices>,
    /// The blocks of all its archives.
    pub cache: Arc<BlockCache>,
}

impl fmt::Debug for MountStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountStack").field("live_nodes", &self.overlay.live_nodes()).finish_non_exhaustive()
    }
}

impl MountStack {
    /// Opens what `plan` says, in the namespaces in which it will be served.
    ///
    /// # Errors
    ///
    /// [`Error`] names what cannot be opened.
    pub fn open(plan: &StackPlan) -> Result<Self, Error> {
        let cache = BlockCache::new(plan.cache);
        let mut layers = Vec::with_capacity(plan.layers.len());
        for source in &plan.layers {
            open_layers(source, plan, &cache, &mut layers)?;
        }
        let upper = plan.upper.as_ref().map(open_upper).transpose()?;
        let options = OverlayOptions { squash: squash()?, ..OverlayOptions::default() };
        let notices = Notices::new();
        let overlay =
            Overlay::new(layers, upper, options, Arc::clone(&notices) as _).map_err(Error::Merge)?;
        let overlay = Arc::new(overlay);
        close_when_idle(&overlay).map_err(Error::Thread)?;
        Ok(Self { overlay, notices, cache })
    }
}

impl MountStack {
    /// Opens one more archive, with the cache of this stack.
    ///
    /// # Errors
    ///
    /// [`Error`] names what cannot be opened.
    pub fn open_layer(&self, file: &Path, place: Place) -> Result<Arc<dyn Layer>, Error> {
        let opened = File::open(file).map_err(|source| Error::File { path: file.to_owned(), source })?;
        Ok(Arc::new(open_archive(&Arc::new(opened), file, place, &self.cache)?))
    }
}

/// Opens a layer, or all layers of an image.
fn open_layers(
    source: &LayerSource,
    plan: &StackPlan,
    cache: &Arc<BlockCache>,
    layers: &mut Vec<Arc<dyn Layer>>,
) -> Result<(), Error> {
    let path = source.path();
    let failed = |source| Error::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        let directory =
            HostDir::open(path).map_err(|source| Error::Directory { path: path.to_owned(), source })?;
        layers.push(Arc::new(directory));
        return Ok(());
    }
    let places = match source {
        LayerSource::Section { offset, len, .. } => vec![Place::At { offset: *offset, len: Some(*len) }],
        LayerSource::Path(_) => places(&file, path)?,
    };
    let file = Arc::new(file);
    for place in places {
        layers.push(match plan.reader {
            Reader::Own => Arc::new(open_archive(&file, path, place, cache)?),
            #[cfg(feature = "libdwarfs")]
            Reader::Libdwarfs => Arc::new(open_with_library(&file, path, place, plan.cache)?),
        });
    }
    Ok(())
}

/// Offset and length of each archive in a file of layers, lowest first.
///
/// # Errors
///
/// [`Error`] says what is wrong with the file.
pub fn extents(path: &Path) -> Result<Vec<(u64, u64)>, Error> {
    let file = File::open(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    let extent = |place| {
        let index = Index::open(&file, place).map_err(|source| Error::Archive {
            path: path.to_owned(),
            offset: 0,
            source,
        })?;
        Ok((index.offset(), index.end().saturating_sub(index.offset())))
    };
    places(&file, path)?.into_iter().map(extent).collect()
}

/// Where a file's archives are: as its table says where it is an image, else wherever one is found.
fn places(file: &File, path: &Path) -> Result<Vec<Place>, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    if !matches!(ImageFile::probe(file), Ok(Some(_))) {
        return Ok(vec![Place::Auto]);
    }
    let image = ImageFile::of(file.try_clone().map_err(failed)?, path.to_owned())?;
    let place =
        |entry: &crate::image::LayerEntry| Place::At { offset: entry.offset, len: Some(entry.length) };
    Ok(image.table().layers().map(place).collect())
}

fn open_archive(
    file: &Arc<File>,
    path: &Path,
    place: Place,
    cache: &Arc<BlockCache>,
) -> Result<ArchiveLayer, Error> {
    let offset = match place {
        Place::At { offset, .. } => offset,
        Place::Auto => 0,
    };
    Archive::open(Arc::clone(file) as _, place, cache)
        .and_then(ArchiveLayer::new)
        .map_err(|source| Error::Archive { path: path.to_owned(), offset, source })
}

/// Opens an archive with upstream's library. Our index finds it: the library does not know where it ends when other
/// data follows.
#[cfg(feature = "libdwarfs")]
fn open_with_library(
    file: &File,
    path: &Path,
    place: Place,
    cache: usize,
) -> Result<crate::layer::Libdwarfs, Error> {
    let index = Index::open(file, place).map_err(|source| Error::Archive {
        path: path.to_owned(),
        offset: 0,
        source,
    })?;
    let (offset, len) = (index.offset(), index.end().saturating_sub(index.offset()));
    crate::layer::Libdwarfs::open(path, Place::At { offset, len: Some(len) }, cache)
        .map_err(|source| Error::Libdwarfs { path: path.to_owned(), source })
}

fn open_upper(plan: &UpperPlan) -> Result<Arc<dyn Upper>, Error> {
    for path in [&plan.root, &plan.work] {
        std::fs::create_dir_all(path).map_err(|source| Error::MakeUpper { path: path.clone(), source })?;
    }
    Ok(Arc::new(HostUpper::open(&plan.root, &plan.work)?))
}

/// Files of ids that the namespace does not know appear as the caller's: shown as they are they could not be written.
fn squash() -> Result<Option<Squash>, Error> {
    let known = KnownIds::here().map_err(Error::Ids)?;
    let (uid, gid) = effective_ids();
    Ok((!known.are_all()).then_some(Squash { uid, gid, uids: known.uids, gids: known.gids }))
}

/// Starts the thread that closes idle descriptors; it ends with the overlay.
fn close_when_idle(overlay: &Arc<Overlay>) -> io::Result<()> {
    let overlay: Weak<Overlay> = Arc::downgrade(overlay);
    thread::Builder::new().name("fim-idle".to_owned()).spawn(move || {
        loop {
            thread::sleep(IDLE);
            match overlay.upgrade() {
                Some(overlay) => overlay.close_idle(),
                None => return,
            }
        }
    })?;
    Ok(())
}
