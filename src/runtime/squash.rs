//! Several layers become one archive.
//!
//! `overlay` says what the layers are as one ([`Flattening`]), `dwarfs/write` copies the blocks that are still wanted as
//! a whole and packs the rest anew ([`write::write_merged`]). Here the one becomes a tree for the other.

use std::{
    collections::HashMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use thiserror::Error;

use super::{
    layer,
    recompress::{WHOLE, cache},
    stack,
};
use crate::{
    dwarfs::{
        self,
        read::{Archive, BlockCache, Place},
        write::{
            self, EntryId, FromArchives, MergedSource, ObjectId, Origin, PathText, Progress, PublishError,
            Reused, Times, Tree, WriteError, WriteOptions,
        },
    },
    image::{Depth, ImageError, verify_archive},
    layer::ArchiveLayer,
    overlay::{Attributes, Flat, FlatDirectory, Flattening, Part},
    sync::Arc,
    vfs::{self, Layer},
};

pub use crate::overlay::Below;

/// The layers that are to become one, opened.
#[derive(Debug)]
pub struct Layers {
    layers: Vec<Arc<ArchiveLayer>>,
}

/// A squash that was made.
#[derive(Clone, Debug)]
pub struct Squashed {
    /// What was archived, and how much of it was not touched.
    pub reused: Reused,
    /// Layers that went into it.
    pub layers: usize,
    /// Marks that are left for what lies below.
    pub marks: MarkCounts,
    /// How long it took.
    pub time: Duration,
}

/// Marks for what lies below the layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MarkCounts {
    /// Deleted names.
    pub whiteouts: u64,
    /// Objects that hide or move what is below them.
    pub others: u64,
}

/// Layers that cannot become one.
#[derive(Debug, Error)]
pub enum SquashError {
    /// A file of layers cannot be opened.
    #[error(transparent)]
    Open(#[from] stack::Error),
    /// A layer cannot be opened.
    #[error("cannot open {} at offset {offset:#x}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Where the archive begins.
        offset: u64,
        /// What is wrong.
        source: dwarfs::Error,
    },
    /// The layers cannot be merged.
    #[error("cannot merge {path}")]
    Merge {
        /// Where in the tree.
        path: PathText,
        /// What happened.
        source: vfs::Error,
    },
    /// A file has no data in any of the layers.
    #[error("cannot squash {path}: its contents are in no layer that is named")]
    NoContents {
        /// The file.
        path: PathText,
    },
    /// Something is there already under the name.
    #[error("cannot make {}: it is there already", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// The archive cannot be made.
    #[error("cannot squash the layers")]
    Write(#[from] WriteError),
    /// The archive is not as it was written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The archive cannot be put in place.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl SquashError {
    /// What the user can do about it, where we know it.
    #[must_use]
    pub const fn cure(&self) -> Option<&'static str> {
        match self {
            Self::Exists { .. } => Some("the last path is the new archive; --force replaces it"),
            Self::NoContents { .. } => Some("squash that layer along, below the others"),
            _ => None,
        }
    }
}

/// Whether a file may take the place of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// It may not.
    Never,
    /// It may.
    Any,
}

impl Layers {
    /// Takes layers that are open, the lowest first.
    #[must_use]
    pub const fn new(layers: Vec<Arc<ArchiveLayer>>) -> Self {
        Self { layers }
    }

    /// Opens the archives in these files, lowest first; those of an image all.
    ///
    /// # Errors
    ///
    /// [`SquashError`] names what cannot be opened.
    pub fn open(files: &[PathBuf]) -> Result<Self, SquashError> {
        let cache = cache();
        let mut layers = Vec::new();
        for path in files {
            for (offset, length) in stack::extents(path)? {
                layers.push(Arc::new(open(path, offset, length, &cache)?));
            }
        }
        Ok(Self { layers })
    }

    /// The least block size, as a power of two, with which every block can be copied.
    #[must_use]
    pub fn block_size_bits(&self) -> u8 {
        self.layers.iter().map(|layer| write::block_size_bits(layer.archive())).max().unwrap_or_default()
    }

