//! What the verbs that make archives have in common.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use serde_json::json;

use super::settings;
use crate::{
    cli::Failure,
    dwarfs::write::{Level, Order, Phase, Summary, Timestamp, WriteOptions},
    runtime::{create::Report, host::Host, profile},
    sync::Arc,
};

/// The variable that replaces the clock, so that two makings give the same bytes.
const EPOCH_VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// How hard to compress.
#[derive(Args, Clone, Copy, Debug)]
pub struct Compression {
    /// How hard to compress, from 0 (stored) to 9 (smallest) [default: FIM_COMPRESSION_LEVEL, else 5, which packs a
    /// minimal Debian root in seconds; 7 takes ten times as long for a tenth less].
    #[arg(short, long, value_name = "0..9", value_parser = clap::value_parser!(u8).range(..=i64::from(Level::MOST)))]
    level: Option<u8>,
}

/// In which order files are put into blocks.
#[derive(Args, Clone, Debug)]
pub(super) struct Arrangement {
    /// Which files lie together: `path` (by path), or profile:FILE (first what an access profile names, in its order,
    /// then the others by path).
    #[arg(long, value_name = "path|profile:FILE", default_value = "path")]
    order: String,
}

impl Arrangement {
    /// The order, read from its file.
    pub(super) fn order(&self) -> Result<Order, Failure> {
        match self.order.split_once(':') {
            None if self.order == "path" => Ok(Order::Path),
            Some(("profile", file)) => Ok(Order::Profile(Arc::new(profile::read(Path::new(file))?))),
            _ => {
                let order = &self.order;
                Err(Failure::new(format!("unknown order {order:?}: expected path or profile:FILE")))
            }
        }
    }
}

impl Compression {
    /// How archives are made, and the time of making in seconds since the epoch.
    pub(super) fn options(self, host: &Host) -> Result<(WriteOptions, u64), Failure> {
        let asked = self.level.or(host.choices.compression_level);
        let level = asked.and_then(Level::new).unwrap_or_default();
        let fixed = fixed_clock()?;
        let created = now(fixed);
        let latest_time = fixed.map(|seconds| Timestamp { seconds: i64::from(seconds), nanos: 0 });
        let options = WriteOptions { created: Some(created), latest_time, ..WriteOptions::at_level(level) };
        Ok((options, created))
    }
}

/// The time of making in seconds since the epoch.
pub(super) fn created() -> Result<u64, Failure> {
    Ok(now(fixed_clock()?))
}

fn fixed_clock() -> Result<Option<u32>, Failure> {
    let Ok(text) = std::env::var(EPOCH_VARIABLE) else { return Ok(None) };
    let seconds = text.parse().map_err(|_| {
        Failure::new(format!("cannot read {EPOCH_VARIABLE}={text:?}: expected seconds since the epoch"))
    })?;
    Ok(Some(seconds))
}

fn now(fixed: Option<u32>) -> u64 {
    fixed.map_or_else(
        || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        u64::from,
    )
}

/// What shows how far a copy is, given bytes done and bytes in all; where there are fewer done than before, the next
/// copy has begun.
pub(super) fn copying<'r>(report: &'r dyn Report, step: &'r str) -> impl FnMut(u64, u64) + 'r {
    let mut before = 0;
    move |done, total| {
        if done < before || before == 0 {
            report.begin(Phase::Compress, 0, total);
            report.step(step);
            before = 0;
        }
        report.bytes_in(done.saturating_sub(before));
        before = done;
    }
}

/// Says what was made.
pub(super) fn tell(
    path: &Path,
    length: u64,
    summary: &Summary,
    time: Duration,
    json: bool,
) -> Result<(), Failure> {
    if json {
        return settings::json(&json!({
            "path": path,
            "size": length,
            "archive": summary.bytes_out,
            "contents": summary.bytes_in,
            "files": summary.files,
            "directories": summary.directories,
            "symlinks": summary.symlinks,
            "duplicates": summary.duplicates,
            "seconds": time.as_secs_f64(),
        }));
    }
    let share = summary.bytes_out.saturating_mul(1000).checked_div(summary.bytes_in).unwrap_or(1000);
    let ratio = format!("{}.{} %", share / 10, share % 10);
    settings::line(format!(
        "{}: {} from {} ({ratio}), {} files, {:.1} s",
        path.display(),
        bytes(length),
        bytes(summary.bytes_in),
        summary.files,
        time.as_secs_f64()
    ))
}

/// A size for people.
pub(super) fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut tenths = count.saturating_mul(10);
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < units.len() {
        tenths /= 1024;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{count} {name}") } else { format!("{}.{} {name}", tenths / 10, tenths % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (count, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_572_864, "1.5 MiB"),
            (1 << 40, "1.0 TiB"),
            (1 << 51, "2048.0 TiB"),
        ] {
            assert_eq!(bytes(count), expected);
        }
    }
}
