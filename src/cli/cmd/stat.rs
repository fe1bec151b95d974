//! `fim stat`.

use std::ffi::OsString;

use clap::Args;
use serde_json::{Map, json};

use super::looking::{self, Output, Source, Stop};
use crate::{
    cli::Outcome,
    runtime::browse::{BrowseError, FileKind, Found, Links, Tree, text},
};

/// Shows everything that is known of objects of an archive or image, without mounting it.
///
/// Times are in UTC.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim stat --json rootfs.dwarfs usr/bin/sudo")]
pub struct StatArgs {
    #[command(flatten)]
    source: Source,
    /// The objects; without any, the root.
    #[arg(value_name = "PATH")]
    paths: Vec<OsString>,
    /// Shows what symlinks lead to.
    #[arg(short = 'L', long)]
    dereference: bool,
    /// A line of JSON for each object, with bytes outside of printable ASCII as %XX.
    #[arg(long)]
    json: bool,
}

/// Carries the command out.
///
/// # Errors
///
/// The archive cannot be opened. An object that cannot be shown is told, and those after it are shown.
pub fn run(args: &StatArgs) -> Outcome {
    looking::print(|output| {
        let tree = args.source.open()?;
        for path in looking::paths_or_root(&args.paths) {
            match facts(&tree, path, args) {
                Ok(facts) if args.json => output.json(&facts.json)?,
                Ok(facts) => show(output, path, &facts)?,
                Err(error) => output.complain(error)?,
            }
        }
        Ok(())
    })
}

/// All there is to say.
struct Facts<'t> {
    found: Found<'t>,
    json: Map<String, serde_json::Value>,
    target: Option<Vec<u8>>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn facts<'t>(tree: &'t Tree, path: &[u8], args: &StatArgs) -> Result<Facts<'t>, BrowseError> {
    let found = tree.find(path, if args.dereference { Links::Follow } else { Links::Keep })?;
    let mut json = looking::describe(&found.path, &found.object)?;
    let xattrs = found.object.xattrs(path)?;
    if !xattrs.is_empty() {
        let values = xattrs.iter().map(|(name, value)| (text::quoted(name), json!(text::quoted(value))));
        json.insert("xattrs".to_owned(), values.collect::<Map<_, _>>().into());
    }
    let is_link = found.object.attr().kind == FileKind::Symlink;
    let target = if is_link { Some(found.object.target(path)?) } else { None };
    Ok(Facts { found, json, target, xattrs })
}

fn show(output: &mut Output, path: &[u8], facts: &Facts<'_>) -> Result<(), Stop> {
    let attr = facts.found.object.attr();
    output.say("  File: ")?;
    output.name(path)?;
    if let Some(target) = &facts.target {
        output.say(" -> ")?;
        output.name(target)?;
    }
    let mut device = String::new();
    if looking::is_device(attr) {
        device = format!("  Device type: {}, {}", attr.rdev.major, attr.rdev.minor);
    }
    output.say(&format!(
        "\n  Size: {:<12} Blocks: {:<10} {}{device}\n Inode: {:<12}  Links: {}\n  Mode: ({:04o}/{})  Uid: {}  Gid: {}\n",
        attr.size,
        attr.blocks,
        text::kind_name(attr.kind),
        attr.ino,
        attr.nlink,
        attr.perm,
        text::mode(attr.kind, attr.perm),
        attr.uid,
        attr.gid,
    ))?;
    let times = [("Access", Some(attr.atime)), ("Modify", Some(attr.mtime)), ("Change", Some(attr.ctime))];
    for (label, time) in times.into_iter().chain([(" Birth", attr.btime)]) {
        if let Some(time) = time {
            output.say(&format!("{label}: {}\n", text::instant(time)))?;
        }
    }
    for (name, value) in &facts.xattrs {
        output.say(&format!(" Xattr: {}={}\n", text::quoted(name), text::quoted(value)))?;
    }
    Ok(())
}
