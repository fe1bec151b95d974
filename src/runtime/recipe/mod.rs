//! Recipes: named sets of packages that a directory on the web describes.
//!
//! ```text
//! REMOTE/DISTRIBUTION/latest/NAME.json   {"description": "…", "packages": ["…"], "dependencies": ["…"], "desktop": {…}}
//! FIM_DIR_DATA/recipes/DISTRIBUTION/latest/NAME.json     the same, as it was fetched
//! ```
//!
//! - `shelf.rs`: a recipe with all it depends on, from the web or from what was fetched, dependencies first.
//! - `manager.rs`: the package manager of a distribution, and its command line.
//! - `web.rs`: one file over http or https.
//!
//! All of it comes from strangers: names, numbers and lengths are bounded, and nothing of it is ever a path, an option
//! or a word of a shell.

mod manager;
mod shelf;
mod web;

use std::{io, path::PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use manager::Manager;
pub use shelf::{Gathered, Shelf, Source};
pub use web::{WebError, get};

/// Length of a recipe in bytes.
const RECIPE_LIMIT: u64 = 1 << 20;
/// Length of a name of a recipe or a package in bytes.
const NAME_LIMIT: usize = 200;
/// How many packages or dependencies a recipe has at most.
const LIST_LIMIT: usize = 10_000;
/// Length of a description in bytes.
const DESCRIPTION_LIMIT: usize = 64 << 10;

/// A recipe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Packages that the distribution's package manager installs.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Recipes that come first.
    #[serde(default)]
    pub dependencies: Vec<String>,
    /// What it says about the desktop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desktop: Option<serde_json::Value>,
}

/// Why there are no recipes.
#[derive(Debug, Error)]
pub enum RecipeError {
    /// Nobody has said where they come from.
    #[error("cannot fetch recipes: no remote is stored in the image")]
    NoRemote,
    /// The image does not say what it was made from, or it is nothing that we know.
    #[error(
        "cannot tell which recipes fit: the distribution of the image is {found:?}, expected one of {known}"
    )]
    Distribution {
        /// What the image says.
        found: String,
        /// Those that are known.
        known: String,
    },
    /// A name that is none.
    #[error("cannot take {name:?} for the name of a {what}")]
    Name {
        /// What it should name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// It was not fetched yet.
    #[error("cannot find the recipe {name}: there is no {}", path.display())]
    NotFetched {
        /// The recipe.
        name: String,
        /// Where it would be.
        path: PathBuf,
    },
    /// It cannot be fetched.
    #[error("cannot fetch the recipe {name}")]
    Fetch {
        /// The recipe.
        name: String,
        /// What went wrong.
        source: WebError,
    },
    /// It is no recipe.
    #[error("cannot understand the recipe {name} from {place}")]
    Malformed {
        /// The recipe.
        name: String,
        /// Where it was read.
        place: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It has too much of something.
    #[error("cannot take the recipe {name}: it has {found} {what}, at most {limit} fit")]
    TooMuch {
        /// The recipe.
        name: String,
        /// Of what.
        what: &'static str,
        /// How much.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Recipes that come before each other.
    #[error("cannot order the recipes: {} depend on each other in a circle", circle.join(" -> "))]
    Circle {
        /// The way around, from one of them to itself.
        circle: Vec<String>,
    },
    /// The place of fetched recipes.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

impl RecipeError {
    /// What the user can do about it, where we know it.
    #[must_use]
    pub const fn cure(&self) -> Option<&'static str> {
        match self {
            Self::NoRemote => Some("fim-remote set URL stores one"),
            Self::NotFetched { .. } => Some("fim-recipe fetch fetches it"),
            _ => None,
        }
    }
}

impl Recipe {
    /// Reads a recipe; `place` is where it came from.
    fn parse(name: &str, place: &str, bytes: &[u8]) -> Result<Self, RecipeError> {
        // An object, and not the list of its fields that would do as well for the decoder.
        let object = serde_json::from_slice::<serde_json::Map<_, _>>(bytes);
        let recipe: Self =
            object.and_then(|object| serde_json::from_value(object.into())).map_err(|source| {
                RecipeError::Malformed { name: name.to_owned(), place: place.to_owned(), source }
            })?;
        let bounds = [
            ("packages", recipe.packages.len(), LIST_LIMIT),
            ("dependencies", recipe.dependencies.len(), LIST_LIMIT),
            ("bytes of description", recipe.description.len(), DESCRIPTION_LIMIT),
        ];
        for (what, found, limit) in bounds {
            if found > limit {
                return Err(RecipeError::TooMuch { name: name.to_owned(), what, found, limit });
            }
        }
        recipe.packages.iter().try_for_each(|package| check_name("package", package))?;
        recipe.dependencies.iter().try_for_each(|dependency| check_name("recipe", dependency))?;
        Ok(recipe)
    }
}

/// Names are words that mean nothing else anywhere: no option, no path, nothing for a shell.
fn check_name(what: &'static str, name: &str) -> Result<(), RecipeError> {
    let extra = if what == "package" { "+-._:@=~" } else { "+-._" };
    let fits = name.len() <= NAME_LIMIT
        && name.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || extra.contains(letter));
    if fits { Ok(()) } else { Err(RecipeError::Name { what, name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_bounded_and_their_names_are_words() {
        let parse = |text: &str| Recipe::parse("r", "here", text.as_bytes());
        let whole = parse(
            r#"{"description":"d","packages":["a","lib:i386","b=1.0~x"],"dependencies":["c-1"],"x":1}"#,
        );
        assert_eq!(whole.unwrap().packages.len(), 3);
        assert_eq!(parse("{}").unwrap(), Recipe::default());
        for wrong in [
            "",
            "[]",
            r#"{"packages":["a"]"#,
            r#"{"packages":"a"}"#,
            r#"{"packages":["-o"]}"#,
            r#"{"packages":["a b"]}"#,
            r#"{"packages":["$(x)"]}"#,
            r#"{"packages":[""]}"#,
            r#"{"dependencies":["../x"]}"#,
            r#"{"dependencies":["a/b"]}"#,
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let many = format!("{{\"packages\":[{}\"a\"]}}", "\"a\",".repeat(LIST_LIMIT));
        assert!(matches!(parse(&many), Err(RecipeError::TooMuch { .. })));
    }
}
