//! What processes take, by /proc: who descends from whom, and sums over families.

use std::{collections::BTreeMap, fs, io, path::Path};

use rustix::param::{clock_ticks_per_second, page_size};

/// All processes that can be seen, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Processes(BTreeMap<i32, Process>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    parent: i32,
    name: Vec<u8>,
    /// With that of children that have been buried, in ticks.
    cpu: u64,
    threads: u64,
    /// In pages.
    resident: u64,
}

/// What a family takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Family {
    /// Processor time in microseconds.
    pub cpu: u64,
    /// Resident memory in bytes; what several share counts for each.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes that were read from devices, as far as we may know.
    pub read: u64,
    /// Bytes that were written to devices, as far as we may know.
    pub written: u64,
}

impl Processes {
    /// Looks at all of them.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read; a process that ends meanwhile is left out.
    pub fn now() -> io::Result<Self> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            let stat = fs::read(Path::new("/proc").join(&name).join("stat")).unwrap_or_default();
            if let Some(process) = parse(&stat) {
                all.insert(pid, process);
            }
        }
        Ok(Self(all))
    }

    /// What descends from `head`, without `head` itself and those of its children that are called as it is: they are
    /// copies of it, not programs.
    #[must_use]
    pub fn below(&self, head: i32) -> Family {
        let mut family = Family::default();
        let own = self.0.get(&head).map(|process| &process.name);
        for (pid, process) in self.0.iter().filter(|(pid, _)| self.descends(**pid, head, own)) {
            let (read, written) = bytes_of(*pid);
            let ticks = clock_ticks_per_second().max(1);
            family.cpu += process.cpu.saturating_mul(1_000_000) / ticks;
            family.memory += process.resident.saturating_mul(u64::try_from(page_size()).unwrap_or(0));
            family.pids += process.threads;
            family.read += read;
            family.written += written;
        }
        family
    }

    fn descends(&self, pid: i32, head: i32, own: Option<&Vec<u8>>) -> bool {
        let mut at = pid;
        // No line of descent is longer than all processes are many.
        for _ in 0..self.0.len() {
            let Some(process) = self.0.get(&at) else { return false };
            if process.parent == head {
                return Some(&process.name) != own;
            }
            at = process.parent;
        }
        false
    }
}

fn parse(stat: &[u8]) -> Option<Process> {
    // The second field is a name in parentheses, which may hold anything.
    let open = stat.iter().position(|byte| *byte == b'(')? + 1;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let name = stat.get(open..close)?.to_vec();
    let fields: Vec<&str> =
        std::str::from_utf8(stat.get(close + 1..)?).ok()?.split_ascii_whitespace().collect();
    // The first one here is the third of proc_pid_stat(5).
    let field = |number: usize| fields.get(number.checked_sub(3)?)?.parse::<u64>().ok();
    let cpu = (14..=17).map(field).try_fold(0_u64, |sum, ticks| Some(sum.saturating_add(ticks?)))?;
    Some(Process {
        parent: i32::try_from(field(4)?).ok()?,
        name,
        cpu,
        threads: field(20)?,
        resident: field(24)?,
    })
}

/// What a process has read and written; nothing where that is not ours to know.
fn bytes_of(pid: i32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    };
    (of("read_bytes:"), of("write_bytes:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(parent: i32, name: &str) -> Process {
        Process { parent, name: name.into(), cpu: 100, threads: 2, resident: 3 }
    }

    #[test]
    fn a_name_cannot_pretend_to_be_other_fields() {
        let stat = b"7 (a) S 9 (x) S 5 7 7 0 -1 4194560 0 0 0 0 11 22 3 4 20 0 6 0 4711 1000 77 18446744073709551615";
        let parsed = parse(stat).unwrap();
        assert_eq!(
            parsed,
            Process { parent: 5, name: b"a) S 9 (x".to_vec(), cpu: 40, threads: 6, resident: 77 }
        );
        assert_eq!(parse(b"7 (a) S 5"), None);
        assert_eq!(parse(b"nonsense"), None);
    }

    #[test]
    fn a_family_is_who_descends_but_for_copies_of_its_head() {
        let all = Processes(
            [
                (1, process(0, "init")),
                (10, process(1, "fim")),
                (11, process(10, "fim")),
                (12, process(11, "on the host")),
                (20, process(10, "bwrap")),
                (21, process(20, "fim")),
                (22, process(21, "sh")),
                (30, process(1, "other")),
                // They claim to descend from each other.
                (40, process(41, "x")),
                (41, process(40, "y")),
            ]
            .into(),
        );
        let family = all.below(10);
        assert_eq!(family.pids, 6);
        assert_eq!(family.memory, 9 * u64::try_from(page_size()).unwrap());
        assert_eq!(all.below(30), Family::default());
        assert_eq!(all.below(99), Family::default());
    }

    #[test]
    fn a_child_is_found() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let family = Processes::now().unwrap().below(crate::sys::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(family.pids >= 1 && family.memory > 0, "{family:?}");
    }
}
