//! What the verbs that make archives have in common.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use serde_json::json;

use super::settings;
use crate::{
    cli::Failure,
    dwarfs::write::{
        Categorizer, CategorySummary, Codec, Level, Order, Overrides, Packing, Phase, Resolution,
        Segmentation, Summary, Times, Timestamp, WriteOptions, least_memory,
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
    /// Treats kinds of data apart: `pcmaudio` (WAV, AIFF) is compressed by FLAC, `binary` (ELF, PE) lies together by
    /// machine and goes through its filter before lzma, `incompressible` (media, packed files) is stored instead of
    /// compressed in vain. Without a value all of them.
    #[arg(long, value_name = "KIND", num_args = 0.., require_equals = true, value_delimiter = ',',
          value_parser = categorizer, help_heading = TUNING)]
    categorize: Option<Vec<Categorizer>>,
    /// Memory for blocks under way and for what compresses them, such as 512M or 2G; fewer threads compress where
    /// it is short [default: half of what the machine and the control groups allow].
    #[arg(short = 'L', long, value_name = "SIZE", value_parser = size, help_heading = TUNING)]
    memory_limit: Option<u64>,
    /// Threads that compress [default: FIM_THREADS, else as many as there are cores].
    #[arg(short = 'j', long, value_name = "N", help_heading = TUNING)]
    threads: Option<NonZeroUsize>,
    /// How the metadata is compressed; what is stored is read in place [by level: null up to 6, zstd:level=22,
    /// lzma:level=9 twice].
    #[arg(long, value_name = "CODEC", help_heading = TUNING)]
    metadata_compression: Option<Codec>,
    /// How the description of the metadata and the history are compressed [by level: null, else zstd:level=16].
    #[arg(long, value_name = "CODEC", help_heading = TUNING)]
    schema_compression: Option<Codec>,
    /// Which tables of the metadata are packed: `auto` (names by symbols, the rest in place), `all`, `none`, or some of
    /// chunk_table, directories, shared_files, names (by symbols), names_index, plain (names as lists).
    #[arg(short = 'P', long, value_name = "TABLE", value_delimiter = ',', value_parser = PACKINGS,
          help_heading = CONTENTS)]
    pack_metadata: Vec<String>,
    /// Keeps last access, last change of attributes and, where it is known of all, time of birth too.
    #[arg(long, help_heading = CONTENTS)]
    keep_all_times: bool,
    /// How finely times are kept: a number with ns, us, ms, s, min, h or d [default: 1ns].
    #[arg(long, value_name = "TIME", value_parser = resolution, help_heading = CONTENTS)]
    time_resolution: Option<Resolution>,
    /// Says that everything belongs to this user.
    #[arg(long, value_name = "UID", help_heading = CONTENTS)]
    owner: Option<u32>,
    /// Says that everything belongs to this group.
    #[arg(long, value_name = "GID", help_heading = CONTENTS)]
    group: Option<u32>,
    /// Says that everything is from this time, in seconds since the epoch, or `now`.
    #[arg(long, value_name = "SECONDS", help_heading = CONTENTS)]
    set_time: Option<String>,
    /// Makes the same bytes from the same tree, at any time and on any machine: leaves out the time of making unless
    /// SOURCE_DATE_EPOCH gives it.
    #[arg(long, help_heading = CONTENTS, conflicts_with = "keep_all_times")]
    reproducible: bool,
    /// Leaves out the history: which version made the archive, and when.
    #[arg(long, help_heading = CONTENTS)]
    no_history: bool,
}

/// Where the help lists what a level stands for.
const TUNING: &str = "Instead of what the level stands for";
/// Where it lists what an archive says of the tree and of itself.
const CONTENTS: &str = "What the archive says";

/// Words for packed tables.
const PACKINGS: [&str; 9] =
    ["auto", "all", "none", "chunk_table", "directories", "shared_files", "names", "names_index", "plain"];

impl Compression {
    /// How archives are made, and the time of making in seconds since the epoch.
    pub(super) fn options(&self, host: &Host) -> Result<(WriteOptions, u64), Failure> {
        let asked = self.level.or(host.choices.compression_level);
        let level = asked.and_then(Level::new).unwrap_or_default();
        let fixed = fixed_clock()?;
        let is_told = !self.reproducible || fixed.is_some();
        let created = if is_told { now(fixed) } else { 0 };
        let latest_time = fixed.map(|seconds| Timestamp { seconds: i64::from(seconds), nanos: 0 });
        let mut options = WriteOptions {
            created: is_told.then_some(created),
            latest_time,
            ..WriteOptions::at_level(level)
        };
        set(&mut options.threads, self.threads.or(host.choices.threads));
        self.describe(&mut options, fixed)?;
        self.tune(&mut options)?;
        Ok((options, created))
    }

