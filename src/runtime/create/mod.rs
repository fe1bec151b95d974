//! Making an image: the running program, a settings area, the tools, and a root file system.
//!
//! ```text
//! plan:  what the root is made from, what the image is called, which tools go in
//! act:   beside the final name: program | settings area | tools archive | base archive
//!        verify every checksum, write the layer table, sync, rename
//! ```
//!
//! The base archive stands last, so that upstream's tools open it with an offset alone.

mod debian;
mod draft;
mod flatimage;

use std::{
    fs, io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use debian::{is_suite, mmdebstrap};
use draft::Draft;

use super::tools::{self, Missing};
use crate::{
    config::ConfigError,
    dwarfs::write::{
        self, DirSource, Phase, Progress, PublishError, Source, Summary, TarLimits, TarSource, WriteError,
        WriteOptions,
    },
    image::{ArchiveKind, Depth, ImageError, ImageFile, elf::ElfError, open_regular, twin::TwinError},
};

pub use debian::Debian;
pub use draft::Program;
pub use flatimage::{FlatImage, FlatImageError};

/// What a root is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A directory of the host.
    Directory(PathBuf),
    /// A tar file, perhaps compressed.
    Tar(PathBuf),
    /// A Debian suite, through mmdebstrap.
    Debian(Debian),
    /// The layers and settings of a FlatImage 2 file.
    FlatImage(PathBuf),
}

/// What is to be made.
#[derive(Clone, Debug)]
pub struct CreatePlan {
    /// What the root is made from.
    pub from: From,
    /// The image.
    pub output: PathBuf,
    /// How the root is archived.
    pub options: WriteOptions,
    /// How far the archives are looked at before the image gets its name.
    pub depth: Depth,
    /// Where tools are looked for, the first place first; empty for an image without.
    pub tool_roots: Vec<PathBuf>,
    /// The time of making, in seconds since the epoch.
    pub created: u64,
}

/// Someone who watches the making of an image.
pub trait Report: Progress {
    /// A step begins.
    fn step(&self, text: &str);
    /// Something is not as it should be, and the work goes on.
    fn warn(&self, text: &str);
    /// Everything is done; the result is about to be told.
    fn done(&self);
}

/// An image that was made.
#[derive(Clone, Debug)]
pub struct Created {
    /// What was archived as the root, and how large it became.
    pub summary: Summary,
    /// Length of the image in bytes.
    pub length: u64,
    /// How long it took.
    pub time: Duration,
}

