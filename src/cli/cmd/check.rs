//! `fim check`, and `fim-layer verify`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};

use super::settings;
use crate::{
    causes::one_line,
    cli::{Failure, Outcome},
    dwarfs::{
        self,
        read::{Depth, Finding, HitFiles, Part, Report},
        write::Phase,
    },
    runtime::{
        check::{self, CheckPlan, Checked},
        create::Report as Watcher,
        host::Host,
    },
};

/// Exit status where an archive is damaged.
const DAMAGED: u8 = 1;
/// Paths that are told of the files that damage hits; `--json` tells more.
const PATHS: usize = 20;
/// Findings that are told.
const FINDINGS: usize = 20;

/// Checks archives: every checksum, every reference, every block, and which files damage hits.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 whole, 1 damaged, 125 cannot be read.\n\nExample: fim check app.flatimage"
)]
pub struct CheckArgs {
    /// An archive, or an image: then all archives in it.
    file: PathBuf,
    /// Where the archive begins in the file, in bytes.
    #[arg(long, value_name = "BYTES")]
    offset: Option<u64>,
    #[command(flatten)]
    how: How,
}

/// How to check and to tell.
#[derive(Args, Clone, Copy, Debug)]
pub struct How {
    /// Checks checksums only.
    #[arg(long)]
    quick: bool,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
}

impl How {
    const fn depth(self) -> Depth {
        if self.quick { Depth::Checksums } else { Depth::Everything }
    }
}

/// Carries the command out.
///
/// # Errors
///
/// There is nothing to check: no archive, or a file that cannot be read.
pub fn run(args: &CheckArgs, watcher: &dyn Watcher) -> Outcome {
    let threads = Host::read()?.choices.threads.map(std::num::NonZeroUsize::get);
    let plan = CheckPlan { file: args.file.clone(), offset: args.offset, depth: args.how.depth(), threads };
    carry_out(&[plan], args.how, watcher)
}

/// Checks an image and the layers above it.
///
/// # Errors
///
/// As [`run`].
pub(super) fn verify(
    image: &std::path::Path,
    above: &[PathBuf],
    threads: Option<usize>,
    how: How,
    watcher: &dyn Watcher,
) -> Outcome {
    carry_out(&check::with_layers(image, above, how.depth(), threads), how, watcher)
}

fn carry_out(plans: &[CheckPlan], how: How, watcher: &dyn Watcher) -> Outcome {
    let mut checked = Vec::new();
    for plan in plans {
        checked.extend(check_one(plan, watcher)?);
    }
    watcher.done();
    if let Some((archive, error)) = checked.iter().find_map(|archive| Some((archive, archive.unreadable()?)))
    {
        let (path, reason) = (archive.path.display(), one_line(error));
        return Err(Failure::new(format!("cannot check {path}: {reason}")));
    }
    if how.json {
        let archives: Vec<Value> = checked.iter().map(as_json).collect();
        settings::json(&json!({ "whole": checked.iter().all(Checked::is_whole), "archives": archives }))?;
    } else {
        settings::lines(checked.iter().flat_map(as_text))?;
    }
    let is_whole = checked.iter().all(Checked::is_whole);
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) })
}

fn check_one(plan: &CheckPlan, watcher: &dyn Watcher) -> Result<Vec<Checked>, Failure> {
    let mut before = None;
    let checked = check::run(plan, &mut |done, total| {
        // Fewer bytes done than before: the next archive.
        let last = *before.get_or_insert(u64::MAX);
        if done < last {
            watcher.begin(Phase::Compress, 0, total);
            watcher.step("checking");
        }
        watcher.bytes_in(if done < last { done } else { done - last });
        before = Some(done);
    })?;
    Ok(checked)
}

/// The lines about one archive.
fn as_text(checked: &Checked) -> Vec<String> {
    let role = checked.role.as_ref().map_or_else(String::new, |role| format!(" ({role})"));
    let name = format!("{}: archive at offset {:#x}{role}", checked.path.display(), checked.offset);
    let report = match &checked.outcome {
        Ok(report) => report,
        Err(error) => return vec![format!("{name} is damaged"), format!("  {}", one_line(error)), cure()],
    };
    let facts = format!(
        "{} sections, {} blocks, {} inodes, {} bytes",
        report.sections, report.blocks, report.inodes, report.length
    );
    if report.is_whole() {
        return vec![format!("{name} is whole: {facts}")];
    }
    let count = report.findings.count();
    let findings = if count == 1 { "finding" } else { "findings" };
    let mut lines = vec![format!("{name} is damaged: {count} {findings}; {facts}")];
    lines.extend(
        report.findings.list.iter().take(FINDINGS).map(|finding| format!("  {}", one_line(&finding.error))),
    );
    let untold = count.saturating_sub(FINDINGS as u64);
    if untold > 0 {
        lines.push(format!("  and {untold} more"));
    }
    lines.extend(hit_as_text(report));
    lines.push(cure());
    lines
}

fn hit_as_text(report: &Report) -> Vec<String> {
    let Some(hit) = &report.hit else { return Vec::new() };
    let count = hit.paths.len() as u64 + hit.more;
    if count == 0 {
        return Vec::new();
    }
    let mut lines = vec![format!("  files that damaged blocks hit: {count}")];
    lines.extend(hit.paths.iter().take(PATHS).map(|path| format!("    {}", shown(path))));
    let untold = count.saturating_sub(PATHS as u64);
    if untold > 0 {
        lines.push(format!("    and {untold} more"));
    }
    lines
}

/// A path for people: what is no text, or would move the cursor of a terminal, is escaped.
fn shown(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => path.escape_ascii().to_string(),
    }
}

fn cure() -> String {
    "  get the file again from where it came from; what is not named here can still be read".to_owned()
}

fn as_json(checked: &Checked) -> Value {
    let mut value = json!({
        "path": checked.path.to_string_lossy(),
        "role": checked.role,
        "offset": checked.offset,
        "whole": checked.is_whole(),
    });
    let more = match &checked.outcome {
        Err(error) => json!({ "findings": [{ "part": "index", "message": one_line(error) }] }),
        Ok(report) => json!({
            "offset": report.offset,
            "length": report.length,
            "format": format!("2.{}", report.minor),
            "sections": report.sections,
            "blocks": report.blocks,
            "inodes": report.inodes,
            "entries": report.entries,
            "decoded": report.decoded,
            "findings": report.findings.list.iter().map(finding_as_json).collect::<Vec<_>>(),
            "more_findings": report.findings.more,
            "files": report.hit.as_ref().map(paths_as_json),
            "more_files": report.hit.as_ref().map(|hit| hit.more),
        }),
    };
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

fn finding_as_json(finding: &Finding) -> Value {
    let (section, offset, block) = match finding.part {
        Part::Section { section, block } => (Some(section.number), Some(section.offset), block),
        _ => (None, None, None),
    };
    json!({
        "part": finding.part.name(),
        "section": section,
        "offset": offset,
        "block": block,
        "codec_missing": matches!(finding.error, dwarfs::Error::UnsupportedCodec { .. }),
        "message": one_line(&finding.error),
    })
}

/// Names are bytes: what is not printable ASCII stands as %XX.
fn paths_as_json(hit: &HitFiles) -> Value {
    let quoted = hit.paths.iter().map(|path| {
        path.iter().fold(String::new(), |text, byte| match byte {
            b'%' => text + "%25",
            b' '..=b'~' => text + &char::from(*byte).to_string(),
            _ => text + &format!("%{byte:02X}"),
        })
    });
    quoted.collect()
}
