//! Looking into archives and images without a mount: the stack is put together as for a mount, and asked directly.
//!
//! ```text
//!   find.rs    from a path to an object, symlinks resolved inside the tree
//!   text.rs    names and times as people and as programs read them
//!   walk.rs    a directory and all below it, in the order of names
//!   copy.rs    out of the tree into a directory of the host
//! ```
//!
//! An [`Object`] counts as one look-up on its node, as the kernel's would, and gives it back when it is dropped.

mod copy;
mod find;
pub mod text;
mod walk;

use std::{fmt, io, path::Path};

use super::stack::{self, LayerSource};
use crate::{
    overlay::Overlay,
    sync::Arc,
    vfs::{self, DirPlusSink, Entry, FileSystem as _, Full, Ino},
};

pub use crate::vfs::{Attr, DeviceId, FileKind, Time};
pub use copy::{Copied, CopyPlan, copy};
pub use find::{Found, Links};
pub use walk::{Step, Walk};

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// Why something in a tree cannot be shown or copied.
#[derive(Debug, thiserror::Error)]
pub enum BrowseError {
    /// The tree cannot be opened.
    #[error(transparent)]
    Open(#[from] stack::Error),
    /// A path that names nothing.
    #[error("cannot find {}: no such file or directory", text::escaped(path))]
    Missing {
        /// The path.
        path: Vec<u8>,
    },
    /// Symlinks that lead to each other.
    #[error("cannot find {}: too many symbolic links", text::escaped(path))]
    Loop {
        /// The path.
        path: Vec<u8>,
    },
    /// Something else where a directory was expected.
    #[error("cannot list {}: it is not a directory", text::escaped(path))]
    NotADirectory {
        /// The path.
        path: Vec<u8>,
    },
    /// Something else where a file was expected.
    #[error("cannot read {}: it is not a regular file", text::escaped(path))]
    NotAFile {
        /// The path.
        path: Vec<u8>,
    },
    /// A directory that was not asked for with all below it.
    #[error("cannot copy {}: it is a directory (-r copies directories)", text::escaped(path))]
    IsADirectory {
        /// The path.
        path: Vec<u8>,
    },
    /// The tree is damaged there.
    #[error("cannot {action} {}", text::escaped(path))]
    Damaged {
        /// What was being done.
        action: &'static str,
        /// On what.
        path: Vec<u8>,
        /// What is wrong.
        source: vfs::Error,
    },
    /// What was read cannot be written.
    #[error("cannot write {}", text::escaped(path))]
    Write {
        /// What was being written.
        path: Vec<u8>,
        /// What the host said.
        source: io::Error,
    },
}

impl BrowseError {
    /// Whether the reader of what is printed has gone away.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Write { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// A merged read-only tree.
pub struct Tree {
    overlay: Overlay,
}

impl Tree {
    /// Opens an archive, an image with all its layers, or a directory; with an `offset` the archive that begins there.
    ///
    /// # Errors
    ///
    /// [`BrowseError::Open`] names what cannot be opened.
    pub fn open(path: &Path, offset: Option<u64>) -> Result<Self, BrowseError> {
        let source = match offset {
            // To the end of the file, however far that is.
            Some(offset) => LayerSource::Section { file: path.to_owned(), offset, len: u64::MAX },
            None => LayerSource::Path(path.to_owned()),
        };
        Ok(Self { overlay: stack::look_into(&[source])? })
    }

    /// The root directory.
    ///
    /// # Errors
    ///
    /// The root itself is damaged.
    pub fn root(&self) -> Result<Object<'_>, BrowseError> {
        let attr = self.overlay.getattr(Ino::ROOT).map_err(damaged("stat", b"/"))?;
        Ok(self.object(Entry { ino: Ino::ROOT, generation: 0, attr }))
    }

    /// Takes over a look-up.
    fn object(&self, entry: Entry) -> Object<'_> {
        Object { tree: self, entry, _held: Arc::new(Held { tree: self, ino: entry.ino }) }
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tree").field(&self.overlay).finish()
    }
}

/// Name and value of an extended attribute.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// Something in a tree.
#[derive(Clone, Debug)]
pub struct Object<'t> {
    tree: &'t Tree,
    entry: Entry,
    _held: Arc<Held<'t>>,
}

/// A look-up that was counted.
#[derive(Debug)]
struct Held<'t> {
    tree: &'t Tree,
    ino: Ino,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.tree.overlay.forget(self.ino, 1);
    }
}

