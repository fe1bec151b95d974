//! From a name in a directory to the objects that make it up.
//!
//! The way leads from the upper downwards through the layers of the directory, until something ends it. A redirect
//! turns it: to another name, or to another directory of the layers below, which is found in the same way. Each turn
//! leaves fewer layers, so the way ends; how long it may become is bounded all the same.

use std::{borrow::Cow, ops::ControlFlow};

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
    casefold::{Mode, fold},
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
    /// How names in these directories are folded.
    mode: Option<Mode>,
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
    /// Directories of other spellings where a redirect led.
    others: Vec<Found<'a>>,
}

impl Overlay {
    /// Finds what `name`, which is the spelling that is there, is made of in `dir`.
    pub(super) fn find(&self, dir: &Arc<Node>, name: Name<'_>) -> Result<Option<Found<'_>>> {
        match (self.find_exact(dir, name)?, dir.directory()?.mode()) {
            (Some(found), Some(mode)) if found.attr.kind == FileKind::Directory => {
                self.unite(dir, name, mode, found)
            }
            (found, _) => Ok(found),
        }
    }

    /// The same without directories of other spellings.
    pub(super) fn find_exact(&self, dir: &Arc<Node>, name: Name<'_>) -> Result<Option<Found<'_>>> {
        let (dir_upper, dir_lowers) = dir.parts();
        let mut finding = Finding::new(&self.stack);
        let mut budget = Budget { steps: MOST_STEPS, nested: MOST_NESTED };
        let mut way = Way {
            dirs: Cow::Borrowed(dir_lowers.as_slice()),
            name: Cow::Borrowed(name.as_bytes()),
            next: 0,
            mode: dir.directory()?.mode(),
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
                return Ok(finding.done()?.filter(|_| step.take));
            }
            if let Some(redirect) = finding.marks.redirect.clone() {
                if !self.turn(&mut way, &redirect, u32::MAX, &mut budget)? {
                    return finding.done();
                }
                self.find_others(&way, &mut finding, &mut budget)?;
            }
        }
        self.descend(way, &mut finding, &mut budget)?;
        finding.done()
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
            if let Some(redirect) = &marks.redirect {
                if !self.turn(&mut way, redirect, dir.layer, budget)? {
                    break;
                }
                self.find_others(&way, finding, budget)?;
            }
        }
        Ok(())
    }

    /// Finds directories of other spellings where the way, which was just turned, leads. There is no index of what lies
    /// below: the directories are read.
    fn find_others<'a>(
        &'a self,
        way: &Way<'a, '_>,
        finding: &mut Finding<'a>,
        budget: &mut Budget,
    ) -> Result<()> {
        let Some(mode) = way.mode.filter(|_| finding.walk == Walk::Directory) else { return Ok(()) };
        let dirs = way.dirs.get(way.next..).unwrap_or_default();
        for name in self.spellings_below(dirs, &way.name, mode)? {
            let mut other = Finding::new(&self.stack);
            let (dirs, name) = (Cow::Borrowed(dirs), Cow::Borrowed(&*name));
            self.descend(Way { dirs, name, next: 0, mode: None, _held: None }, &mut other, budget)?;
            finding.others.extend(other.done()?);
        }
        Ok(())
    }

    /// The names in directories of layers that are `name` in another spelling: those of the highest first, and of one the
    /// bytewise smallest.
    fn spellings_below(&self, dirs: &[LowerRef], name: &[u8], mode: Mode) -> Result<Vec<Box<[u8]>>> {
        let key = fold(name, mode);
        let mut names: Vec<Box<[u8]>> = Vec::new();
        for dir in dirs {
            let mut here = Vec::new();
            self.stack.layer(dir.layer)?.read_dir(dir.node, 0, &mut |entry| {
                let other = entry.name.as_bytes();
                if other != name && fold(other, mode) == key && !names.iter().any(|known| **known == *other) {
                    here.push(other.into());
                }
                ControlFlow::Continue(())
            })?;
            here.sort();
            names.append(&mut here);
        }
        Ok(names)
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
                let mode = self.mode_of(&parents);
                budget.nested += 1;
                *way = Way {
                    dirs: Cow::Owned(dirs),
                    name: Cow::Owned(last.as_bytes().to_vec()),
                    next: 0,
                    mode,
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
        for (depth, name) in path.iter().enumerate() {
            let mut finding = Finding::new(&self.stack);
            let name = Cow::Borrowed(name.as_bytes());
            let mode = self.mode_of(path.get(..depth).unwrap_or_default());
            let way = Way { dirs: Cow::Owned(dirs), name, next: 0, mode, _held: held };
            if mode.is_some() {
                finding.walk = Walk::Directory;
                self.find_others(&way, &mut finding, budget)?;
                finding.walk = Walk::Nothing;
            }
            self.descend(way, &mut finding, budget)?;
            let Some(found) = finding.done()?.filter(|found| found.attr.kind == FileKind::Directory) else {
                return Ok(None);
            };
            dirs = found.lowers.as_slice().to_vec();
            held = Some(found);
        }
        Ok(Some((dirs, held)))
    }
}

impl Overlay {
    /// How names in the directory `path` are folded.
    fn mode_of(&self, path: &[Name<'_>]) -> Option<Mode> {
        let mut folded = self.options.casefold.as_ref()?.of_root();
        for name in path {
            folded = folded.child(name.as_bytes());
        }
        folded.mode()
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
            others: Vec::new(),
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
    fn done(mut self) -> Result<Option<Found<'a>>> {
        let others = std::mem::take(&mut self.others);
        let mut found = self.alone();
        for other in others {
            match &mut found {
                Some(found) => {
                    found.absorb(other)?;
                }
                None => found = Some(other),
            }
        }
        Ok(found)
    }

    /// What was found, without directories of other spellings.
    fn alone(mut self) -> Option<Found<'a>> {
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
