//! Checking archives where they lie: a file with one, or an image with all of its own.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use crate::{
    dwarfs::{
        self,
        read::{Depth, Index, Place, ReadAt, Report, check},
    },
    image::{ImageError, ImageFile, open_regular},
    sync::{Arc, thread},
};

/// What to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckPlan {
    /// The file.
    pub file: PathBuf,
    /// Where its archive begins; without it all archives of an image, or the first one that is found.
    pub offset: Option<u64>,
    /// How much.
    pub depth: Depth,
    /// How many threads; by default one for each processor.
    pub threads: Option<usize>,
}

/// What was found out about one archive.
#[derive(Debug)]
pub struct Checked {
    /// Its file.
    pub path: PathBuf,
    /// Where it was looked for.
    pub offset: u64,
    /// What it is for, where an image says so.
    pub role: Option<String>,
    /// What was found; an error where not even its sections can be told.
    pub outcome: Result<Report, dwarfs::Error>,
}

impl Checked {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.outcome.as_ref().is_ok_and(Report::is_whole)
    }

    /// The error that says that there is nothing to check: no archive, one of another format, or a file that cannot
    /// be read. An archive that is damaged beyond reading is not that.
    #[must_use]
    pub const fn unreadable(&self) -> Option<&dwarfs::Error> {
        match &self.outcome {
            Err(
                error @ (dwarfs::Error::NotFound { .. }
                | dwarfs::Error::Version { .. }
                | dwarfs::Error::Read { .. }),
            ) => Some(error),
            _ => None,
        }
    }
}

/// A file that cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It cannot be opened, or is an image whose table is damaged.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// It cannot be opened a second time.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
}

/// Checks what a plan says; `watch` hears of bytes done and bytes in all, archive after archive.
///
/// # Errors
///
/// The file cannot be read, or its table of archives not. What is wrong with an archive is in its report.
pub fn run(plan: &CheckPlan, watch: &mut dyn FnMut(u64, u64)) -> Result<Vec<Checked>, CheckError> {
    let path = &plan.file;
    let file = open_regular(path)?;
    let threads = plan
        .threads
        .unwrap_or_else(|| thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get));
    let read_failed = |source| CheckError::Read { path: path.clone(), source };
    let places = places(plan, &file)?;
    let source: Arc<dyn ReadAt> = Arc::new(file.try_clone().map_err(read_failed)?);
    let check_one = |(place, role)| Checked {
        path: path.clone(),
        offset: match place {
            Place::At { offset, .. } => offset,
            Place::Auto => 0,
        },
        role,
        outcome: check(&source, place, plan.depth, threads, watch),
    };
    Ok(places.into_iter().map(check_one).collect())
}

/// Where the archives are, and what each is for.
fn places(plan: &CheckPlan, file: &File) -> Result<Vec<(Place, Option<String>)>, CheckError> {
    if let Some(offset) = plan.offset {
        return Ok(vec![(Place::At { offset, len: None }, None)]);
    }
    if !matches!(ImageFile::probe(file), Ok(Some(_))) {
        return Ok(vec![(find(file), None)]);
    }
    let copy = file.try_clone().map_err(|source| CheckError::Read { path: plan.file.clone(), source })?;
    let image = ImageFile::of(copy, plan.file.clone())?;
    let entries = image.table().archives().iter();
    Ok(entries
        .map(|entry| {
            let place = Place::At { offset: entry.offset, len: Some(entry.length) };
            (place, Some(kind_name(&entry.kind)))
        })
        .collect())
}

/// At the start of the file, where one begins there however damaged it is, else wherever one is found.
fn find(file: &File) -> Place {
    let at_start = Place::At { offset: 0, len: None };
    match Index::open(file, at_start) {
        Err(dwarfs::Error::NotFound { .. }) => Place::Auto,
        _ => at_start,
    }
}

fn kind_name(kind: &crate::image::ArchiveKind) -> String {
    use crate::image::ArchiveKind;
    match kind {
        ArchiveKind::Base => "base".to_owned(),
        ArchiveKind::Layer => "layer".to_owned(),
        ArchiveKind::Tools => "tools".to_owned(),
        ArchiveKind::Other(name) => name.clone(),
    }
}

/// Plans for an image and for the layers that stand above it.
#[must_use]
pub fn with_layers(image: &Path, above: &[PathBuf], depth: Depth, threads: Option<usize>) -> Vec<CheckPlan> {
    let files = std::iter::once(image.to_owned()).chain(above.iter().filter(|path| path.is_file()).cloned());
    files.map(|file| CheckPlan { file, offset: None, depth, threads }).collect()
}
