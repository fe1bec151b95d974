//! `fim doctor`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::settings;
use crate::{
    cli::Outcome,
    runtime::{
        doctor::{self, Finding, State},
        host::Host,
    },
};

/// Exit status where images cannot run.
const UNWELL: u8 = 1;

/// Says what this machine lets the engine do, and what helps where it does not.
///
/// Everything is found out by doing it: the device is opened, a namespace made, a file system mounted in it, a sandbox
/// started. Nothing is changed.
#[derive(Args, Debug)]
#[command(after_help = "Exit status: 0 images can run, 1 they cannot.\n\nExample: fim doctor")]
pub struct DoctorArgs {
    /// An image, whose own bubblewrap is tried.
    image: Option<PathBuf>,
    /// Prints the findings as JSON.
    #[arg(long)]
    json: bool,
}

/// Carries the command out.
///
/// # Errors
///
/// A variable has a value without a meaning, or the output cannot be written.
pub fn run(args: &DoctorArgs) -> Outcome {
    let host = Host::read()?;
    if let Some(image) = &args.image {
        drop(crate::image::ImageFile::open(image)?);
    }
    let findings = doctor::findings(&doctor::probe(&host, args.image.as_deref()));
    let is_well = doctor::is_well(&findings);
    if args.json {
        settings::json(&json!({ "well": is_well, "findings": findings }))?;
    } else {
        settings::lines(findings.iter().flat_map(as_text))?;
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(UNWELL) })
}

fn as_text(finding: &Finding) -> Vec<String> {
    let word = match finding.state {
        State::Good => "good",
        State::Note => "note",
        State::Bad => "BAD ",
    };
    let mut lines = vec![format!("{word}  {}: {}", finding.subject, finding.found)];
    lines.extend(finding.cause.iter().map(|cause| format!("      because {cause}")));
    lines.extend(finding.cure.iter().map(|cure| format!("      cure: {cure}")));
    lines
}
