//! From a path to an object. Symlinks are resolved inside the tree, as if it were the root: an absolute target begins
//! at its root, and `..` does not lead above it.

use super::{BrowseError, Object, Tree, damaged};
use crate::vfs::{FileKind, FileSystem as _, Lookup, Name};

/// Symlinks on the way to one object (as Linux allows).
const MOST_LINKS: usize = 40;

/// What to do with a symlink at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// It is what is meant.
    Keep,
    /// What it leads to is meant.
    Follow,
}

/// An object with its path from the root: names with `/` between them, no links on the way.
#[derive(Debug)]
pub struct Found<'t> {
    /// The path; empty for the root.
    pub path: Vec<u8>,
    /// The object.
    pub object: Object<'t>,
}

impl Tree {
    /// Finds an object. A path that ends with a slash means what a symlink leads to.
    ///
    /// # Errors
    ///
    /// [`BrowseError`] says whether there is none, or what is damaged on the way.
    pub fn find(&self, path: &[u8], links: Links) -> Result<Found<'_>, BrowseError> {
        let follow = links == Links::Follow || path.last() == Some(&b'/');
        let root = self.root()?;
        // Names that lead from the root to where we are, each with its object.
        let mut way: Vec<(Vec<u8>, Object<'_>)> = Vec::new();
        let mut ahead: Vec<Vec<u8>> = Vec::new();
        push_names(&mut ahead, path);
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == b".." {
                way.pop();
                continue;
            }
            let missing = || BrowseError::Missing { path: path.to_owned() };
            let name = Name::new(&name).map_err(|_| missing())?;
            let here = way.last().map_or(&root, |(_, object)| object);
            if !here.is_dir() {
                return Err(missing());
            }
            let found = self.overlay.lookup(here.entry.ino, name).map_err(damaged("find", path))?;
            let Lookup::Found(entry) = found else { return Err(missing()) };
            let object = self.object(entry);
            if object.attr().kind == FileKind::Symlink && (follow || !ahead.is_empty()) {
                links += 1;
                if links > MOST_LINKS {
                    return Err(BrowseError::Loop { path: path.to_owned() });
                }
                let target = object.target(path)?;
                if target.first() == Some(&b'/') {
                    way.clear();
                }
                push_names(&mut ahead, &target);
                continue;
            }
            way.push((name.as_bytes().to_owned(), object));
        }
        let path = way.iter().map(|(name, _)| name.as_slice()).collect::<Vec<_>>().join(&b'/');
        let object = way.pop().map_or(root, |(_, object)| object);
        Ok(Found { path, object })
    }
}

/// Puts the names of a path on the pile of those ahead, the first one uppermost.
fn push_names(ahead: &mut Vec<Vec<u8>>, path: &[u8]) {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    ahead.extend(names.rev().map(<[u8]>::to_owned));
}
