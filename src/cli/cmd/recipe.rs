//! `fim-recipe`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    desktop,
    exec::{RunOptions, launch},
    settings,
};
use crate::{
    cli::{Failure, Outcome},
    config::DISTRIBUTION_LABEL,
    runtime::{
        host::Host,
        plan::Command,
        recipe::{Gathered, Manager, RecipeError, Shelf, Source},
        site::Site,
    },
    sandbox::Role,
};

/// Sets of packages that a remote describes.
///
/// A recipe is URL/DISTRIBUTION/latest/NAME.json with description, packages and dependencies on other recipes.
#[derive(Args, Debug)]
#[command(after_help = "Example: fim remote app.flatimage set https://example.org/recipes\n         \
                        fim recipe app.flatimage install gpu,audio")]
pub struct RecipeArgs {
    /// The image.
    image: PathBuf,
    /// What to do.
    #[command(subcommand)]
    action: RecipeAction,
}

/// What to do with recipes.
#[derive(Subcommand, Debug)]
pub enum RecipeAction {
    /// Fetches recipes and all they depend on into the data directory, without installing anything.
    #[command(after_help = "Example: app.flatimage fim-recipe fetch gpu,audio")]
    Fetch {
        /// Names, divided by commas or spaces.
        #[arg(required = true, value_delimiter = ',', value_name = "RECIPE")]
        recipes: Vec<String>,
    },
    /// Tells of recipes that were fetched.
    #[command(after_help = "Example: app.flatimage fim-recipe info gpu --json")]
    Info {
        /// Names, divided by commas or spaces.
        #[arg(required = true, value_delimiter = ',', value_name = "RECIPE")]
        recipes: Vec<String>,
        /// As a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Installs what recipes and all they depend on name, by the package manager of the image, as root; fetches what was
    /// not fetched yet. What a recipe says about the desktop is stored.
    #[command(after_help = "Example: app.flatimage fim-recipe install gpu")]
    Install {
        /// Names, divided by commas or spaces.
        #[arg(required = true, value_delimiter = ',', value_name = "RECIPE")]
        recipes: Vec<String>,
    },
}

/// Carries the command out. The status of `install` is that of the package manager.
///
/// # Errors
///
/// No remote, no such recipe, one that cannot be understood, a circle of dependencies.
pub fn run(args: RecipeArgs) -> Outcome {
    match args.action {
        RecipeAction::Fetch { recipes } => {
            gathered(&args.image, &recipes, Source::Web)?;
            Ok(ExitCode::SUCCESS)
        }
        RecipeAction::Info { recipes, json } => {
            let (_, found) = gathered(&args.image, &recipes, Source::Fetched)?;
            tell(&found, json)?;
            Ok(ExitCode::SUCCESS)
        }
        RecipeAction::Install { recipes } => install(&args.image, &recipes),
    }
}

/// The recipes with all they depend on, dependencies first, and the manager that can install them.
fn gathered(image: &Path, names: &[String], source: Source) -> Result<(Manager, Vec<Gathered>), Failure> {
    let site = Site::find(&Host::read()?, image)?;
    let stored = site.image.settings();
    let distribution = stored.labels.get(DISTRIBUTION_LABEL).cloned().unwrap_or_default();
    let manager = Manager::of(&distribution).map_err(failed)?;
    let shelf =
        Shelf { remote: stored.remote.clone(), distribution, place: site.data.path().join("recipes") };
    let names: Vec<String> = names.iter().filter(|name| !name.is_empty()).cloned().collect();
    Ok((manager, shelf.gather(&names, source).map_err(failed)?))
}

fn install(image: &Path, names: &[String]) -> Outcome {
    let (manager, found) = gathered(image, names, Source::Either)?;
    let mut packages: Vec<String> = Vec::new();
    for package in found.iter().flat_map(|found| &found.recipe.packages) {
        if !packages.contains(package) {
            packages.push(package.clone());
        }
    }
    // The last one speaks: it is what was asked for, the others are what it needs.
    let desktop = found.iter().rev().find_map(|found| found.recipe.desktop.clone());
    if !packages.is_empty() {
        let command = Command::Given(manager.command(&packages));
        let status = launch(image.to_owned(), command, Role::Root, &RunOptions::default())?;
        if status != ExitCode::SUCCESS {
            return Ok(status);
        }
    }
    if let Some(desktop) = desktop {
        desktop::setup_from(image, desktop)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(found: &[Gathered], as_json: bool) -> Result<(), Failure> {
    if as_json {
        let all = found.iter().map(|found| {
            json!({
                "name": found.name,
                "path": found.path,
                "description": found.recipe.description,
                "packages": found.recipe.packages,
                "dependencies": found.recipe.dependencies,
                "desktop": found.recipe.desktop,
            })
        });
        return settings::json(&all.collect::<Vec<_>>());
    }
    settings::lines(found.iter().flat_map(|Gathered { name, path, recipe }| {
        let list = |what: &str, words: &[String]| {
            let all = if words.is_empty() { "none".to_owned() } else { words.join(" ") };
            format!("  {what:<13}{all}")
        };
        let description: String =
            recipe.description.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        [
            name.clone(),
            format!("  description  {description}"),
            format!("  file         {}", path.display()),
            list("dependencies", &recipe.dependencies),
            list("packages", &recipe.packages),
        ]
    }))
}

fn failed(error: RecipeError) -> Failure {
    let cure = error.cure();
    let failure = Failure::from(error);
    match cure {
        Some(cure) => failure.cure(cure),
        None => failure,
    }
}