    /// Makes one archive of them. It appears when it is whole and verified.
    ///
    /// # Errors
    ///
    /// A layer is damaged, or the archive cannot be written; nothing has changed then.
    pub fn squash(
        &self,
        output: &Path,
        replace: Replace,
        below: Below,
        options: &WriteOptions,
        depth: Depth,
        progress: &dyn Progress,
    ) -> Result<Squashed, SquashError> {
        let started = Instant::now();
        if replace == Replace::Never && output.symlink_metadata().is_ok() {
            return Err(SquashError::Exists { path: output.to_owned() });
        }
        let (reused, marks) = write::publish(
            output,
            |file| {
                let mut buffered = std::io::BufWriter::with_capacity(layer::BUFFER, file);
                self.write(below, options, &mut buffered, progress)
            },
            |file| {
                verify_archive(file, output, WHOLE, depth, &mut |_, _| {})?;
                Ok(())
            },
        )?;
        Ok(Squashed { reused, layers: self.layers.len(), marks, time: started.elapsed() })
    }

    /// Writes the archive anywhere.
    ///
    /// # Errors
    ///
    /// A layer is damaged, or the output cannot be written.
    pub fn write(
        &self,
        below: Below,
        options: &WriteOptions,
        output: &mut dyn Write,
        progress: &dyn Progress,
    ) -> Result<(Reused, MarkCounts), SquashError> {
        let mut options = options.clone();
        if self.archives().any(Archive::has_all_times) {
            options.times = Times::All;
        }
        progress.begin(write::Phase::Scan, 0, 0);
        let (source, marks) = self.merge(below)?;
        Ok((write::write_merged(&source, &options, output, progress)?, marks))
    }

    fn archives(&self) -> impl Iterator<Item = &Archive> {
        self.layers.iter().map(|layer| layer.archive())
    }

    /// The merged tree, and what it says to what lies below.
    fn merge(&self, below: Below) -> Result<(MergedSource<'_>, MarkCounts), SquashError> {
        let layers = self.layers.iter().map(|layer| Arc::clone(layer) as Arc<dyn Layer>).collect();
        let mut merge = Merge {
            layers: &self.layers,
            flattening: Flattening::new(layers, below),
            from: FromArchives::new(self.archives().collect()),
            known: HashMap::new(),
            marks: MarkCounts::default(),
        };
        let tree = merge.tree()?;
        Ok((merge.from.source(tree), merge.marks))
    }
}

/// A tree in the making.
struct Merge<'a> {
    layers: &'a [Arc<ArchiveLayer>],
    flattening: Flattening,
    from: FromArchives<'a>,
    /// Objects that have a name already, by where they and their contents are.
    known: HashMap<(Part, Part), ObjectId>,
    marks: MarkCounts,
}

