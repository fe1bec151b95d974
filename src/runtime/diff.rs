//! What the upper changes: the list that `fim-layer diff` prints.
//!
//! The upper is walked as it is (whiteouts and opaque marks are seen), and each name is looked up in the merged view
//! of the layers below it, a moved directory under the name that it had there. Pure: both sides are handed in.

use std::{fmt, ops::ControlFlow};

use crate::vfs::{Attr, FileKind, FileSystem, Ino, Layer, Lookup, Name, NodeId, Result};

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// The layers below do not have it.
    Added,
    /// It replaces what the layers below have.
    Modified,
    /// The layers below have it, and it is gone.
    Deleted,
}

impl ChangeKind {
    /// The letter of the listing.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Modified => 'M',
            Self::Deleted => 'D',
        }
    }
}

/// One line of the listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Absolute path in the merged tree: bytes.
    pub path: Vec<u8>,
    /// What happened to it.
    pub kind: ChangeKind,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.letter(), String::from_utf8_lossy(&self.path))
    }
}

/// Lists what `upper` changes over `below`, sorted by path.
///
/// A directory that the upper holds only because something in it changed is not listed; a deleted directory is one
/// line. Of one that was moved the old and the new place are listed, and what has changed in it.
///
/// # Errors
///
/// What reading either side gave.
pub fn changes(upper: &dyn Layer, below: &dyn FileSystem) -> Result<Vec<Change>> {
    let mut walk = Walk { upper, below, found: Vec::new() };
    let mut pending = vec![Pending { path: Vec::new(), node: upper.root(), beneath: Some(Ino::ROOT) }];
    while let Some(directory) = pending.pop() {
        walk.directory(&directory, &mut pending)?;
        if directory.node != upper.root() {
            upper.forget(directory.node);
        }
        if let Some(ino) = directory.beneath.filter(|ino| *ino != Ino::ROOT) {
            below.forget(ino, 1);
        }
    }
    walk.found.sort_unstable();
    Ok(walk.found)
}

/// A directory of the upper that waits to be walked; both sides carry a reference, the roots none.
struct Pending {
    path: Vec<u8>,
    node: NodeId,
    beneath: Option<Ino>,
}

