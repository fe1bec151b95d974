//! The stack of a mount: where the file-system storeys meet the FUSE front, and the only place that names concrete
//! layers.

use std::{
    fmt,
    fs::File,
    io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;

use super::{
    host::Choices,
    profile::{self, Prefetcher, ProfileError, Recording},
};
use crate::{
    casefold::Mode,
    config::{Casefold, CasefoldMode},
    dwarfs::{
        self,
        read::{Archive, BlockCache, CacheOptions, Index, Place},
    },
    fuse::Notices,
    image::{ImageError, ImageFile},
    layer::{ArchiveLayer, HostDir, HostUpper, UpperError},
    overlay::{Folding, Overlay, OverlayOptions, Squash},
    sync::{Arc, Weak, thread},
    sys::{
        ram,
        users::{KnownIds, effective_ids},
    },
    vfs::{self, Layer, Upper},
};

/// Decoded blocks kept in memory by default, in bytes. Archives are packed by similarity and read by name, so that a
/// walk through a tree begins many blocks before it is through with one: with half of this a Debian root of 440 MB
/// packed in blocks of 16 MiB has many decoded several times. At the end of the walk a third of it is left.
const CACHE: u64 = 384 << 20;

/// The same on small machines: one part in this many of their memory, and of what control groups allow.
const SHARE_OF_MACHINE: u64 = 8;
const SHARE_OF_GROUP: u64 = 4;

/// The least default: two blocks of the usual 16 MiB.
const LEAST_CACHE: u64 = 32 << 20;

/// How long a file of the upper stays open for writing after its last write. Until then nobody can execute it in the
/// upper directory itself.
const IDLE: Duration = Duration::from_secs(5);

/// What a stack is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackPlan {
    /// The read-only layers, lowest first.
    pub layers: Vec<LayerSource>,
    /// The writable tree on top; without it the stack is read-only.
    pub upper: Option<UpperPlan>,
    /// How blocks are cached.
    pub cache: CachePlan,
    /// The access profile by which blocks are brought in early.
    pub profile: Option<ProfileSource>,
    /// The file to which what is read is recorded.
    pub record: Option<PathBuf>,
    /// What reads the archives.
    pub reader: Reader,
    /// Which names are one.
    pub casefold: Casefold,
}

/// Where an access profile comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProfileSource {
    /// This file, which must be a profile.
    File(PathBuf),
    /// This image, if it is one and has one.
    Image(PathBuf),
}

impl ProfileSource {
    /// Whether it is a profile by itself.
    const fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

/// How decoded blocks are cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CachePlan {
    /// Bound of what is in memory, in bytes; by default what the host can spare.
    pub max_bytes: Option<usize>,
    /// Threads that decode in the background, at most; by default one a core.
    pub threads: Option<NonZeroUsize>,
}

impl CachePlan {
    /// As the environment asks for.
    #[must_use]
    pub fn of(choices: &Choices) -> Self {
        let max_bytes = choices.cache_size.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        Self { max_bytes, threads: choices.threads }
    }

    fn options(self) -> CacheOptions {
        let spare = || spare(ram::of_machine(), ram::of_control_groups());
        CacheOptions::serving(self.max_bytes.unwrap_or_else(spare), self.threads)
    }
}

/// The default bound on a machine with this much memory, where control groups allow this much of it.
pub(super) fn spare(machine: Option<u64>, groups: Option<u64>) -> usize {
    let machine = machine.map_or(CACHE, |bytes| bytes / SHARE_OF_MACHINE);
    let groups = groups.map_or(CACHE, |bytes| bytes / SHARE_OF_GROUP);
    usize::try_from(CACHE.min(machine).min(groups).max(LEAST_CACHE)).unwrap_or(usize::MAX)
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
    /// Lets the host bring in what is read first, while other things are prepared. Whoever opens it says what is wrong.
    fn expect(&self) {
        if self.path().is_file()
            && let Ok(file) = File::open(self.path())
        {
            Index::expect(&file);
        }
    }

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
    /// An access profile cannot be read, or not be recorded.
    #[error(transparent)]
    Profile(#[from] ProfileError),
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
    /// What is to be brought in once the first answer has been given.
    pub prefetcher: Option<Prefetcher>,
    /// What notes the reads.
    pub recording: Option<Arc<Recording>>,
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
        plan.layers.iter().for_each(LayerSource::expect);
        let options = plan.cache.options();
        let cache = BlockCache::with(options);
        let recording = plan.record.as_deref().map(Recording::begin).transpose()?.map(Arc::new);
        let mut opened = Opened::default();
        for source in &plan.layers {
            open_layers(source, plan, &cache, &mut opened)?;
        }
        let Opened { layers, archives, has_image } = opened;
        // Only an image has a profile in it: what else is named needs no thread that looks for one.
        let profile = plan.profile.as_ref().filter(|source| has_image || source.is_file());
        let prefetcher = profile.map(|source| prefetcher(source, archives, options.max_bytes));
        let prefetcher = prefetcher.transpose()?;
        let layers = layers.into_iter().map(|layer| recorded(recording.as_deref(), layer)).collect();
        let upper = plan.upper.as_ref().map(open_upper).transpose()?;
        let (squash, casefold) = (squash()?, folding(&plan.casefold));
        let options = OverlayOptions { squash, casefold, ..OverlayOptions::default() };
        let notices = Notices::new();
        let overlay =
            Overlay::new(layers, upper, options, Arc::clone(&notices) as _).map_err(Error::Merge)?;
        let overlay = Arc::new(overlay);
        if plan.upper.is_some() {
            close_when_idle(&overlay).map_err(Error::Thread)?;
        }
        Ok(Self { overlay, notices, cache, prefetcher, recording })
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
        let layer = open_archive(&Arc::new(opened), file, place, &self.cache)?;
        Ok(recorded(self.recording.as_deref(), Arc::new(layer)))
    }
}

