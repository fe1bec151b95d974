//! A stack of layers as one layer: what it takes to look the same over anything.
//!
//! Each name is found as a look-up finds it (`find.rs`), through whiteouts, opaque directories and redirects. Under the
//! lowest layer there may be something else, of which nothing is known here. A look-up that would go on there leaves a
//! path: where in the merged tree of what lies below it would look. From that follows what the one layer must say:
//!
//! ```text
//! the look-up ended at ...               the one layer has
//!   a whiteout, nothing above it           the whiteout
//!   something in a layer that hides        the directory, opaque
//!   the lowest layer, at its own path      the directory as it is: both look at the same place
//!   the lowest layer, at another path      the directory with a redirect to that path
//!   a file without data, none found        the file without data, perhaps with a redirect
//! ```
//!
//! Where nothing lies below, all of these marks have done their work, and none is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use super::{
    marks::{METACOPY, Marks, OPAQUE, REDIRECT, YES, is_private},
    merge::{Seen, Walk},
    redirect::{LONGEST, Redirect},
};
use crate::{
    sync::Arc,
    vfs::{Errno, Error, FileKind, Layer, Name, NodeId, Result},
};

/// Most look-ups in layers for one name, those for redirects included, and paths of redirects inside one another.
const MOST_STEPS: u32 = 1 << 17;
const MOST_NESTED: u32 = 100;

/// The path of the root of what lies below.
const FLOOR: &[u8] = b"";

/// What lies below the lowest layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// Nothing: marks are applied and go.
    Nothing,
    /// Perhaps something: what is deleted of it, hidden or moved stays so.
    Perhaps,
}

/// An object of one of the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// The layer's place, the lowest is 0.
    pub layer: usize,
    /// The object in it.
    pub node: NodeId,
}

/// Extended attributes by name.
pub type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

/// Directories that are one.
#[derive(Clone, Debug)]
struct Merged {
    /// Those of layers, the highest first.
    parts: Vec<Part>,
    /// Where what lies below has the rest: a path with `/` before each name, empty for the root.
    below: Option<Vec<u8>>,
}

/// A directory of the flattened stack.
#[derive(Clone, Debug)]
pub struct FlatDirectory {
    /// What it is made of: at least one part, whose attributes are its own.
    merged: Merged,
    /// The marks that it needs.
    marks: Attributes,
}

/// What a name of the flattened stack stands for.
#[derive(Clone, Debug)]
pub enum Flat {
    /// A deleted name of what lies below. The whiteout is one that a layer has.
    Whiteout(Part),
    /// A directory.
    Directory(FlatDirectory),
    /// Anything else.
    Other {
        /// What it is, with its attributes.
        object: Part,
        /// The file with its contents; mostly the same.
        contents: Part,
        /// The marks that it needs.
        marks: Attributes,
    },
}

/// A stack of layers that becomes one layer.
#[derive(Debug)]
pub struct Flattening {
    layers: Vec<Arc<dyn Layer>>,
    below: Below,
}

/// What following redirects may still cost.
struct Budget {
    steps: u32,
    nested: u32,
}

/// Where to go on looking: a name in directories, the highest first, and then in what lies below.
struct Way {
    dirs: Merged,
    name: Vec<u8>,
    next: usize,
}

/// What was found on a way.
#[derive(Default)]
struct Finding {
    walk: Walk,
    kind: Option<FileKind>,
    parts: Vec<Part>,
    /// A whiteout, met before anything else.
    whiteout: Option<Part>,
    /// Where what lies below would be looked at.
    below: Option<Vec<u8>>,
}

impl Flattening {
    /// Flattens `layers`, the lowest first.
    #[must_use]
    pub fn new(layers: Vec<Arc<dyn Layer>>, below: Below) -> Self {
        Self { layers, below }
    }

    /// The root directory.
    ///
    /// # Errors
    ///
    /// `EINVAL` where there are no layers, else what a layer says.
    pub fn root(&self) -> Result<FlatDirectory> {
        let merged = self.roots_below(self.layers.len())?;
        if merged.parts.is_empty() {
            return Err(Error::new(Errno::EINVAL, "flatten no layers"));
        }
        let marks = self.marks_of(merged.below.as_deref(), Some(FLOOR))?;
        Ok(FlatDirectory { merged, marks })
    }

