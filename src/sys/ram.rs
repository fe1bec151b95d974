//! How much memory this process may use: that of the machine, and the limits of the control groups around it.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use nix::sys::sysinfo::sysinfo;

/// Where control groups are mounted, version 2 and the memory controller of version 1.
const MOUNTS: [(Kind, &str); 3] = [
    (Kind::Unified, "/sys/fs/cgroup"),
    (Kind::Unified, "/sys/fs/cgroup/unified"),
    (Kind::Memory, "/sys/fs/cgroup/memory"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unified,
    Memory,
}

impl Kind {
    const fn file(self) -> &'static str {
        match self {
            Self::Unified => "memory.max",
            Self::Memory => "memory.limit_in_bytes",
        }
    }
}

/// Memory of the machine in bytes, if it tells.
#[must_use]
pub fn of_machine() -> Option<u64> {
    sysinfo().ok().map(|machine| machine.ram_total()).filter(|bytes| *bytes > 0)
}

/// The least limit of the control groups in which this process is, up to the root, if there is one.
#[must_use]
pub fn of_control_groups() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let files = MOUNTS.iter().flat_map(|(kind, mount)| limit_files(*kind, Path::new(mount), &groups));
    files.filter_map(|file| limit(&fs::read_to_string(file).ok()?)).min()
}

/// The files that hold the limits of a process, given its `/proc/PID/cgroup`: those of its group and of all above.
fn limit_files(kind: Kind, mount: &Path, groups: &str) -> Vec<PathBuf> {
    let of_kind = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_it = match kind {
            Kind::Unified => controllers.is_empty(),
            Kind::Memory => controllers.split(',').any(|controller| controller == "memory"),
        };
        is_it.then(|| path.to_owned())
    };
    let Some(path) = groups.lines().find_map(of_kind) else { return Vec::new() };
    // A group outside of this namespace of groups is shown with `..`: what is visible is the root.
    let named = Path::new(&path).components();
    let inside = if named.clone().any(|part| part == Component::ParentDir) {
        PathBuf::new()
    } else {
        named.filter(|part| matches!(part, Component::Normal(_))).collect()
    };
    inside.ancestors().map(|group| mount.join(group).join(kind.file())).collect()
}

/// A limit file's number; `max`, and what version 1 says for "none", are no limit.
fn limit(text: &str) -> Option<u64> {
    const NONE: u64 = 1 << 60;
    text.trim().parse().ok().filter(|limit| *limit < NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells_its_memory() {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
        let total =
            meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
        assert_eq!(of_machine(), total.and_then(|kib| Some(kib.trim().parse::<u64>().ok()? << 10)));
    }

    #[test]
    fn groups_are_walked_up_to_the_root() {
        let groups = "12:cpu,memory:/a/b\n3:cpuset:/c\n0::/user.slice/x\n";
        let files = limit_files(Kind::Memory, Path::new("/m"), groups);
        let expected = ["/m/a/b", "/m/a", "/m"].map(|dir| Path::new(dir).join("memory.limit_in_bytes"));
        assert_eq!(files, expected);
        let files = limit_files(Kind::Unified, Path::new("/u"), groups);
        assert_eq!(files.len(), 3);
        assert_eq!(files[0], Path::new("/u/user.slice/x/memory.max"));
        let outside = limit_files(Kind::Unified, Path::new("/u"), "0::/../../other");
        assert_eq!(outside, [Path::new("/u/memory.max")]);
        assert!(limit_files(Kind::Unified, Path::new("/u"), "4:memory:/a").is_empty());
    }

    #[test]
    fn no_limit_is_none() {
        assert_eq!(limit("max\n"), None);
        assert_eq!(limit("9223372036854771712\n"), None);
        assert_eq!(limit("104857600\n"), Some(100 << 20));
    }
}
