//! One file over http or https.
//!
//! It is fetched by a forked copy of this process, which hands the bytes over through a pipe: looking up a name may
//! start threads and load the host's own modules, and neither is for a process that makes namespaces later.

use std::{
    io::{self, Read as _, Write as _, pipe},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use ureq::Agent;

use crate::{
    causes::one_line,
    sys::process::{self, Forked},
};

/// How long one file may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a host may take to answer at all.
const CONNECT: Duration = Duration::from_secs(15);
/// How often an answer may lead elsewhere.
const REDIRECTS: u32 = 5;
/// Length of a report of what went wrong, in bytes.
const REPORT_LIMIT: u64 = 16 << 10;

/// Why a file could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum WebError {
    /// The host answered, but not with the file.
    #[error("{url}: the server answers {status}")]
    Status {
        /// The address.
        url: String,
        /// The status of HTTP.
        status: u16,
    },
    /// It is longer than it may be.
    #[error("{url}: it is longer than {limit} bytes")]
    TooLong {
        /// The address.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// The host did not answer, or not in HTTP.
    #[error("{url}: {why}")]
    Failed {
        /// The address.
        url: String,
        /// What went wrong.
        why: String,
    },
}

/// Fetches a file of at most `limit` bytes. The calling process has one thread.
///
/// # Errors
///
/// [`WebError`] names the address.
pub fn get(url: &str, limit: u64) -> Result<Vec<u8>, WebError> {
    let failed = |error: io::Error| WebError::Failed { url: url.to_owned(), why: error.to_string() };
    in_a_copy(url, limit).map_err(failed)?
}

/// The first byte that a copy writes.
const FETCHED: u8 = b'+';

fn in_a_copy(url: &str, limit: u64) -> io::Result<Result<Vec<u8>, WebError>> {
    let (mut hear, mut say) = pipe()?;
    match process::fork()? {
        Forked::Child => {
            drop(hear);
            let told = match fetch(url, limit) {
                Ok(bytes) => say.write_all(&[FETCHED]).and_then(|()| say.write_all(&bytes)),
                Err(error) => say.write_all(b"-").and_then(|()| say.write_all(&serde_json::to_vec(&error)?)),
            };
            drop(say);
            process::end(u8::from(told.is_err()))
        }
        Forked::Parent(child) => {
            drop(say);
            let mut told = Vec::new();
            hear.by_ref().take(limit.max(REPORT_LIMIT) + 1).read_to_end(&mut told)?;
            drop(hear);
            let ended = child.wait()?;
            match told.split_first() {
                Some((&FETCHED, bytes)) if ended == process::Ended::Exited(0) => Ok(Ok(bytes.to_vec())),
                Some((_, report)) if ended == process::Ended::Exited(0) => {
                    Ok(Err(serde_json::from_slice(report)?))
                }
                _ => Err(io::Error::other("the process that fetched it was stopped")),
            }
        }
    }
}

fn fetch(url: &str, limit: u64) -> Result<Vec<u8>, WebError> {
    let agent: Agent = Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .timeout_connect(Some(CONNECT))
        .max_redirects(REDIRECTS)
        .user_agent(concat!("fim/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let failed = |error: ureq::Error| match error {
        ureq::Error::StatusCode(status) => WebError::Status { url: url.to_owned(), status },
        ureq::Error::BodyExceedsLimit(_) => WebError::TooLong { url: url.to_owned(), limit },
        error => WebError::Failed { url: url.to_owned(), why: one_line(&error) },
    };
    let mut answer = agent.get(url).call().map_err(failed)?;
    answer.body_mut().with_config().limit(limit).read_to_vec().map_err(failed)
}
