//! Standing still, and turning what the upper holds into a layer.
//!
//! A commit freezes the stack, archives the upper, makes the archive part of the image, and then rebases: the upper's
//! content is a layer now, every node that lived in the upper lives in that layer, and the upper is empty. Programs
//! notice nothing but that changes had to wait. After a crash before the upper is empty both have the same content.

use std::ops::ControlFlow;

use smallvec::SmallVec;

use super::{
    Overlay,
    copy_up::times_of,
    marks::{IMPURE, IMPURE_TRUSTED, Marks, OPAQUE, OPAQUE_TRUSTED},
    merge::pack,
    node::{Contents, LowerRef, Node, Object},
};
use crate::{
    sync::{Arc, RwLockWriteGuard},
    vfs::{
        Attr, Errno, Error, FileKind, Layer, Name, NewKind, NewObject, NodeId, RenameMode, Result, Spot,
        Upper,
    },
};

/// While it lives nothing changes in the upper: changes wait.
#[derive(Debug)]
pub struct FreezeGuard<'a> {
    upper: &'a Arc<dyn Upper>,
    _gate: RwLockWriteGuard<'a, ()>,
}

impl FreezeGuard<'_> {
    /// The upper, which stands still.
    #[must_use]
    pub fn upper(&self) -> &Arc<dyn Upper> {
        self.upper
    }
}

/// Where a node of the upper goes.
struct Move {
    node: Arc<Node>,
    /// What it was in the upper.
    from: NodeId,
    to: LowerRef,
    attr: Attr,
    /// Nothing below shows.
    opaque: bool,
}

impl Overlay {
    /// Paths of the files that the kernel knows: it may hold changes of theirs in its cache.
    #[must_use]
    pub fn known_files(&self) -> Vec<Vec<u8>> {
        let files = self.table.nodes().into_iter().filter(|node| node.kind == FileKind::Regular);
        files.filter_map(|node| path_of(&node)).map(|path| path.join(&b'/')).collect()
    }

