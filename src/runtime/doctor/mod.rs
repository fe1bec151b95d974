//! `fim doctor`: what this machine lets us do, found out by doing it, with cause and cure where it does not.
//!
//! ```text
//!   probe.rs      does things and reads files -> Facts      (a forked copy tries namespaces and mounts)
//!   verdict.rs    Facts -> Findings                          pure: what is wrong, why, and what helps
//!   apparmor.rs   what AppArmor's files say about user namespaces and about fusermount3
//! ```

mod apparmor;
mod probe;
mod verdict;

use serde::{Deserialize, Serialize};

pub use apparmor::{AppArmor, FuseProfile};
pub use probe::{Facts, Helper, Refusal, Switches, Trial, probe};
pub use verdict::findings;

/// Whether something works here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It works.
    Good,
    /// It does not, or not everywhere; most things go without it.
    Note,
    /// It does not, and images cannot run.
    Bad,
}

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which thing.
    pub subject: &'static str,
    /// Whether it works.
    pub state: State,
    /// What was found.
    pub found: String,
    /// Why it is so, where it is not good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

impl Finding {
    /// Something that works.
    #[must_use]
    pub fn good(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, state: State::Good, found: found.into(), cause: None, cure: None }
    }

    /// Something that does not.
    #[must_use]
    pub fn wrong(
        subject: &'static str,
        state: State,
        found: impl Into<String>,
        cause: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        let (cause, cure) = (Some(cause.into()), Some(cure.into()));
        Self { subject, state, found: found.into(), cause, cure }
    }
}

/// Whether images can run, by what was found.
#[must_use]
pub fn is_well(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.state != State::Bad)
}
