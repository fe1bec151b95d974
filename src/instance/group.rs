//! A control group of an instance's own: it limits what runs inside, and counts for it.
//!
//! ```text
//! version 2   ABOVE/NAME/              ABOVE is the own group, or the nearest above it that hands the controllers on
//! version 1   CONTROLLER/OWN/NAME/     one in each hierarchy
//! ```
//!
//! Whether a group can be had depends on the host: root always can, a user where a part of the tree is delegated to him,
//! as systemd does for sessions.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::sync::thread;

/// Period of the scheduler's shares, in microseconds: the kernel's default.
const PERIOD: u64 = 100_000;
/// How often, and how long apart, a group is tried to be removed whose processes are being buried.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(2);

/// The most that an instance may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processors, in thousandths.
    pub cpus: Option<u32>,
    /// Processes and threads, with those of the sandbox itself.
    pub pids: Option<u32>,
}

impl Quota {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The controllers that are needed, by their names in both versions.
    fn needs(&self) -> Vec<&'static str> {
        [("memory", self.memory.is_some()), ("cpu", self.cpus.is_some()), ("pids", self.pids.is_some())]
            .into_iter()
            .filter_map(|(name, is_needed)| is_needed.then_some(name))
            .collect()
    }

    /// The runtime in a period.
    fn runtime(&self) -> Option<u64> {
        self.cpus.map(|cpus| u64::from(cpus) * PERIOD / 1000)
    }
}

/// Where the directories of a group are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// That of version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unified: Option<PathBuf>,
    /// Those of version 1, by controller.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub split: BTreeMap<String, PathBuf>,
}

