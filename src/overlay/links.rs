//! Files of layers that have several names: they stay one file.
//!
//! When the first of the names is copied up the copy is published in the index, a directory beside the work directory,
//! under the identity of the lower file. A look-up of another name finds the lower file, and by that the copy. A name
//! gets into the upper when it is copied up itself, moved or removed.
//!
//! ```text
//!   WORK/index/2.1f     the copy of inode 0x1f of layer 2, one of its hard links
//!   user.fim.links      on the copy: how many names it has, and of what it is the copy
//!      "+3 2.1f.…"      its names in the upper, and 3 of the layer that the upper does not have yet
//!      "=4 2.1f.…"      4 in all
//! ```
//!
//! The number of names is right whenever a crash comes: `=` is written before a name of the layer becomes one of the
//! upper, which changes nothing in all; `+` before a name of the upper comes or goes. A name that is only the layer's is
//! first given to the upper, and then removed there.

use std::ops::ControlFlow;

use super::{
    Overlay,
    copy_up::{Keep, times_of},
    marks::Marks,
    node::{Contents, LowerRef, Node, Object, State},
    stack::Found,
};
use crate::{
    sync::atomic::Ordering,
    vfs::{
        Attr, DirSink, FileKind, FileSystem as _, Full, Ino, Lookup, Name, NodeId, Result, Spot, Upper,
        XattrFlags,
    },
};

/// The extended attribute.
pub(super) const LINKS: &[u8] = b"user.fim.links";

/// How the names of an indexed file are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// Those of the upper, and so many of the layer.
    Beside(u32),
    /// So many in all.
    InAll(u32),
}

/// What the attribute says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Links {
    pub(super) count: Count,
    /// Of what it is the copy: layer, inode number, length and time of the last change.
    identity: Box<str>,
}

impl Links {
    /// The links of a file of a layer of which no name has been removed.
    pub(super) fn of_lower(lower: LowerRef, attr: &Attr, names: u32) -> Self {
        let (layer, mtime) = (lower.layer, attr.mtime);
        let identity =
            format!("{layer:x}.{:x}.{:x}.{:x}.{:x}", attr.ino, attr.size, mtime.seconds, mtime.nanos);
        Self { count: Count::InAll(names), identity: identity.into() }
    }

    /// Reads a stored value.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let (count, identity) = std::str::from_utf8(value).ok()?.split_once(' ')?;
        let count = match count.split_at_checked(1)? {
            ("+", names) => Count::Beside(names.parse().ok()?),
            ("=", names) => Count::InAll(names.parse().ok()?),
            _ => return None,
        };
        Some(Self { count, identity: identity.into() })
    }

    /// The value to be stored.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { count, identity } = self;
        match count {
            Count::Beside(names) => format!("+{names} {identity}"),
            Count::InAll(names) => format!("={names} {identity}"),
        }
        .into_bytes()
    }

    /// The name in the index.
    pub(super) fn key(&self) -> Vec<u8> {
        let parts: Vec<_> = self.identity.split('.').take(2).collect();
        parts.join(".").into_bytes()
    }

    /// Number of names that only the layer has, where the copy has `links` in all, the one in the index included.
    fn lower_names(&self, links: u32) -> u32 {
        match self.count {
            Count::Beside(names) => names,
            Count::InAll(names) => names.saturating_sub(links.saturating_sub(1)),
        }
    }
}

impl Overlay {
    /// The copy of a file of a layer that has several names, where another of them has been copied up.
    pub(super) fn find_copy<'a>(&'a self, mut found: Found<'a>) -> Result<Found<'a>> {
        let (Some(upper), None, Some(lower)) = (self.stack.upper(), found.upper, found.lowers.top()) else {
            return Ok(found);
        };
        if found.attr.kind != FileKind::Regular || found.attr.nlink < 2 {
            return Ok(found);
        }
        let links = Links::of_lower(lower, &found.attr, 0);
        let key = links.key();
        let Some((id, attr)) = upper.lookup(upper.index(), Name::new(&key)?)? else { return Ok(found) };
        let marks = match Marks::read(&**upper, id, attr.kind) {
            Ok(marks) if is_same(marks.links.as_ref(), &links) => marks,
            other => {
                upper.forget(id);
                return other.map(|_| found);
            }
        };
        found.upper = Some(id);
        found.attr = attr;
        if !marks.metacopy {
            let lowers = std::mem::take(&mut found.lowers);
            found.contents = Contents::Own;
            lowers.as_slice().iter().for_each(|lower| self.stack.forget(Object::lower(*lower)));
        } else if found.contents == Contents::Own {
            found.contents = Contents::Below(lower);
        }
        found.marks = marks;
        Ok(found)
    }

