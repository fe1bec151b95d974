//! The layers by number, and the upper.

use std::fmt;

use smallvec::SmallVec;

use super::{
    links::Links,
    marks::Marks,
    merge::{Seen, Walk, pack},
    node::{Contents, LowerRef, Lowers, Object, State},
};
use crate::{
    sync::{Arc, RwLock},
    vfs::{Attr, Errno, Error, FileKind, Ino, Layer, NodeId, Result, Upper},
};

/// Most layers: their numbers share an inode number with the layers' own.
const MAX_LAYERS: usize = 0x7ffe;

/// Bits of an inode number that are the layer's own.
const INODE_BITS: u32 = 48;

/// Set in inode numbers of objects that only the upper has.
const UPPER_BIT: u64 = 1 << 63;

/// The layers, numbered from the lowest, and the upper.
pub(super) struct Stack {
    /// Only ever grows at its end, so that numbers stay.
    layers: RwLock<Vec<Arc<dyn Layer>>>,
    upper: Option<Arc<dyn Upper>>,
}

/// What a name stands for. Holds a reference on each of its objects, and gives them back unless they are taken.
pub(super) struct Found<'a> {
    pub(super) stack: &'a Stack,
    /// Attributes of the topmost object.
    pub(super) attr: Attr,
    pub(super) upper: Option<NodeId>,
    pub(super) lowers: Lowers,
    /// The inode number that the lowest of them gives, where there is one.
    pub(super) lower_ino: Option<u64>,
    /// Marks of the object in the upper.
    pub(super) marks: Marks,
    /// Where the data are.
    pub(super) contents: Contents,
}

impl Stack {
    pub(super) fn new(layers: Vec<Arc<dyn Layer>>, upper: Option<Arc<dyn Upper>>) -> Result<Self> {
        if layers.len() > MAX_LAYERS {
            return Err(too_many());
        }
        Ok(Self { layers: RwLock::new(layers), upper })
    }

    pub(super) fn upper(&self) -> Option<&Arc<dyn Upper>> {
        self.upper.as_ref()
    }

    pub(super) fn layer(&self, number: u32) -> Result<Arc<dyn Layer>> {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        self.layers.read().get(index).cloned().ok_or(Error::new(Errno::EIO, "find a layer"))
    }

    /// Whether any layer can have extended attributes.
    pub(super) fn has_acls(&self) -> bool {
        self.upper.as_ref().is_some_and(|upper| upper.has_acls())
            || self.layers.read().iter().any(|layer| layer.has_acls())
    }

    pub(super) fn has_xattrs(&self) -> bool {
        self.upper.is_some() || self.layers.read().iter().any(|layer| layer.has_xattrs())
    }

    /// Number of layers.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.layers.read().len()).unwrap_or(u32::MAX)
    }

    /// The number that the next layer gets.
    pub(super) fn next_number(&self) -> Result<u32> {
        match self.layers.read().len() {
            len if len < MAX_LAYERS => u32::try_from(len).map_err(|_| too_many()),
            _ => Err(too_many()),
        }
    }

    /// Puts a layer on top.
    pub(super) fn push(&self, layer: Arc<dyn Layer>) -> Result<()> {
        let mut layers = self.layers.write();
        if layers.len() >= MAX_LAYERS {
            return Err(too_many());
        }
        layers.push(layer);
        Ok(())
    }

    /// The highest layer.
    pub(super) fn top(&self) -> Option<Arc<dyn Layer>> {
        self.layers.read().last().cloned()
    }

    /// The merged root.
    pub(super) fn merge_roots(&self) -> Result<Found<'_>> {
        let mut top = None;
        let mut hidden = false;
        if let Some(upper) = &self.upper {
            let root = upper.root();
            hidden = Marks::read(&**upper, root, FileKind::Directory)?.opaque;
            top = Some((upper.attr(root)?, Some(root)));
        }
        let lowers = if hidden { SmallVec::new() } else { self.roots_below(u32::MAX)? };
        if let (None, Some(highest)) = (top, lowers.first()) {
            top = Some((self.layer(highest.layer)?.attr(highest.node)?, None));
        }
        let (attr, upper) = top.ok_or(Error::new(Errno::ENOTDIR, "merge the roots of the layers"))?;
        let mut found = Found::new(self, attr);
        (found.upper, found.lowers) = (upper, pack(&lowers));
        Ok(found)
    }

    /// The roots of the layers whose number is less than `below` that make up their merged root, the highest first.
    pub(super) fn roots_below(&self, below: u32) -> Result<SmallVec<[LowerRef; 4]>> {
        let layers = self.layers.read();
        let end = usize::try_from(below).map_or(layers.len(), |below| below.min(layers.len()));
        let mut walk = Walk::default();
        let mut roots = SmallVec::new();
        for (number, layer) in layers.iter().enumerate().take(end).rev() {
            let root = layer.root();
            let marks = Marks::read(&**layer, root, FileKind::Directory)?;
            let step = walk.step(Seen::new(&layer.attr(root)?, &marks));
            if step.take {
                roots.push(LowerRef { layer: u32::try_from(number).unwrap_or(u32::MAX), node: root });
            }
            if step.stop {
                break;
            }
        }
        Ok(roots)
    }

    /// Gives back a reference on `object`.
    pub(super) fn forget(&self, object: Object) {
        match object.layer() {
            None => {
                if let Some(upper) = &self.upper {
                    upper.forget(object.node());
                }
            }
            Some(number) => {
                if let Ok(layer) = self.layer(number) {
                    layer.forget(object.node());
                }
            }
        }
    }
}

