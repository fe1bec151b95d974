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
    dwarfs::write::{
        Categorizer, Codec, Level, Order, Phase, Segmentation, Summary, Timestamp, WriteOptions, least_memory,
    },
    runtime::{
        create::Report,
        host::{self, Host},
        list, profile,
    },
    sync::Arc,
    sys::ram,
};

/// The variable that replaces the clock, so that two makings give the same bytes.
const EPOCH_VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// How archives are made: a level, and what is to differ from it.
#[derive(Args, Clone, Debug)]
pub struct Compression {
    /// How hard to compress, from 0 (stored) to 9 (smallest), with the meaning that mkdwarfs gives to its levels; what
    /// a level stands for can be set apart below [default: FIM_COMPRESSION_LEVEL, else 7; 5 takes a fraction of the
    /// time for a few per cent more].
    #[arg(short, long, value_name = "0..9", value_parser = clap::value_parser!(u8).range(..=i64::from(Level::MOST)))]
    level: Option<u8>,
    /// Size of a block, as a power of two: larger ones compress better, and make reading here and there dearer
    /// [by level: 20 20 20 21 22 23 24 24 24 26].
    #[arg(short = 'S', long, value_name = "10..30", help_heading = TUNING)]
    block_size_bits: Option<u8>,
    /// How blocks are compressed: `null` (stored), zstd[:level=N][:long[=BITS]], lzma[:level=N][:extreme]
    /// [:dict_size=BITS][:binary=auto|x86|arm64|...], lz4, lz4hc[:level=N] or brotli[:quality=N][:lgwin=BITS]
    /// [by level: null, lz4, lz4hc:level=9 twice, zstd 11 19 22 22, lzma:level=9 twice].
    #[arg(short = 'C', long, value_name = "CODEC", help_heading = TUNING)]
    compression: Option<Codec>,
    /// Length of what is found again for sure in a recent block, as a power of two: 6 to 24; 0 finds whole files only
    /// [default: 12, at levels 0 to 2: 0].
    #[arg(short = 'W', long, value_name = "BITS", help_heading = TUNING)]
    window_size: Option<u8>,
    /// How many times a window is divided by two for the distance at which one is remembered: the more, the more is
    /// found, and the more memory it takes [by level, from 3: 1 2 2 3 3 4 4].
    #[arg(short = 'w', long, value_name = "SHIFT", help_heading = TUNING)]
    window_step: Option<u8>,
    /// In how many blocks contents are looked for, the one that is being filled among them. Who reads a file may need
    /// as many [default: 1].
    #[arg(short = 'B', long, value_name = "BLOCKS", help_heading = TUNING)]
    lookback: Option<u8>,
    /// Which files lie together: `none` (as found), `path`, `revpath` (by the last name of the path first),
    /// `similarity` (what is alike), list:FILE (first the paths in a file, one a line, then the others by path), or
    /// profile:FILE (first what an access profile names) [by level: 0 none, 1 and 2 path, else similarity].
    #[arg(long, value_name = "ORDER", help_heading = TUNING)]
    order: Option<String>,
    /// Treats kinds of data apart: `incompressible` (media, packed files) is stored instead of compressed in vain.
    /// Without a value all kinds that are known.
    #[arg(long, value_name = "KIND", num_args = 0.., require_equals = true, value_delimiter = ',',
          value_parser = categorizer, help_heading = TUNING)]
    categorize: Option<Vec<Categorizer>>,
    /// Memory for blocks under way and for what compresses them, such as 512M or 2G; fewer threads compress where
    /// it is short [default: half of what the machine and the control groups allow].
    #[arg(short = 'L', long, value_name = "SIZE", value_parser = size, help_heading = TUNING)]
    memory_limit: Option<u64>,
}

/// Where the help lists what a level stands for.
const TUNING: &str = "Instead of what the level stands for";

