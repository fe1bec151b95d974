//! `fim bench`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{making, settings};
use crate::{
    cli::Outcome,
    runtime::{
        bench::{self, Measured},
        create::Report,
    },
};

/// Measures how fast an archive or image can be opened, walked and read on this machine, without mounting it.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim bench app.flatimage")]
pub struct BenchArgs {
    /// An archive, or an image, whose layers are read as one merged tree.
    archive: PathBuf,
    /// Where in the file the archive begins, in bytes; otherwise it is looked for.
    #[arg(long, value_name = "N")]
    offset: Option<u64>,
    /// As a JSON array.
    #[arg(long)]
    json: bool,
}

/// Carries the command out.
///
/// # Errors
///
/// The archive cannot be opened, or is damaged.
pub fn run(args: &BenchArgs, report: &dyn Report) -> Outcome {
    let measured = bench::bench(&args.archive, args.offset, &mut |step| report.step(step))?;
    report.done();
    if args.json {
        settings::json(&measured)?;
    } else {
        settings::lines(measured.iter().map(as_text))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_text(measured: &Measured) -> String {
    let Measured { what, count, bytes, seconds } = *measured;
    let milliseconds = seconds * 1000.0;
    let size = if bytes == 0 { String::new() } else { format!(", {}", making::bytes(bytes)) };
    let speed = making::speed(if bytes == 0 { count } else { bytes }, seconds);
    let unit = if bytes == 0 { format!("{speed} a second") } else { format!("{}/s", making::bytes(speed)) };
    format!("{what:<12} {milliseconds:>9.1} ms  {count}{size}  ({unit})")
}
