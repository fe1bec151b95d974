//! `fim stats`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{making::bytes, settings};
use crate::{
    cli::Outcome,
    runtime::stats::{self, Stats},
};

/// Says what the server of a mount has done: requests of the kernel, hit rate, bytes decompressed, memory.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim mount rootfs.dwarfs /mnt && ls -R /mnt >/dev/null; fim stats /mnt")]
pub struct StatsArgs {
    /// Any directory or file of the mount; inside an image `/` is one.
    #[arg(value_name = "DIR")]
    place: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Carries the command out.
///
/// # Errors
///
/// It is no mount of ours, or its server does not answer.
pub fn run(args: &StatsArgs) -> Outcome {
    let (told, stats) = stats::ask(&args.place)?;
    if args.json {
        settings::json(&told)?;
    } else {
        settings::lines(as_text(&stats))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_text(stats: &Stats) -> Vec<String> {
    let cache = &stats.cache;
    let requests: u64 = stats.requests.values().sum();
    let mut lines = vec![
        format!("server       process {}, for {} s", stats.pid, stats.seconds),
        format!("memory       {} now, {} at most", bytes(stats.memory.resident), bytes(stats.memory.peak)),
        format!("cache        {} of {} in {} blocks", bytes(cache.used), bytes(cache.bound), cache.blocks),
    ];
    if let Some(permille) = cache.hit_permille() {
        lines.push(format!("hit rate     {}.{} % of {} reads", permille / 10, permille % 10, cache.asked));
    }
    lines.push(format!("decompressed {} out of {} opened blocks", bytes(cache.decoded), cache.opened));
    lines.push(format!("known        {} objects", stats.nodes));
    lines.push(format!("requests     {requests}"));
    lines.extend(stats.requests.iter().map(|(kind, count)| format!("  {kind:<14} {count}")));
    lines
}
