//! The stack of a mount: where the file-system storeys meet the FUSE front, and the only place that names concrete
//! layers.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::{fuse::Notices, sync::Arc, vfs::FileSystem};

/// What a stack is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackPlan {
    /// The read-only layers, lowest first.
    pub layers: Vec<LayerSource>,
    /// The writable tree on top; without it the stack is read-only.
    pub upper: Option<UpperPlan>,
}

/// Where a layer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerSource {
    /// A directory of the host, or a file with an archive behind any prefix.
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
    /// A layer.
    #[error("cannot open the layer {0}")]
    Layer(PathBuf),
}

/// A stack that is open.
pub struct MountStack {
    /// The merged file system.
    pub fs: Arc<dyn FileSystem>,
    /// What it tells the kernel to forget.
    pub notices: Arc<Notices>,
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

impl MountStack {
    /// Opens what `plan` says.
    ///
    /// # Errors
    ///
    /// [`Error`] names the layer.
    pub fn open(plan: &StackPlan) -> Result<Self, Error> {
        Err(Error::Layer(plan.layers.first().map(|layer| layer.path().to_owned()).unwrap_or_default()))
    }
}
