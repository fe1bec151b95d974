//! `fim-layer commit`: the upper becomes a layer.
//!
//! 1. Changes stop: in the server that runs the image, or by opening the stack ourselves.
//! 2. The upper is archived, the archive synced and verified.
//! 3. It is published: by a flip of the image's table, or by a rename.
//! 4. It joins the stack, and only then the upper is emptied.
//!
//! A crash before step 3 leaves everything as it was; one behind it leaves the layer and, at worst, an upper that
//! repeats it, which looks the same.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{
    diff::{self, Change},
    layer::{self, LayerError, Made},
    plan,
    server::{Found, Place, ServerError, freeze},
    site::{self, Site},
    stack::{self, MountStack, StackPlan},
};
use crate::{
    dwarfs::{
        read::Place as ArchivePlace,
        write::{DirSource, Progress, WriteOptions},
    },
    image::{Depth, ImageEdit, ImageError},
    instance::dirs::DataDirs,
    layer::HostDir,
    sys::{namespace, users::effective_ids},
    vfs,
};

/// Where the new layer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Into the image.
    Image,
    /// Into the data directory, as `layers/layer-NNN.layer`.
    Layers,
    /// Into a file of its own. The stack and the upper stay as they are.
    File(PathBuf),
}

/// A layer that was committed.
#[derive(Debug)]
pub struct Committed {
    /// What went into it.
    pub made: Made,
    /// The file that holds it.
    pub file: PathBuf,
    /// Where in the file it begins.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// Why nothing, or not all, was committed.
#[derive(Debug, Error)]
pub enum CommitError {
    /// Layers that stand above those of the image would hide what is committed into it.
    #[error("cannot commit into the image: {} stands above its layers", layer.display())]
    Covered {
        /// One of them.
        layer: PathBuf,
    },
    /// A layer of the data directory would stand above the new one.
    #[error("cannot commit into {}: {} stands above it", new.display(), layer.display())]
    Outranked {
        /// The new layer.
        new: PathBuf,
        /// The one above it.
        layer: PathBuf,
    },
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The upper or a directory of layers cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The directory.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The stack.
    #[error(transparent)]
    Stack(#[from] stack::Error),
    /// The layer cannot be made or added.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The upper cannot be compared with the layers.
    #[error("cannot compare {} with the layers below it", path.display())]
    Compare {
        /// The upper.
        path: PathBuf,
        /// What the host said.
        source: vfs::Error,
    },
    /// Changes cannot be stopped.
    #[error("cannot stop changes of the upper")]
    Freeze(#[source] vfs::Error),
    /// The layer is there, the upper repeats it.
    #[error("the layer is in {}, but the upper could not be emptied", file.display())]
    NotEmptied {
        /// Where the layer is.
        file: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl CommitError {
    /// What the user can do about it, where we know it.
    #[must_use]
    pub fn cure(&self) -> Option<&'static str> {
        match self {
            Self::Covered { .. } => Some("use: fim-layer commit layer"),
            Self::Outranked { .. } => Some("rename that layer so that it is sorted before layer-NNN"),
            Self::NotEmptied { .. } => Some("nothing is lost: commit again"),
            _ => None,
        }
    }
}

/// Makes a layer of the upper. `None` where the upper is empty.
///
/// # Errors
///
/// [`CommitError`] says how far it came.
pub fn commit(
    site: &Site,
    target: &Target,
    message: &str,
    options: &WriteOptions,
    progress: &dyn Progress,
) -> Result<Option<Committed>, CommitError> {
    if let (Target::Image, Some(layer)) = (target, site.layers.first()) {
        return Err(CommitError::Covered { layer: layer.clone() });
    }
    let work = || make(site, target, message, options, progress);
    match freeze(&Place::new(&site.app, site.key))? {
        Found::Server(commission) => {
            let committed = work()?;
            if let Some(Committed { file, offset, length, .. }) = rebased(target, &committed) {
                commission.rebase(file, *offset, *length).map_err(not_emptied(file))?;
            }
            Ok(committed)
        }
        Found::Nobody(locked) => {
            let committed = alone(site, target, work);
            if let Err(error) = locked.leave() {
                tracing::warn!(%error, "cannot remove the place of a server that is not there");
            }
            committed
        }
    }
}

/// Commits where nobody serves the stack, nor can begin to.
fn alone(
    site: &Site,
    target: &Target,
    work: impl FnOnce() -> Result<Option<Committed>, CommitError>,
) -> Result<Option<Committed>, CommitError> {
    let stack = MountStack::open(&site.stack())?;
    let freeze = stack.overlay.freeze().map_err(CommitError::Freeze)?;
    let committed = work()?;
    if let Some(Committed { file, offset, length, .. }) = rebased(target, &committed) {
        let place = ArchivePlace::At { offset: *offset, len: Some(*length) };
        let layer = stack.open_layer(file, place).map_err(not_emptied(file))?;
        stack.overlay.rebase(freeze, layer).map_err(not_emptied(file))?;
    }
    Ok(committed)
}

/// The layer that takes the place of the upper, if one does.
fn rebased<'a>(target: &Target, committed: &'a Option<Committed>) -> Option<&'a Committed> {
    committed.as_ref().filter(|_| !matches!(target, Target::File(_)))
}

/// Says at once that an image cannot be changed, before a layer is made for nothing. To be asked before
/// [`become_able`]: the owner of an image that he has made read-only is not to change it by the way.
///
/// # Errors
///
/// The image cannot be opened or written.
pub fn check_target(image: &Path, target: &Target) -> Result<(), CommitError> {
    if *target == Target::Image {
        drop(ImageEdit::open(image)?);
    }
    Ok(())
}

/// Lists what the upper changes over the layers below it.
///
/// # Errors
///
/// A layer or the upper cannot be read.
pub fn diff(site: &Site) -> Result<Vec<Change>, CommitError> {
    let below = MountStack::open(&StackPlan { upper: None, ..site.stack() })?;
    let root = site.data.root();
    let upper = HostDir::open(&root).map_err(|source| CommitError::Compare { path: root.clone(), source })?;
    diff::changes(&upper, &*below.overlay).map_err(|source| CommitError::Compare { path: root, source })
}

/// Enters a user namespace of our own, in which the owner of the upper may read files of it that have no mode bits
/// for him. Nothing to do for root. The calling process has one thread.
///
/// # Errors
///
/// User namespaces are refused.
pub fn become_able(uid: u32) -> Result<(), namespace::Error> {
    if uid == 0 { Ok(()) } else { namespace::enter_private() }
}

fn not_emptied<E: std::error::Error + Send + Sync + 'static>(file: &Path) -> impl FnOnce(E) -> CommitError {
    let file = file.to_owned();
    move |source| CommitError::NotEmptied { file, source: Box::new(source) }
}

/// Archives, verifies and publishes.
fn make(
    site: &Site,
    target: &Target,
    message: &str,
    options: &WriteOptions,
    progress: &dyn Progress,
) -> Result<Option<Committed>, CommitError> {
    let upper = site.data.root();
    if is_empty(&upper)? {
        return Ok(None);
    }
    sweep(&site.data)?;
    let (made, file, offset, length) = match target {
        Target::Image => {
            // committed meanwhile, by somebody for whom we have waited
            if let Some(layer) =
                site::layers_in(&site.data.layers()).map_err(unreadable(&site.data.layers()))?.pop()
            {
                return Err(CommitError::Covered { layer });
            }
            let staged = Staged(site.data.tmp().join(STAGED));
            let made = archive(&upper, &staged.0, options, progress)?;
            let created = options.created.unwrap_or_default();
            let entry = layer::add(site.image.path(), &staged.0, message, created, &mut |_, _| {})?;
            (made, site.image.path().to_owned(), entry.offset, entry.length)
        }
        Target::Layers => {
            let path = next_layer(&site.data.layers())?;
            let made = archive(&upper, &path, options, progress)?;
            let length = length_of(&path)?;
            (made, path, 0, length)
        }
        Target::File(path) => {
            let made = archive(&upper, path, options, progress)?;
            let length = length_of(path)?;
            (made, path.clone(), 0, length)
        }
    };
    Ok(Some(Committed { made, file, offset, length }))
}

/// Archives the upper. One of an ordinary user has no owners but him, who was root inside, and those that are recorded.
fn archive(
    upper: &Path,
    output: &Path,
    options: &WriteOptions,
    progress: &dyn Progress,
) -> Result<Made, CommitError> {
    let failed = |source| LayerError::Write { path: upper.to_owned(), source };
    let mut source = DirSource::open(upper).map_err(failed)?;
    let ids = effective_ids();
    if ids.0 != 0 {
        source = source.of_single_user(ids);
    }
    Ok(layer::create_from(&source, upper, output, options, Depth::Checksums, progress)?)
}

/// A file on its way into the image; removed in any case.
struct Staged(PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.0.display(), "cannot remove a staged layer");
        }
    }
}

