//! What instances take, over time.

use std::{collections::BTreeMap, time::Instant};

use serde::Serialize;

use super::InstanceError;

use crate::{
    instance::{state::Found, usage::Usage},
    sys::processes::Processes,
};

/// What an instance takes at a moment.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Its number.
    pub id: u32,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its front.
    pub pid: i32,
    /// Its image.
    pub image: String,
    /// Processor time since the last sample, in percent of one processor.
    pub cpu_percent: f64,
    /// The rest.
    #[serde(flatten)]
    pub usage: Usage,
}

/// Samples of instances, one after the other.
#[derive(Debug, Default)]
pub struct Meter {
    before: BTreeMap<i32, (Instant, u64)>,
}

impl Meter {
    /// Measures running instances.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read.
    pub fn measure(&mut self, living: &[Found]) -> Result<Vec<Sample>, InstanceError> {
        let processes = Processes::now().map_err(InstanceError::step("read /proc"))?;
        let mut samples = Vec::new();
        let mut seen = BTreeMap::new();
        for Found { state, .. } in living {
            let pid = state.identity.pid;
            let usage = Usage::of(state.group.as_ref(), pid, &processes);
            let now = (Instant::now(), usage.cpu_usec.value);
            let cpu_percent = self.before.get(&pid).map_or(0.0, |before| percent(*before, now));
            seen.insert(pid, now);
            samples.push(Sample {
                id: state.id,
                name: state.name.as_ref().map(ToString::to_string),
                pid,
                image: state.image.to_string_lossy().into_owned(),
                cpu_percent,
                usage,
            });
        }
        self.before = seen;
        Ok(samples)
    }
}

/// The share of one processor between two moments, with two digits behind the point.
fn percent(before: (Instant, u64), now: (Instant, u64)) -> f64 {
    let passed = now.0.duration_since(before.0).as_micros().max(1);
    let taken = u128::from(now.1.saturating_sub(before.1));
    let hundredths = u32::try_from(taken.saturating_mul(10_000) / passed).unwrap_or(u32::MAX);
    f64::from(hundredths) / 100.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_share_is_one_of_the_time_that_has_passed() {
        let start = Instant::now();
        let later = start + Duration::from_secs(2);
        for (taken, expected) in [(0, 0.0), (2_000_000, 100.0), (250_000, 12.5), (8_000_000, 400.0)] {
            let share = percent((start, 5), (later, 5 + taken));
            assert!((share - expected).abs() < 0.001, "{share}");
        }
        assert!(percent((start, 5), (start, 4)).abs() < 0.001);
    }
}