    /// The first part that was set apart and takes a tree packed anew: it says how blocks are cut, or changes the metadata.
    pub(super) fn recut(&self) -> Option<&'static str> {
        let parts = [
            (self.block_size_bits.is_some(), "--block-size-bits"),
            (self.window_size.is_some(), "--window-size"),
            (self.window_step.is_some(), "--window-step"),
            (self.lookback.is_some(), "--lookback"),
            (self.order.is_some(), "--order"),
            (self.categorize.is_some(), "--categorize"),
            (!self.pack_metadata.is_empty(), "--pack-metadata"),
            (self.keep_all_times, "--keep-all-times"),
            (self.time_resolution.is_some(), "--time-resolution"),
            (self.owner.is_some(), "--owner"),
            (self.group.is_some(), "--group"),
            (self.set_time.is_some(), "--set-time"),
        ];
        parts.into_iter().find(|(is_set, _)| *is_set).map(|(_, name)| name)
    }

    /// Makes blocks as long as those of archives that are there, unless their length was set apart.
    pub(super) fn fit(&self, options: &mut WriteOptions, block_size_bits: u8) {
        if self.block_size_bits.is_none() {
            options.block_size_bits = block_size_bits;
        }
        if self.memory_limit.is_none() {
            options.memory_limit = options.memory_limit.map(|limit| limit.max(least_memory(options)));
        }
    }

    /// Sets what the archive says of the tree and of itself.
    fn describe(&self, options: &mut WriteOptions, fixed: Option<u32>) -> Result<(), Failure> {
        options.packing = packing(&self.pack_metadata)?;
        options.times = if self.keep_all_times { Times::All } else { Times::Modified };
        options.resolution = self.time_resolution.unwrap_or_default();
        options.overrides = Overrides {
            uid: self.owner,
            gid: self.group,
            time: self.set_time.as_deref().map(|text| time(text, fixed)).transpose()?,
        };
        if self.no_history {
            options.history = None;
        }
        Ok(())
    }

    /// Replaces what a level stands for by what is set apart.
    fn tune(&self, options: &mut WriteOptions) -> Result<(), Failure> {
        set(&mut options.block_size_bits, self.block_size_bits);
        set(&mut options.data, self.compression);
        set(&mut options.metadata, self.metadata_compression);
        set(&mut options.schema, self.schema_compression);
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

/// Which tables are packed.
fn packing(words: &[String]) -> Result<Packing, Failure> {
    let nothing = Packing { symbols: false, ..Packing::default() };
    match words {
        [] => return Ok(Packing::default()),
        [word] if word == "auto" => return Ok(Packing::default()),
        [word] if word == "none" => return Ok(nothing),
        [word] if word == "all" => {
            let (chunk_table, directories, shared_files, string_index) = (true, true, true, true);
            return Ok(Packing {
                chunk_table,
                directories,
                shared_files,
                string_index,
                ..Packing::default()
            });
        }
        _ => {}
    }
    let mut packing = nothing;
    for word in words {
        match word.as_str() {
            "chunk_table" => packing.chunk_table = true,
            "directories" => packing.directories = true,
            "shared_files" => packing.shared_files = true,
            "names" => packing.symbols = true,
            "names_index" => packing.string_index = true,
            "plain" => packing.plain_strings = true,
            word => return Err(Failure::new(format!("--pack-metadata={word} must stand alone"))),
        }
    }
    Ok(packing)
}

/// Reads `100ms`, `2s`, `1h`.
fn resolution(text: &str) -> Result<Resolution, &'static str> {
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u32 = if number.is_empty() { 1 } else { number.parse().map_err(|_| NO_RESOLUTION)? };
    let times = |unit: u32| number.checked_mul(unit).and_then(NonZeroU32::new);
    let seconds = |unit| times(unit).map(Resolution::Seconds);
    let fraction = |unit| match times(unit)? {
        nanos if nanos.get() >= 1_000_000_000 => {
            let is_whole = nanos.get().is_multiple_of(1_000_000_000);
            NonZeroU32::new(nanos.get() / 1_000_000_000).filter(|_| is_whole).map(Resolution::Seconds)
        }
        nanos => Some(Resolution::Nanoseconds(nanos)),
    };
    let found = match unit {
        "ns" => fraction(1),
        "us" => fraction(1_000),
        "ms" => fraction(1_000_000),
        "s" | "sec" => seconds(1),
        "min" => seconds(60),
        "h" | "hour" => seconds(3_600),
        "d" | "day" => seconds(86_400),
        _ => None,
    };
    found.ok_or(NO_RESOLUTION)
}

