//! `fim-instance stats`.

use std::{
    io::{self, Write as _},
    os::fd::AsFd as _,
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use crate::{
    cli::Outcome,
    instance::state::{Registry, StateError},
    runtime::instances::{Meter, Sample},
    sync::thread,
    sys::pty,
};

/// How far apart samples are.
const STEP: Duration = Duration::from_secs(1);
/// How long the first one takes: a share of a processor is one of some time.
const FIRST: Duration = Duration::from_millis(200);
/// Home, and everything below erased.
const CLEAR: &str = "\x1b[H\x1b[J";

/// What is measured.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim instance app.flatimage stats web --no-stream --json")]
pub struct StatsArgs {
    /// The instance; without one, all of the image.
    instance: Option<String>,
    /// Measures once.
    #[arg(long)]
    no_stream: bool,
    /// A line of JSON for each time.
    #[arg(long)]
    json: bool,
}

/// Prints what instances take, every second until none is left.
pub(super) fn show(registry: &Registry, args: &StatsArgs) -> Outcome {
    let mut meter = Meter::default();
    let living = || match &args.instance {
        Some(word) => registry.find(word).map(|found| vec![found]),
        None => registry.living(),
    };
    let is_screen = !args.json && !args.no_stream && pty::is_terminal(io::stdout().as_fd());
    meter.measure(&living()?)?;
    thread::sleep(FIRST);
    loop {
        let found = match living() {
            // The one that was watched has ended.
            Err(StateError::NotFound { .. }) => return Ok(ExitCode::SUCCESS),
            other => other?,
        };
        let samples = meter.measure(&found)?;
        let mut text = if is_screen { CLEAR.to_owned() } else { String::new() };
        if args.json {
            text.push_str(&serde_json::to_string(&samples)?);
        } else {
            text.push_str(&table(&samples).join("\n"));
        }
        text.push('\n');
        match io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            other => other?,
        }
        if args.no_stream || samples.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        thread::sleep(STEP);
    }
}

fn table(samples: &[Sample]) -> Vec<String> {
    let head =
        ["ID", "NAME", "PID", "CPU %", "MEMORY", "LIMIT", "READ", "WRITTEN", "PIDS"].map(str::to_owned);
    let rows = samples.iter().map(|sample| {
        let usage = &sample.usage;
        let (read, written) = usage.io_bytes.value;
        [
            sample.id.to_string(),
            sample.name.clone().unwrap_or_else(|| "-".to_owned()),
            sample.pid.to_string(),
            format!("{:.2}", sample.cpu_percent),
            size(usage.memory_bytes.value),
            usage.memory_limit_bytes.map_or_else(|| "-".to_owned(), size),
            size(read),
            size(written),
            usage.pids.value.to_string(),
        ]
    });
    let rows: Vec<[String; 9]> = std::iter::once(head).chain(rows).collect();
    let mut widths = [0; 9];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; 9]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut tenths = bytes.saturating_mul(10);
    let mut unit = UNITS.iter();
    let mut name = unit.next().copied().unwrap_or_default();
    while tenths >= 10_240
        && let Some(next) = unit.next()
    {
        tenths /= 1024;
        name = next;
    }
    if name == "B" { format!("{bytes} B") } else { format!("{}.{} {name}", tenths / 10, tenths % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 << 20, "10.0 MiB"),
            (3 << 30, "3.0 GiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
