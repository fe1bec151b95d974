//! A source in memory, whose files may change or fail when a test says so.

use std::{
    collections::HashMap,
    io,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::dwarfs::{
    format::sidecar::Xattrs,
    write::{
        Content, Contents, EntryId, Faults, FileContent, Object, ObjectId, Progress, Source, Timestamp, Tree,
        WriteError,
    },
};

/// How a file behaves.
#[derive(Clone, Debug)]
pub(in crate::dwarfs::write) enum Behaviour {
    /// Always the same.
    Steady,
    /// The first so many looks find it changed; each change makes it one byte longer.
    Changing(u32),
    /// Cannot be read behind this offset.
    Failing(u64),
}

/// An entry to be made.
#[derive(Clone, Debug)]
pub(in crate::dwarfs::write) struct Node {
    pub(in crate::dwarfs::write) path: Vec<u8>,
    pub(in crate::dwarfs::write) object: Object,
    pub(in crate::dwarfs::write) xattrs: Xattrs,
    /// All bytes of a file, holes included.
    pub(in crate::dwarfs::write) bytes: Vec<u8>,
    pub(in crate::dwarfs::write) behaviour: Behaviour,
}

impl Node {
    pub(in crate::dwarfs::write) fn new(path: &str, content: Content, perm: u16) -> Self {
        let object = Object::new(content, perm);
        Self {
            path: path.as_bytes().to_vec(),
            object,
            xattrs: Xattrs::new(),
            bytes: Vec::new(),
            behaviour: Behaviour::Steady,
        }
    }

    pub(in crate::dwarfs::write) fn file(path: &str, bytes: &[u8]) -> Self {
        let content = FileContent { size: bytes.len() as u64, ..FileContent::default() };
        Self { bytes: bytes.to_vec(), ..Self::new(path, Content::File(content), 0o644) }
    }

    pub(in crate::dwarfs::write) fn behaving(self, behaviour: Behaviour) -> Self {
        Self { behaviour, ..self }
    }
}

/// A source in memory. Its nodes are given parents first.
#[derive(Debug, Default)]
pub(in crate::dwarfs::write) struct MemorySource {
    pub(in crate::dwarfs::write) root: Option<Object>,
    pub(in crate::dwarfs::write) nodes: Vec<Node>,
    /// Further names: path and the path of the node.
    pub(in crate::dwarfs::write) links: Vec<(Vec<u8>, Vec<u8>)>,
    looks: HashMap<Vec<u8>, AtomicU32>,
}

impl MemorySource {
    pub(in crate::dwarfs::write) fn new(nodes: Vec<Node>) -> Self {
        let looks = nodes.iter().map(|node| (node.path.clone(), AtomicU32::new(0))).collect();
        Self { root: None, nodes, links: Vec::new(), looks }
    }

    /// How often a file was asked whether it has changed.
    pub(in crate::dwarfs::write) fn looks(&self, path: &str) -> u32 {
        self.looks[path.as_bytes()].load(Ordering::Relaxed)
    }

    fn children(&self, directory: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let all = self.nodes.iter().map(|node| (&node.path, &node.path));
        let all = all.chain(self.links.iter().map(|(path, target)| (path, target)));
        let below = all.filter_map(|(path, target)| {
            let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
                Some(slash) => (&path[..slash], &path[slash + 1..]),
                None => (&b""[..], path.as_slice()),
            };
            (parent == directory).then(|| (name.to_vec(), target.clone()))
        });
        below.collect()
    }
}

impl Source for MemorySource {
    fn scan(&self, _faults: &Faults<'_>, _progress: &dyn Progress) -> Result<Tree, WriteError> {
        let root = self.root.clone().unwrap_or_else(|| Object::new(Content::Directory, 0o755));
        let mut tree = Tree::new(root, Xattrs::new())?;
        let mut objects: HashMap<Vec<u8>, ObjectId> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let mut object = node.object.clone();
            if let Content::File(file) = &mut object.content {
                file.locator = index as u64;
            }
            objects.insert(node.path.clone(), tree.add_object(object, node.xattrs.clone())?);
        }
        let mut queue = vec![(EntryId::ROOT, Vec::new())];
        while let Some((directory, path)) = queue.pop() {
            let children = self.children(&path);
            let entries = children.iter().map(|(name, target)| (name.clone(), objects[target])).collect();
            for number in tree.fill_directory(directory, entries)? {
                let entry = EntryId::from_number(number);
                if tree.object(tree.object_of(entry)).unwrap().is_directory() {
                    queue.push((entry, tree.path(entry)));
                }
            }
        }
        Ok(tree)
    }

    fn open(&self, _path: &[u8], file: &Object) -> Result<Box<dyn Contents + '_>, WriteError> {
        let index = usize::try_from(file.file().unwrap().locator).unwrap();
        let node = &self.nodes[index];
        Ok(Box::new(NodeContents { node, looks: &self.looks[&node.path] }))
    }
}

struct NodeContents<'a> {
    node: &'a Node,
    looks: &'a AtomicU32,
}

impl NodeContents<'_> {
    fn changes(&self) -> u32 {
        match self.node.behaviour {
            Behaviour::Changing(times) => self.looks.load(Ordering::Relaxed).min(times),
            _ => 0,
        }
    }

    fn now(&self) -> Object {
        let mut object = self.node.object.clone();
        if let (Content::File(file), changes @ 1..) = (&mut object.content, self.changes()) {
            file.size += u64::from(changes);
            object.mtime = Timestamp { seconds: i64::from(changes), nanos: 0 };
        }
        object
    }
}

impl Contents for NodeContents<'_> {
    fn is_unchanged(&self, known: &Object) -> io::Result<bool> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let now = self.now();
        Ok((now.mtime, now.file().unwrap().size) == (known.mtime, known.file().unwrap().size))
    }

    fn refresh(&self, known: &Object) -> io::Result<Object> {
        let mut now = self.now();
        if let (Content::File(file), Some(known)) = (&mut now.content, known.file()) {
            file.locator = known.locator;
        }
        Ok(now)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Behaviour::Failing(at) = self.node.behaviour
            && offset >= at
        {
            return Err(io::Error::other("bad sector"));
        }
        let grown = std::iter::repeat_n(b'+', self.changes() as usize);
        let bytes = self.node.bytes.iter().copied().chain(grown).skip(usize::try_from(offset).unwrap());
        // Little by little, as a pipe or a network does.
        Ok(buffer.iter_mut().take(1_000).zip(bytes).map(|(to, from)| *to = from).count())
    }
}