/// Why there is no group.
#[derive(Debug, Error)]
pub enum GroupError {
    /// No group can be made.
    #[error("cannot limit the instance: no control group with {needs} can be made here")]
    NotHere {
        /// The controllers.
        needs: String,
    },
    /// A limit is not taken.
    #[error("cannot limit the instance: {path}")]
    Limit {
        /// The file of the limit.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The own groups cannot be found out.
    #[error("cannot read the own control groups")]
    Own(#[source] io::Error),
}

/// A group that has been made. It is removed with this.
#[derive(Debug)]
pub struct Group {
    places: Places,
    entrances: Vec<File>,
}

impl Group {
    /// Makes a group called `name` in which `quota` holds.
    ///
    /// # Errors
    ///
    /// [`GroupError`]; nothing is left then.
    pub fn make(name: &str, quota: &Quota) -> Result<Self, GroupError> {
        let trees = Trees::of_caller().map_err(GroupError::Own)?;
        let needs = quota.needs();
        let places = trees.unified(name, &needs).or_else(|| trees.split(name, &needs));
        let mut group = Self {
            places: places.ok_or_else(|| GroupError::NotHere { needs: needs.join(", ") })?,
            entrances: Vec::new(),
        };
        group.limit(quota)?;
        for place in group.places.all() {
            let path = place.join("cgroup.procs");
            let entrance = File::options().write(true).open(&path);
            group.entrances.push(entrance.map_err(|source| GroupError::Limit { path, source })?);
        }
        Ok(group)
    }

    fn limit(&self, quota: &Quota) -> Result<(), GroupError> {
        let memory = quota.memory.map(|bytes| bytes.to_string());
        let pids = quota.pids.map(|count| count.to_string());
        let runtime = quota.runtime();
        let unified = |name| self.places.unified.as_ref().map(|place| place.join(name));
        let split =
            |controller, name| self.places.split.get(controller).map(|place: &PathBuf| place.join(name));
        let share = runtime.map(|time| format!("{time} {PERIOD}"));
        let time = runtime.map(|time| time.to_string());
        for (path, value) in [
            (unified("memory.max"), &memory),
            (unified("cpu.max"), &share),
            (unified("pids.max"), &pids),
            (split("memory", "memory.limit_in_bytes"), &memory),
            (split("cpu", "cpu.cfs_quota_us"), &time),
            (split("pids", "pids.max"), &pids),
        ] {
            if let (Some(path), Some(value)) = (path, value) {
                fs::write(&path, value).map_err(|source| GroupError::Limit { path, source })?;
            }
        }
        // Memory that may be swapped out without bound is no limit; not every host counts it.
        for path in [
            unified("memory.swap.max").map(|path| (path, Some("0".to_owned()))),
            split("memory", "memory.memsw.limit_in_bytes").map(|path| (path, memory.clone())),
        ]
        .into_iter()
        .flatten()
        {
            if let (path, Some(value)) = path
                && memory.is_some()
            {
                let _ = fs::write(path, value);
            }
        }
        Ok(())
    }

    /// Its directories.
    #[must_use]
    pub const fn places(&self) -> &Places {
        &self.places
    }

    /// Moves the calling process into it; what that starts is in it, too.
    ///
    /// # Errors
    ///
    /// What write(2) says.
    pub fn enter(&self) -> io::Result<()> {
        self.entrances.iter().try_for_each(|entrance| (&mut &*entrance).write_all(b"0"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for place in self.places.all() {
            for _ in 0..TRIES {
                match fs::remove_dir(place) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => thread::sleep(PAUSE),
                    _ => break,
                }
            }
        }
    }
}

impl Places {
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.unified.iter().chain(self.split.values())
    }

    /// Removes the directories of a group whose processes are gone.
    pub fn remove(&self) {
        // What is no group of ours, or is in use, stays by itself: rmdir(2) there removes nothing else.
        for place in self.all().filter(|place| is_ours(place)) {
            let _ = fs::remove_dir(place);
        }
    }
}

/// Whether a directory of a record is a group that we could have made: records are files that others may have written.
fn is_ours(place: &Path) -> bool {
    let name = place.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.starts_with(PREFIX) && place.join("cgroup.procs").exists()
}

/// What names of groups begin with.
pub const PREFIX: &str = "fim-";

/// The trees of control groups, with the caller's place in each.
#[derive(Debug, Default, PartialEq, Eq)]
struct Trees {
    /// Mount point and own group of version 2.
    unified: Option<(PathBuf, PathBuf)>,
    /// Own groups of version 1, by controller.
    split: BTreeMap<String, PathBuf>,
}

impl Trees {
    fn of_caller() -> io::Result<Self> {
        Ok(Self::parse(
            &fs::read_to_string("/proc/self/mountinfo")?,
            &fs::read_to_string("/proc/self/cgroup")?,
        ))
    }

    fn parse(mounts: &str, groups: &str) -> Self {
        let own: Vec<(&str, &str)> =
            groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')).collect();
        let mut trees = Self::default();
        for line in mounts.lines() {
            let Some((place, kind)) = line.split_once(" - ") else { continue };
            let mut words = place.split(' ').skip(3);
            let (Some(root), Some(target)) = (words.next(), words.next()) else { continue };
            let mut kind = kind.split(' ');
            let (name, options) = (kind.next(), kind.nth(1).unwrap_or_default());
            let find = |controllers: &str| {
                let (_, path) = own.iter().find(|(of, _)| *of == controllers)?;
                // Of a tree of which a part is mounted, only that part has a path.
                let inside = Path::new(path).strip_prefix(root).ok()?;
                Some(Path::new(target).join(inside))
            };
            match name {
                Some("cgroup2") => {
                    trees.unified = find("").map(|own| (PathBuf::from(target), own));
                }
                Some("cgroup") => {
                    for (controllers, _) in &own {
                        let is_here = !controllers.is_empty()
                            && controllers
                                .split(',')
                                .all(|one| options.split(',').any(|option| option == one));
                        if let Some(place) = is_here.then(|| find(controllers)).flatten() {
                            for one in controllers.split(',') {
                                trees.split.insert(one.to_owned(), place.clone());
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        trees
    }

    fn unified(&self, name: &str, needs: &[&str]) -> Option<Places> {
        let (mount, own) = self.unified.as_ref()?;
        let above = own.ancestors().take_while(|place| place.starts_with(mount));
        let mut found = above.filter(|place| hands_on(place, needs)).map(|place| place.join(name));
        let made = found.find(|place| fs::create_dir(place).is_ok())?;
        Some(Places { unified: Some(made), split: BTreeMap::new() })
    }

    fn split(&self, name: &str, needs: &[&str]) -> Option<Places> {
        let mut places = Places::default();
        for controller in ["memory", "cpu", "cpuacct", "pids", "blkio"] {
            let made = self.split.get(controller).map(|own| own.join(name));
            // Some hierarchies have several controllers.
            match made.map(|place| fs::create_dir(&place).or_else(exists).map(|()| place)) {
                Some(Ok(place)) => {
                    places.split.insert(controller.to_owned(), place);
                }
                _ if needs.contains(&controller) => {
                    places.remove();
                    return None;
                }
                _ => {}
            }
        }
        (!places.split.is_empty()).then_some(places)
    }
}

fn exists(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

/// Whether groups in this one have the controllers, or can be given them.
fn hands_on(group: &Path, needs: &[&str]) -> bool {
    let words = |name: &str| fs::read_to_string(group.join(name)).unwrap_or_default();
    let has = |text: &str, one: &str| text.split_whitespace().any(|word| word == one);
    let (known, enabled) = (words("cgroup.controllers"), words("cgroup.subtree_control"));
    if !needs.iter().all(|one| has(&known, one)) {
        return false;
    }
    let missing: Vec<String> =
        needs.iter().filter(|one| !has(&enabled, one)).map(|one| format!("+{one}")).collect();
    // The kernel refuses it where processes are in the group itself.
    missing.is_empty() || fs::write(group.join("cgroup.subtree_control"), missing.join(" ")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
33 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 30 0:30 /part /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
36 30 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
37 1 8:1 / / rw - ext4 /dev/sda1 rw
";

    #[test]
    fn the_own_groups_are_found() {
        let trees = Trees::parse(
            MOUNTS,
            "4:memory:/part/x/y\n3:cpu,cpuacct:/a\n2:pids:/b\n1:name=systemd:/s\n0::/u\n",
        );
        assert_eq!(trees.unified, Some(("/sys/fs/cgroup/unified".into(), "/sys/fs/cgroup/unified/u".into())));
        let place = |name: &str| trees.split.get(name).map(|path| path.to_str().unwrap());
        assert_eq!(place("cpu"), Some("/sys/fs/cgroup/cpu,cpuacct/a"));
        assert_eq!(place("cpuacct"), place("cpu"));
        assert_eq!(place("memory"), Some("/sys/fs/cgroup/memory/x/y"));
        assert_eq!(place("pids"), None);
        // A group outside of what is mounted has no path.
        assert_eq!(Trees::parse(MOUNTS, "4:memory:/other\n").split, BTreeMap::new());
        assert_eq!(Trees::parse("nonsense\n", "nonsense"), Trees::default());
    }

    #[test]
    fn limits_are_written_where_each_version_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let quota = Quota { memory: Some(1 << 20), cpus: Some(1500), pids: Some(7) };
        let group = Group {
            places: Places {
                unified: Some(folder.path().to_owned()),
                split: [("cpu".to_owned(), folder.path().to_owned())].into(),
            },
            entrances: vec![],
        };
        group.limit(&quota).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("memory.max"), "1048576");
        assert_eq!(read("cpu.max"), "150000 100000");
        assert_eq!(read("cpu.cfs_quota_us"), "150000");
        assert_eq!(read("pids.max"), "7");
        assert_eq!(quota.needs(), ["memory", "cpu", "pids"]);
        assert!(Quota::default().is_none() && !quota.is_none());
    }

    #[test]
    fn only_groups_of_ours_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        fs::create_dir(&other).unwrap();
        Places { unified: Some(other.clone()), ..Places::default() }.remove();
        assert!(other.exists());
    }
}
