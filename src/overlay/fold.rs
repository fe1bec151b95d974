//! Names that differ in spelling alone: one entry, one node.
//!
//! On disk nothing is folded. Every layer keeps the spellings that it has, and whiteouts, redirects and what else stands
//! in an upper mean exact names: an upper may be used with another mode, or with none, at any time. What folding adds is
//! a choice among the names that a directory shows without it, by the index of the directory (`dir_index.rs`):
//!
//! ```text
//!   asked for   README    an entry spelled so: it is meant
//!                         else the one of its key that lies highest, and of several in one layer the bytewise smallest
//!   listed                of each key the one that is found by any other spelling; the rest are found by their exact names
//!   directories           of one key are one directory, whatever their spellings, as long as no layer has two of them
//!   removed, replaced     a name goes in all its spellings, the one that shows last: what lies below does not come to light
//! ```
//!
//! Operations turn what was asked for into the spelling that is there ([`Overlay::spelled`]) and go on with that.
//!
//! The kernel has an entry of its own for each spelling of a file, and cannot be told in time that another one has gone:
//! a notice waits for the lock of the directory, which is held until the answer is there. Who removed `FOO` and makes
//! `foo` at once would write to what is gone. So where something can change the front lets no entry of a file last, and
//! every use of a name comes here. A directory has one entry in the kernel, whatever it is called: that lasts.

use std::collections::BTreeMap;

use super::{
    Overlay,
    copy_up::Keep,
    lookup::Target,
    marks::Marks,
    merge::pack,
    node::{Directory, LowerRef, Node},
    stack::{Found, private_ino},
};
use crate::{
    casefold::{Mode, fold},
    sync::Arc,
    vfs::{Attr, DeviceId, Entry, Errno, Error, FileKind, Ino, Lookup, Name, Result, Time},
};

/// What Wine looks for to learn that a directory folds names (as ciopfs has it): found everywhere, listed nowhere.
const MARKER: &[u8] = b".ciopfs";

/// Which directories fold names, and how.
#[derive(Clone, Debug)]
pub struct Folding {
    mode: Mode,
    steps: Arc<Steps>,
}

/// The way to folded directories.
#[derive(Debug, Default)]
pub(super) struct Steps {
    is_folded: bool,
    children: BTreeMap<Box<[u8]>, Arc<Steps>>,
}

/// Whether a directory folds the names in it.
#[derive(Clone, Debug)]
pub(super) enum Folded {
    /// No, nor does what is below it.
    No,
    /// No, but something below it does.
    Below(Mode, Arc<Steps>),
    /// Yes, and so does all below it.
    Yes(Mode),
}

/// The spelling of a name that is there.
pub(super) enum Spelled<'n> {
    /// As it was asked for, or nothing is there.
    AsAsked(Name<'n>),
    /// Another one.
    Otherwise(Arc<[u8]>),
}

/// Spellings of directories that are parts of another one.
type Parts<'o> = Vec<&'o Arc<[u8]>>;

impl Folding {
    /// Folds names in the directories `subtrees` and all below them; in the whole tree where there are none. A subtree is
    /// named by its path from the root, in its exact spelling.
    #[must_use]
    pub fn new(mode: Mode, subtrees: &[impl AsRef<[u8]>]) -> Self {
        let mut steps = Steps { is_folded: subtrees.is_empty(), ..Steps::default() };
        for path in subtrees {
            let names: Vec<_> =
                path.as_ref().split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
            steps.add(&names);
        }
        Self { mode, steps: Arc::new(steps) }
    }

    pub(super) fn of_root(&self) -> Folded {
        Folded::from_steps(self.mode, Some(&self.steps))
    }
}

impl Steps {
    fn add(&mut self, names: &[&[u8]]) {
        let Some((first, rest)) = names.split_first() else {
            self.is_folded = true;
            return;
        };
        let child = self.children.entry((*first).into()).or_default();
        // Nobody else has it before all subtrees are there.
        if let Some(child) = Arc::get_mut(child) {
            child.add(rest);
        }
    }
}

