//! `fim stats`: the figures of a mount, asked of the server that serves it by an ioctl on its root.
//!
//! The front adds how many requests of each kind there were; what it adds them to is made here.

use std::{
    fs::File,
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::Instant,
};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::stack::MountStack;
use crate::{
    fuse::Figures,
    sync::Arc,
    sys::{fuse_figures, process},
};

/// Why there are no figures.
#[derive(Debug, Error)]
pub enum StatsError {
    /// The place cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The place.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// Something else than a mount of ours.
    #[error("cannot ask {} for figures: it is not in a mount of fim", path.display())]
    NotOurs {
        /// The place.
        path: PathBuf,
    },
    /// The server did not answer.
    #[error("cannot ask the server of {} for figures", path.display())]
    Ask {
        /// The place.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The answer has no meaning.
    #[error("cannot understand the server of {}", path.display())]
    Answer {
        /// The place.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The figures of a mount. Those that a server of another version does not tell are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// The process that serves it.
    pub pid: u32,
    /// How long it has been served, in seconds.
    pub seconds: u64,
    /// Objects that the kernel knows.
    pub nodes: u64,
    /// Decoded blocks.
    pub cache: CacheStats,
    /// Memory of the server, in bytes.
    pub memory: MemoryStats,
    /// Requests of the kernel, by kind.
    pub requests: std::collections::BTreeMap<String, u64>,
}

/// Figures of the block cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CacheStats {
    /// Bytes in use.
    pub used: u64,
    /// Bytes that it keeps at most.
    pub bound: u64,
    /// Blocks that are kept.
    pub blocks: u64,
    /// Blocks that were opened, repetitions counted.
    pub opened: u64,
    /// How often a part of a block was asked for.
    pub asked: u64,
    /// How often it was not there yet.
    pub missed: u64,
    /// Bytes that were decompressed.
    pub decoded: u64,
}

/// Memory of a server, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MemoryStats {
    /// Now.
    pub resident: u64,
    /// At most so far.
    pub peak: u64,
}

/// What a server tells of a stack.
#[must_use]
pub fn figures(stack: &MountStack) -> Figures {
    let (cache, overlay) = (Arc::clone(&stack.cache), Arc::downgrade(&stack.overlay));
    let started = Instant::now();
    Arc::new(move || {
        let cache = cache.figures();
        let mut told = Map::new();
        told.insert("pid".to_owned(), json!(process::id()));
        told.insert("seconds".to_owned(), json!(started.elapsed().as_secs()));
        told.insert("nodes".to_owned(), json!(overlay.upgrade().map_or(0, |overlay| overlay.live_nodes())));
        let cache = json!({
            "used": cache.used,
            "bound": cache.bound,
            "blocks": cache.blocks,
            "opened": cache.opened,
            "asked": cache.asked,
            "missed": cache.missed,
            "decoded": cache.decoded,
        });
        told.insert("cache".to_owned(), cache);
        told.insert("memory".to_owned(), memory());
        told
    })
}

fn memory() -> Value {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let kilobytes = line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
        kilobytes.unwrap_or_default().saturating_mul(1024)
    };
    json!({ "resident": of("VmRSS:"), "peak": of("VmHWM:") })
}

/// Asks the server of the mount in which `place` lies; the answer as it came, and as it is understood.
///
/// # Errors
///
/// [`StatsError`]: no mount of ours, or nobody answers.
pub fn ask(place: &Path) -> Result<(Value, Stats), StatsError> {
    let path = || place.to_owned();
    let opened = File::open(place).map_err(|source| StatsError::Open { path: path(), source })?;
    let told = match fuse_figures::ask(opened.as_fd()) {
        Ok(told) => told,
        Err(error) => {
            return Err(match error.raw_os_error() {
                Some(libc::ENOTTY | libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP) => {
                    StatsError::NotOurs { path: path() }
                }
                _ => StatsError::Ask { path: path(), source: error },
            });
        }
    };
    let malformed = |source| StatsError::Answer { path: path(), source };
    let value: Value = serde_json::from_slice(&told).map_err(malformed)?;
    let stats = serde_json::from_slice(&told).map_err(malformed)?;
    Ok((value, stats))
}

impl CacheStats {
    /// The share of parts that were there when they were asked for, in thousandths.
    #[must_use]
    pub fn hit_permille(&self) -> Option<u64> {
        self.asked.saturating_sub(self.missed).saturating_mul(1000).checked_div(self.asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hit_rate_counts_what_was_there() {
        let rate = |asked, missed| CacheStats { asked, missed, ..CacheStats::default() }.hit_permille();
        assert_eq!((rate(0, 0), rate(4, 1), rate(3, 9)), (None, Some(750), Some(0)));
    }

    #[test]
    fn answers_of_other_versions_are_understood() {
        let stats: Stats = serde_json::from_str(r#"{"pid":7,"new":[1],"cache":{"used":5}}"#).unwrap();
        assert_eq!((stats.pid, stats.cache.used, stats.cache.bound), (7, 5, 0));
    }

    #[test]
    fn other_places_have_no_figures() {
        let error = ask(Path::new("/proc")).unwrap_err().to_string();
        assert_eq!(error, "cannot ask /proc for figures: it is not in a mount of fim");
        assert!(matches!(ask(Path::new("/nowhere")), Err(StatsError::Open { .. })));
    }
}