    /// What is known of the names of something that was found: those that only a layer has, and, where it is in the
    /// index, what its attribute says.
    pub(super) fn count_names(&self, found: &Found<'_>) -> Result<(u32, Option<Links>)> {
        let Some(id) = found.upper else { return Ok((found.attr.nlink, None)) };
        let Some(links) = &found.marks.links else { return Ok((0, None)) };
        let upper = self.upper()?;
        let key = links.key();
        let Ok(key) = Name::new(&key) else { return Ok((0, None)) };
        // What the index does not have is a copy of something that is no longer there.
        let Some((indexed, _)) = upper.lookup(upper.index(), key)? else { return Ok((0, None)) };
        upper.forget(indexed);
        Ok(match indexed == id {
            true => (links.lower_names(found.attr.nlink), Some(links.clone())),
            false => (0, None),
        })
    }

    /// Makes a name that only a layer has one of the upper as well. The caller holds the lock of the state.
    pub(super) fn name_in_upper(
        &self,
        state: &mut State,
        id: NodeId,
        (dir, name): (NodeId, Name<'_>),
    ) -> Result<()> {
        let upper = self.upper()?;
        self.count_as(state, id, |names, links| Count::InAll(names + links))?;
        upper.link(id, dir, name)?;
        state.lower_names = state.lower_names.saturating_sub(1);
        self.copies.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Lets the names be counted so that one of the upper may come or go.
    pub(super) fn count_upper_names(&self, state: &mut State) -> Result<()> {
        match state.upper {
            Some(id) => self.count_as(state, id, |names, _| Count::Beside(names)),
            None => Ok(()),
        }
    }

    fn count_as(&self, state: &mut State, id: NodeId, count: fn(u32, u32) -> Count) -> Result<()> {
        let names = state.lower_names;
        let Some(links) = &mut state.indexed else { return Ok(()) };
        let upper = self.upper()?;
        let in_upper = upper.attr(id)?.nlink.saturating_sub(1);
        let count = count(names, in_upper);
        if links.count != count {
            let counted = Links { count, ..links.clone() };
            upper.set_xattr(id, LINKS, &counted.encode(), XattrFlags::empty())?;
            *links = counted;
        }
        Ok(())
    }

    /// Takes a copy that has lost its last name out of the index. The name has gone by now, so nothing fails any more:
    /// what stays there is swept at the next start.
    pub(super) fn leave_index(&self, state: &mut State) {
        self.copies.fetch_add(1, Ordering::SeqCst);
        let (Some(links), Some(id)) = (&state.indexed, state.upper) else { return };
        let Ok(upper) = self.upper() else { return };
        if state.lower_names == 0 && upper.attr(id).is_ok_and(|attr| attr.nlink <= 1) {
            let key = links.key();
            if let Ok(name) = Name::new(&key) {
                let _ = upper.unlink(Spot { dir: upper.index(), name, node: Some(id) });
            }
            state.indexed = None;
        }
    }

    /// Whether a name of `node` can only be removed when the others are known to belong to it.
    pub(super) fn must_be_indexed(&self, node: &Node) -> bool {
        let state = node.state.lock();
        node.kind == FileKind::Regular && state.upper.is_none() && state.lower_names > 1
    }

    /// Removes copies from the index that have no names any more: what crashes left. All of them where the upper is
    /// empty: somebody has thrown the changes away.
    pub(super) fn sweep_index(upper: &dyn Upper) -> Result<()> {
        let mut is_empty = true;
        upper.read_dir(upper.root(), 0, &mut |_| {
            is_empty = false;
            ControlFlow::Break(())
        })?;
        for name in names_in(upper, upper.index())? {
            let name = Name::new(&name)?;
            let Some((id, attr)) = upper.lookup(upper.index(), name)? else { continue };
            let marks = Marks::read(upper, id, attr.kind);
            let names = marks.map(|marks| marks.links.map_or(0, |links| links.lower_names(attr.nlink)));
            let swept = match names {
                Ok(names) if is_empty || (names == 0 && attr.nlink <= 1) => {
                    upper.unlink(Spot { dir: upper.index(), name, node: Some(id) })
                }
                other => other.map(drop),
            };
            upper.forget(id);
            swept?;
        }
        Ok(())
    }

    /// Gives the upper all names of copied-up files: it is about to become a layer, which has no index. Changes stand
    /// still meanwhile.
    pub(super) fn name_all_in_upper(&self) -> Result<()> {
        let upper = self.upper()?;
        let mut left = 0;
        for name in names_in(&**upper, upper.index())? {
            let Some((id, attr)) = upper.lookup(upper.index(), Name::new(&name)?)? else { continue };
            let marks = Marks::read(&**upper, id, attr.kind);
            upper.forget(id);
            left += marks?.links.map_or(0, |links| links.lower_names(attr.nlink));
        }
        let mut pending = vec![Ino::ROOT];
        while let Some(dir) = pending.pop() {
            let walked = match left {
                0 => Ok(()),
                _ => self.name_entries_in_upper(dir, &mut pending, &mut left),
            };
            if dir != Ino::ROOT {
                self.forget(dir, 1);
            }
            if walked.is_err() {
                pending.into_iter().filter(|dir| *dir != Ino::ROOT).for_each(|dir| self.forget(dir, 1));
                return walked;
            }
        }
        Ok(())
    }

    /// The entries of one directory; directories in it are added to `pending` with a look-up.
    fn name_entries_in_upper(&self, dir: Ino, pending: &mut Vec<Ino>, left: &mut u32) -> Result<()> {
        let mut entries = Entries::default();
        self.readdir(dir, 0, &mut entries)?;
        for (name, kind) in entries.0 {
            let name = Name::new(&name)?;
            if kind == FileKind::Directory {
                if let Lookup::Found(entry) = self.lookup(dir, name)? {
                    pending.push(entry.ino);
                }
            } else if kind == FileKind::Regular && self.name_entry_in_upper(dir, name)? {
                *left = left.saturating_sub(1);
            }
        }
        Ok(())
    }

    fn name_entry_in_upper(&self, dir: Ino, name: Name<'_>) -> Result<bool> {
        let _topology = self.topology.read();
        let _renaming = self.renaming.read();
        let dir = self.table.get(dir)?;
        let _entries = dir.directory()?.lock.write();
        let Some(target) = self.target(&dir, name)? else { return Ok(false) };
        if target.node.state.lock().indexed.is_none() {
            return Ok(false);
        }
        let dir_id = self.copy_up(&dir, Keep::All)?;
        let upper = self.upper()?;
        let before = upper.attr(dir_id)?;
        let mut state = target.node.state.lock();
        let (Some(id), None) = (state.upper, upper.peek(dir_id, name)?) else { return Ok(false) };
        self.name_in_upper(&mut state, id, (dir_id, name))?;
        // For programs the entry is not new.
        upper.set_attr(dir_id, &times_of(&before))?;
        Ok(true)
    }

    /// Empties the index: all that is in it has become part of a layer.
    pub(super) fn empty_index(&self, upper: &dyn Upper) -> Result<()> {
        for name in names_in(upper, upper.index())? {
            upper.unlink(Spot { dir: upper.index(), name: Name::new(&name)?, node: None })?;
        }
        Ok(())
    }
}

/// Whether both speak of the same file of a layer.
fn is_same(one: Option<&Links>, other: &Links) -> bool {
    one.is_some_and(|one| one.identity == other.identity)
}

pub(super) fn names_in(upper: &dyn Upper, dir: NodeId) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    upper.read_dir(dir, 0, &mut |entry| {
        names.push(entry.name.as_bytes().to_vec());
        ControlFlow::Continue(())
    })?;
    Ok(names)
}

/// Takes all entries of a directory but those of dots.
#[derive(Default)]
pub(super) struct Entries(pub(super) Vec<(Vec<u8>, FileKind)>);

impl DirSink for Entries {
    fn push(&mut self, _ino: Ino, kind: FileKind, name: &[u8], _next: u64) -> Result<(), Full> {
        if name != b"." && name != b".." {
            self.0.push((name.to_vec(), kind));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_back_and_others_are_refused() {
        for value in ["+0 2.1f.3.4.5", "=17 0.1.2.3.4"] {
            let links = Links::parse(value.as_bytes()).unwrap();
            assert_eq!(links.encode(), value.as_bytes());
        }
        assert_eq!(Links::parse(b"+3 2.1f.3.4.5").unwrap().key(), b"2.1f");
        for value in ["", "+", "3 2.1", "+x 2.1", "-1 2.1", "+99999999999 2.1", "+1"] {
            assert_eq!(Links::parse(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn names_are_counted_with_or_without_those_of_the_upper() {
        let names = |value: &str, links| Links::parse(value.as_bytes()).unwrap().lower_names(links);
        assert_eq!((names("+2 0.1", 1), names("+2 0.1", 4)), (2, 2));
        assert_eq!((names("=3 0.1", 1), names("=3 0.1", 2), names("=3 0.1", 9)), (3, 2, 0));
    }
}