    /// Waits for running changes, lets no new ones begin, and brings everything to stable storage.
    ///
    /// # Errors
    ///
    /// `EROFS` without an upper, else what the host said to syncing.
    pub fn freeze(&self) -> Result<FreezeGuard<'_>> {
        let upper = self.upper()?;
        let gate = self.gate.write();
        self.name_all_in_upper()?;
        if !self.options.volatile {
            upper.sync_all()?;
        }
        Ok(FreezeGuard { upper, _gate: gate })
    }

    /// Makes `added`, which holds exactly what the frozen upper holds, the highest layer, and empties the upper.
    ///
    /// Inode numbers of what the kernel holds stay. On an error before the layer is part of the stack nothing has
    /// changed; later ones only leave content in the upper that the layer has as well.
    ///
    /// # Errors
    ///
    /// `EIO` where the layer lacks something that the upper has, else what the host said.
    pub fn rebase(&self, guard: FreezeGuard<'_>, added: Arc<dyn Layer>) -> Result<()> {
        let discarded = {
            let _topology = self.topology.write();
            let number = self.stack.next_number()?;
            let moves = self.plan_moves(guard.upper, &*added, number)?;
            self.stack.push(added)?;
            for step in moves {
                self.carry_out(step);
            }
            let heap = self.empty_upper(guard.upper)?;
            self.empty_index(&**guard.upper)?;
            guard.upper.clear_notes()?;
            heap
        };
        let upper = guard.upper;
        drop(guard);
        // Nobody waits for this; what a crash leaves is swept at the next start.
        let name = Name::new(&discarded)?;
        upper.remove_tree(Spot { dir: upper.work(), name, node: None })
    }

    /// Finds the place in `added` of every node that is in the upper and has a name. Changes nothing.
    fn plan_moves(&self, upper: &Arc<dyn Upper>, added: &dyn Layer, number: u32) -> Result<Vec<Move>> {
        let mut moves = Vec::new();
        for node in self.table.nodes() {
            let Some(from) = node.upper() else { continue };
            let Some(path) = path_of(&node) else { continue };
            match find_path(added, &path) {
                Ok((id, attr)) if attr.kind == node.kind => {
                    let opaque = node.is_dir() && Marks::read(&**upper, from, node.kind)?.opaque;
                    let to = LowerRef { layer: number, node: id };
                    moves.push(Move { node, from, to, attr, opaque });
                }
                other => {
                    for step in &moves {
                        added.forget(step.to.node);
                    }
                    if let Ok((id, _)) = other {
                        added.forget(id);
                    }
                    return Err(Error::new(
                        Errno::EIO,
                        "find an object of the upper in the layer made from it",
                    ));
                }
            }
        }
        Ok(moves)
    }

    /// Makes a node what it is in the new layer.
    fn carry_out(&self, step: Move) {
        let Move { node, from, to, attr, opaque } = step;
        let is_root = Arc::ptr_eq(&node, &self.root);
        let mut given_up: SmallVec<[Object; 4]> = SmallVec::new();
        {
            let mut state = node.state.lock();
            let mut lowers: SmallVec<[LowerRef; 4]> = SmallVec::from_slice(&[to]);
            let old = std::mem::take(&mut state.lowers);
            if (node.is_dir() && !opaque) || state.contents != Contents::Own {
                lowers.extend_from_slice(old.as_slice());
            } else {
                given_up.extend(old.as_slice().iter().copied().map(Object::lower));
            }
            state.lowers = pack(&lowers);
            state.lower_names = if node.is_dir() { 0 } else { attr.nlink };
            state.has_origin = false;
            state.indexed = None;
            state.rebased = true;
            // It is the layer's now, and found by the name that it has there.
            state.redirect = None;
            if !is_root {
                state.upper = None;
                given_up.push(Object::upper(from));
            }
        }
        self.table.register(Object::lower(to), &node);
        for object in given_up {
            self.table.unregister(object, &node);
            self.stack.forget(object);
        }
        if let Some(dir) = &node.dir
            && let Some(index) = dir.index.lock().as_mut()
        {
            // Entries that nobody holds have the numbers of the layer from now on.
            index.rebase(to.layer);
        }
    }

    /// Moves everything out of the upper in steps of one rename each; returns the name of the heap in the work directory.
    fn empty_upper(&self, upper: &Arc<dyn Upper>) -> Result<Vec<u8>> {
        let heap_name = self.staging_name();
        let new = NewObject { kind: NewKind::Directory, perm: 0o700, uid: 0, gid: 0 };
        let (heap, _) = upper.create(upper.work(), Name::new(&heap_name)?, &new)?;
        let before = upper.attr(upper.root())?;
        let mut names = Vec::new();
        upper.read_dir(upper.root(), 0, &mut |entry| {
            names.push(entry.name.as_bytes().to_vec());
            ControlFlow::Continue(())
        })?;
        for name in &names {
            let name = Name::new(name)?;
            let from = Spot { dir: upper.root(), name, node: None };
            upper.rename(from, Spot { dir: heap, name, node: None }, RenameMode::New)?;
        }
        upper.forget(heap);
        for mark in [OPAQUE, OPAQUE_TRUSTED, IMPURE, IMPURE_TRUSTED] {
            // Not set, most of the time.
            let _ = upper.remove_xattr(upper.root(), mark);
        }
        // For programs the root has not changed.
        upper.set_attr(upper.root(), &times_of(&before))?;
        if !self.options.volatile {
            upper.sync(upper.root(), false)?;
        }
        Ok(heap_name)
    }
}

/// The names that lead from the root to `node`; `None` for what has been removed.
fn path_of(node: &Arc<Node>) -> Option<Vec<Box<[u8]>>> {
    let mut path = Vec::new();
    let mut node = Arc::clone(node);
    while node.ino != crate::vfs::Ino::ROOT {
        let link = node.state.lock().links.first().cloned()?;
        path.push(link.name);
        node = link.parent;
    }
    path.reverse();
    Some(path)
}

/// Looks a path up in a layer; the result counts a reference.
fn find_path(layer: &dyn Layer, path: &[Box<[u8]>]) -> Result<(NodeId, Attr)> {
    let root = layer.root();
    let mut at = (root, layer.attr(root)?);
    for name in path {
        let found = Name::new(name).map_err(Error::from).and_then(|name| layer.lookup(at.0, name));
        if at.0 != root {
            layer.forget(at.0);
        }
        at = found?.ok_or(Error::new(Errno::ENOENT, "find a path in a layer"))?;
    }
    Ok(at)
}
