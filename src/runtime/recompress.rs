//! An archive becomes another one: with other codecs and the blocks as they are, or packed anew.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use thiserror::Error;

use super::{layer, stack};
use crate::{
    dwarfs::{
        self,
        read::{Archive, BlockCache, Place},
        write::{
            self, Keep, MergedSource, Progress, PublishError, Recompressed, Summary, Times, WriteError,
            WriteOptions,
        },
    },
    image::{Depth, ImageError, verify_archive},
    sync::Arc,
    sys::ram,
};

/// An archive that is to be made from another one.
#[derive(Clone, Debug)]
pub struct RecompressPlan {
    /// The archive that is there.
    pub input: PathBuf,
    /// Where in its file it begins; `None`: it is looked for.
    pub offset: Option<u64>,
    /// The archive that is made; it may take the place of the other one.
    pub output: PathBuf,
    /// How it is made.
    pub options: WriteOptions,
    /// What becomes of the blocks.
    pub blocks: Blocks,
    /// How far it is looked at before it gets its name.
    pub depth: Depth,
}

/// What becomes of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// Each stays as it is cut, and is compressed anew or copied.
    AsCut(Keep),
    /// The contents are packed anew.
    Anew,
}

/// What was made.
#[derive(Clone, Debug)]
pub enum Done {
    /// The blocks are as they were.
    AsCut(Recompressed),
    /// The contents were packed anew.
    Anew(Summary),
}

/// An archive that cannot be made from another one.
#[derive(Debug, Error)]
pub enum RecompressError {
    /// The archive cannot be found.
    #[error(transparent)]
    Open(#[from] stack::Error),
    /// The archive cannot be read.
    #[error("cannot open {} at offset {offset:#x}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Where the archive begins.
        offset: u64,
        /// What is wrong.
        source: dwarfs::Error,
    },
    /// An image with several archives.
    #[error("{} holds {count} archives", path.display())]
    Several {
        /// The image.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// The new archive cannot be made.
    #[error("cannot recompress {}", path.display())]
    Write {
        /// The archive that is there.
        path: PathBuf,
        /// What happened.
        source: WriteError,
    },
    /// The new archive is not as it was written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The new archive cannot be put in place.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl RecompressError {
    /// What the user can do about it, where we know it.
    #[must_use]
    pub const fn cure(&self) -> Option<&'static str> {
        match self {
            Self::Several { .. } => {
                Some("name one with --offset, as fim layer IMAGE list prints it, or use fim archive squash")
            }
            _ => None,
        }
    }
}

/// Makes the archive. It appears when it is whole and verified.
///
/// # Errors
///
/// The one that is there is damaged, or the new one cannot be written; nothing has changed then.
pub fn recompress(
    plan: &RecompressPlan,
    progress: &dyn Progress,
) -> Result<(Done, Duration), RecompressError> {
    let started = Instant::now();
    let place = place(plan)?;
    let archive = open(&plan.input, place, &cache())?;
    let failed = |source| RecompressError::Write { path: plan.input.clone(), source };
    let done = write::publish(
        &plan.output,
        |file| {
            let mut output = std::io::BufWriter::with_capacity(layer::BUFFER, file);
            match &plan.blocks {
                Blocks::AsCut(keep) => {
                    write::recompress(&archive, &plan.options, keep, &mut output, progress).map(Done::AsCut)
                }
                Blocks::Anew => anew(&archive, &plan.options, &mut output, progress).map(Done::Anew),
            }
            .map_err(failed)
        },
        |file| {
            verify_archive(file, &plan.output, WHOLE, plan.depth, &mut |_, _| {})?;
            Ok(())
        },
    )?;
    Ok((done, started.elapsed()))
}

/// Packs the contents of an archive anew.
fn anew(
    archive: &Archive,
    options: &WriteOptions,
    output: &mut dyn std::io::Write,
    progress: &dyn Progress,
) -> Result<Summary, WriteError> {
    let mut options = options.clone();
    if archive.has_all_times() {
        options.times = Times::All;
    }
    if let Some(history) = &mut options.history {
        history.before = archive.history().map_err(WriteError::Archive)?.entries;
    }
    write::write_archive(&MergedSource::of_archive(archive)?, &options, output, progress)
}

/// The least block size, as a power of two, for blocks of the archive that is there.
///
/// # Errors
///
/// The archive cannot be read.
pub fn block_size_bits(plan: &RecompressPlan) -> Result<u8, RecompressError> {
    Ok(write::block_size_bits(&open(&plan.input, place(plan)?, &cache())?))
}

/// An archive that is the whole of its file.
pub(super) const WHOLE: Place = Place::At { offset: 0, len: None };

/// A cache for those who read each file of an archive about once.
pub(super) fn cache() -> Arc<BlockCache> {
    BlockCache::new(stack::spare(ram::of_machine(), ram::of_control_groups()))
}

fn place(plan: &RecompressPlan) -> Result<(u64, Option<u64>), RecompressError> {
    if let Some(offset) = plan.offset {
        return Ok((offset, None));
    }
    match stack::extents(&plan.input)?.as_slice() {
        [(offset, length)] => Ok((*offset, Some(*length))),
        several => Err(RecompressError::Several { path: plan.input.clone(), count: several.len() }),
    }
}

fn open(
    path: &Path,
    (offset, len): (u64, Option<u64>),
    cache: &Arc<BlockCache>,
) -> Result<Archive, RecompressError> {
    let failed = |source| RecompressError::Archive { path: path.to_owned(), offset, source };
    let file = File::open(path).map_err(|source| failed(dwarfs::Error::Read { offset, len: 0, source }))?;
    Archive::open(Arc::new(file), Place::At { offset, len }, cache).map_err(failed)
}
