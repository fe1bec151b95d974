//! The arithmetic of the report: medians, spreads, figures with units, ratios. Pure; tested by `tests/bench`.

use serde::Serialize;

/// What a row counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Time: lower is better.
    Seconds,
    /// Operations a second: higher is better.
    Iops,
    /// Memory: lower is better.
    Mebibytes,
}

/// Returns the median; of an even number of samples the mean of the middle two, of none `None`.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

/// Returns the smallest sample that at least this share (0 to 1) of them does not exceed.
pub fn percentile(samples: &[f64], share: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = f64::from(u32::try_from(sorted.len()).ok()?);
    let rank = (0..sorted.len()).zip(1_u32..).find(|(_, rank)| f64::from(*rank) >= share * count)?.0;
    sorted.get(rank).copied()
}

/// Returns the distance between the smallest and the largest sample as a share of the median.
pub fn spread(samples: &[f64]) -> Option<f64> {
    let middle = median(samples).filter(|middle| *middle > 0.0)?;
    let smallest = samples.iter().copied().min_by(f64::total_cmp)?;
    let largest = samples.iter().copied().max_by(f64::total_cmp)?;
    Some((largest - smallest) / middle)
}

/// Formats a figure with its unit, about three digits.
pub fn figure(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Seconds if value < 0.000_999_5 => format!("{:.0} µs", value * 1e6),
        Unit::Seconds if value < 0.099_95 => format!("{} ms", three_digits(value * 1e3)),
        Unit::Seconds => format!("{} s", three_digits(value)),
        Unit::Iops if value < 999.5 => format!("{value:.0}/s"),
        Unit::Iops => format!("{}k/s", three_digits(value / 1e3)),
        Unit::Mebibytes => format!("{} MiB", three_digits(value)),
    }
}

/// Formats ours ÷ theirs; `None` where theirs is nothing.
pub fn ratio(ours: f64, theirs: f64) -> Option<String> {
    (theirs > 0.0).then(|| format!("{}×", three_digits(ours / theirs)))
}

fn three_digits(value: f64) -> String {
    match value {
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}