/// The layer of the image on its way; changes stand still, so there is one at a time.
const STAGED: &str = "commit.layer";

/// Removes what killed committers have left.
fn sweep(data: &DataDirs) -> Result<(), CommitError> {
    scraps(data)?.iter().try_for_each(|path| fs::remove_file(path).map_err(unreadable(path)))
}

/// What killed committers have left, while nobody commits.
///
/// # Errors
///
/// [`CommitError::Read`].
pub fn scraps(data: &DataDirs) -> Result<Vec<PathBuf>, CommitError> {
    let mut found = Vec::new();
    for directory in [data.tmp(), data.layers()] {
        for entry in fs::read_dir(&directory).map_err(unreadable(&directory))? {
            let path = entry.map_err(unreadable(&directory))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_part = name.ends_with(".part")
                && (name.starts_with(".commit.layer.") || name.starts_with(".layer-"));
            if is_part || name == STAGED {
                found.push(path);
            }
        }
    }
    Ok(found)
}

fn is_empty(upper: &Path) -> Result<bool, CommitError> {
    match fs::read_dir(upper) {
        Ok(mut entries) => entries.next().transpose().map(|first| first.is_none()).map_err(unreadable(upper)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(unreadable(upper)(error)),
    }
}

fn length_of(path: &Path) -> Result<u64, CommitError> {
    Ok(fs::metadata(path).map_err(unreadable(path))?.len())
}

/// The name of the next layer of a directory: above all that are there.
fn next_layer(directory: &Path) -> Result<PathBuf, CommitError> {
    let mut layers = site::layers_in(directory).map_err(unreadable(directory))?;
    let names = layers.iter().filter_map(|layer| layer.file_name()?.to_str());
    let new = directory.join(plan::next_layer_name(names));
    layers.push(new.clone());
    plan::sort_layers(&mut layers);
    match layers.pop() {
        Some(layer) if layer != new => Err(CommitError::Outranked { new, layer }),
        _ => Ok(new),
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> CommitError + use<> {
    let path = path.to_owned();
    move |source| CommitError::Read { path, source }
}