struct Walk<'a> {
    upper: &'a dyn Layer,
    below: &'a dyn FileSystem,
    found: Vec<Change>,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &Pending, pending: &mut Vec<Pending>) -> Result<()> {
        let names = self.names(directory.node)?;
        let opaque = self.is_opaque(directory.node)?;
        if let Some(beneath) = directory.beneath.filter(|_| opaque) {
            self.hidden_by_opaque(directory, beneath, &names)?;
        }
        for name in names {
            let name = Name::new(&name)?;
            let Some((node, attr)) = self.upper.lookup(directory.node, name)? else { continue };
            let lower =
                directory.beneath.map(|beneath| self.below_entry(beneath, name)).transpose()?.flatten();
            let moved = self.moved_from(directory, (node, attr))?;
            self.entry(joined(&directory.path, name), (node, attr), lower, moved, pending);
        }
        Ok(())
    }

    /// Judges one entry; takes over the references on both sides.
    fn entry(
        &mut self,
        path: Vec<u8>,
        (node, attr): (NodeId, Attr),
        lower: Option<(Ino, Attr)>,
        moved: Option<Ino>,
        pending: &mut Vec<Pending>,
    ) {
        let both_directories = attr.kind == FileKind::Directory
            && moved.is_none()
            && lower.is_some_and(|(_, lower)| lower.kind == FileKind::Directory);
        let kind = match lower {
            _ if attr.is_whiteout() => lower.map(|_| ChangeKind::Deleted),
            None => Some(ChangeKind::Added),
            Some((_, lower)) if both_directories => is_touched(&attr, &lower).then_some(ChangeKind::Modified),
            Some(_) => Some(ChangeKind::Modified),
        };
        if let Some(kind) = kind {
            self.found.push(Change { path: path.clone(), kind });
        }
        let beneath = lower.map(|(ino, _)| ino);
        if attr.kind == FileKind::Directory {
            if !both_directories {
                beneath.into_iter().for_each(|ino| self.below.forget(ino, 1));
            }
            let beneath = moved.or(beneath.filter(|_| both_directories));
            pending.push(Pending { path, node, beneath });
        } else {
            self.upper.forget(node);
            beneath.into_iter().for_each(|ino| self.below.forget(ino, 1));
        }
    }

    /// The directory below that an entry of the upper continues, where that had another name. Counts a look-up.
    fn moved_from(&self, directory: &Pending, (node, attr): (NodeId, Attr)) -> Result<Option<Ino>> {
        if attr.kind != FileKind::Directory || self.is_opaque(node)? {
            return Ok(None);
        }
        let mut value = None;
        for name in [&b"user.fim.redirect"[..], b"user.overlay.redirect", b"trusted.overlay.redirect"] {
            value = value.or(self.upper.xattr(node, name)?);
        }
        let Some(value) = value else { return Ok(None) };
        let (mut at, path) = match value.strip_prefix(b"/") {
            Some(path) => (Some(Ino::ROOT), path),
            None => (directory.beneath, &value[..]),
        };
        let mut held = None;
        for name in path.split(|byte| *byte == b'/') {
            let entry = match (at, Name::new(name)) {
                (Some(at), Ok(name)) => self.below_entry(at, name)?,
                _ => None,
            };
            held.into_iter().for_each(|ino| self.below.forget(ino, 1));
            held = entry.map(|(ino, _)| ino);
            at = entry.filter(|(_, attr)| attr.kind == FileKind::Directory).map(|(ino, _)| ino);
        }
        if at.is_none() {
            held.into_iter().for_each(|ino| self.below.forget(ino, 1));
        }
        Ok(at)
    }

    /// Lists what an opaque directory hides and does not have itself.
    fn hidden_by_opaque(&mut self, directory: &Pending, beneath: Ino, names: &[Vec<u8>]) -> Result<()> {
        let mut listing = Listing::default();
        self.below.readdir(beneath, 0, &mut listing)?;
        for hidden in listing.names.into_iter().filter(|name| !names.contains(name)) {
            let path = joined(&directory.path, Name::new(&hidden)?);
            self.found.push(Change { path, kind: ChangeKind::Deleted });
        }
        Ok(())
    }

    fn below_entry(&self, directory: Ino, name: Name<'_>) -> Result<Option<(Ino, Attr)>> {
        Ok(match self.below.lookup(directory, name)? {
            Lookup::Found(entry) | Lookup::Respelled(entry) => Some((entry.ino, entry.attr)),
            Lookup::Absent | Lookup::AbsentUncached => None,
        })
    }

    fn names(&self, directory: NodeId) -> Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        self.upper.read_dir(directory, 0, &mut |entry| {
            names.push(entry.name.as_bytes().to_vec());
            ControlFlow::Continue(())
        })?;
        Ok(names)
    }

    fn is_opaque(&self, directory: NodeId) -> Result<bool> {
        for name in [&b"user.overlay.opaque"[..], b"trusted.overlay.opaque"] {
            if self.upper.xattr(directory, name)?.is_some_and(|value| value == b"y") {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a directory that both sides have was changed itself.
fn is_touched(upper: &Attr, lower: &Attr) -> bool {
    (upper.perm, upper.uid, upper.gid) != (lower.perm, lower.uid, lower.gid)
}

fn joined(directory: &[u8], name: Name<'_>) -> Vec<u8> {
    [directory, b"/", name.as_bytes()].concat()
}

/// Takes a whole directory without its dot names.
#[derive(Default)]
struct Listing {
    names: Vec<Vec<u8>>,
}

impl crate::vfs::DirSink for Listing {
    fn push(&mut self, _ino: Ino, _kind: FileKind, name: &[u8], _next: u64) -> Result<(), crate::vfs::Full> {
        if name != b"." && name != b".." {
            self.names.push(name.to_vec());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        layer::Memory,
        overlay::{Overlay, OverlayOptions},
        sync::Arc,
        vfs::NoInvalidate,
    };

    fn name(text: &str) -> Name<'_> {
        Name::new(text.as_bytes()).unwrap()
    }

    fn directory(layer: &mut Memory, at: NodeId, text: &str, redirect: &str) -> NodeId {
        let made = layer.add(at, name(text), FileKind::Directory, 0o755, b"");
        if !redirect.is_empty() {
            layer.set_xattr(made, b"user.fim.redirect", redirect.as_bytes());
        }
        made
    }

    #[test]
    fn a_moved_directory_is_its_two_places_and_what_changed_in_it() {
        let mut lower = Memory::new();
        let root = lower.root();
        for text in ["a", "b", "c"] {
            let made = directory(&mut lower, root, text, "");
            lower.add(made, name("kept"), FileKind::Regular, 0o644, b"");
            lower.add(made, name("gone"), FileKind::Regular, 0o644, b"");
        }
        let mut upper = Memory::new();
        for (text, redirect) in [("x", "a"), ("y", "/b"), ("z", "/c/../c"), ("w", "none")] {
            let made = directory(&mut upper, root, text, redirect);
            upper.add(made, name("kept"), FileKind::Regular, 0o644, b"new");
            upper.add_whiteout(made, name("gone"));
        }
        for text in ["a", "b"] {
            upper.add_whiteout(root, name(text));
        }
        let options = OverlayOptions::default();
        let below = Overlay::new(vec![Arc::new(lower)], None, options, Arc::new(NoInvalidate)).unwrap();
        let found: Vec<_> = changes(&upper, &below).unwrap().iter().map(ToString::to_string).collect();
        let expected = [
            "D /a",
            "D /b",
            "A /w",
            "A /w/kept",
            "A /x",
            "D /x/gone",
            "M /x/kept",
            "A /y",
            "D /y/gone",
            "M /y/kept",
            "A /z",
            "A /z/kept",
        ];
        assert_eq!(found, expected);
        assert_eq!(below.live_nodes(), 1);
    }
}
