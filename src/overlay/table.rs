//! All nodes, by inode number and by the objects they are made of.
//!
//! `by_object` decides who is who: all names of one object, and the lower and the upper form of a copied-up one, lead to
//! one node. An object is in it before it can be found on disk under its new name.

use super::{
    links::Links,
    node::{Link, Node, Object, State},
    stack::{Found, Stack, private_ino},
};
use crate::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    vfs::{Errno, Error, FileKind, Ino, Name, Result, Shards},
};

#[derive(Debug, Default)]
pub(super) struct Table {
    by_ino: Shards<Ino, Arc<Node>>,
    by_object: Shards<Object, Arc<Node>>,
    generations: AtomicU64,
    private_inos: AtomicU64,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.by_ino.len()
    }

    /// The node that the kernel calls `ino`.
    pub(super) fn get(&self, ino: Ino) -> Result<Arc<Node>> {
        self.by_ino.get(&ino).ok_or(Error::new(Errno::ESTALE, "find a node"))
    }

    /// All nodes.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        self.by_ino.values()
    }

    /// The node of `object`, without a reference.
    pub(super) fn peek(&self, object: Object) -> Option<Arc<Node>> {
        self.by_object.with(&object, |map| map.get(&object).cloned())
    }

    pub(super) fn insert_root(&self, found: Found<'_>) -> Arc<Node> {
        let root = Arc::new(Node::new(Ino::ROOT, 0, FileKind::Directory, found.into_state(0, None)));
        self.by_ino.with(&root.ino, |map| map.insert(root.ino, Arc::clone(&root)));
        for object in objects(&root) {
            self.register(object, &root);
        }
        root
    }

    /// The node of `object` with one more reference.
    pub(super) fn find(&self, object: Object) -> Option<Arc<Node>> {
        self.by_object.with(&object, |map| map.get(&object).filter(|node| node.refs.try_retain()).cloned())
    }

    /// The node of what was found, with one more reference; made with the number `ino` where there is none yet. Before
    /// that `look_again` says what has changed: a node that has been forgotten since may have changed the object.
    pub(super) fn obtain<'a>(
        &self,
        mut found: Found<'a>,
        ino: Option<Ino>,
        (lower_names, indexed): (u32, Option<Links>),
        look_again: impl FnOnce(&mut Found<'a>) -> Result<()>,
    ) -> Result<Arc<Node>> {
        let object = found.object().ok_or(Error::new(Errno::ESTALE, "find the contents of a node"))?;
        let kind = found.attr.kind;
        self.by_object.with(&object, |map| {
            if let Some(node) = map.get(&object).filter(|node| node.refs.try_retain()) {
                return Ok(Arc::clone(node));
            }
            look_again(&mut found)?;
            let node = self.number(ino, kind, found.into_state(lower_names, indexed));
            map.insert(object, Arc::clone(&node));
            Ok(node)
        })
    }

    /// Makes a node under the wanted number, or under a private one where that is taken.
    fn number(&self, wanted: Option<Ino>, kind: FileKind, state: State) -> Arc<Node> {
        let generation = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
        let mut state = Some(state);
        let mut wanted = wanted;
        loop {
            let ino = wanted
                .take()
                .unwrap_or_else(|| private_ino(self.private_inos.fetch_add(1, Ordering::Relaxed)));
            let made = self.by_ino.with(&ino, |map| {
                if map.get(&ino).is_some_and(|node| !node.refs.is_dead()) {
                    return None;
                }
                let node = Arc::new(Node::new(ino, generation, kind, state.take().unwrap_or_default()));
                map.insert(ino, Arc::clone(&node));
                Some(node)
            });
            if let Some(node) = made {
                return node;
            }
        }
    }

    /// Makes `object` lead to `node`.
    pub(super) fn register(&self, object: Object, node: &Arc<Node>) {
        self.by_object.with(&object, |map| map.insert(object, Arc::clone(node)));
    }

    /// Makes `object` lead nowhere, if it leads to `node`.
    pub(super) fn unregister(&self, object: Object, node: &Arc<Node>) {
        self.by_object.with(&object, |map| {
            if map.get(&object).is_some_and(|known| Arc::ptr_eq(known, node)) {
                map.remove(&object);
            }
        });
    }

    /// Notes that `node` has `name` in `parent`.
    pub(super) fn add_link(&self, node: &Arc<Node>, parent: &Arc<Node>, name: Name<'_>) {
        if let (Some(directory), Some(parent)) = (&node.dir, &parent.dir) {
            directory.inherit_folding(parent, name);
        }
        let mut state = node.state.lock();
        if state.link_position(parent, name).is_none() && parent.refs.try_retain() {
            state.links.push(Link { parent: Arc::clone(parent), name: name.as_bytes().into() });
        }
    }

    /// Gives references back; the last one removes the node, and gives back what it held.
    pub(super) fn release(&self, stack: &Stack, node: &Arc<Node>, count: u64) {
        let mut pending = vec![(Arc::clone(node), count)];
        while let Some((node, count)) = pending.pop() {
            if !node.refs.release(count) {
                continue;
            }
            self.by_ino.with(&node.ino, |map| {
                if map.get(&node.ino).is_some_and(|known| Arc::ptr_eq(known, &node)) {
                    map.remove(&node.ino);
                }
            });
            for object in objects(&node) {
                self.unregister(object, &node);
                stack.forget(object);
            }
            let mut state = node.state.lock();
            state.upper = None;
            state.lowers = super::node::Lowers::None;
            pending.extend(state.links.drain(..).map(|link| (link.parent, 1)));
        }
    }
}

/// Everything that `node` is made of.
fn objects(node: &Node) -> Vec<Object> {
    let (upper, lowers) = node.parts();
    let upper = upper.map(Object::upper);
    upper.into_iter().chain(lowers.as_slice().iter().copied().map(Object::lower)).collect()
}