impl<'a> Found<'a> {
    /// Something with `attr`, of which the objects are still to be told.
    pub(super) fn new(stack: &'a Stack, attr: Attr) -> Self {
        Self {
            stack,
            attr,
            upper: None,
            lowers: Lowers::None,
            lower_ino: None,
            marks: Marks::default(),
            contents: Contents::Own,
        }
    }
}

impl Found<'_> {
    /// The object that decides who this is.
    pub(super) fn object(&self) -> Option<Object> {
        self.upper.map(Object::upper).or_else(|| self.lowers.top().map(Object::lower))
    }

    /// Takes the references over: the state of a node that is made of this.
    pub(super) fn into_state(mut self, lower_names: u32, indexed: Option<Links>) -> State {
        let upper = self.upper.take();
        State {
            upper,
            lowers: std::mem::take(&mut self.lowers),
            lower_names,
            indexed,
            // Looked up again it is found in the same way.
            has_origin: upper.is_some(),
            redirect: self.marks.redirect.take(),
            contents: self.contents,
            ..State::default()
        }
    }
}

impl Drop for Found<'_> {
    fn drop(&mut self) {
        if let Some(upper) = self.upper {
            self.stack.forget(Object::upper(upper));
        }
        for lower in self.lowers.as_slice() {
            self.stack.forget(Object::lower(*lower));
        }
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("layers", &self.layers.read().len())
            .field("upper", &self.upper)
            .finish()
    }
}

fn too_many() -> Error {
    Error::new(Errno::EINVAL, "stack that many layers")
}

/// The inode number of an object that layer `number` calls `ino`, where it fits.
pub(super) fn lower_ino(number: u32, ino: u64) -> Option<u64> {
    (ino >> INODE_BITS == 0).then_some((u64::from(number) + 1) << INODE_BITS | ino)
}

/// The inode number of an object that only the upper has.
pub(super) fn upper_ino(ino: u64) -> Option<u64> {
    (ino & UPPER_BIT == 0).then_some(ino | UPPER_BIT)
}

/// What private inode numbers have above a layer's own bits.
const PRIVATE: u64 = 0x7fff;

/// An inode number that neither of the above can give.
pub(super) fn private_ino(serial: u64) -> Ino {
    Ino::new(PRIVATE << INODE_BITS | serial)
}

/// Whether `ino` is one of these: the object gets another one after it has been forgotten.
pub(super) fn is_private_ino(ino: Ino) -> bool {
    ino.get() >> INODE_BITS == PRIVATE
}

/// What the numbers of one layer's objects have above the layer's own bits while it is the only one.
const ALONE: u64 = 1;

/// The inode number in a view of all layers of what layer `number`, alone, calls `ino`. Without an upper there is no
/// number with the highest bit: it tells private ones apart. The root is what is left over, since no object of a layer
/// has the number 0.
pub(super) fn in_view(number: u32, ino: Ino) -> Ino {
    let layer = (u64::from(number) + 1) << INODE_BITS;
    Ino::new(match ino {
        Ino::ROOT => layer,
        ino if is_private_ino(ino) => UPPER_BIT | layer | own_bits(ino),
        ino => layer | own_bits(ino),
    })
}

/// Undoes [`in_view`]; `None` for the root of the view.
pub(super) fn out_of_view(ino: Ino) -> Option<(u32, Ino)> {
    let number = u32::try_from((ino.get() & !UPPER_BIT) >> INODE_BITS).ok()?.checked_sub(1)?;
    let alone = match (ino.get() & UPPER_BIT == 0, own_bits(ino)) {
        (true, 0) => Ino::ROOT,
        (true, own) => Ino::new(ALONE << INODE_BITS | own),
        (false, serial) => private_ino(serial),
    };
    Some((number, alone))
}

fn own_bits(ino: Ino) -> u64 {
    ino.get() & ((1 << INODE_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_view_come_back_and_are_all_different() {
        let mut seen = std::collections::HashSet::from([Ino::ROOT]);
        for number in [0, 1, 6, u32::try_from(MAX_LAYERS).unwrap() - 1] {
            let own = [1, 2, 77, (1 << INODE_BITS) - 1].map(|ino| Ino::new(lower_ino(0, ino).unwrap()));
            for ino in [Ino::ROOT, private_ino(0), private_ino(1), private_ino(77)].into_iter().chain(own) {
                let outer = in_view(number, ino);
                assert_eq!(out_of_view(outer), Some((number, ino)), "{number} {ino:?}");
                assert!(seen.insert(outer), "{number} {ino:?}");
            }
        }
        assert_eq!(out_of_view(Ino::ROOT), None);
    }
}
