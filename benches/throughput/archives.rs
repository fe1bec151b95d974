//! Packs a tree with each maker, once. What was made, by which command and how large it is belongs to the report:
//! without it no comparison of readers is fair.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    args::Class,
    command, facts,
    failure::{Failure, Result, cannot},
    host::Host,
};

/// The strongest compression of a large tree takes long on a small machine.
const LIMIT: Duration = Duration::from_secs(2 * 3600);

/// Who makes an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// `fim archive create`.
    Fim,
    /// `mkdwarfs`.
    Mkdwarfs,
    /// `mksquashfs`.
    Squashfs,
    /// `mkfs.erofs`.
    Erofs,
}

/// An archive on the disk.
#[derive(Debug, Clone)]
pub struct Archive {
    /// Where it lies.
    pub path: PathBuf,
    /// How it was made, how large it is, how long it took.
    pub about: String,
}

/// A tree that can be packed.
#[derive(Debug)]
pub struct Source<'a> {
    /// A name for the archive's file.
    pub name: &'a str,
    /// The tree.
    pub tree: &'a Path,
    /// Changes when the tree changes.
    pub fingerprint: u64,
}

/// What is noted beside an archive: it is made again only where this differs.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    command: String,
    fingerprint: u64,
    maker_bytes: u64,
    seconds: f64,
}

impl Note {
    fn same_but_time(&self, other: &Self) -> bool {
        self.command == other.command
            && self.fingerprint == other.fingerprint
            && self.maker_bytes == other.maker_bytes
    }
}

impl Maker {
    /// The maker's program.
    pub fn program(self, host: &Host) -> Result<PathBuf> {
        let name = match self {
            Self::Fim => return host.fim().ok_or_else(|| cannot("find", &host.fim)("no such program")),
            Self::Mkdwarfs => "mkdwarfs",
            Self::Squashfs => "mksquashfs",
            Self::Erofs => "mkfs.erofs",
        };
        host.tool(name).ok_or_else(|| Failure::new(format!("{name} is not installed")))
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Fim => "fim.dwarfs",
            Self::Mkdwarfs => "dwarfs",
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
        }
    }

    /// The arguments that decide the format, for people and for the command line.
    fn settings(self, level: u8, class: Class) -> Vec<String> {
        let words = match (self, class) {
            (Self::Fim, _) => format!("archive create --level {level}"),
            (Self::Mkdwarfs, _) => {
                format!("-l {level} --with-devices --with-specials --no-progress --log-level warn")
            }
            (Self::Squashfs, Class::Zstd) => "-comp zstd -Xcompression-level 15 -b 128K".to_owned(),
            (Self::Squashfs, Class::Lz4) => "-comp lz4 -Xhc -b 128K".to_owned(),
            // Debian's erofs-utils know no other codec. Clusters of 4 KiB are their default; named, so that it shows.
            (Self::Erofs, _) => "-zlz4hc -C4096".to_owned(),
        };
        words.split(' ').map(str::to_owned).collect()
    }

    fn command(self, program: &Path, settings: &[String], tree: &Path, file: &Path) -> Command {
        let mut command = Command::new(program);
        match self {
            Self::Fim => command.args(settings).arg(tree).arg(file),
            Self::Mkdwarfs => command.arg("-i").arg(tree).arg("-o").arg(file).args(settings),
            Self::Squashfs => {
                command.arg(tree).arg(file).args(["-noappend", "-no-progress", "-quiet"]).args(settings)
            }
            Self::Erofs => command.args(settings).arg("--quiet").arg(file).arg(tree),
        };
        command
    }
}

/// Makes the archive of a tree below `folder`, or takes the one of an earlier run made in the same way.
pub fn make(
    host: &Host,
    maker: Maker,
    source: &Source<'_>,
    level: u8,
    class: Class,
    folder: &Path,
) -> Result<Archive> {
    let program = maker.program(host)?;
    let mut settings = maker.settings(level, class);
    if maker == Maker::Fim && !knows_levels(&program)? {
        // The words behind `archive create`.
        settings.truncate(2);
    }
    let path = folder.join(format!("{}-{level}.{}", source.name, maker.suffix()));
    let noted = folder.join(format!("{}-{level}.{}.note", source.name, maker.suffix()));
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let mut note = Note {
        command: format!("{name} {}", settings.join(" ")),
        fingerprint: source.fingerprint,
        maker_bytes: fs::metadata(&program).map_or(0, |data| data.len()),
        seconds: 0.0,
    };
    match earlier(&path, &noted) {
        Some(before) if before.same_but_time(&note) => note = before,
        _ => {
            eprintln!("making {} by {}", path.display(), note.command);
            // What lies there may be half of an archive.
            let _ = fs::remove_file(&path);
            let output = command::run(&mut maker.command(&program, &settings, source.tree, &path), LIMIT)?;
            note.seconds = output.elapsed.as_secs_f64();
            if !path.exists() {
                return Err(Failure::new(format!("{} succeeded and made no archive", note.command)));
            }
            let text = serde_json::to_vec(&note).map_err(cannot("note", &noted))?;
            fs::write(&noted, text).map_err(cannot("write", &noted))?;
        }
    }
    let bytes = fs::metadata(&path).map_err(cannot("stat", &path))?.len();
    let mebibytes = u32::try_from(bytes / 1024).map_or(f64::INFINITY, f64::from) / 1024.0;
    let blocks = facts::blocks(&path).map(|facts| format!(", {facts}")).unwrap_or_default();
    let about = format!("{}{blocks}: {mebibytes:.1} MiB, made in {:.1} s", note.command, note.seconds);
    Ok(Archive { path, about })
}

/// Levels are an option of newer builds.
fn knows_levels(fim: &Path) -> Result<bool> {
    let mut help = Command::new(fim);
    let output = command::run(help.args(["archive", "create", "--help"]), Duration::from_secs(10))?;
    Ok(output.stdout.contains("--level"))
}

fn earlier(archive: &Path, noted: &Path) -> Option<Note> {
    archive.exists().then_some(())?;
    serde_json::from_slice(&fs::read(noted).ok()?).ok()
}
