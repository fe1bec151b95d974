//! A small tree in memory, for tests and tools.

use std::{collections::BTreeMap, ops::ControlFlow};

use crate::{
    pinned::{Data, Slice},
    sync::Arc,
    vfs::{
        Attr, DeviceId, Errno, Error, FileKind, FsStat, Layer, LayerEntry, Name, NodeId, Result, SeekWhence,
        Time,
    },
};

/// A read-only tree in memory. It is filled through [`add`](Self::add) before it becomes a layer.
#[derive(Debug)]
pub struct Memory {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    attr: Attr,
    entries: BTreeMap<Vec<u8>, usize>,
    content: Arc<Vec<u8>>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// Makes a tree with an empty root directory of mode 0755, owned by 0:0.
    #[must_use]
    pub fn new() -> Self {
        Self { nodes: vec![Node::new(1, FileKind::Directory, 0o755)] }
    }

    /// Adds an object as `name` in `dir`; of a symlink `content` is the target. An existing name is replaced.
    pub fn add(&mut self, dir: NodeId, name: Name<'_>, kind: FileKind, perm: u16, content: &[u8]) -> NodeId {
        let index = self.nodes.len();
        let mut node = Node::new(index as u64 + 1, kind, perm);
        node.attr.size = content.len() as u64;
        node.attr.blocks = node.attr.size.div_ceil(512);
        node.content = Arc::new(content.to_vec());
        self.nodes.push(node);
        let id = NodeId::new(index as u64);
        self.name(dir, name, id);
        id
    }

    /// Adds one more name for `node`.
    pub fn link(&mut self, node: NodeId, dir: NodeId, name: Name<'_>) {
        if let Some(node) = self.node_mut(node) {
            node.attr.nlink += 1;
        }
        self.name(dir, name, node);
    }

    /// Adds a whiteout.
    pub fn add_whiteout(&mut self, dir: NodeId, name: Name<'_>) -> NodeId {
        self.add(dir, name, FileKind::CharDevice, 0, b"")
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&mut self, node: NodeId, name: &[u8], value: &[u8]) {
        if let Some(node) = self.node_mut(node) {
            node.xattrs.insert(name.to_vec(), value.to_vec());
        }
    }

    /// Changes attributes of `node`.
    pub fn set_attr(&mut self, node: NodeId, change: impl FnOnce(&mut Attr)) {
        if let Some(node) = self.node_mut(node) {
            change(&mut node.attr);
        }
    }

    fn name(&mut self, dir: NodeId, name: Name<'_>, node: NodeId) {
        let index = usize::try_from(node.get()).unwrap_or(usize::MAX);
        let is_dir = self.node(node).is_ok_and(|node| node.attr.kind == FileKind::Directory);
        if let Some(dir) = self.node_mut(dir) {
            dir.attr.nlink += u32::from(is_dir);
            dir.entries.insert(name.as_bytes().to_vec(), index);
        }
    }

    fn node(&self, id: NodeId) -> Result<&Node> {
        let index = usize::try_from(id.get()).unwrap_or(usize::MAX);
        self.nodes.get(index).ok_or(Error::new(Errno::ESTALE, "find a node in memory"))
    }

    fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(usize::try_from(id.get()).ok()?)
    }

    fn directory(&self, id: NodeId) -> Result<&Node> {
        let node = self.node(id)?;
        match node.attr.kind {
            FileKind::Directory => Ok(node),
            _ => Err(Error::new(Errno::ENOTDIR, "use a directory")),
        }
    }
}

impl Node {
    fn new(ino: u64, kind: FileKind, perm: u16) -> Self {
        let time = Time { seconds: 1_000_000_000, nanos: 0 };
        let attr = Attr {
            ino,
            kind,
            perm,
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            uid: 0,
            gid: 0,
            rdev: DeviceId::default(),
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: None,
        };
        Self { attr, entries: BTreeMap::new(), content: Arc::default(), xattrs: BTreeMap::new() }
    }
}

impl Layer for Memory {
    fn root(&self) -> NodeId {
        NodeId::new(0)
    }

    fn lookup(&self, dir: NodeId, name: Name<'_>) -> Result<Option<(NodeId, Attr)>> {
        let Some(index) = self.directory(dir)?.entries.get(name.as_bytes()) else { return Ok(None) };
        let id = NodeId::new(*index as u64);
        Ok(Some((id, self.node(id)?.attr)))
    }

    fn retain(&self, _node: NodeId) {}

    fn forget(&self, _node: NodeId) {}

    fn attr(&self, node: NodeId) -> Result<Attr> {
        Ok(self.node(node)?.attr)
    }

    fn read_dir(
        &self,
        dir: NodeId,
        after: u64,
        visit: &mut dyn FnMut(LayerEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let skip = usize::try_from(after).unwrap_or(usize::MAX);
        for (position, (name, index)) in self.directory(dir)?.entries.iter().enumerate().skip(skip) {
            let id = NodeId::new(*index as u64);
            let attr = self.node(id)?.attr;
            let name = Name::new(name)?;
            let next = position as u64 + 1;
            if visit(LayerEntry { name, kind: attr.kind, next, node: Some((id, attr)) }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let node = self.node(node)?;
        match node.attr.kind {
            FileKind::Symlink => Ok(node.content.to_vec()),
            _ => Err(Error::new(Errno::EINVAL, "read the target of a symlink")),
        }
    }

    fn read(&self, node: NodeId, offset: u64, len: usize) -> Result<Data> {
        let content = &self.node(node)?.content;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let end = start.saturating_add(len).min(content.len());
        let mut data = Data::empty();
        data.push(Slice::new(Arc::<Vec<u8>>::clone(content), start..end));
        Ok(data)
    }

    fn seek(&self, node: NodeId, offset: u64, whence: SeekWhence) -> Result<u64> {
        let size = self.node(node)?.attr.size;
        match whence {
            _ if offset >= size => Err(Error::new(Errno::ENXIO, "seek")),
            SeekWhence::Data => Ok(offset),
            SeekWhence::Hole => Ok(size),
        }
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.node(node)?.xattrs.get(name).cloned())
    }

    fn xattr_names(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        Ok(self.node(node)?.xattrs.keys().cloned().collect())
    }

    fn has_xattrs(&self) -> bool {
        self.nodes.iter().any(|node| !node.xattrs.is_empty())
    }

    fn stat_fs(&self) -> Result<FsStat> {
        Ok(FsStat { block_size: 4096, files: self.nodes.len() as u64, name_max: 255, ..FsStat::default() })
    }
}