impl Compression {
    /// How archives are made, and the time of making in seconds since the epoch.
    pub(super) fn options(&self, host: &Host) -> Result<(WriteOptions, u64), Failure> {
        let asked = self.level.or(host.choices.compression_level);
        let level = asked.and_then(Level::new).unwrap_or_default();
        let fixed = fixed_clock()?;
        let created = now(fixed);
        let latest_time = fixed.map(|seconds| Timestamp { seconds: i64::from(seconds), nanos: 0 });
        let mut options =
            WriteOptions { created: Some(created), latest_time, ..WriteOptions::at_level(level) };
        self.tune(&mut options)?;
        Ok((options, created))
    }

    /// Replaces what a level stands for by what is set apart.
    fn tune(&self, options: &mut WriteOptions) -> Result<(), Failure> {
        set(&mut options.block_size_bits, self.block_size_bits);
        set(&mut options.data, self.compression);
        options.segmentation = self.segmentation(options.segmentation)?;
        if let Some(order) = &self.order {
            options.order = order_of(order)?;
        }
        options.categorizers = match self.categorize.as_deref() {
            None => Vec::new(),
            Some([]) => Categorizer::ALL.to_vec(),
            Some(some) => some.to_vec(),
        };
        options.memory_limit = self.memory_limit.or_else(|| {
            let allowed = [ram::of_machine(), ram::of_control_groups()].into_iter().flatten().min()?;
            // What nobody asked for stops nobody.
            Some((allowed / 2).max(least_memory(options)))
        });
        options.check().map_err(Failure::from)
    }

    fn segmentation(&self, of_level: Option<Segmentation>) -> Result<Option<Segmentation>, Failure> {
        let is_tuned = self.window_step.is_some() || self.lookback.is_some();
        let mut segmentation = match (of_level, self.window_size) {
            (_, Some(0)) | (None, None) if is_tuned => {
                let words = "--window-step and --lookback say nothing without a window: set --window-size";
                return Err(Failure::new(words));
            }
            (_, Some(0)) | (None, None) => return Ok(None),
            (of_level, _) => of_level.unwrap_or_default(),
        };
        set(&mut segmentation.window_bits, self.window_size);
        set(&mut segmentation.step_shift, self.window_step);
        set(&mut segmentation.lookback, self.lookback);
        Ok(Some(segmentation))
    }
}

fn set<T: Copy>(option: &mut T, asked: Option<T>) {
    *option = asked.unwrap_or(*option);
}

fn categorizer(text: &str) -> Result<Categorizer, String> {
    let known = Categorizer::ALL.map(Categorizer::name);
    let found = Categorizer::ALL.into_iter().find(|categorizer| categorizer.name() == text);
    found.ok_or_else(|| format!("expected {}", known.join(", ")))
}

fn size(text: &str) -> Result<u64, &'static str> {
    host::parse_size(text.as_bytes()).ok_or("expected a size such as 512M or 2G")
}

/// An order, read from its file if it has one.
fn order_of(text: &str) -> Result<Order, Failure> {
    match text.split_once(':') {
        None if text == "none" => Ok(Order::None),
        None if text == "path" => Ok(Order::Path),
        None if text == "revpath" => Ok(Order::ReversePath),
        None if text == "similarity" => Ok(Order::Similarity),
        Some(("list", file)) => Ok(Order::List(list::read(Path::new(file))?.into())),
        Some(("profile", file)) => Ok(Order::Profile(Arc::new(profile::read(Path::new(file))?))),
        _ => Err(Failure::new(format!(
            "unknown order {text:?}: expected none, path, revpath, similarity, list:FILE or profile:FILE"
        ))),
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
            "left_out": summary.left_out,
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

/// How much a second; 0 where it took no time.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a figure for people; casts of floats saturate"
)]
pub(super) fn speed(amount: u64, seconds: f64) -> u64 {
    if seconds > 0.0 { (amount as f64 / seconds) as u64 } else { 0 }
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
