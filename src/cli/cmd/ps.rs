//! `fim ps`: the user's instances over all images.

use std::process::ExitCode;

use clap::Args;

use super::settings;
use crate::{
    cli::Outcome,
    instance::state::Found,
    runtime::{host::Host, instances},
};

/// Lists the running instances of all images.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim ps --json")]
pub struct PsArgs {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// Carries it out.
///
/// # Errors
///
/// The records cannot be read.
pub fn run(args: &PsArgs) -> Outcome {
    let found = instances::everywhere(&Host::read()?)?;
    if args.json {
        settings::json(&found.iter().map(|one| &one.state).collect::<Vec<_>>())?;
    } else {
        settings::lines(table(&found, true))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Instances as a table, with a column for the image where there are several.
pub(super) fn table(found: &[Found], images: bool) -> Vec<String> {
    let head = ["ID", "NAME", "PID", "STATUS", "IMAGE", "COMMAND"].map(str::to_owned);
    let rows = found.iter().map(|one| {
        let state = &one.state;
        let status = match (&one.process, state.ended.as_ref().and_then(|end| end.status)) {
            (Some(_), _) => "running".to_owned(),
            (None, Some(status)) => format!("ended {status}"),
            (None, None) => "ended".to_owned(),
        };
        [
            state.id.to_string(),
            state.name.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            state.identity.pid.to_string(),
            status,
            plain(&state.image.to_string_lossy()),
            plain(&state.command.join(" ")),
        ]
    });
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(widths).enumerate().filter(|(column, _)| images || *column != 4);
            let line: Vec<String> = cells.map(|(_, (cell, width))| format!("{cell:width$}")).collect();
            line.join("  ").trim_end().to_owned()
        })
        .collect()
}

/// What stands in a record came from command lines: a terminal must not obey it.
fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}
