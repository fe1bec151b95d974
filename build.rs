//! Stamps the build: FIM_COMMIT (first seven digits of the git hash) and FIM_TIMESTAMP (YYYYMMDDHHMMSS, UTC).
//!
//! `SOURCE_DATE_EPOCH` replaces the clock and `FIM_COMMIT` the repository, so that two builds of the same
//! source give the same bytes.

use std::{
    env,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-env-changed=FIM_COMMIT");
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/refs/heads");
    println!("cargo::rerun-if-changed=build.rs");
    let commit = env::var("FIM_COMMIT").ok().or_else(git_commit).unwrap_or_else(|| "0000000".to_owned());
    let commit: String = commit.chars().filter(char::is_ascii_hexdigit).take(7).collect();
    println!("cargo::rustc-env=FIM_COMMIT={commit:0<7}");
    println!("cargo::rustc-env=FIM_TIMESTAMP={}", timestamp(build_seconds()));
}

fn git_commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Seconds since the epoch: `SOURCE_DATE_EPOCH`, else the time of the last commit, else now.
fn build_seconds() -> u64 {
    if let Some(seconds) = env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok()) {
        return seconds;
    }
    let committed = Command::new("git")
        .args(["log", "-1", "--format=%ct"])
        .output()
        .ok()
        .and_then(|output| String::from_utf8_lossy(&output.stdout).trim().parse().ok());
    committed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()))
}

/// Formats seconds since the epoch as YYYYMMDDHHMMSS in UTC (days-to-civil arithmetic, proleptic Gregorian).
fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}", rest / 3_600, rest / 60 % 60, rest % 60)
}
