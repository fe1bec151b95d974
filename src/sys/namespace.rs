//! User and mount namespaces.
//!
//! A private mount namespace hides our mounts from everybody outside and lets the kernel clean up with its last
//! process. Without privileges it needs a user namespace of its own, in which the caller's uid and gid are mapped to
//! themselves: mapped to 0 instead, programs inside would see another owner, and bubblewrap could not map back.

use std::{fs, io, ops::RangeInclusive};

use nix::{
    sched::CloneFlags,
    unistd::{getegid, geteuid},
};
use thiserror::Error;

use super::{errno::Errno, mount};

/// What failed while entering a private namespace.
#[derive(Debug, Error)]
pub enum Error {
    /// unshare(2).
    #[error("cannot make a private namespace")]
    Unshare(#[source] Errno),
    /// Writing `setgroups`, `uid_map` or `gid_map`.
    #[error("cannot map the own ids into the new user namespace")]
    Map(#[source] io::Error),
    /// Making `/` a slave of the mounts outside.
    #[error("cannot make the mounts private")]
    Propagation(#[source] Errno),
}

/// The ids that the caller's user namespace knows; every other id appears in it as 65534 and cannot be given to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownIds {
    /// User ids.
    pub uids: Vec<RangeInclusive<u32>>,
    /// Group ids.
    pub gids: Vec<RangeInclusive<u32>>,
}

impl KnownIds {
    /// Those of the calling process.
    ///
    /// # Errors
    ///
    /// What reading `/proc/self/uid_map` and `gid_map` says.
    pub fn here() -> io::Result<Self> {
        let read = |name| fs::read_to_string(name).map(|map| ranges(&map));
        Ok(Self { uids: read("/proc/self/uid_map")?, gids: read("/proc/self/gid_map")? })
    }

    /// Whether these are all ids there are, as in the initial namespace.
    #[must_use]
    pub fn are_all(&self) -> bool {
        // The last id stands for "no id" and is never mapped.
        let all = [0..=u32::MAX - 1];
        self.uids == all && self.gids == all
    }
}

/// Moves the calling process, which must have one thread, into a private mount namespace; where it is not root into
/// a user namespace of its own as well, in which it has all capabilities until it executes something.
///
/// # Errors
///
/// [`Error`]: `EPERM` where user namespaces are forbidden, `ENOSPC` where there are too many, `EINVAL` with threads.
pub fn enter_private() -> Result<(), Error> {
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(Error::Unshare)?;
    } else {
        let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
        nix::sched::unshare(flags).map_err(Error::Unshare)?;
        // The kernel takes a gid map from the unprivileged only after setgroups has been given up (user_namespaces(7)).
        fs::write("/proc/self/setgroups", "deny").map_err(Error::Map)?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).map_err(Error::Map)?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).map_err(Error::Map)?;
    }
    mount::make_root_slave().map_err(Error::Propagation)
}

/// Reads lines of `inside outside count` (user_namespaces(7)).
fn ranges(map: &str) -> Vec<RangeInclusive<u32>> {
    map.lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<u32>);
            let (inside, _, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
            Some(inside..=inside.checked_add(count.checked_sub(1)?)?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_maps_are_read() {
        let all = ranges("         0          0 4294967295\n");
        assert!(KnownIds { uids: all.clone(), gids: all.clone() }.are_all());
        let few = ranges("      1000       1000          1\n         0     100000      65536\n");
        assert_eq!(few, [1000..=1000, 0..=65535]);
        assert!(!KnownIds { uids: few, gids: all }.are_all());
        assert_eq!(ranges("0 0 0\n4294967295 0 2\nnonsense\n"), []);
    }
}
