//! Ending instances.

use std::{
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use super::{
    InstanceError,
    enter::enter,
    start::{logs_of, script_request},
};
use crate::{
    instance::state::{Found, Registry, State, StateError},
    runtime::run::Finished,
    sys::{
        inherit,
        process::{self, Forked},
        ready,
        signal::Signal,
    },
};

/// Status of a stop script that could not be run at all.
const NO_SCRIPT: u8 = 125;

/// How instances are ended.
#[derive(Clone, Debug)]
pub struct StopRequest {
    /// Which ones: ids, names, beginnings of names, patterns; none means all.
    pub wanted: Vec<String>,
    /// The signal for the program.
    pub signal: Signal,
    /// How long it has; the stop script has as long.
    pub timeout: Duration,
    /// Whether it is killed without being asked.
    pub force: bool,
    /// The image's stop script.
    pub script: Option<String>,
}

/// What became of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Which one.
    pub instance: String,
    /// Whether it had to be killed.
    pub killed: bool,
    /// What went wrong with the stop script.
    pub complaint: Option<String>,
}

/// Ends instances and waits until they have ended.
///
/// # Errors
///
/// [`InstanceError`]; a word that means no instance ends nothing.
pub fn stop(registry: &Registry, request: &StopRequest) -> Result<Vec<Stopped>, InstanceError> {
    let living = registry.living()?;
    let meant = choose(registry, living, &request.wanted)?;
    let script = request.script.as_deref().filter(|_| !request.force);
    let mut complaints = Vec::new();
    for found in &meant {
        complaints.push(match script.filter(|_| found.state.background) {
            Some(script) => run_script(found, script, request.timeout)?,
            None => None,
        });
    }
    let signal = if request.force { Signal::SIGKILL } else { request.signal };
    tell(&meant, signal)?;
    let mut killed = vec![request.force; meant.len()];
    let deadline = Instant::now() + request.timeout;
    for (found, killed) in meant.iter().zip(&mut killed) {
        let Some(process) = &found.process else { continue };
        let ended = ready::first_readable(&[process.as_fd()], Some(deadline))
            .map_err(InstanceError::step("wait for the instance"))?;
        if ended.is_none() {
            *killed = true;
            process.signal(Signal::SIGKILL).map_err(InstanceError::step("kill the instance"))?;
            ready::first_readable(&[process.as_fd()], None)
                .map_err(InstanceError::step("wait for the instance"))?;
        }
    }
    // Those that were killed could not archive their own records.
    registry.all()?;
    Ok(meant
        .iter()
        .zip(killed)
        .zip(complaints)
        .map(|((found, killed), complaint)| Stopped { instance: found.state.key(), killed, complaint })
        .collect())
}

fn tell(meant: &[Found], signal: Signal) -> Result<(), InstanceError> {
    for found in meant {
        if let Some(process) = &found.process {
            process.signal(signal).map_err(InstanceError::step("signal the instance"))?;
        }
    }
    Ok(())
}

/// The instances that the words mean; every word must mean one.
fn choose(
    registry: &Registry,
    mut living: Vec<Found>,
    wanted: &[String],
) -> Result<Vec<Found>, InstanceError> {
    if wanted.is_empty() {
        return Ok(living);
    }
    let mut meant = Vec::new();
    for word in wanted {
        let matches: Vec<String> = if word.contains(['*', '?']) {
            let names = living.iter().map(|one| &one.state).filter(|state| matches_state(word, state));
            names.map(State::key).collect()
        } else {
            vec![registry.find(word)?.state.key()]
        };
        if matches.is_empty() {
            return Err(StateError::NotFound { word: word.clone() }.into());
        }
        for key in matches {
            if let Some(at) = living.iter().position(|one| one.state.key() == key) {
                meant.push(living.swap_remove(at));
            }
        }
    }
    Ok(meant)
}

fn matches_state(pattern: &str, state: &State) -> bool {
    let name = state.name.as_ref().map_or("", |name| name.as_str());
    (!name.is_empty() && matches(pattern.as_bytes(), name.as_bytes()))
        || matches(pattern.as_bytes(), state.id.to_string().as_bytes())
}

/// `*` stands for anything, `?` for one letter. The last `*` is remembered: nothing is tried twice.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(letter) if *letter == b'?' || text.get(from) == Some(letter) => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((place, taken)) = star else { return false };
                star = Some((place, taken + 1));
                (at, from) = (place + 1, taken + 1);
            }
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|letter| *letter == b'*')
}

/// Runs the stop script in a process of its own, for no longer than `timeout`: with it the session ends. What is returned
/// went wrong; the instance is ended all the same.
fn run_script(found: &Found, script: &str, timeout: Duration) -> Result<Option<String>, InstanceError> {
    match process::fork().map_err(InstanceError::step("run the stop script"))? {
        Forked::Child => process::end(script_session(found, script).unwrap_or(NO_SCRIPT)),
        Forked::Parent(child) => {
            let deadline = Instant::now() + timeout;
            let ended = ready::first_readable(&[child.pidfd().as_fd()], Some(deadline))
                .map_err(InstanceError::step("wait for the stop script"))?;
            child.pidfd().signal(Signal::SIGKILL).map_err(InstanceError::step("end the stop script"))?;
            let status = child.wait().map_err(InstanceError::step("wait for the stop script"))?.status();
            Ok(match (ended, status) {
                (None, _) => Some(format!("it was ended after {} s", timeout.as_secs())),
                (_, 0) => None,
                (_, NO_SCRIPT) => Some("it could not be run".to_owned()),
                (_, status) => Some(format!("it ended with {status}")),
            })
        }
    }
}

fn script_session(found: &Found, script: &str) -> Result<u8, InstanceError> {
    let null = inherit::null().map_err(InstanceError::step("open /dev/null"))?;
    let [out, err] = logs_of(&found.path).map_err(InstanceError::step("open the logs of the instance"))?;
    match enter(found, script_request(script), [null.as_fd(), out.as_fd(), err.as_fd()])? {
        Finished::Status(status) | Finished::NotStarted { status, .. } => Ok(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "abc", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a?c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a?", "abc", false),
            ("?", "", false),
            ("a*d", "abc", false),
            ("web-*", "web", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        assert!(!matches("*a".repeat(30).as_bytes(), "a".repeat(29).as_bytes()));
    }
}
