//! Who the calling process is, and which users it knows.

use std::{fs, io, ops::RangeInclusive};

use nix::unistd;

/// Ids of the calling process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

impl Ids {
    /// Asks the kernel.
    ///
    /// # Errors
    ///
    /// What getgroups(2) says.
    pub fn of_caller() -> io::Result<Self> {
        Ok(Self {
            uid: unistd::geteuid().as_raw(),
            gid: unistd::getegid().as_raw(),
            groups: unistd::getgroups()?.into_iter().map(unistd::Gid::as_raw).collect(),
        })
    }
}

/// The effective user and group id: what the process creates files with.
#[must_use]
pub fn effective_ids() -> (u32, u32) {
    (unistd::geteuid().as_raw(), unistd::getegid().as_raw())
}

/// The supplementary groups of the process or thread `pid`.
///
/// # Errors
///
/// What reading its `/proc/PID/status` says.
pub fn groups_of(pid: u32) -> io::Result<Vec<u32>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    Ok(line.unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect())
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
