//! `fim umount`: takes a mount away and waits until its server has gone.

use std::{
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use thiserror::Error;

use super::mount::Way;
use crate::sys::{
    errno::Errno,
    fuse_dev::Connection,
    fusermount,
    mount::{self, FUSE_TYPE, MountEntry, Unmount},
    process::Pidfd,
    ready,
    users::effective_ids,
};

/// How long a server may take to end after an orderly unmount: what it holds back must reach the disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a mount went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Its server has ended.
    Entirely,
    /// Out of sight, but somebody uses it still: its server ends with the last of them.
    OutOfSight,
}

/// Why it could not be taken away.
#[derive(Debug, Error)]
pub enum Error {
    /// The directory's place cannot be found.
    #[error("cannot find {path}")]
    Path {
        /// The directory.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The table of mounts cannot be read.
    #[error("cannot read the table of mounts")]
    Table(#[source] io::Error),
    /// Something else, or nothing, is mounted there.
    #[error("cannot unmount {0}: no mount of fim")]
    NotOurs(PathBuf),
    /// umount2(2) refused.
    #[error("cannot unmount {target}")]
    Unmount {
        /// The directory.
        target: PathBuf,
        /// What the host said.
        source: Errno,
    },
    /// fusermount3 refused.
    #[error("cannot unmount {target}")]
    Helper {
        /// The directory.
        target: PathBuf,
        /// What it said.
        source: fusermount::Error,
    },
    /// The server is still there.
    #[error("the server (process {0}) has not ended after {PATIENCE:?}")]
    Lingers(u32),
    /// Waiting failed.
    #[error("cannot wait for the server")]
    Wait(#[source] io::Error),
}

/// Unmounts what fim has mounted on top of `directory`.
///
/// # Errors
///
/// [`Error`] says which step failed.
pub fn run(directory: &Path, way: Way) -> Result<Gone, Error> {
    let target = place(directory)?;
    let table = mount::table().map_err(Error::Table)?;
    let entry = table
        .iter()
        .rfind(|entry| entry.target == target)
        .filter(|entry| entry.kind == FUSE_TYPE)
        .ok_or_else(|| Error::NotOurs(target.clone()))?;
    let servers: Vec<(u32, Pidfd)> = Connection::of_device(entry.minor)
        .servers()
        .into_iter()
        .filter(|pid| *pid != std::process::id())
        .filter_map(|pid| Some((pid, Pidfd::open(i32::try_from(pid).ok()?).ok()?)))
        .collect();
    if take_away(&target, way)? == Gone::OutOfSight && !servers.is_empty() {
        return Ok(Gone::OutOfSight);
    }
    let deadline = Instant::now() + PATIENCE;
    for (pid, server) in &servers {
        let ended = ready::first_readable(&[server.as_fd()], Some(deadline)).map_err(Error::Wait)?;
        ended.ok_or(Error::Lingers(*pid))?;
    }
    Ok(Gone::Entirely)
}

/// The places where mounts of the caller's lie (for root: of everybody's) whose connection has ended.
///
/// # Errors
///
/// The table of mounts cannot be read.
pub fn dead_mounts() -> io::Result<Vec<PathBuf>> {
    let (uid, _) = effective_ids();
    let table = mount::table()?;
    let is_ours = |entry: &&MountEntry| entry.kind == FUSE_TYPE && (uid == 0 || entry.owner == Some(uid));
    // A mount below another one cannot be reached by its path.
    let is_on_top = |entry: &&MountEntry| {
        table.iter().rfind(|other| other.target == entry.target).is_some_and(|top| top == *entry)
    };
    // The mount itself is asked only where nobody serves it: one that is busy may take its time to answer.
    let is_dead = |entry: &&MountEntry| {
        Connection::of_device(entry.minor).servers().is_empty() && mount::is_dead(&entry.target)
    };
    let dead = table.iter().filter(is_ours).filter(is_on_top).filter(is_dead);
    Ok(dead.map(|entry| entry.target.clone()).collect())
}

/// The absolute place of a mount point, found without asking the mount itself, which may be dead.
fn place(directory: &Path) -> Result<PathBuf, Error> {
    let failed = |source| Error::Path { path: directory.to_owned(), source };
    let absolute = std::path::absolute(directory).map_err(failed)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) if !absolute.is_symlink() => {
            Ok(fs::canonicalize(parent).map_err(failed)?.join(name))
        }
        _ => fs::canonicalize(&absolute).map_err(failed),
    }
}

fn take_away(target: &Path, way: Way) -> Result<Gone, Error> {
    match way {
        Way::Direct => {
            let failed = |source| Error::Unmount { target: target.to_owned(), source };
            match mount::unmount(target, Unmount::Unused) {
                Ok(()) => Ok(Gone::Entirely),
                Err(Errno::EBUSY) => {
                    mount::unmount(target, Unmount::Lazy).map_err(failed)?;
                    Ok(Gone::OutOfSight)
                }
                Err(errno) => Err(failed(errno)),
            }
        }
        Way::Helper => {
            let failed = |source| Error::Helper { target: target.to_owned(), source };
            match fusermount::unmount(target, false) {
                Ok(()) => Ok(Gone::Entirely),
                Err(fusermount::Error::Refused(said)) if said.contains("busy") => {
                    fusermount::unmount(target, true).map_err(failed)?;
                    Ok(Gone::OutOfSight)
                }
                Err(error) => Err(failed(error)),
            }
        }
    }
}
