//! Opening an archive before anything relies on it.

use std::{fs::File, path::Path};

use super::{ImageError, digest};
use crate::{
    dwarfs::{
        self,
        read::{self, Archive, BlockCache, Place},
    },
    sync::{Arc, thread},
};

/// Memory for blocks, in bytes: checksums are computed over what is stored, so hardly any is needed.
const CACHE: usize = 1 << 20;

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Open the archive: its sections and metadata are whole.
    Open,
    /// Check every checksum as well.
    Checksums,
    /// Unpack every block and follow every reference as well.
    Everything,
}

/// An archive that was found whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Its digest.
    pub content: String,
}

/// Opens and checks the archive at a place of a file. `watch` hears of bytes done and bytes in all.
///
/// # Errors
///
/// There is no archive, or it is damaged.
pub fn verify_archive(
    file: &File,
    path: &Path,
    place: Place,
    depth: Depth,
    watch: &mut dyn FnMut(u64, u64),
) -> Result<Verified, ImageError> {
    let begin = match place {
        Place::At { offset, .. } => offset,
        Place::Auto => 0,
    };
    let failed =
        |source| ImageError::Archive { path: path.to_owned(), offset: begin, source: Box::new(source) };
    let read_failed = |source| failed(dwarfs::Error::Read { offset: begin, len: 0, source });
    let source = Arc::new(file.try_clone().map_err(read_failed)?);
    let archive = Archive::open(source, place, &BlockCache::new(CACHE)).map_err(failed)?;
    let further = match depth {
        Depth::Open => None,
        Depth::Checksums => Some((read::Depth::Checksums, 1)),
        Depth::Everything => {
            Some((read::Depth::Everything, thread::available_parallelism().map_or(1, usize::from)))
        }
    };
    if let Some((depth, threads)) = further {
        let first = archive.check(depth, threads, watch).findings.list.into_iter().next();
        first.map_or(Ok(()), |finding| Err(failed(finding.error)))?;
    }
    let offset = archive.index().offset();
    let length = archive.index().end().saturating_sub(offset);
    let content = digest::of_archive(file, offset, length).map_err(read_failed)?;
    Ok(Verified { offset, length, content })
}