    /// The names that may be in a directory, in their order.
    ///
    /// # Errors
    ///
    /// What a layer says.
    pub fn names(&self, directory: &FlatDirectory) -> Result<BTreeSet<Vec<u8>>> {
        let mut names = BTreeSet::new();
        for part in &directory.merged.parts {
            self.layer(part.layer)?.read_dir(part.node, 0, &mut |entry| {
                names.insert(entry.name.as_bytes().to_vec());
                ControlFlow::Continue(())
            })?;
        }
        Ok(names)
    }

    /// The extended attributes of an object with these marks: what programs set, and the marks.
    ///
    /// # Errors
    ///
    /// What the layer says.
    pub fn attributes(&self, object: Part, marks: &Attributes) -> Result<Attributes> {
        let layer = self.layer(object.layer)?;
        let mut attributes = marks.clone();
        if layer.has_xattrs() {
            for name in layer.xattr_names(object.node)? {
                if is_private(&name) {
                    continue;
                }
                if let Some(value) = layer.xattr(object.node, &name)? {
                    attributes.insert(name, value);
                }
            }
        }
        Ok(attributes)
    }

    /// What a name in a directory stands for; nothing where it is deleted and nothing lies below.
    ///
    /// # Errors
    ///
    /// What a layer says, `ELOOP` for redirects without end, `ENAMETOOLONG` where one would be too long to be written,
    /// and `ENODATA` for a file whose contents are in none of the layers.
    pub fn find(&self, directory: &FlatDirectory, name: &[u8]) -> Result<Option<Flat>> {
        let mut budget = Budget { steps: MOST_STEPS, nested: MOST_NESTED };
        let dirs = directory.merged.clone();
        let found = self.descend(Way { dirs, name: name.to_vec(), next: 0 }, &mut budget)?;
        let (Some(top), Some(last)) = (found.parts.first().copied(), found.parts.last().copied()) else {
            // Where nothing below shows there is nothing to delete.
            return Ok(found.whiteout.filter(|_| directory.merged.below.is_some()).map(Flat::Whiteout));
        };
        let own = directory.merged.below.as_ref().map(|below| join(below, name));
        if found.kind == Some(FileKind::Directory) {
            let marks = self.marks_of(found.below.as_deref(), own.as_deref())?;
            let merged = Merged { parts: found.parts, below: found.below };
            return Ok(Some(Flat::Directory(FlatDirectory { merged, marks })));
        }
        let mut marks = Attributes::new();
        if found.walk == Walk::Attributes {
            let path = found.below.ok_or(Error::new(Errno::ENODATA, "find the contents of a file"))?;
            marks.insert(METACOPY.to_vec(), Vec::new());
            if own.as_deref() != Some(path.as_slice()) {
                marks.insert(REDIRECT.to_vec(), checked(path)?);
            }
            return Ok(Some(Flat::Other { object: top, contents: top, marks }));
        }
        Ok(Some(Flat::Other { object: top, contents: last, marks }))
    }

    /// The marks of a directory whose rest is at `below`, where a look-up without marks would look at `own`.
    fn marks_of(&self, below: Option<&[u8]>, own: Option<&[u8]>) -> Result<Attributes> {
        let mut marks = Attributes::new();
        match below {
            None if own.is_some() && self.below == Below::Perhaps => {
                marks.insert(OPAQUE.to_vec(), YES.to_vec());
            }
            Some(path) if own != Some(path) => {
                marks.insert(REDIRECT.to_vec(), checked(path.to_vec())?);
            }
            _ => {}
        }
        Ok(marks)
    }

