//! `fim-env`.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::settings;
use crate::{
    cli::{Failure, Outcome},
    config::Environment,
};

/// Variables for programs in an image.
///
/// Values are stored as given; $VAR, ${VAR}, ${VAR:-x} and ~ are expanded when a program starts. UID, GID, USER, HOME,
/// SHELL and PS1 define the identity inside.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim env app.flatimage add EDITOR=vi 'CACHE=${HOME}/.cache'")]
pub struct EnvArgs {
    /// The image.
    image: PathBuf,
    /// What to do.
    #[command(subcommand)]
    action: EnvAction,
}

/// What to do with the variables.
#[derive(Subcommand, Debug)]
pub enum EnvAction {
    /// Adds variables; one that is there gets the new value.
    #[command(after_help = "Example: app.flatimage fim-env add EDITOR=vi 'CACHE=${HOME}/.cache'")]
    Add {
        /// NAME=VALUE.
        #[arg(required = true, value_name = "NAME=VALUE")]
        variables: Vec<OsString>,
    },
    /// Replaces all variables.
    #[command(after_help = "Example: app.flatimage fim-env set LANG=C.UTF-8")]
    Set {
        /// NAME=VALUE.
        #[arg(required = true, value_name = "NAME=VALUE")]
        variables: Vec<OsString>,
    },
    /// Takes variables away.
    #[command(after_help = "Example: app.flatimage fim-env del EDITOR")]
    Del {
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Prints NAME=VALUE lines, sorted.
    #[command(after_help = "Example: app.flatimage fim-env list --json")]
    List {
        /// As a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Takes all variables away.
    #[command(after_help = "Example: app.flatimage fim-env clear")]
    Clear,
}

/// Carries the command out.
///
/// # Errors
///
/// Not a variable, one to delete that is not there, or the image cannot be read or changed.
pub fn run(args: &EnvArgs) -> Outcome {
    let image = &args.image;
    match &args.action {
        EnvAction::Add { variables } => {
            let variables = parse(variables)?;
            settings::change(image, |settings| {
                settings.environment.add(variables);
                Ok(())
            })?;
        }
        EnvAction::Set { variables } => {
            let variables = parse(variables)?;
            settings::change(image, |settings| {
                settings.environment.clear();
                settings.environment.add(variables);
                Ok(())
            })?;
        }
        EnvAction::Del { names } => {
            settings::change(image, |settings| Ok(settings.environment.remove(names)?))?;
        }
        EnvAction::Clear => settings::change(image, |settings| {
            settings.environment.clear();
            Ok(())
        })?,
        EnvAction::List { json } => {
            let stored = settings::read(image)?.environment;
            if *json {
                settings::json(&stored.iter().collect::<BTreeMap<_, _>>())?;
            } else {
                settings::lines(stored.iter().map(|(name, value)| format!("{name}={value}")))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn parse(variables: &[OsString]) -> Result<Vec<(String, String)>, Failure> {
    variables.iter().map(|variable| Ok(Environment::parse(&settings::text(variable)?)?)).collect()
}
