//! What an instance takes: each figure from its control group of version 2, else of version 1, else from /proc.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::group::Places;
use crate::sys::processes::Processes;

/// A limit of version 1 beyond this is none: the kernel shows the largest number of pages.
const NO_LIMIT: u64 = 1 << 60;

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Source {
    /// The control group of version 2.
    #[serde(rename = "cgroup2")]
    Unified,
    /// A control group of version 1.
    #[serde(rename = "cgroup1")]
    Split,
    /// The processes that descend from the front.
    #[serde(rename = "proc")]
    Proc,
}

/// A figure, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Figure<T> {
    /// The figure.
    pub value: T,
    /// Where it comes from.
    pub source: Source,
}

/// What an instance takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Processor time since its start, in microseconds.
    pub cpu_usec: Figure<u64>,
    /// Memory in bytes.
    pub memory_bytes: Figure<u64>,
    /// The most that it may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// Bytes read from devices and written to them.
    pub io_bytes: Figure<(u64, u64)>,
    /// Processes and threads.
    pub pids: Figure<u64>,
}

impl Usage {
    /// Measures the instance of the front `front`, whose groups are at `places`; `processes` are those of this moment.
    #[must_use]
    pub fn of(places: Option<&Places>, front: i32, processes: &Processes) -> Self {
        let family = processes.below(front);
        let none = Places::default();
        let groups = Groups(places.unwrap_or(&none));
        Self {
            cpu_usec: groups.cpu().unwrap_or_else(|| proc(family.cpu)),
            memory_bytes: groups.memory().unwrap_or_else(|| proc(family.memory)),
            memory_limit_bytes: groups.memory_limit(),
            io_bytes: groups.io().unwrap_or_else(|| proc((family.read, family.written))),
            pids: groups.pids().unwrap_or_else(|| proc(family.pids)),
        }
    }
}

const fn proc<T>(value: T) -> Figure<T> {
    Figure { value, source: Source::Proc }
}

/// The files of an instance's groups.
struct Groups<'a>(&'a Places);

impl Groups<'_> {
    fn unified<T>(&self, name: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<Figure<T>> {
        let text = text_of(self.0.unified.as_ref(), name)?;
        Some(Figure { value: read(&text)?, source: Source::Unified })
    }

    fn split<T>(&self, group: &str, name: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<Figure<T>> {
        let text = text_of(self.0.split.get(group), name)?;
        Some(Figure { value: read(&text)?, source: Source::Split })
    }

    fn cpu(&self) -> Option<Figure<u64>> {
        let usage =
            |text: &str| text.lines().find_map(|line| line.strip_prefix("usage_usec ")).and_then(number);
        self.unified("cpu.stat", usage)
            .or_else(|| self.split("cpuacct", "cpuacct.usage", |text| Some(number(text)? / 1000)))
    }

    fn memory(&self) -> Option<Figure<u64>> {
        self.unified("memory.current", number)
            .or_else(|| self.split("memory", "memory.usage_in_bytes", number))
    }

    fn memory_limit(&self) -> Option<u64> {
        let limit = self
            .unified("memory.max", number)
            .or_else(|| self.split("memory", "memory.limit_in_bytes", number));
        limit.map(|limit| limit.value).filter(|limit| *limit < NO_LIMIT)
    }

    fn io(&self) -> Option<Figure<(u64, u64)>> {
        self.unified("io.stat", |text| Some((sum_of(text, "rbytes="), sum_of(text, "wbytes=")))).or_else(
            || {
                self.split("blkio", "blkio.throttle.io_service_bytes", |text| {
                    Some((sum_behind(text, " Read "), sum_behind(text, " Write ")))
                })
            },
        )
    }

    fn pids(&self) -> Option<Figure<u64>> {
        self.unified("pids.current", number).or_else(|| self.split("pids", "pids.current", number))
    }
}

fn text_of(place: Option<&PathBuf>, name: &str) -> Option<String> {
    fs::read_to_string(Path::new(place?).join(name)).ok()
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The sum over devices of what `8:0 rbytes=1 wbytes=2` says.
fn sum_of(text: &str, word: &str) -> u64 {
    let found = text.split_ascii_whitespace().filter_map(|one| number(one.strip_prefix(word)?));
    found.fold(0, u64::saturating_add)
}

/// The same of `8:0 Read 1`.
fn sum_behind(text: &str, word: &str) -> u64 {
    let found = text.lines().filter_map(|line| number(line.split_once(word)?.1));
    found.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn each_figure_comes_from_the_best_place_that_has_it() {
        let (two, one) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let of = |name: &str| (name.to_owned(), one.path().to_owned());
        let places = Places {
            unified: Some(two.path().to_owned()),
            split: [of("memory"), of("cpuacct"), of("blkio"), of("pids")].into(),
        };
        write(
            one.path(),
            &[
                ("cpuacct.usage", "5000000\n"),
                ("memory.usage_in_bytes", "100\n"),
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("blkio.throttle.io_service_bytes", "8:0 Read 10\n8:0 Write 20\n8:16 Read 1\nTotal 31\n"),
            ],
        );
        let usage = Usage::of(Some(&places), -1, &Processes::default());
        assert_eq!(usage.cpu_usec, Figure { value: 5000, source: Source::Split });
        assert_eq!(usage.memory_bytes, Figure { value: 100, source: Source::Split });
        assert_eq!(usage.memory_limit_bytes, None);
        assert_eq!(usage.io_bytes, Figure { value: (11, 20), source: Source::Split });
        assert_eq!(usage.pids, Figure { value: 0, source: Source::Proc });
        write(
            two.path(),
            &[
                ("cpu.stat", "usage_usec 77\nuser_usec 7\n"),
                ("memory.current", "7\n"),
                ("memory.max", "4096\n"),
                ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3\n8:16 rbytes=10 wbytes=20\n"),
                ("pids.current", "3\n"),
            ],
        );
        let usage = Usage::of(Some(&places), -1, &Processes::default());
        assert_eq!(usage.cpu_usec, Figure { value: 77, source: Source::Unified });
        assert_eq!((usage.memory_bytes.value, usage.memory_limit_bytes), (7, Some(4096)));
        assert_eq!(usage.io_bytes.value, (11, 22));
        assert_eq!(usage.pids.value, 3);
        assert_eq!(Usage::of(None, -1, &Processes::default()).cpu_usec.source, Source::Proc);
    }
}
