//! `fim ls`.

use std::ffi::OsString;

use clap::Args;

use super::looking::{self, Output, Source, Stop};
use crate::{
    cli::Outcome,
    runtime::browse::{Attr, BrowseError, Child, FileKind, Found, Links, Object, Tree, text},
};

/// Lists directories of an archive or image without mounting it.
///
/// Times are in UTC, owners are numbers: an archive does not know their names.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim ls -l app.flatimage etc/apt")]
pub struct LsArgs {
    #[command(flatten)]
    source: Source,
    /// Directories, or other objects; without any, the root.
    #[arg(value_name = "PATH")]
    paths: Vec<OsString>,
    /// With kind, permissions, links, owner, group, size and time.
    #[arg(short, long)]
    long: bool,
    /// Also names that begin with a dot.
    #[arg(short, long)]
    all: bool,
    /// Also everything below.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Directories themselves, not what is in them.
    #[arg(short, long, conflicts_with = "recursive")]
    directory: bool,
    /// A line of JSON for each object, none left out, with bytes outside of printable ASCII as %XX.
    #[arg(long)]
    json: bool,
}

/// Carries the command out.
///
/// # Errors
///
/// The archive cannot be opened. What cannot be listed is told, and the rest is listed.
pub fn run(args: &LsArgs) -> Outcome {
    looking::print(|output| {
        let tree = args.source.open()?;
        let mut lister = Lister { output, args, said: false };
        let paths = looking::paths_or_root(&args.paths);
        let mut directories = Vec::new();
        let mut others = Vec::new();
        for path in &paths {
            match find(&tree, path, args) {
                Ok(found) if found.object.is_dir() && !args.directory => directories.push(found),
                Ok(found) => others.push(Line { name: path.to_vec(), found }),
                Err(error) => lister.output.complain(error)?,
            }
        }
        lister.block(&others)?;
        let headed = args.recursive || paths.len() > 1;
        directories.reverse();
        while let Some(directory) = directories.pop() {
            lister.directory(&directory, headed, &mut directories)?;
        }
        Ok(())
    })
}

/// Finds what an argument means: a symlink to a directory is that directory, unless it is asked about itself.
fn find<'t>(tree: &'t Tree, path: &[u8], args: &LsArgs) -> Result<Found<'t>, BrowseError> {
    let found = tree.find(path, Links::Keep)?;
    if found.object.attr().kind == FileKind::Symlink
        && !(args.long || args.directory || args.json)
        && let Ok(followed) = tree.find(path, Links::Follow)
        && followed.object.is_dir()
    {
        return Ok(followed);
    }
    Ok(found)
}

/// An object that is listed.
struct Line<'t> {
    /// As it is called in the list.
    name: Vec<u8>,
    found: Found<'t>,
}

struct Lister<'o> {
    output: &'o mut Output,
    args: &'o LsArgs,
    /// Whether something has been listed that an empty line should divide from what follows.
    said: bool,
}

impl Lister<'_> {
    /// Lists one directory; those in it are put on the pile where everything is asked for.
    fn directory<'t>(
        &mut self,
        directory: &Found<'t>,
        headed: bool,
        pile: &mut Vec<Found<'t>>,
    ) -> Result<(), Stop> {
        let lines = match self.lines(directory) {
            Ok(lines) => lines,
            Err(error) => return Ok(self.output.complain(error)?),
        };
        if headed && !self.args.json {
            if self.said {
                self.output.say("\n")?;
            }
            self.output.say("/")?;
            self.output.name(&directory.path)?;
            self.output.say(":\n")?;
            self.said = true;
        }
        self.block(&lines)?;
        if self.args.recursive {
            let below = lines.into_iter().map(|line| line.found).filter(|found| found.object.is_dir());
            pile.extend(below.collect::<Vec<_>>().into_iter().rev());
        }
        Ok(())
    }

    /// The entries of a directory that are shown.
    fn lines<'t>(&self, directory: &Found<'t>) -> Result<Vec<Line<'t>>, BrowseError> {
        let shown = |child: &Child<'_>| self.args.all || self.args.json || child.name.first() != Some(&b'.');
        let children = directory.object.children(&directory.path)?.into_iter().filter(shown);
        let line = |Child { name, object }| {
            let mut path = directory.path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            Line { name, found: Found { path, object } }
        };
        Ok(children.map(line).collect())
    }

    fn block(&mut self, lines: &[Line<'_>]) -> Result<(), Stop> {
        let widths = Widths::of(lines);
        for Line { name, found: Found { path, object } } in lines {
            if self.args.json {
                match looking::describe(path, object) {
                    Ok(entry) => self.output.json(&entry)?,
                    Err(error) => self.output.complain(error)?,
                }
                continue;
            }
            self.said = true;
            if self.args.long {
                self.output.say(&widths.show(object.attr()))?;
            }
            self.output.name(name)?;
            if self.args.long {
                self.link(path, object)?;
            }
            self.output.say("\n")?;
        }
        Ok(())
    }

    fn link(&mut self, path: &[u8], object: &Object<'_>) -> Result<(), Stop> {
        if object.attr().kind == FileKind::Symlink {
            match object.target(path) {
                Ok(target) => {
                    self.output.say(" -> ")?;
                    self.output.name(&target)?;
                }
                Err(error) => self.output.complain(error)?,
            }
        }
        Ok(())
    }
}

/// How wide the columns of a block are.
#[derive(Default)]
struct Widths {
    nlink: usize,
    uid: usize,
    gid: usize,
    size: usize,
}

impl Widths {
    fn of(lines: &[Line<'_>]) -> Self {
        let mut widths = Self::default();
        for attr in lines.iter().map(|line| line.found.object.attr()) {
            widths.nlink = widths.nlink.max(digits(attr.nlink.into()));
            widths.uid = widths.uid.max(digits(attr.uid.into()));
            widths.gid = widths.gid.max(digits(attr.gid.into()));
            widths.size = widths.size.max(size(attr).len());
        }
        widths
    }

    /// Everything before the name.
    fn show(&self, attr: &Attr) -> String {
        let Self { nlink, uid, gid, size: size_width } = *self;
        format!(
            "{} {:>nlink$} {:>uid$} {:>gid$} {:>size_width$} {} ",
            text::mode(attr.kind, attr.perm),
            attr.nlink,
            attr.uid,
            attr.gid,
            size(attr),
            text::minute(attr.mtime),
        )
    }
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| usize::try_from(log).unwrap_or_default() + 1)
}

/// Size, or number of a device.
fn size(attr: &Attr) -> String {
    match looking::is_device(attr) {
        true => format!("{}, {}", attr.rdev.major, attr.rdev.minor),
        false => attr.size.to_string(),
    }
}
