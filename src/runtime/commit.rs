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
    site::Site,
    stack::{self, MountStack, StackPlan},
};
use crate::{
    dwarfs::{
        read::Place as ArchivePlace,
        write::{Progress, WriteOptions},
    },
    layer::HostDir,
    sys::namespace,
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
    let keeps_upper = matches!(target, Target::File(_));
    match freeze(&Place::new(&site.app, site.key))? {
        Found::Server(commission) => {
            let Some(committed) = work()? else { return Ok(None) };
            if !keeps_upper {
                commission
                    .rebase(&committed.file, committed.offset, committed.length)
                    .map_err(not_emptied(&committed.file))?;
            }
            Ok(Some(committed))
        }
        Found::Nobody(_locked) => {
            let stack = MountStack::open(&site.stack())?;
            let freeze = stack.overlay.freeze().map_err(CommitError::Freeze)?;
            let Some(committed) = work()? else { return Ok(None) };
            if !keeps_upper {
                let place = ArchivePlace::At { offset: committed.offset, len: Some(committed.length) };
                let layer = stack.open_layer(&committed.file, place).map_err(not_emptied(&committed.file))?;
                stack.overlay.rebase(freeze, layer).map_err(not_emptied(&committed.file))?;
            }
            Ok(Some(committed))
        }
    }
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
    let (made, file, offset, length) = match target {
        Target::Image => {
            let staged = site.data.path().join("tmp").join(format!("commit-{}.layer", std::process::id()));
            let staged = Staged(staged);
            let made = layer::create(&upper, &staged.0, options, progress)?;
            let created = options.created.unwrap_or_default();
            let entry = layer::add(site.image.path(), &staged.0, message, created, &mut |_, _| {})?;
            (made, site.image.path().to_owned(), entry.offset, entry.length)
        }
        Target::Layers => {
            let path = next_layer(&site.data.layers())?;
            let made = layer::create(&upper, &path, options, progress)?;
            let length = length_of(&path)?;
            (made, path, 0, length)
        }
        Target::File(path) => {
            let made = layer::create(&upper, path, options, progress)?;
            let length = length_of(path)?;
            (made, path.clone(), 0, length)
        }
    };
    Ok(Some(Committed { made, file, offset, length }))
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

fn is_empty(upper: &Path) -> Result<bool, CommitError> {
    let failed = |source| CommitError::Read { path: upper.to_owned(), source };
    match fs::read_dir(upper) {
        Ok(mut entries) => entries.next().transpose().map(|first| first.is_none()).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(failed(error)),
    }
}

fn length_of(path: &Path) -> Result<u64, CommitError> {
    let failed = |source| CommitError::Read { path: path.to_owned(), source };
    Ok(fs::metadata(path).map_err(failed)?.len())
}

/// The name of the next layer of a directory: above all that are there.
fn next_layer(directory: &Path) -> Result<PathBuf, CommitError> {
    let failed = |source| CommitError::Read { path: directory.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    Ok(directory.join(plan::next_layer_name(names.iter().map(String::as_str))))
}
