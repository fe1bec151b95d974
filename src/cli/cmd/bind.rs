//! `fim-bind`.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::settings;
use crate::{
    cli::Outcome,
    config::{Bind, BindKind},
};

/// Places of the host that programs in an image see.
///
/// Paths are stored as given; $VAR, ${VAR}, ${VAR:-x} and ~ are expanded when a program starts. A place that is then
/// missing is skipped with a warning.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim bind app.flatimage add ro '$HOME/Music' /music")]
pub struct BindArgs {
    /// The image.
    image: PathBuf,
    /// What to do.
    #[command(subcommand)]
    action: BindAction,
}

/// What to do with the binds.
#[derive(Subcommand, Debug)]
pub enum BindAction {
    /// Adds a bind and prints its index.
    #[command(after_help = "Example: app.flatimage fim-bind add ro '$HOME/Music' /music")]
    Add {
        /// ro (read-only), rw (writable) or dev (writable, device nodes work).
        kind: String,
        /// The place of the host.
        source: OsString,
        /// Where it is seen inside.
        destination: OsString,
    },
    /// Takes the bind with this index away; later ones move down.
    #[command(after_help = "Example: app.flatimage fim-bind del 0")]
    Del {
        /// The index, as `list` shows it.
        index: usize,
    },
    /// Prints the binds as JSON: {"0":{"dst":…,"src":…,"type":"ro"}}.
    #[command(after_help = "Example: app.flatimage fim-bind list")]
    List {
        /// As JSON, which it is anyway.
        #[arg(long)]
        json: bool,
    },
}

/// Carries the command out.
///
/// # Errors
///
/// A wrong kind, place or index, or the image cannot be read or changed.
pub fn run(args: &BindArgs) -> Outcome {
    match &args.action {
        BindAction::Add { kind, source, destination } => {
            let bind = Bind {
                kind: BindKind::parse(kind)?,
                source: settings::text(source)?,
                destination: settings::text(destination)?,
            };
            let index = settings::change(&args.image, |settings| Ok(settings.binds.add(bind)?))?;
            settings::line(index)?;
        }
        BindAction::Del { index } => {
            settings::change(&args.image, |settings| Ok(settings.binds.remove(*index)?))?;
        }
        BindAction::List { json: _ } => {
            let stored = settings::read(&args.image)?.binds;
            let by_index: BTreeMap<usize, &Bind> = stored.as_slice().iter().enumerate().collect();
            settings::json(&by_index)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
