//! From a name in a directory to the objects that make it up.
//!
//! The way leads from the upper downwards through the layers of the directory, until something ends it. A redirect
//! turns it: to another name, or to another directory of the layers below, which is found in the same way. Each turn
//! leaves fewer layers, so the way ends; how long it may become is bounded all the same.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{
    Overlay,
    marks::Marks,
    merge::{Seen, Walk, pack},
    node::{Contents, LowerRef, Node, Object},
    redirect::Redirect,
    stack::{Found, Stack, lower_ino},
};
use crate::{
    sync::Arc,
    vfs::{Attr, Errno, Error, FileKind, Name, NodeId, Result},
};

/// Most look-ups in layers for one name, those for redirects included. More than there can be layers.
const MOST_STEPS: u32 = 1 << 17;

/// Most paths of redirects that are followed inside one another.
const MOST_NESTED: u32 = 100;

/// What following redirects may still cost.
struct Budget {
    steps: u32,
    nested: u32,
}

impl Budget {
    fn spend(of: &mut u32) -> Result<()> {
        *of = of.checked_sub(1).ok_or(Error::new(Errno::ELOOP, "follow redirects"))?;
        Ok(())
    }
}

/// Where to go on looking: a name in directories of layers, the highest first.
struct Way<'a, 'n> {
    dirs: Cow<'n, [LowerRef]>,
    name: Cow<'n, [u8]>,
    next: usize,
    /// Holds the directories where no node does.
    _held: Option<Found<'a>>,
}

/// What has been found on the way so far. Gives references back unless it becomes a [`Found`].
struct Finding<'a> {
    stack: &'a Stack,
    walk: Walk,
    attr: Option<Attr>,
    upper: Option<NodeId>,
    marks: Marks,
    lowers: SmallVec<[LowerRef; 4]>,
    lower_ino: Option<u64>,
}

impl Overlay {
    /// Finds what `name` in `dir` is made of.
    pub(super) fn find(&self, dir: &Arc<Node>, name: Name<'_>) -> Result<Option<Found<'_>>> {
        let (dir_upper, dir_lowers) = dir.parts();
        let mut finding = Finding::new(&self.stack);
        let mut budget = Budget { steps: MOST_STEPS, nested: MOST_NESTED };
        let mut way = Way {
            dirs: Cow::Borrowed(dir_lowers.as_slice()),
            name: Cow::Borrowed(name.as_bytes()),
            next: 0,
            _held: None,
        };
        if let (Some(upper), Some(dir_upper)) = (self.stack.upper(), dir_upper)
            && let Some((node, attr)) = upper.lookup(dir_upper, name)?
        {
            (finding.upper, finding.attr) = (Some(node), Some(attr));
            if self.may_have_origins(dir)? {
                finding.marks = Marks::read(&**upper, node, attr.kind)?;
            }
            let step = finding.walk.step(Seen::new(&attr, &finding.marks));
            if step.stop {
                return Ok(finding.done().filter(|_| step.take));
            }
            if let Some(redirect) = &finding.marks.redirect
                && !self.turn(&mut way, redirect, u32::MAX, &mut budget)?
            {
                return Ok(finding.done());
            }
        }
        self.descend(way, &mut finding, &mut budget)?;
        Ok(finding.done())
    }

    /// Goes the way to its end.
    fn descend<'a>(
        &'a self,
        mut way: Way<'a, '_>,
        finding: &mut Finding<'a>,
        budget: &mut Budget,
    ) -> Result<()> {
        while let Some(dir) = way.dirs.get(way.next).copied() {
            way.next += 1;
            Budget::spend(&mut budget.steps)?;
            let layer = self.stack.layer(dir.layer)?;
            let Some((node, attr)) = layer.lookup(dir.node, Name::new(&way.name)?)? else { continue };
            // The lowest layer has nothing to hide or to look for.
            let marks = match dir.layer {
                0 => Ok(Marks::default()),
                _ => Marks::read(&*layer, node, attr.kind),
            };
            let marks = marks.inspect_err(|_| layer.forget(node))?;
            let step = finding.walk.step(Seen::new(&attr, &marks));
            if step.take {
                finding.take(LowerRef { layer: dir.layer, node }, &attr);
            } else {
                layer.forget(node);
            }
            if step.stop {
                break;
            }
            if let Some(redirect) = &marks.redirect
                && !self.turn(&mut way, redirect, dir.layer, budget)?
            {
                break;
            }
        }
        Ok(())
    }