/// An entry of a directory.
#[derive(Debug)]
pub struct Child<'t> {
    /// Its name.
    pub name: Vec<u8>,
    /// What it names.
    pub object: Object<'t>,
}

impl<'t> Object<'t> {
    /// Its attributes.
    #[must_use]
    pub const fn attr(&self) -> &Attr {
        &self.entry.attr
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.attr().kind == FileKind::Directory
    }

    /// The target of a symlink; `path` is what messages call it.
    ///
    /// # Errors
    ///
    /// It is no symlink, or damaged.
    pub fn target(&self, path: &[u8]) -> Result<Vec<u8>, BrowseError> {
        self.tree.overlay.readlink(self.entry.ino).map_err(damaged("read the link", path))
    }

    /// The entries of a directory in the order of their names.
    ///
    /// # Errors
    ///
    /// It is no directory, or damaged.
    pub fn children(&self, path: &[u8]) -> Result<Vec<Child<'t>>, BrowseError> {
        if !self.is_dir() {
            return Err(BrowseError::NotADirectory { path: path.to_owned() });
        }
        let mut sink = Children { tree: self.tree, found: Vec::new(), damaged: None };
        self.tree.overlay.readdirplus(self.entry.ino, 0, &mut sink).map_err(damaged("list", path))?;
        if let Some(name) = sink.damaged {
            let mut inside = path.to_owned();
            inside.push(b'/');
            inside.extend(name);
            return Err(damaged("list", &inside)(vfs::Error::new(vfs::Errno::EIO, "read an entry")));
        }
        sink.found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(sink.found)
    }

    /// Extended attributes with their values.
    ///
    /// # Errors
    ///
    /// It is damaged.
    pub fn xattrs(&self, path: &[u8]) -> Result<Vec<Xattr>, BrowseError> {
        let overlay = &self.tree.overlay;
        if !overlay.has_xattrs() {
            return Ok(Vec::new());
        }
        let failed = || damaged("read the attributes of", path);
        let names = overlay.listxattr(self.entry.ino).map_err(failed())?;
        let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        names
            .map(|name| {
                let value = overlay.getxattr(self.entry.ino, name).map_err(failed())?;
                Ok((name.to_vec(), value))
            })
            .collect()
    }

    /// Gives the contents of a regular file to `take`, piece by piece.
    ///
    /// # Errors
    ///
    /// It is no regular file, or damaged; or `take` failed.
    pub fn contents(
        &self,
        path: &[u8],
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), BrowseError> {
        if self.attr().kind != FileKind::Regular {
            return Err(BrowseError::NotAFile { path: path.to_owned() });
        }
        self.range(path, 0..self.attr().size, &mut |_, bytes| take(bytes))
    }

    /// Gives a part of a regular file to `take`, each piece with its offset.
    pub(in crate::runtime) fn range(
        &self,
        path: &[u8],
        mut range: std::ops::Range<u64>,
        take: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), BrowseError> {
        let written = |source| BrowseError::Write { path: path.to_owned(), source };
        while range.start < range.end {
            let len = usize::try_from(range.end - range.start).map_or(PIECE, |len| len.min(PIECE));
            let data = self.tree.overlay.read(self.entry.ino, range.start, len);
            let data = data.map_err(damaged("read", path))?;
            if data.is_empty() {
                let short = vfs::Error::new(vfs::Errno::EIO, "read as much as it is long");
                return Err(damaged("read", path)(short));
            }
            for slice in data.slices() {
                take(range.start, slice.as_bytes()).map_err(written)?;
                range.start += slice.len() as u64;
            }
        }
        Ok(())
    }
}

/// Takes a whole directory.
struct Children<'t> {
    tree: &'t Tree,
    found: Vec<Child<'t>>,
    /// The name of an entry of which there is nothing but its name.
    damaged: Option<Vec<u8>>,
}

impl DirPlusSink for Children<'_> {
    fn push(&mut self, entry: &Entry, name: &[u8], _next: u64) -> Result<(), Full> {
        // These two carry no look-up, so that there is none to give back.
        if name != b"." && name != b".." {
            let object = self.tree.object(*entry);
            self.found.push(Child { name: name.to_owned(), object });
        }
        Ok(())
    }

    fn push_plain(&mut self, _: FileKind, name: &[u8], _next: u64) -> Result<(), Full> {
        self.damaged = Some(name.to_owned());
        Ok(())
    }
}

fn damaged(action: &'static str, path: &[u8]) -> impl FnOnce(vfs::Error) -> BrowseError {
    let path = path.to_owned();
    move |source| BrowseError::Damaged { action, path, source }
}
