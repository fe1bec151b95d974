//! The read-only role of a host tree.

use std::{
    ops::ControlFlow,
    os::fd::{AsFd as _, OwnedFd},
};

use super::{
    host,
    node::{HostNode, Listing},
    tree::HostTree,
};
use crate::{
    pinned::Data,
    sync::Arc,
    sys::{
        beneath::{self, OpenFor},
        data, xattr,
    },
    vfs::{Attr, Errno, Error, FileKind, FsStat, LayerEntry, Name, NodeId, Result, SeekWhence},
};

/// Longest name of the file systems that we sit on, in bytes.
const NAME_MAX: u32 = 255;

impl HostTree {
    pub(super) fn attr_by_id(&self, id: NodeId) -> Result<Attr> {
        self.attr(&self.node(id)?)
    }

    /// Lists from the host at the start, from what was listed then afterwards; that is dropped at the end.
    pub(super) fn read_dir(
        &self,
        id: NodeId,
        after: u64,
        visit: &mut dyn FnMut(LayerEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let node = self.node(id)?;
        let kept = if after == 0 { None } else { node.listing.lock().clone() };
        let listing = match kept {
            Some(listing) => listing,
            None => Arc::new(self.list(&node)?),
        };
        let skip = usize::try_from(after).unwrap_or(usize::MAX);
        for (index, (name, kind)) in listing.entries.iter().enumerate().skip(skip) {
            let entry =
                LayerEntry { name: Name::new(name)?, kind: *kind, next: index as u64 + 1, node: None };
            if visit(entry).is_break() {
                *node.listing.lock() = Some(Arc::clone(&listing));
                return Ok(());
            }
        }
        *node.listing.lock() = None;
        Ok(())
    }

    fn list(&self, node: &Arc<HostNode>) -> Result<Listing> {
        let dir = self.directory(node)?;
        let mut listing = Listing::default();
        let mut unknown = Vec::new();
        let open = || beneath::open_listing(dir.as_fd());
        let fd = self.lend(&[node], open).map_err(host("open a directory for listing"))?;
        beneath::list(fd.as_fd(), |entry| {
            match FileKind::from_mode(entry.format) {
                Some(kind) => listing.entries.push((entry.name.into(), kind)),
                None => unknown.push(entry.name.to_vec()),
            };
        })
        .map_err(host("list a directory"))?;
        for name in unknown {
            // A name that has gone meanwhile is no entry.
            let Ok(stat) = beneath::stat(dir.as_fd(), &name) else { continue };
            if let Some(kind) = FileKind::from_mode(stat.stx_mode.into()) {
                listing.entries.push((name.into(), kind));
            }
        }
        Ok(listing)
    }

    pub(super) fn read_link(&self, id: NodeId) -> Result<Vec<u8>> {
        let node = self.node(id)?;
        if node.kind != FileKind::Symlink {
            return Err(Error::new(Errno::EINVAL, "read the target of a symlink"));
        }
        self.at_place(&node, |dir, name| beneath::read_link(dir.as_fd(), name))
            .map_err(host("read the target of a symlink"))
    }

    pub(super) fn read(&self, id: NodeId, offset: u64, len: usize) -> Result<Data> {
        let fd = self.descriptor(&self.regular(id)?, OpenFor::Read)?;
        data::read_at(fd.as_fd(), offset, len).map(Data::from).map_err(host("read"))
    }

    pub(super) fn host_file(&self, id: NodeId) -> Result<Arc<OwnedFd>> {
        self.descriptor(&self.regular(id)?, OpenFor::Read)
    }

    pub(super) fn seek(&self, id: NodeId, offset: u64, whence: SeekWhence) -> Result<u64> {
        let fd = self.descriptor(&self.regular(id)?, OpenFor::Read)?;
        match whence {
            SeekWhence::Data => data::seek_data(fd.as_fd(), offset),
            SeekWhence::Hole => data::seek_hole(fd.as_fd(), offset),
        }
        .map_err(host("seek"))
    }

    pub(super) fn xattr(&self, id: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let node = self.node(id)?;
        let fd = self.descriptor(&node, OpenFor::Path)?;
        match self.lend(&[&node], || xattr::get(fd.as_fd(), name)) {
            // What we may not read has no marks that we could know of.
            Err(Errno::EACCES) => Ok(None),
            other => other.map_err(host("read an extended attribute")),
        }
    }

    pub(super) fn xattr_names(&self, id: NodeId) -> Result<Vec<Vec<u8>>> {
        let fd = self.descriptor(&self.node(id)?, OpenFor::Path)?;
        let list = xattr::list(fd.as_fd()).map_err(host("list extended attributes"))?;
        Ok(list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }

    pub(super) fn stat_fs(&self) -> Result<FsStat> {
        let root = self.directory(&self.root)?;
        let stat = data::stat_fs(root.as_fd()).map_err(host("read the figures of the file system"))?;
        Ok(FsStat {
            block_size: u32::try_from(stat.f_frsize).unwrap_or(4096),
            blocks: stat.f_blocks,
            blocks_free: stat.f_bfree,
            blocks_available: stat.f_bavail,
            files: stat.f_files,
            files_free: stat.f_ffree,
            name_max: NAME_MAX,
        })
    }

    /// The node of `id`, which must be a regular file.
    pub(super) fn regular(&self, id: NodeId) -> Result<Arc<HostNode>> {
        let node = self.node(id)?;
        match node.kind {
            FileKind::Regular => Ok(node),
            FileKind::Directory => Err(Error::new(Errno::EISDIR, "use the contents of a file")),
            _ => Err(Error::new(Errno::EINVAL, "use the contents of a file")),
        }
    }
}

/// Gives a type with a field `tree: HostTree` the role of a layer.
macro_rules! layer_by_tree {
    ($type:ty) => {
        impl $crate::vfs::Layer for $type {
            fn root(&self) -> NodeId {
                self.tree.root.id
            }

            fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<(NodeId, Attr)>> {
                self.tree.lookup(&self.tree.node(dir)?, name)
            }

            fn retain(&self, node: NodeId) {
                self.tree.retain(node);
            }

            fn forget(&self, node: NodeId) {
                self.tree.forget(node);
            }

            fn attr(&self, node: NodeId) -> Result<Attr> {
                self.tree.attr_by_id(node)
            }

            fn read_dir(
                &self,
                dir: NodeId,
                after: u64,
                visit: &mut dyn FnMut(LayerEntry<'_>) -> ControlFlow<()>,
            ) -> Result<()> {
                self.tree.read_dir(dir, after, visit)
            }

            fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
                self.tree.read_link(node)
            }

            fn read(&self, node: NodeId, offset: u64, len: usize) -> Result<Data> {
                self.tree.read(node, offset, len)
            }

            fn host_file(&self, node: NodeId) -> Result<Option<Arc<OwnedFd>>> {
                self.tree.host_file(node).map(Some)
            }

            fn seek(&self, node: NodeId, offset: u64, whence: SeekWhence) -> Result<u64> {
                self.tree.seek(node, offset, whence)
            }

            fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
                self.tree.xattr(node, name)
            }

            fn xattr_names(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
                self.tree.xattr_names(node)
            }

            fn has_xattrs(&self) -> bool {
                true
            }

            fn has_acls(&self) -> bool {
                self.tree.has_acls
            }

            fn stat_fs(&self) -> Result<FsStat> {
                self.tree.stat_fs()
            }
        }
    };
}

pub(super) use layer_by_tree;
