//! Where things are put: trees and archives that may stay for the next run, mounts and uppers that go.
//!
//! As root everything lies on an ext4 disk of our own, a sparse file behind a loop device. The disk below may discard
//! freed blocks one by one while its journal commits, which makes each removal, and each sync after it, take
//! milliseconds; no kind could do anything about that.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    args::Args,
    cleanup::{self, Guard, Undo},
    command,
    failure::{Failure, Result, cannot},
    host::Host,
    mounts::Stack,
    tree::Sizes,
};

/// The size of the disk. It is sparse: what is not used takes no room.
const DISK: u64 = 24 << 30;

/// Where things are put. What must go is removed on drop, the disk is unmounted before its file is removed.
pub struct Rooms {
    /// Trees and archives; with `--scratch` they stay for the next run.
    pub kept: PathBuf,
    /// Mounts and uppers of this run.
    pub run: PathBuf,
    /// For the report.
    pub about: String,
    _run: Guard,
    _disk: Stack,
    _scratch: Option<Guard>,
}

impl Rooms {
    /// Makes the directories.
    pub fn make(args: &Args, host: &Host) -> Result<Self> {
        let id = std::process::id();
        let temporary = || Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("throughput-{id}"));
        let scratch = args.scratch.clone().unwrap_or_else(temporary);
        cleanup::folder(&scratch)?;
        let scratch = fs::canonicalize(&scratch).map_err(cannot("find", &scratch))?;
        fit_for_options(&scratch)?;
        let guard = match args.scratch {
            Some(_) => None,
            None => Some(cleanup::make_known(Undo::Directory(scratch.clone()), || Ok(()))?.1),
        };
        let mut disk = Stack::default();
        let (kept, about) = match (host.tool("mkfs.ext4"), host.tool("losetup")) {
            (Some(mkfs), Some(losetup)) if host.root && !args.no_disk => {
                (mount_disk(&mkfs, &losetup, &scratch, &mut disk)?, "ext4 without discard on a loop device")
            }
            _ => (scratch, "the file system of the scratch directory"),
        };
        let run = kept.join(format!("run-{id}"));
        let (_, run_guard) = cleanup::make_known(Undo::Directory(run.clone()), || {
            fs::create_dir_all(&run).map_err(cannot("make", &run))
        })?;
        Ok(Self { kept, run, about: about.to_owned(), _run: run_guard, _disk: disk, _scratch: guard })
    }

    /// A tree of an earlier run if it is the same one, else a new one.
    pub fn tree(
        &self,
        name: &str,
        sizes: Sizes,
        make: impl FnOnce(&Path, Sizes) -> Result<()>,
    ) -> Result<PathBuf> {
        let (tree, note) = (self.kept.join(name), self.kept.join(format!("{name}.note")));
        let plan = format!("{sizes:?}");
        if fs::read_to_string(&note).is_ok_and(|before| before == plan) {
            return Ok(tree);
        }
        eprintln!("making {}", tree.display());
        cleanup::remove_tree(&tree)?;
        make(&tree, sizes)?;
        fs::write(&note, plan).map_err(cannot("write", &note))?;
        Ok(tree)
    }
}

/// Makes the disk where there is none and mounts it.
fn mount_disk(mkfs: &Path, losetup: &Path, scratch: &Path, stack: &mut Stack) -> Result<PathBuf> {
    let (image, directory) = (scratch.join("disk.ext4"), scratch.join("disk"));
    if !image.exists() {
        let unfinished = scratch.join("disk.new");
        let file = File::create(&unfinished).map_err(cannot("make", &unfinished))?;
        file.set_len(DISK).map_err(cannot("make", &unfinished))?;
        let mut command = Command::new(mkfs);
        // Nothing is left for the kernel to initialise later, in the middle of a measure.
        command.args(["-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"]).arg(&unfinished);
        command::run(&mut command, Duration::from_secs(300))?;
        fs::rename(&unfinished, &image).map_err(cannot("rename", &unfinished))?;
    }
    stack.disk(losetup, &image, &directory)?;
    Ok(directory)
}

/// The option strings of overlay mounts and the kernel's list of mounts know no quoting that all agree on.
pub fn fit_for_options(path: &Path) -> Result<()> {
    let text = path.to_string_lossy();
    if text.contains([',', ':', ' ', '\t', '\n', '\\', '=']) {
        return Err(Failure::new(format!("{text} has a character that mount options give a meaning")));
    }
    Ok(())
}