    /// Turns the way to where a redirect of layer `below` leads; `false` where that is nowhere.
    fn turn<'a>(
        &'a self,
        way: &mut Way<'a, '_>,
        redirect: &[u8],
        below: u32,
        budget: &mut Budget,
    ) -> Result<bool> {
        match Redirect::parse(redirect) {
            Redirect::Nowhere => return Ok(false),
            Redirect::Sibling(name) => way.name = Cow::Owned(name.as_bytes().to_vec()),
            Redirect::Path(parents, last) => {
                Budget::spend(&mut budget.nested)?;
                let Some((dirs, held)) = self.merged_below(&parents, below, budget)? else {
                    return Ok(false);
                };
                budget.nested += 1;
                *way = Way {
                    dirs: Cow::Owned(dirs),
                    name: Cow::Owned(last.as_bytes().to_vec()),
                    next: 0,
                    _held: held,
                };
            }
        }
        Ok(true)
    }

    /// The directory `path` of the merged layers below number `below`, with what holds it.
    fn merged_below(
        &self,
        path: &[Name<'_>],
        below: u32,
        budget: &mut Budget,
    ) -> Result<Option<(Vec<LowerRef>, Option<Found<'_>>)>> {
        let mut dirs = self.stack.roots_below(below)?.into_vec();
        let mut held = None;
        for name in path {
            let mut finding = Finding::new(&self.stack);
            let name = Cow::Borrowed(name.as_bytes());
            self.descend(Way { dirs: Cow::Owned(dirs), name, next: 0, _held: held }, &mut finding, budget)?;
            let Some(found) = finding.done().filter(|found| found.attr.kind == FileKind::Directory) else {
                return Ok(None);
            };
            dirs = found.lowers.as_slice().to_vec();
            held = Some(found);
        }
        Ok(Some((dirs, held)))
    }
}

impl<'a> Finding<'a> {
    fn new(stack: &'a Stack) -> Self {
        Self {
            stack,
            walk: Walk::default(),
            attr: None,
            upper: None,
            marks: Marks::default(),
            lowers: SmallVec::new(),
            lower_ino: None,
        }
    }

    /// Takes an object of a layer in.
    fn take(&mut self, lower: LowerRef, attr: &Attr) {
        self.lowers.push(lower);
        // The lowest one decides: a directory keeps its number when a layer is added on top.
        self.lower_ino = lower_ino(lower.layer, attr.ino);
        self.attr.get_or_insert(*attr);
    }

    /// What was found, if anything.
    fn done(mut self) -> Option<Found<'a>> {
        let mut found = Found::new(self.stack, self.attr?);
        let parts = self.lowers.len() + usize::from(self.upper.is_some());
        let contents = match (self.walk, self.lowers.last()) {
            (Walk::Attributes, _) => Contents::Missing,
            (Walk::Complete, Some(lower)) if parts > 1 => Contents::Below(*lower),
            _ => Contents::Own,
        };
        found.upper = self.upper.take();
        found.lowers = pack(&std::mem::take(&mut self.lowers));
        found.lower_ino = self.lower_ino;
        found.contents = contents;
        found.marks = std::mem::take(&mut self.marks);
        Some(found)
    }
}

impl Drop for Finding<'_> {
    fn drop(&mut self) {
        let lowers = std::mem::take(&mut self.lowers).into_iter().map(Object::lower);
        for object in self.upper.take().map(Object::upper).into_iter().chain(lowers) {
            self.stack.forget(object);
        }
    }
}
