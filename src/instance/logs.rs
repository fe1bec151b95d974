//! Bounded log files.
//!
//! A process logs into one directory: `boot.log`, or for the server one file a part (`dwarfs.log`, `overlayfs.log`,
//! `fuse.log`), chosen by the module that speaks. A file that is full becomes `NAME.1`, the one before it is gone.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use tracing::{Metadata, level_filters::LevelFilter};
use tracing_subscriber::fmt::MakeWriter;

use crate::sync::{Mutex, OnceLock};

/// Size at which a log file is turned over, in bytes.
const FILE_LIMIT: u64 = 1 << 20;

/// Which files a process writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// `boot.log`.
    Boot,
    /// One a part of the server.
    Parts,
}

/// How much is logged, and whether stderr shows it too.
#[derive(Clone, Copy, Debug)]
pub struct Verbosity {
    /// The least important level that is logged.
    pub level: LevelFilter,
    /// Whether stderr shows it too (`FIM_DEBUG`).
    pub stderr: bool,
}

static TARGET: OnceLock<Mutex<Target>> = OnceLock::new();

/// Where lines go at the moment.
#[derive(Debug, Default)]
struct Target {
    directory: Option<(PathBuf, Files)>,
    open: Vec<(&'static str, File, u64)>,
    stderr: bool,
}

/// Begins to log for this process; lines go nowhere but to stderr until [`write_to`] names a directory. A second call
/// changes nothing.
pub fn install(verbosity: Verbosity) {
    let target = TARGET.get_or_init(|| Mutex::new(Target::default()));
    target.lock().stderr = verbosity.stderr;
    // The only failure is that a subscriber is there already, of a test for instance.
    let _ = tracing_subscriber::fmt()
        .with_max_level(verbosity.level)
        .with_ansi(false)
        .with_writer(Router)
        .try_init();
}

/// Sends the lines of this process into a directory from here on.
pub fn write_to(directory: &Path, files: Files) {
    let mut target = TARGET.get_or_init(|| Mutex::new(Target::default())).lock();
    target.open.clear();
    target.directory = Some((directory.to_owned(), files));
}

/// Chooses the file by who speaks.
#[derive(Debug)]
struct Router;

impl<'a> MakeWriter<'a> for Router {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { file: "boot.log" }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line { file: part_of(metadata.target()) }
    }
}

/// The file of a module's lines in a server.
fn part_of(module: &str) -> &'static str {
    match module.split("::").nth(1) {
        Some("dwarfs") => "dwarfs.log",
        Some("overlay" | "layer") => "overlayfs.log",
        _ => "fuse.log",
    }
}

/// Takes one line.
#[derive(Debug)]
struct Line {
    file: &'static str,
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(target) = TARGET.get() {
            target.lock().write(self.file, line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Target {
    /// A line that cannot be written is lost: logging never stops what it tells about.
    fn write(&mut self, part: &'static str, line: &[u8]) {
        if self.stderr {
            let _ = io::stderr().write_all(line);
        }
        let Some((directory, files)) = &self.directory else { return };
        let name = if *files == Files::Boot { "boot.log" } else { part };
        let path = directory.join(name);
        let added = u64::try_from(line.len()).unwrap_or(FILE_LIMIT);
        if let Some(at) =
            self.open.iter().position(|(open, _, size)| *open == name && size + added > FILE_LIMIT)
        {
            self.open.swap_remove(at);
            let _ = fs::rename(&path, directory.join(format!("{name}.1")));
        }
        if !self.open.iter().any(|(open, ..)| *open == name) {
            let Ok(file) = open_log(&path) else { return };
            let size = file.metadata().map_or(0, |status| status.len());
            self.open.push((name, file, size));
        }
        if let Some((_, file, size)) = self.open.iter_mut().find(|(open, ..)| *open == name) {
            let _ = file.write_all(line);
            *size += added;
        }
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_to_the_file_of_their_part() {
        assert_eq!(part_of("fim::dwarfs::read::cache"), "dwarfs.log");
        assert_eq!(part_of("fim::overlay::copy_up"), "overlayfs.log");
        assert_eq!(part_of("fim::fuse::front"), "fuse.log");
        assert_eq!(part_of("fim"), "fuse.log");
    }

    #[test]
    fn a_full_file_is_turned_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut target =
            Target { directory: Some((folder.path().to_owned(), Files::Parts)), ..Target::default() };
        let line = vec![b'x'; 300 << 10];
        for _ in 0..20 {
            target.write("dwarfs.log", &line);
        }
        let sizes: Vec<u64> = ["dwarfs.log", "dwarfs.log.1"]
            .iter()
            .map(|name| fs::metadata(folder.path().join(name)).unwrap().len())
            .collect();
        assert!(sizes.iter().all(|size| *size <= FILE_LIMIT), "{sizes:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
