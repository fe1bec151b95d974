//! A directory of the host as a read-only layer.

use std::{ops::ControlFlow, os::fd::OwnedFd, path::Path};

use super::{host, layer::layer_by_tree, pool::FdPool, tree::HostTree};
use crate::{
    pinned::Data,
    sync::Arc,
    sys::beneath,
    vfs::{Attr, FsStat, LayerEntry, Name, NodeId, Result, SeekWhence},
};

/// A directory of the host, which nobody changes while it is a layer.
#[derive(Debug)]
pub struct HostDir {
    tree: HostTree,
}

impl HostDir {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    ///
    /// What open(2) said.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, FdPool::shared())
    }

    /// Opens the directory at `path` with descriptors from `pool`.
    ///
    /// # Errors
    ///
    /// What open(2) said.
    pub fn open_with(path: &Path, pool: Arc<FdPool>) -> Result<Self> {
        let fd = beneath::open_directory(path).map_err(host("open the directory of a layer"))?;
        Ok(Self { tree: HostTree::new(fd, pool, false)? })
    }

    /// Number of live nodes, the root included.
    #[must_use]
    pub fn live_nodes(&self) -> usize {
        self.tree.len()
    }
}

layer_by_tree!(HostDir);