impl Folded {
    fn from_steps(mode: Mode, steps: Option<&Arc<Steps>>) -> Self {
        match steps {
            None => Self::No,
            Some(steps) if steps.is_folded => Self::Yes(mode),
            Some(steps) if steps.children.is_empty() => Self::No,
            Some(steps) => Self::Below(mode, Arc::clone(steps)),
        }
    }

    /// The same of the directory `name` in it.
    pub(super) fn child(&self, name: &[u8]) -> Self {
        match self {
            Self::No => Self::No,
            Self::Yes(mode) => Self::Yes(*mode),
            Self::Below(mode, steps) => Self::from_steps(*mode, steps.children.get(name)),
        }
    }

    pub(super) fn mode(&self) -> Option<Mode> {
        match self {
            Self::Yes(mode) => Some(*mode),
            Self::No | Self::Below(..) => None,
        }
    }
}

impl Directory {
    /// How names in it are folded; `None` where they are not.
    pub(super) fn mode(&self) -> Option<Mode> {
        self.folded.get().and_then(Folded::mode)
    }

    /// Folds as its place in `parent` says; the first place that it is seen at counts.
    pub(super) fn inherit_folding(&self, parent: &Self, name: Name<'_>) {
        if let (None, Some(parent)) = (self.folded.get(), parent.folded.get()) {
            let _ = self.folded.set(parent.child(name.as_bytes()));
        }
    }
}

impl Spelled<'_> {
    pub(super) fn name(&self) -> Result<Name<'_>> {
        Ok(match self {
            Self::AsAsked(name) => *name,
            Self::Otherwise(name) => Name::new(name)?,
        })
    }
}