/// How the overlay is to fold names.
fn folding(casefold: &Casefold) -> Option<Folding> {
    let mode = match casefold.mode {
        CasefoldMode::Unicode => Mode::Unicode,
        CasefoldMode::Windows => Mode::Windows,
        CasefoldMode::Ascii => Mode::Ascii,
    };
    casefold.on.then(|| Folding::new(mode, &casefold.subtrees))
}

/// Layers that are open, lowest first.
#[derive(Default)]
struct Opened {
    layers: Vec<Arc<dyn Layer>>,
    /// Those that are archives.
    archives: Vec<Arc<ArchiveLayer>>,
    /// Whether some of them come out of an image.
    has_image: bool,
}

/// A layer, behind the recorder where there is one.
fn recorded(recording: Option<&Recording>, layer: Arc<dyn Layer>) -> Arc<dyn Layer> {
    match recording {
        Some(recording) => recording.over(layer),
        None => layer,
    }
}

fn prefetcher(
    source: &ProfileSource,
    layers: Vec<Arc<ArchiveLayer>>,
    cache: usize,
) -> Result<Prefetcher, ProfileError> {
    let source = match source {
        ProfileSource::File(path) => profile::Source::Given(profile::read(path)?),
        ProfileSource::Image(path) => profile::Source::Image(path.clone()),
    };
    Ok(Prefetcher { source, layers, cache })
}

/// Opens a layer, or all layers of an image.
fn open_layers(
    source: &LayerSource,
    plan: &StackPlan,
    cache: &Arc<BlockCache>,
    opened: &mut Opened,
) -> Result<(), Error> {
    let path = source.path();
    let failed = |source| Error::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        let directory =
            HostDir::open(path).map_err(|source| Error::Directory { path: path.to_owned(), source })?;
        opened.layers.push(Arc::new(directory));
        return Ok(());
    }
    let places = match source {
        LayerSource::Section { offset, len, .. } => vec![Place::At { offset: *offset, len: Some(*len) }],
        LayerSource::Path(_) => places(&file, path)?,
    };
    opened.has_image |= places.iter().any(|place| matches!(place, Place::At { .. }));
    let file = Arc::new(file);
    for place in places {
        opened.layers.push(match plan.reader {
            Reader::Own => {
                let layer = Arc::new(open_archive(&file, path, place, cache)?);
                opened.archives.push(Arc::clone(&layer));
                layer
            }
            #[cfg(feature = "libdwarfs")]
            Reader::Libdwarfs => {
                Arc::new(open_with_library(&file, path, place, plan.cache.options().max_bytes)?)
            }
        });
    }
    Ok(())
}

/// Puts layers together for looking into them: nothing is served, nothing can be changed, owners are shown as stored.
///
/// # Errors
///
/// [`Error`] names what cannot be opened.
pub fn look_into(sources: &[LayerSource]) -> Result<Overlay, Error> {
    let plan = StackPlan::default();
    let cache = BlockCache::with(plan.cache.options());
    let mut opened = Opened::default();
    for source in sources {
        open_layers(source, &plan, &cache, &mut opened)?;
    }
    let options = OverlayOptions::default();
    Overlay::new(opened.layers, None, options, Arc::new(vfs::NoInvalidate)).map_err(Error::Merge)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_hosts_spare_less() {
        const MIB: usize = 1 << 20;
        let gib = |count: u64| Some(count << 30);
        let default = usize::try_from(CACHE).unwrap();
        for (machine, groups, expected) in [
            (None, None, default),
            (gib(64), None, default),
            (gib(1), None, 128 * MIB),
            (gib(64), Some(512 << 20), 128 * MIB),
            (Some(1 << 20), Some(1 << 20), 32 * MIB),
        ] {
            assert_eq!(spare(machine, groups), expected, "{machine:?} {groups:?}");
        }
    }
}