/// An image that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Neither a file, nor a directory, nor a kind of source that is known.
    #[error(
        "cannot make a root from {text:?}: expected a directory, a tar file, a FlatImage 2 file or debian:SUITE"
    )]
    UnknownSource {
        /// The source as given.
        text: String,
    },
    /// An output that cannot be replaced.
    #[error("cannot make {}: it is a directory", path.display())]
    OutputIsDirectory {
        /// The output.
        path: PathBuf,
    },
    /// The running program cannot be copied.
    #[error("cannot copy the running program")]
    Program(#[source] io::Error),
    /// The running program cannot be understood.
    #[error("cannot copy the running program")]
    Elf(#[from] ElfError),
    /// The root cannot be read or archived.
    #[error("cannot archive {what}")]
    Write {
        /// What was to be archived.
        what: String,
        /// What happened.
        source: WriteError,
    },
    /// mmdebstrap is not there.
    #[error("cannot make a Debian root: mmdebstrap is not installed (apt install mmdebstrap)")]
    NoMmdebstrap,
    /// mmdebstrap did not make a root.
    #[error("cannot make a root of Debian {suite}: mmdebstrap: {message}")]
    Mmdebstrap {
        /// The suite.
        suite: String,
        /// Its last error message.
        message: String,
    },
    /// A file for the work could not be made, written or read.
    #[error("cannot {action} {}", path.display())]
    Scratch {
        /// What was being done.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// The image's settings or layer table cannot be written.
    #[error("cannot write the image")]
    Twin(#[from] TwinError),
    /// The image's settings cannot be encoded.
    #[error("cannot write the settings")]
    Config(#[from] ConfigError),
    /// An archive in the image is not as it was written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A FlatImage file cannot be taken over.
    #[error(transparent)]
    FlatImage(#[from] FlatImageError),
    /// It is an image already.
    #[error("cannot take over {}: it is an image of fim already", path.display())]
    AlreadyOurs {
        /// The file.
        path: PathBuf,
    },
    /// The image cannot be put in place.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl From {
    /// Reads what a root is made from; `include` and `mirror` are for Debian.
    ///
    /// # Errors
    ///
    /// Nothing that is known.
    pub fn parse(text: &str, include: Vec<String>, mirror: Option<String>) -> Result<Self, CreateError> {
        if let Some(suite) = text.strip_prefix("debian:").filter(|suite| is_suite(suite)) {
            return Ok(Self::Debian(Debian { suite: suite.to_owned(), include, mirror }));
        }
        let path = PathBuf::from(text);
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => Ok(Self::Directory(path)),
            Ok(found) if found.is_file() && begins_like_flatimage(&path) => Ok(Self::FlatImage(path)),
            Ok(_) => Ok(Self::Tar(path)),
            Err(_) => Err(CreateError::UnknownSource { text: text.to_owned() }),
        }
    }

    /// What messages and the layer's message call it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Directory(path) | Self::Tar(path) | Self::FlatImage(path) => path.display().to_string(),
            Self::Debian(debian) => format!("debian:{}", debian.suite),
        }
    }
}

/// Makes an image. Whatever fails, nothing appears under the final name.
///
/// # Errors
///
/// See [`CreateError`].
pub fn create(plan: &CreatePlan, report: &dyn Report) -> Result<Created, CreateError> {
    let started = Instant::now();
    if plan.output.is_dir() {
        return Err(CreateError::OutputIsDirectory { path: plan.output.clone() });
    }
    let program = Program::running()?;
    let source = match &plan.from {
        From::FlatImage(path) => Root::Layers(open_flatimage(path)?),
        _ => Root::Tree(open_source(plan, report)?),
    };
    let summary = write::publish(
        &plan.output,
        |file| {
            let mut draft = Draft::begin(file, &program, plan)?;
            if !plan.tool_roots.is_empty() {
                add_tools(&mut draft, plan, report)?;
            }
            let summary = match &source {
                Root::Tree(source) => {
                    report.step("archiving the root");
                    let (message, what) = (format!("from {}", plan.from.name()), plan.from.name());
                    draft.archive(ArchiveKind::Base, &message, &**source, &plan.options, report, &what)?
                }
                Root::Layers(old) => take_over(&mut draft, old, report)?,
            };
            draft.finish()?;
            Ok::<_, CreateError>(summary)
        },
        |_| Ok(()),
    )?;
    let length = fs::metadata(&plan.output).map_or(0, |metadata| metadata.len());
    Ok(Created { summary, length, time: started.elapsed() })
}

/// What becomes the root.
enum Root {
    /// A tree that is archived.
    Tree(Box<dyn Source>),
    /// Archives that are there.
    Layers(FlatImage),
}

fn open_flatimage(path: &Path) -> Result<FlatImage, CreateError> {
    let file = open_regular(path)?;
    if matches!(ImageFile::probe(&file), Ok(Some(_))) {
        return Err(CreateError::AlreadyOurs { path: path.to_owned() });
    }
    Ok(FlatImage::open(path)?)
}

fn begins_like_flatimage(path: &Path) -> bool {
    open_regular(path).is_ok_and(|file| FlatImage::begins_like(&file))
}

/// Takes over layers and settings of a FlatImage file.
fn take_over(draft: &mut Draft<'_>, old: &FlatImage, report: &dyn Report) -> Result<Summary, CreateError> {
    let total = old.layers().iter().map(|(_, length)| length).sum();
    report.begin(Phase::Compress, 0, total);
    report.step("copying the layers");
    for (index, layer) in old.layers().iter().enumerate() {
        let kind = if index == 0 { ArchiveKind::Base } else { ArchiveKind::Layer };
        let message = format!("layer {index} of {}", old.path().display());
        draft.adopt(kind, &message, old.file(), *layer, report)?;
    }
    old.take_over(draft.settings(), &mut |text| report.warn(text));
    Ok(Summary { bytes_in: total, bytes_out: total, ..Summary::default() })
}

/// Opens the tree that becomes the root.
fn open_source(plan: &CreatePlan, report: &dyn Report) -> Result<Box<dyn Source>, CreateError> {
    let failed = |source| CreateError::Write { what: plan.from.name(), source };
    let scratch = directory_of(&plan.output);
    Ok(match &plan.from {
        From::Directory(path) => Box::new(DirSource::open(path).map_err(failed)?),
        From::Tar(path) => Box::new(TarSource::open(path, scratch, TarLimits::default()).map_err(failed)?),
        From::FlatImage(path) => return Err(CreateError::UnknownSource { text: path.display().to_string() }),
        From::Debian(debian) => {
            report.step(&format!("making a root of Debian {} with mmdebstrap", debian.suite));
            let tar = mmdebstrap(debian, scratch, report)?;
            let path = PathBuf::from(format!("/proc/self/fd/{}", tar.as_raw_fd()));
            Box::new(TarSource::open(&path, scratch, TarLimits::default()).map_err(failed)?)
        }
    })
}

/// Collects the tools and archives them.
fn add_tools(draft: &mut Draft<'_>, plan: &CreatePlan, report: &dyn Report) -> Result<(), CreateError> {
    let found = tools::collect(&plan.tool_roots);
    for Missing { tool, reason, package } in &found.missing {
        report.warn(&format!("the image is made without {tool}: {reason} (apt install {package})"));
    }
    if found.is_empty() {
        return Ok(());
    }
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| CreateError::Scratch { action, path, source }
    };
    let temporary = std::env::temp_dir();
    let stage = tempfile::tempdir().map_err(failed("make a scratch directory in", &temporary))?;
    tools::stage(&found, stage.path()).map_err(failed("collect the tools in", stage.path()))?;
    let source = DirSource::open(stage.path())
        .map_err(|source| CreateError::Write { what: "the tools".to_owned(), source })?;
    draft.archive(ArchiveKind::Tools, "", &source, &plan.options, &(), "the tools")?;
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        let place = tempfile::tempdir().unwrap();
        let text = place.path().to_str().unwrap();
        assert_eq!(From::parse(text, vec![], None).unwrap(), From::Directory(place.path().to_owned()));
        let tar = place.path().join("x.tar");
        fs::write(&tar, "").unwrap();
        assert_eq!(From::parse(tar.to_str().unwrap(), vec![], None).unwrap(), From::Tar(tar));
        let debian = Debian { suite: "bookworm".to_owned(), ..Debian::default() };
        assert_eq!(From::parse("debian:bookworm", vec![], None).unwrap(), From::Debian(debian));
        for wrong in ["debian:", "debian:--help", "debian:a b", "ubuntu:noble", "/nowhere/x"] {
            let error = From::parse(wrong, vec![], None).unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot make a root from {wrong:?}")), "{error}");
        }
    }
}