impl Overlay {
    /// The spelling of what `name` means in `dir`. The caller holds the lock of the entries.
    pub(super) fn spelled<'n>(&self, dir: &Arc<Node>, name: Name<'n>) -> Result<Spelled<'n>> {
        let Some(mode) = dir.directory()?.mode() else { return Ok(Spelled::AsAsked(name)) };
        let key = fold(name.as_bytes(), mode);
        let spellings = self.with_index(dir, |index| index.spellings(key.as_bytes()))?;
        let Some((shown, others)) = spellings.split_first() else { return Ok(Spelled::AsAsked(name)) };
        if **shown == *name.as_bytes() {
            return Ok(Spelled::AsAsked(name));
        }
        if others.iter().any(|other| **other == *name.as_bytes()) {
            let (_, parts) = self.united(dir, Name::new(shown)?, others)?;
            if !parts.iter().any(|part| ***part == *name.as_bytes()) {
                return Ok(Spelled::AsAsked(name));
            }
        }
        Ok(Spelled::Otherwise(Arc::clone(shown)))
    }

    /// Spellings of what is `name` in `dir`, other than this one.
    fn others(&self, dir: &Arc<Node>, name: Name<'_>) -> Result<Vec<Arc<[u8]>>> {
        let Some(mode) = dir.directory()?.mode() else { return Ok(Vec::new()) };
        let key = fold(name.as_bytes(), mode);
        let mut spellings = self.with_index(dir, |index| index.spellings(key.as_bytes()))?.into_vec();
        spellings.retain(|other| **other != *name.as_bytes());
        Ok(spellings)
    }

    /// What `shown` in `dir` is made of, those directories of `others` included that are one with it; and which these are.
    fn united<'o>(
        &self,
        dir: &Arc<Node>,
        shown: Name<'_>,
        others: &'o [Arc<[u8]>],
    ) -> Result<(Option<Found<'_>>, Parts<'o>)> {
        let Some(mut found) = self.find_exact(dir, shown)? else { return Ok((None, Vec::new())) };
        let mut parts = Vec::new();
        if found.attr.kind == FileKind::Directory {
            for other in others {
                if let Some(part) = self.find_exact(dir, Name::new(other)?)?
                    && found.absorb(part)?
                {
                    parts.push(other);
                }
            }
        }
        Ok((Some(found), parts))
    }

    /// What `name`, the spelling that shows of a directory in `dir`, is made of with its other spellings; `found` alone
    /// where it is another one.
    pub(super) fn unite<'a>(
        &'a self,
        dir: &Arc<Node>,
        name: Name<'_>,
        mode: Mode,
        found: Found<'a>,
    ) -> Result<Option<Found<'a>>> {
        let key = fold(name.as_bytes(), mode);
        let spellings = self.with_index(dir, |index| index.spellings(key.as_bytes()))?;
        match spellings.split_first() {
            Some((shown, others)) if !others.is_empty() && **shown == *name.as_bytes() => {
                drop(found);
                Ok(self.united(dir, name, others)?.0)
            }
            _ => Ok(Some(found)),
        }
    }

    /// A look-up in a directory that folds names.
    pub(super) fn lookup_folded(&self, dir: &Arc<Node>, name: Name<'_>) -> Result<Lookup> {
        let directory = dir.directory()?;
        if directory.index.lock().is_none()
            && let Some(found) =
                self.find_exact(dir, name)?.filter(|found| found.attr.kind != FileKind::Directory)
        {
            // Its exact name: no need to know the others.
            let first = std::cell::Cell::new(Some(found));
            let find = || first.take().map_or_else(|| self.find_exact(dir, name), |found| Ok(Some(found)));
            if let Some(entry) = self.entry(dir, name, find)? {
                return Ok(Lookup::Found(entry));
            }
        }
        let spelled = self.spelled(dir, name)?;
        let there = spelled.name()?;
        let Some(entry) = self.entry(dir, there, || self.find(dir, there))? else {
            return Ok(match name.as_bytes() {
                MARKER => Lookup::Found(marker()),
                _ if self.stack.upper().is_none() => Lookup::Absent,
                _ => Lookup::AbsentUncached,
            });
        };
        Ok(match spelled {
            Spelled::AsAsked(_) => Lookup::Found(entry),
            Spelled::Otherwise(_) => Lookup::Respelled(entry),
        })
    }

    /// Takes all spellings of `name` in `dir` away but this one and `spared`: what the name means is about to go. Those
    /// directories stay that have something in the upper and are not one with it. Returns what has to be copied up for that.
    pub(super) fn hide_others(
        &self,
        dir: &Arc<Node>,
        name: Name<'_>,
        spared: Option<Name<'_>>,
    ) -> Result<Option<Target<'_>>> {
        for other in self.others(dir, name)? {
            let other = Name::new(&other)?;
            if Some(other) != spared
                && let Some(target) = self.hide(dir, other)?
            {
                return Ok(Some(target));
            }
        }
        Ok(None)
    }

    fn hide(&self, dir: &Arc<Node>, name: Name<'_>) -> Result<Option<Target<'_>>> {
        let Some(target) = self.target(dir, name)? else { return Ok(None) };
        if !target.node.is_dir() {
            return self.remove_file(dir, name, target);
        }
        if target.node.upper().is_some() {
            return Ok(None);
        }
        let dir_id = self.copy_up(dir, Keep::All)?;
        let link = {
            let mut state = target.node.state.lock();
            self.upper()?.whiteout(dir_id, name)?;
            state.removed = true;
            state.take_link(dir, name)
        };
        self.index_remove(dir, name);
        if let Some(link) = link {
            self.table.release(&self.stack, &link.parent, 1);
        }
        self.invalidate.entry(dir.ino, name.as_bytes());
        Ok(None)
    }

    /// Copies up what [`hide_others`](Self::hide_others) may ask for.
    pub(super) fn prepare_hidden(&self, dir: &Arc<Node>, name: Name<'_>) -> Result<()> {
        if dir.directory()?.mode().is_none() {
            return Ok(());
        }
        let mut targets = Vec::new();
        {
            let _entries = dir.directory()?.lock.read();
            let there = self.spelled(dir, name)?;
            for other in self.others(dir, there.name()?)? {
                targets.extend(self.target(dir, Name::new(&other)?)?);
            }
        }
        for target in targets.iter().filter(|target| self.must_be_indexed(&target.node)) {
            self.copy_up(&target.node, Keep::Attributes)?;
        }
        Ok(())
    }

    /// Has the kernel forget that a file may keep its entry, which it has brought along from a directory where that is so.
    pub(super) fn forget_lasting(&self, node: &Node, from: &Node, (dir, name): (&Node, Name<'_>)) {
        let folds = |dir: &Node| dir.dir.as_deref().is_some_and(|dir| dir.mode().is_some());
        if !node.is_dir() && folds(dir) && !folds(from) {
            self.invalidate.entry(dir.ino, name.as_bytes());
        }
    }

    /// `EXDEV` where a directory would fold its names differently as `name` in `dir`: what it has already is not folded
    /// anew. The caller copies and deletes.
    pub(super) fn check_same_folding(&self, node: &Node, dir: &Node, name: Name<'_>) -> Result<()> {
        let (Some(own), Some(dir)) = (&node.dir, &dir.dir) else { return Ok(()) };
        let Some(there) = dir.folded.get().map(|folded| folded.child(name.as_bytes())) else { return Ok(()) };
        match (own.folded.get(), there) {
            (None | Some(Folded::No), Folded::No) => Ok(()),
            (Some(Folded::Yes(own)), Folded::Yes(there)) if *own == there => Ok(()),
            _ => Err(Error::new(Errno::EXDEV, "move a directory to where names are folded otherwise")),
        }
    }

    /// Whether names in the directory `ino` are folded.
    pub(super) fn do_is_folded(&self, ino: Ino) -> Result<bool> {
        let node = self.table.get(ino)?;
        Ok(node.dir.as_deref().is_some_and(|dir| dir.mode().is_some()))
    }

    /// Attributes of what has no node.
    pub(super) fn attr_of_marker(&self, ino: Ino) -> Option<Attr> {
        (self.options.casefold.is_some() && ino == marker_ino()).then(|| marker().attr)
    }
}

impl Found<'_> {
    /// Takes the directory `other`, of another spelling, in, unless it is none, a layer has both, or one hides the other.
    pub(super) fn absorb(&mut self, mut other: Self) -> Result<bool> {
        if other.attr.kind != FileKind::Directory || (self.upper.is_some() && other.upper.is_some()) {
            return Ok(false);
        }
        let has = |found: &Self, layer| found.lowers.as_slice().iter().any(|lower| lower.layer == layer);
        if other.lowers.as_slice().iter().any(|lower| has(self, lower.layer))
            || self.hides_below(&other)?
            || other.hides_below(self)?
        {
            return Ok(false);
        }
        let lowest = |found: &Self| found.lowers.as_slice().last().map(|lower| lower.layer);
        if let (Some(theirs), ours) = (lowest(&other), lowest(self))
            && ours.is_none_or(|ours| theirs < ours)
        {
            self.lower_ino = other.lower_ino;
        }
        let is_above = match (self.upper, other.upper, self.lowers.top(), other.lowers.top()) {
            (_, Some(_), ..) => true,
            (Some(_), ..) => false,
            (_, _, ours, theirs) => theirs.map(|lower| lower.layer) > ours.map(|lower| lower.layer),
        };
        if is_above {
            self.attr = other.attr;
            self.marks = std::mem::take(&mut other.marks);
        }
        self.upper = self.upper.or(other.upper.take());
        let mut lowers: Vec<LowerRef> = self.lowers.as_slice().to_vec();
        lowers.extend_from_slice(std::mem::take(&mut other.lowers).as_slice());
        lowers.sort_by_key(|lower| std::cmp::Reverse(lower.layer));
        self.lowers = pack(&lowers);
        Ok(true)
    }

    /// Whether nothing of `other` shows that is below this directory's lowest part, and there is something.
    fn hides_below(&self, other: &Self) -> Result<bool> {
        let Some(lowest) = self.lowers.as_slice().last() else {
            return Ok(self.marks.opaque && !other.lowers.is_empty());
        };
        if !other.lowers.as_slice().iter().any(|lower| lower.layer < lowest.layer) {
            return Ok(false);
        }
        let layer = self.stack.layer(lowest.layer)?;
        Ok(Marks::read(&*layer, lowest.node, FileKind::Directory)?.opaque)
    }
}

/// The number of what has no node: no private number ever gets there.
fn marker_ino() -> Ino {
    private_ino((1 << 48) - 1)
}

fn marker() -> Entry {
    let ino = marker_ino();
    let attr = Attr {
        ino: ino.get(),
        kind: FileKind::Regular,
        perm: 0o444,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: DeviceId::default(),
        size: 0,
        blocks: 0,
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
        btime: None,
    };
    Entry { ino, generation: 0, attr }
}