impl Merge<'_> {
    fn tree(&mut self) -> Result<Tree, SquashError> {
        let failed = |source| merge_failed(Vec::new(), source);
        let root = self.flattening.root().map_err(failed)?;
        let top = root.object().ok_or(WriteError::Worker)?;
        let object = self.object(top, top).map_err(failed)?;
        let attributes = self.attributes(top, root.marks()).map_err(failed)?;
        let mut tree = Tree::new(object?, attributes)?;
        let mut directories = vec![(EntryId::ROOT, root)];
        let mut next = 0;
        while let Some((entry, directory)) = directories.get(next).cloned() {
            next += 1;
            let below = self.fill(&mut tree, entry, &directory)?;
            directories.extend(below);
        }
        Ok(tree)
    }

    /// Fills a directory and returns those in it.
    fn fill(
        &mut self,
        tree: &mut Tree,
        entry: EntryId,
        directory: &FlatDirectory,
    ) -> Result<Vec<(EntryId, FlatDirectory)>, SquashError> {
        let names =
            self.flattening.names(directory).map_err(|source| merge_failed(tree.path(entry), source))?;
        let mut children: Vec<(Vec<u8>, ObjectId)> = Vec::with_capacity(names.len());
        let mut directories = Vec::new();
        for name in names {
            let found = self.add(tree, directory, &name).map_err(|error| match error {
                Failed::Merge(source) => merge_failed([&tree.path(entry), &name[..]].join(&b'/'), source),
                Failed::Write(source) => SquashError::Write(source),
            })?;
            let Some((object, flat)) = found else { continue };
            if let Flat::Directory(directory) = flat {
                directories.push((u32::try_from(children.len()).unwrap_or(u32::MAX), directory));
            }
            children.push((name, object));
        }
        // Both are in the order of the names.
        let first = tree.fill_directory(entry, children)?.start;
        let numbered =
            |(number, directory): (u32, _)| (EntryId::from_number(first.saturating_add(number)), directory);
        Ok(directories.into_iter().map(numbered).collect())
    }

    /// Adds what a name stands for to the objects of the tree.
    fn add(
        &mut self,
        tree: &mut Tree,
        directory: &FlatDirectory,
        name: &[u8],
    ) -> Result<Option<(ObjectId, Flat)>, Failed> {
        match self.flattening.find(directory, name)? {
            Some(flat) => Ok(Some((self.add_object(tree, &flat)?, flat))),
            None => Ok(None),
        }
    }

    fn add_object(&mut self, tree: &mut Tree, flat: &Flat) -> Result<ObjectId, Failed> {
        let none = Attributes::new();
        let (object, contents, marks) = match flat {
            Flat::Whiteout(part) => {
                self.marks.whiteouts += 1;
                (*part, *part, &none)
            }
            Flat::Directory(directory) => {
                let part = directory.object().ok_or(WriteError::Worker)?;
                (part, part, directory.marks())
            }
            Flat::Other { object, contents, marks } => (*object, *contents, marks),
        };
        let is_directory = matches!(flat, Flat::Directory(_));
        if let Some(known) = self.known.get(&(object, contents)).filter(|_| !is_directory) {
            return Ok(*known);
        }
        self.marks.others += u64::from(!marks.is_empty());
        let made = self.object(object, contents)??;
        let id = tree.add_object(made, self.attributes(object, marks)?)?;
        self.known.insert((object, contents), id);
        Ok(id)
    }

    fn object(&mut self, object: Part, contents: Part) -> vfs::Result<Result<write::Object, WriteError>> {
        let (object, contents) = (self.origin(object)?, self.origin(contents)?);
        Ok(self.from.object(object, contents))
    }

    fn attributes(&self, object: Part, marks: &Attributes) -> vfs::Result<Attributes> {
        self.flattening.attributes(object, marks)
    }

    fn origin(&self, part: Part) -> vfs::Result<Origin> {
        let layer = self.layers.get(part.layer);
        let layer = layer.ok_or(vfs::Error::new(vfs::Errno::ESTALE, "find a layer"))?;
        Ok(Origin { archive: part.layer, inode: layer.inode(part.node)? })
    }
}

/// Why an object cannot be taken.
enum Failed {
    Merge(vfs::Error),
    Write(WriteError),
}

impl From<vfs::Error> for Failed {
    fn from(error: vfs::Error) -> Self {
        Self::Merge(error)
    }
}

impl From<WriteError> for Failed {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

fn merge_failed(path: Vec<u8>, source: vfs::Error) -> SquashError {
    let path = path.into();
    if source.errno() == vfs::Errno::ENODATA {
        return SquashError::NoContents { path };
    }
    SquashError::Merge { path, source }
}

fn open(path: &Path, offset: u64, length: u64, cache: &Arc<BlockCache>) -> Result<ArchiveLayer, SquashError> {
    let failed = |source| SquashError::Archive { path: path.to_owned(), offset, source };
    let file = File::open(path).map_err(|source| failed(dwarfs::Error::Read { offset, len: 0, source }))?;
    let place = Place::At { offset, len: Some(length) };
    Archive::open(Arc::new(file), place, cache).and_then(ArchiveLayer::new).map_err(failed)
}
