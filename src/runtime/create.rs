//! Making an image: the running program, a settings area, the tools, and a root file system.
//!
//! ```text
//! plan:  what the root is made from, what the image is called, which tools go in
//! act:   beside the final name: program | settings area | tools archive | base archive
//!        verify every checksum, write the layer table, sync, rename
//! ```
//!
//! The base archive stands last, so that upstream's tools open it with an offset alone.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom},
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    layer::BUFFER,
    tools::{self, Missing},
};
use crate::{
    config::{self, ConfigError, DISTRIBUTION_LABEL, ImageId, Settings},
    dwarfs::{
        read::{Archive, BlockCache, Place},
        write::{
            self, DirSource, Progress, PublishError, Source, Summary, TarLimits, TarSource, WriteError,
            WriteOptions,
        },
    },
    image::{
        ArchiveKind, Depth, ImageError, LayerEntry, LayerTable,
        elf::{self, ElfError, MARK, MARK_AT},
        reserved::{Reserved, align_up},
        store::Store as _,
        twin::TwinError,
        verify_archive,
    },
    sync::Arc,
    sys::transfer,
};

/// What a root is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A directory of the host.
    Directory(PathBuf),
    /// A tar file, perhaps compressed.
    Tar(PathBuf),
    /// A Debian suite, through mmdebstrap.
    Debian(Debian),
}

/// A root of Debian packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Debian {
    /// The suite, such as `bookworm`.
    pub suite: String,
    /// Packages beyond the minimum.
    pub include: Vec<String>,
    /// Where packages come from; none leaves the choice to mmdebstrap.
    pub mirror: Option<String>,
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
#[derive(Clone, Copy, Debug)]
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
    #[error("cannot make a root from {text:?}: expected a directory, a tar file or debian:SUITE")]
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
            Ok(_) => Ok(Self::Tar(path)),
            Err(_) => Err(CreateError::UnknownSource { text: text.to_owned() }),
        }
    }

    /// What messages and the layer's message call it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Directory(path) | Self::Tar(path) => path.display().to_string(),
            Self::Debian(debian) => format!("debian:{}", debian.suite),
        }
    }
}

/// A suite goes into a command line: letters, digits, dots and dashes, and no dash in front.
fn is_suite(text: &str) -> bool {
    let ordinary = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/".contains(&byte);
    text.bytes().all(ordinary) && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
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
    let source = open_source(plan, report)?;
    let summary = write::publish(
        &plan.output,
        |file| {
            let mut draft = Draft::begin(file, &program, plan)?;
            if !plan.tool_roots.is_empty() {
                add_tools(&mut draft, plan, report)?;
            }
            report.step("archiving the root");
            let message = format!("from {}", plan.from.name());
            let what = plan.from.name();
            let summary =
                draft.archive(ArchiveKind::Base, &message, &*source, &plan.options, report, &what)?;
            draft.finish()?;
            Ok::<_, CreateError>(summary)
        },
        |_| Ok(()),
    )?;
    let length = fs::metadata(&plan.output).map_or(0, |metadata| metadata.len());
    Ok(Created { summary, length, time: started.elapsed() })
}

/// Opens the tree that becomes the root.
fn open_source(plan: &CreatePlan, report: &dyn Report) -> Result<Box<dyn Source>, CreateError> {
    let failed = |source| CreateError::Write { what: plan.from.name(), source };
    let scratch = directory_of(&plan.output);
    Ok(match &plan.from {
        From::Directory(path) => Box::new(DirSource::open(path).map_err(failed)?),
        From::Tar(path) => Box::new(TarSource::open(path, scratch, TarLimits::default()).map_err(failed)?),
        From::Debian(debian) => {
            report.step(&format!("making a root of Debian {} with mmdebstrap", debian.suite));
            let tar = mmdebstrap(debian, scratch, report)?;
            let path = PathBuf::from(format!("/proc/self/fd/{}", tar.as_raw_fd()));
            Box::new(TarSource::open(&path, scratch, TarLimits::default()).map_err(failed)?)
        }
    })
}

/// Runs mmdebstrap; the tar file that it prints goes into a file without a name.
///
/// As root mmdebstrap works as root; otherwise in a user namespace, which needs a range of subordinate ids. Owners and
/// devices are in the tar file either way.
fn mmdebstrap(debian: &Debian, scratch: &Path, report: &dyn Report) -> Result<File, CreateError> {
    let failed = |action| move |source| CreateError::Scratch { action, path: scratch.to_owned(), source };
    let tar = tempfile::tempfile_in(scratch).map_err(failed("make a scratch file in"))?;
    let output = tar.try_clone().map_err(failed("use a scratch file in"))?;
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", "--mode=auto", "--format=tar"]);
    if !debian.include.is_empty() {
        command.arg(format!("--include={}", debian.include.join(",")));
    }
    command.args([debian.suite.as_str(), "-"]).args(&debian.mirror);
    command.stdin(Stdio::null()).stdout(output).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CreateError::NoMmdebstrap,
        _ => CreateError::Scratch { action: "start", path: "mmdebstrap".into(), source },
    })?;
    let mut last_error = String::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if let Some(step) = line.strip_prefix("I: ") {
                report.step(step);
            } else if line.starts_with("E: ") || last_error.is_empty() {
                last_error = line;
            }
        }
    }
    let status = child.wait().map_err(failed("wait for mmdebstrap in"))?;
    if !status.success() {
        let message = last_error.trim_start_matches("E: ").trim().to_owned();
        let message = if message.is_empty() { status.to_string() } else { message };
        return Err(CreateError::Mmdebstrap { suite: debian.suite.clone(), message });
    }
    Ok(tar)
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

