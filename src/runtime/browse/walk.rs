//! A directory and everything below it, in the order of names; as deep as there are directories, without recursion.

use super::{BrowseError, Child, Found, Object};

/// A directory that is being gone through.
#[derive(Debug)]
struct Level<'t> {
    ahead: std::vec::IntoIter<Child<'t>>,
    path_len: usize,
}

/// What comes next.
#[derive(Debug)]
pub enum Step<'w, 't> {
    /// An object, with its path from the root of the tree. What is below a directory comes next, unless it is skipped.
    Object {
        /// Its path.
        path: &'w [u8],
        /// Its name.
        name: Vec<u8>,
        /// What it is.
        object: Object<'t>,
        /// Directories between it and where the walk began.
        depth: usize,
        /// Whether it is the last one of its directory.
        is_last: bool,
    },
    /// A directory that cannot be listed; the walk goes on behind it.
    Failed(BrowseError),
}

/// A walk.
#[derive(Debug)]
pub struct Walk<'t> {
    path: Vec<u8>,
    levels: Vec<Level<'t>>,
    /// The directory that was shown last and has not been entered yet.
    entered: Option<Object<'t>>,
    hidden: bool,
}

impl<'t> Walk<'t> {
    /// A walk through what is below a directory; `hidden`: also names that begin with a dot.
    #[must_use]
    pub fn below(start: Found<'t>, hidden: bool) -> Self {
        Self { path: start.path, levels: Vec::new(), entered: Some(start.object), hidden }
    }

    /// Does not enter the directory that was shown last.
    pub fn skip(&mut self) {
        self.entered = None;
    }

    /// The next step; `None` at the end. (No iterator: a step borrows the walk's path.)
    pub fn advance(&mut self) -> Option<Step<'_, 't>> {
        if let Some(directory) = self.entered.take() {
            match directory.children(&self.path) {
                Ok(mut children) => {
                    if !self.hidden {
                        children.retain(|child| child.name.first() != Some(&b'.'));
                    }
                    self.levels.push(Level { ahead: children.into_iter(), path_len: self.path.len() });
                }
                Err(error) => return Some(Step::Failed(error)),
            }
        }
        loop {
            let level = self.levels.last_mut()?;
            self.path.truncate(level.path_len);
            let Some(Child { name, object }) = level.ahead.next() else {
                self.levels.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            let is_last = level.ahead.len() == 0;
            let depth = self.levels.len() - 1;
            if object.is_dir() {
                self.entered = Some(object.clone());
            }
            return Some(Step::Object { path: &self.path, name, object, depth, is_last });
        }
    }
}
