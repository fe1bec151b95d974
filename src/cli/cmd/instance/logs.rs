//! `fim-instance logs`.

use std::{
    io,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;

use crate::{
    cli::{Failure, Outcome},
    instance::state::Registry,
    runtime::instances::{self, LogsRequest},
};

/// Which part of the logs is printed.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim instance app.flatimage logs web --since 10m -f")]
pub struct LogsArgs {
    /// The instance, or the last one that was called so.
    instance: String,
    /// Only the last N lines of each.
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
    /// Only what was written since: 90s, 10m, 2h or 3d ago, a time in UTC such as 2026-01-31T12:30:00, or @SECONDS since 1970.
    #[arg(long, value_name = "T")]
    since: Option<String>,
    /// Goes on until the instance has ended.
    #[arg(short, long)]
    follow: bool,
}

/// Prints stdout's log on stdout, and stderr's on stderr.
pub(super) fn show(registry: &Registry, args: &LogsArgs) -> Outcome {
    let found = registry.find_or_ended(&args.instance)?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = u64::try_from(since).unwrap_or(u64::MAX);
    let since = args.since.as_deref().map(|text| {
        moment(text, now).ok_or_else(|| {
            Failure::new(format!("cannot understand the time {text:?}"))
                .cure("a time is 90s, 10m, 2h, 3d, 2026-01-31T12:30:00 or @1769862600")
        })
    });
    let request = LogsRequest { tail: args.tail, since: since.transpose()?, follow: args.follow };
    instances::logs(&found, &request, [&mut io::stdout(), &mut io::stderr()])?;
    Ok(ExitCode::SUCCESS)
}

/// A moment in milliseconds since 1970.
fn moment(text: &str, now: u64) -> Option<u64> {
    if let Some(seconds) = text.strip_prefix('@') {
        return seconds.parse::<u64>().ok()?.checked_mul(1000);
    }
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return date(text),
    };
    let number: u64 = text.get(..text.len() - 1)?.parse().ok()?;
    Some(now.saturating_sub(number.checked_mul(unit)?.checked_mul(1000)?))
}

/// `YYYY-MM-DD`, `YYYY-MM-DDTHH:MM` or `YYYY-MM-DDTHH:MM:SS`, in UTC.
fn date(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let numbers = |text: &str, between: char| -> Option<Vec<u64>> {
        text.split(between).map(|part| part.parse().ok()).collect()
    };
    let [year, month, day] = *numbers(date, '-')?.as_slice() else { return None };
    let (hour, minute, second) = match *numbers(time, ':')?.as_slice() {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    let is_date = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    let is_time = hour < 24 && minute < 60 && second < 61;
    (is_date && is_time).then(|| {
        let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
        seconds * 1000
    })
}

/// Days from 1970 to a date, in years that begin in March so that the day of the leap year is their last.
const fn days(year: u64, month: u64, day: u64) -> u64 {
    /// Days from March of the year 0 to 1970.
    const BEFORE: u64 = 719_468;
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year / 4 - year / 100 + year / 400;
    year * 365 + leaps + (153 * month + 2) / 5 + day - 1 - BEFORE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, expected) in [
            ("@5", Some(5000)),
            ("90s", Some(910_000)),
            ("10m", Some(400_000)),
            ("2h", Some(0)),
            ("1970-01-01", Some(0)),
            ("1970-01-02T00:00:01", Some(86_401_000)),
            ("2000-02-29T12:30", Some(951_827_400_000)),
            ("2026-11-22T08:00:00Z", Some(1_795_334_400_000)),
            ("2026-13-01", None),
            ("2026-01-01T24:00", None),
            ("", None),
            ("s", None),
            ("x", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(moment(text, 1_000_000), expected, "{text}");
        }
    }
}