/// The running program.
struct Program {
    file: File,
    end: u64,
}

impl Program {
    fn running() -> Result<Self, CreateError> {
        let file = File::open("/proc/self/exe").map_err(CreateError::Program)?;
        let end = elf::read(&file)?.end;
        Ok(Self { file, end })
    }
}

/// An image that is being made.
struct Draft<'a> {
    file: &'a mut File,
    path: &'a Path,
    reserved: Reserved,
    table: LayerTable,
    settings: Settings,
    created: u64,
    end: u64,
}

impl<'a> Draft<'a> {
    /// Writes the program and leaves room for the settings.
    fn begin(file: &'a mut File, program: &Program, plan: &'a CreatePlan) -> Result<Self, CreateError> {
        let reserved = Reserved::behind(program.end);
        transfer::copy_range(&program.file, 0, file, 0, program.end, |_| {}).map_err(CreateError::Program)?;
        file.write_all_at(&MARK, MARK_AT).map_err(CreateError::Program)?;
        file.set_length(reserved.end()).map_err(CreateError::Program)?;
        let settings = Settings::new(ImageId::from_random(random().map_err(CreateError::Program)?));
        let end = reserved.end();
        let (table, created) = (LayerTable::default(), plan.created);
        Ok(Self { file, path: &plan.output, reserved, table, settings, created, end })
    }

    /// Archives a source behind what is there, and checks it.
    fn archive(
        &mut self,
        kind: ArchiveKind,
        message: &str,
        source: &dyn Source,
        options: &WriteOptions,
        progress: &dyn Progress,
        what: &str,
    ) -> Result<Summary, CreateError> {
        let offset = align_up(self.end);
        let failed = |source| CreateError::Scratch { action: "write", path: self.path.to_owned(), source };
        self.file.set_len(offset).map_err(failed)?;
        self.file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let summary = {
            let mut output = BufWriter::with_capacity(BUFFER, &mut *self.file);
            let written = write::write_archive(source, options, &mut output, progress)
                .map_err(|source| CreateError::Write { what: what.to_owned(), source })?;
            io::Write::flush(&mut output).map_err(|source| CreateError::Scratch {
                action: "write",
                path: self.path.to_owned(),
                source,
            })?;
            written
        };
        let place = Place::At { offset, len: None };
        let found = verify_archive(self.file, self.path, place, Depth::Checksums, &mut |_, _| {})?;
        self.end = offset.saturating_add(found.length);
        if kind == ArchiveKind::Base
            && let Some(distribution) = distribution(self.file, offset)
        {
            self.settings.labels.insert(DISTRIBUTION_LABEL.to_owned(), distribution);
        }
        let entry = LayerEntry {
            kind,
            offset,
            length: found.length,
            content: found.content,
            created: self.created,
            message: message.to_owned(),
            unknown: serde_json::Map::new(),
        };
        self.table.push(entry).map_err(|source| ImageError::Table { path: self.path.to_owned(), source })?;
        Ok(summary)
    }

    /// Writes the settings and the table, and makes the file executable.
    fn finish(self) -> Result<(), CreateError> {
        let table =
            self.table.encode().map_err(|source| ImageError::Table { path: self.path.to_owned(), source })?;
        self.reserved.settings().create(self.file, config::encode(&self.settings)?)?;
        self.reserved.table().create(self.file, table)?;
        // whoever may read the file, as the umask left it, may run it
        let failed =
            |source| CreateError::Scratch { action: "make executable", path: self.path.to_owned(), source };
        let mode = self.file.metadata().map_err(failed)?.permissions().mode();
        let mode = mode | (mode & 0o444) >> 2;
        self.file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)
    }
}

/// The `ID` of an archive's os-release file.
fn distribution(file: &File, offset: u64) -> Option<String> {
    let source = Arc::new(file.try_clone().ok()?);
    let place = Place::At { offset, len: None };
    let archive = Archive::open(source, place, &BlockCache::new(OS_RELEASE_CACHE)).ok()?;
    let paths: [&[u8]; 2] = [b"usr/lib/os-release", b"etc/os-release"];
    let text = paths.iter().find_map(|path| {
        let inode = archive.find(path).ok().flatten()?;
        let data = archive.read(inode, 0, OS_RELEASE_LIMIT).ok()?;
        Some(String::from_utf8_lossy(&data.contiguous()).into_owned())
    })?;
    let id = text.lines().find_map(|line| line.strip_prefix("ID="))?;
    Some(id.trim_matches(['"', '\'']).to_owned())
}

/// Length of an os-release file in bytes, as far as it is read.
const OS_RELEASE_LIMIT: usize = 16 << 10;
/// Memory for the block that holds it, in bytes.
const OS_RELEASE_CACHE: usize = 32 << 20;

/// 128 random bits.
fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
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

    #[test]
    fn identities_differ() {
        assert_ne!(random().unwrap(), random().unwrap());
    }
}
