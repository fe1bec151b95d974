//! What the verbs that look into archives have in common.

use std::{
    ffi::OsString,
    io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    cli::{ENGINE_ERROR, Failure, Outcome},
    runtime::browse::{Attr, BrowseError, FileKind, Object, Time, Tree, text},
};

/// What to look into.
#[derive(Args, Clone, Debug)]
pub(super) struct Source {
    /// An archive, or an image, whose layers are shown as one merged tree.
    archive: PathBuf,
    /// Where in the file the archive begins, in bytes; otherwise it is looked for.
    #[arg(long, value_name = "N")]
    offset: Option<u64>,
}

impl Source {
    /// Opens it.
    pub(super) fn open(&self) -> Result<Tree, BrowseError> {
        Tree::open(&self.archive, self.offset)
    }
}

/// The paths of a command line; the root where there is none.
pub(super) fn paths_or_root(given: &[OsString]) -> Vec<&[u8]> {
    if given.is_empty() { vec![b"/"] } else { given.iter().map(|path| path.as_bytes()).collect() }
}

/// Why nothing more is printed.
#[derive(Debug)]
pub(super) enum Stop {
    /// The output cannot be written.
    Output(io::Error),
    /// The tree cannot be opened.
    Tree(BrowseError),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<BrowseError> for Stop {
    fn from(error: BrowseError) -> Self {
        Self::Tree(error)
    }
}

/// The standard output: names are escaped on a terminal, and bytes as they are elsewhere.
pub(super) struct Output {
    out: BufWriter<StdoutLock<'static>>,
    is_terminal: bool,
    failed: bool,
}

/// Prints, until all is said or the reader has read enough. What could not be shown has been told by
/// [`Output::complain`]; it makes the status that of an error.
pub(super) fn print(work: impl FnOnce(&mut Output) -> Result<(), Stop>) -> Outcome {
    let stdout = io::stdout().lock();
    let is_terminal = stdout.is_terminal();
    let mut output = Output { out: BufWriter::new(stdout), is_terminal, failed: false };
    let done = work(&mut output).and_then(|()| Ok(output.out.flush()?));
    match done {
        Ok(()) => Ok(output.status()),
        Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(output.status()),
        Err(Stop::Tree(error)) if error.is_broken_pipe() => Ok(output.status()),
        Err(Stop::Output(error)) => {
            Err(Failure::new(format!("cannot write to the standard output: {error}")))
        }
        Err(Stop::Tree(error)) => Err(error.into()),
    }
}

impl Output {
    /// Prints text of ours.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())
    }

    /// Prints a name, a path or a link's target.
    pub(super) fn name(&mut self, name: &[u8]) -> io::Result<()> {
        if self.is_terminal { self.say(&text::escaped(name)) } else { self.out.write_all(name) }
    }

    /// Prints contents of a file.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Prints one line of JSON.
    pub(super) fn json(&mut self, value: &Map<String, Value>) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        self.say("\n")
    }

    /// Says what cannot be shown; the rest goes on.
    #[expect(clippy::print_stderr, reason = "a line for each thing that failed")]
    pub(super) fn complain(&mut self, error: BrowseError) -> io::Result<()> {
        self.out.flush()?;
        self.failed = true;
        eprintln!("fim: {}", Failure::from(error));
        Ok(())
    }

    fn status(&self) -> ExitCode {
        if self.failed { ExitCode::from(ENGINE_ERROR) } else { ExitCode::SUCCESS }
    }
}

/// What programs read of an object: one object of JSON, with bytes outside of printable ASCII as `%XX`.
pub(super) fn describe(path: &[u8], object: &Object<'_>) -> Result<Map<String, Value>, BrowseError> {
    let attr = object.attr();
    let mode = attr.kind.mode_bits() | u32::from(attr.perm);
    let mut entry = Map::new();
    let mut put = |key: &str, value: Value| entry.insert(key.to_owned(), value);
    put("path", json!(text::quoted(path)));
    put("type", json!(text::letter(attr.kind).to_string()));
    put("mode", json!(format!("{mode:06o}")));
    put("uid", json!(attr.uid));
    put("gid", json!(attr.gid));
    put("nlink", json!(attr.nlink));
    put("size", json!(attr.size));
    put("blocks", json!(attr.blocks));
    put("ino", json!(attr.ino));
    put("atime_ns", nanos(attr.atime));
    put("mtime_ns", nanos(attr.mtime));
    put("ctime_ns", nanos(attr.ctime));
    if let Some(time) = attr.btime {
        put("btime_ns", nanos(time));
    }
    if is_device(attr) {
        put("rdev", json!([attr.rdev.major, attr.rdev.minor]));
    }
    if attr.kind == FileKind::Symlink {
        put("target", json!(text::quoted(&object.target(path)?)));
    }
    Ok(entry)
}

/// Whether the device number means something.
pub(super) fn is_device(attr: &Attr) -> bool {
    matches!(attr.kind, FileKind::CharDevice | FileKind::BlockDevice)
}

/// Nanoseconds since the epoch; times of a damaged archive that no file has are cut off.
fn nanos(time: Time) -> Value {
    json!(time.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanos)))
}