const NO_RESOLUTION: &str = "expected a time such as 1s, 100ms or 1day";

/// A point in time: seconds since the epoch, or `now`.
fn time(text: &str, fixed: Option<u32>) -> Result<Timestamp, Failure> {
    let seconds = match text {
        "now" => i64::try_from(now(fixed)).ok(),
        text => text.parse().ok(),
    };
    let seconds = seconds.ok_or_else(|| {
        Failure::new(format!("cannot read --set-time {text:?}: expected seconds since the epoch, or now"))
    })?;
    Ok(Timestamp { seconds, nanos: 0 })
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
        let of_category = |category: &CategorySummary| {
            json!({
                "name": category.name,
                "files": category.files,
                "blocks": category.blocks,
                "contents": category.bytes_in,
                "archive": category.bytes_out,
            })
        };
        let categories: Vec<_> = summary.categories.iter().map(of_category).collect();
        return settings::json(&json!({
            "path": path,
            "size": length,
            "archive": summary.bytes_out,
            "contents": summary.bytes_in,
            "files": summary.files,
            "directories": summary.directories,
            "symlinks": summary.symlinks,
            "specials": summary.specials,
            "hard_links": summary.hard_links,
            "duplicates": summary.duplicates,
            "packed": summary.bytes_packed,
            "matched": summary.bytes_matched,
            "categories": categories,
            "left_out": summary.left_out,
            "seconds": time.as_secs_f64(),
        }));
    }
    settings::line(format!(
        "{}: {} from {} ({}), {} files, {:.1} s",
        path.display(),
        bytes(length),
        bytes(summary.bytes_in),
        share(summary.bytes_out, summary.bytes_in),
        summary.files,
        time.as_secs_f64()
    ))?;
    if summary.duplicates > 0 || summary.bytes_matched > 0 {
        settings::line(format!(
            "  found again: {} whole files, {} in blocks; {} packed",
            summary.duplicates,
            bytes(summary.bytes_matched),
            bytes(summary.bytes_packed),
        ))?;
    }
    // One category is no category.
    for category in summary.categories.iter().filter(|_| summary.categories.len() > 1) {
        settings::line(format!(
            "  {}: {} files, {} from {} ({}) in {} blocks",
            category.name,
            category.files,
            bytes(category.bytes_out),
            bytes(category.bytes_in),
            share(category.bytes_out, category.bytes_in),
            category.blocks,
        ))?;
    }
    Ok(())
}

/// A part of a whole for people.
fn share(part: u64, whole: u64) -> String {
    let share = part.saturating_mul(1000).checked_div(whole).unwrap_or(1000);
    format!("{}.{} %", share / 10, share % 10)
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
    fn resolutions_are_read() {
        let nanos = |number| Ok(Resolution::Nanoseconds(NonZeroU32::new(number).unwrap()));
        let seconds = |number| Ok(Resolution::Seconds(NonZeroU32::new(number).unwrap()));
        for (text, expected) in [
            ("ns", nanos(1)),
            ("100us", nanos(100_000)),
            ("10ms", nanos(10_000_000)),
            ("1000ms", seconds(1)),
            ("s", seconds(1)),
            ("15min", seconds(900)),
            ("2h", seconds(7_200)),
            ("day", seconds(86_400)),
            ("0s", Err(NO_RESOLUTION)),
            ("1500ms", Err(NO_RESOLUTION)),
            ("1y", Err(NO_RESOLUTION)),
            ("", Err(NO_RESOLUTION)),
            ("99999999999s", Err(NO_RESOLUTION)),
            ("99999h9", Err(NO_RESOLUTION)),
        ] {
            assert_eq!(resolution(text), expected, "{text}");
        }
    }

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