    /// Goes the way to its end.
    fn descend(&self, mut way: Way, budget: &mut Budget) -> Result<Finding> {
        let mut finding = Finding::default();
        while let Some(dir) = way.dirs.parts.get(way.next).copied() {
            way.next += 1;
            Budget::spend(&mut budget.steps)?;
            let layer = self.layer(dir.layer)?;
            let Some((node, attr)) = layer.lookup(dir.node, Name::new(&way.name)?)? else { continue };
            let part = Part { layer: dir.layer, node };
            // The lowest of all layers has nothing to hide or to look for.
            let marks = match (dir.layer, self.below) {
                (0, Below::Nothing) => Marks::default(),
                _ => Marks::read(layer, node, attr.kind)?,
            };
            let seen = Seen::new(&attr, &marks);
            if seen == Seen::Whiteout && finding.walk == Walk::Nothing {
                finding.whiteout = Some(part);
            }
            let step = finding.walk.step(seen);
            if step.take {
                finding.parts.push(part);
                finding.kind.get_or_insert(attr.kind);
            }
            if step.stop {
                return Ok(finding);
            }
            if let Some(redirect) = &marks.redirect
                && !self.turn(&mut way, redirect, dir.layer, budget)?
            {
                return Ok(finding);
            }
        }
        finding.below = way.dirs.below.map(|below| join(&below, &way.name));
        Ok(finding)
    }

    /// Turns the way to where a redirect of layer `number` leads; `false` where that is nowhere.
    fn turn(&self, way: &mut Way, redirect: &[u8], number: usize, budget: &mut Budget) -> Result<bool> {
        match Redirect::parse(redirect) {
            Redirect::Nowhere => return Ok(false),
            Redirect::Sibling(name) => way.name = name.as_bytes().to_vec(),
            Redirect::Path(parents, last) => {
                Budget::spend(&mut budget.nested)?;
                let Some(dirs) = self.merged_below(&parents, number, budget)? else {
                    return Ok(false);
                };
                budget.nested += 1;
                *way = Way { dirs, name: last.as_bytes().to_vec(), next: 0 };
            }
        }
        Ok(true)
    }

    /// The directory `path` of what is below layer `number`. What lies below all layers is taken to have it.
    fn merged_below(&self, path: &[Name<'_>], number: usize, budget: &mut Budget) -> Result<Option<Merged>> {
        let mut dirs = self.roots_below(number)?;
        for name in path {
            let way = Way { dirs, name: name.as_bytes().to_vec(), next: 0 };
            let found = self.descend(way, budget)?;
            if found.kind.is_some_and(|kind| kind != FileKind::Directory)
                || (found.parts.is_empty() && found.below.is_none())
            {
                return Ok(None);
            }
            dirs = Merged { parts: found.parts, below: found.below };
        }
        Ok(Some(dirs))
    }

    /// The roots of the layers below number `end` that make up their merged root, and that of what lies below them.
    fn roots_below(&self, end: usize) -> Result<Merged> {
        let mut walk = Walk::default();
        let mut parts = Vec::new();
        for (number, layer) in self.layers.iter().enumerate().take(end).rev() {
            let root = layer.root();
            let marks = Marks::read(&**layer, root, FileKind::Directory)?;
            let step = walk.step(Seen::new(&layer.attr(root)?, &marks));
            if step.take {
                parts.push(Part { layer: number, node: root });
            }
            if step.stop {
                return Ok(Merged { parts, below: None });
            }
        }
        Ok(Merged { parts, below: (self.below == Below::Perhaps).then(|| FLOOR.to_vec()) })
    }

    fn layer(&self, number: usize) -> Result<&dyn Layer> {
        self.layers.get(number).map(|layer| &**layer).ok_or(Error::new(Errno::ESTALE, "find a layer"))
    }
}

impl FlatDirectory {
    /// The directory whose attributes are its own.
    #[must_use]
    pub fn object(&self) -> Option<Part> {
        self.merged.parts.first().copied()
    }

    /// The marks that it needs.
    #[must_use]
    pub const fn marks(&self) -> &Attributes {
        &self.marks
    }
}

impl Budget {
    fn spend(of: &mut u32) -> Result<()> {
        *of = of.checked_sub(1).ok_or(Error::new(Errno::ELOOP, "follow redirects"))?;
        Ok(())
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    [directory, b"/", name].concat()
}

/// A path that readers of redirects follow.
fn checked(path: Vec<u8>) -> Result<Vec<u8>> {
    if path.len() > LONGEST {
        return Err(Error::new(Errno::ENAMETOOLONG, "write a redirect"));
    }
    Ok(path)
}
