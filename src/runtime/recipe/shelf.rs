//! Recipes with all they depend on.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{RECIPE_LIMIT, Recipe, RecipeError, check_name, web};
use crate::dwarfs::write::{self, PublishError};

/// How many recipes may depend on each other.
const RECIPES_LIMIT: usize = 1000;

/// Where recipes are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The web; what was fetched before is replaced.
    Web,
    /// What was fetched before.
    Fetched,
    /// What was fetched before, and the web for what was not.
    Either,
}

/// The recipes of one distribution.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// The address of all recipes.
    pub remote: Option<String>,
    /// The distribution, as its os-release file names it.
    pub distribution: String,
    /// Where fetched recipes are.
    pub place: PathBuf,
}

/// A recipe that was gathered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gathered {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub recipe: Recipe,
}

impl Shelf {
    /// Gathers recipes and all they depend on, each once and behind those that it depends on.
    ///
    /// # Errors
    ///
    /// [`RecipeError`]; nothing is kept of a recipe that cannot be understood.
    pub fn gather(&self, names: &[String], source: Source) -> Result<Vec<Gathered>, RecipeError> {
        names.iter().try_for_each(|name| check_name("recipe", name))?;
        check_name("distribution", &self.distribution)?;
        in_order(names, &mut |name| self.take(name, source).map(|recipe| recipe.dependencies))?
            .into_iter()
            .map(|name| {
                let recipe = self.take(&name, Source::Fetched)?;
                Ok(Gathered { path: self.path(&name), name, recipe })
            })
            .collect()
    }

    /// Where a recipe is when it was fetched.
    fn path(&self, name: &str) -> PathBuf {
        self.place.join(&self.distribution).join("latest").join(format!("{name}.json"))
    }

    fn take(&self, name: &str, source: Source) -> Result<Recipe, RecipeError> {
        match source {
            Source::Web => self.fetch(name),
            Source::Fetched => self.read(name),
            Source::Either if self.path(name).exists() => self.read(name),
            Source::Either => self.fetch(name),
        }
    }

    fn read(&self, name: &str) -> Result<Recipe, RecipeError> {
        let path = self.path(name);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RecipeError::NotFetched { name: name.to_owned(), path });
            }
            Ok(status) if status.len() > RECIPE_LIMIT => {
                return Err(failed("read", &path)(io::ErrorKind::FileTooLarge.into()));
            }
            _ => {}
        }
        let bytes = fs::read(&path).map_err(failed("read", &path))?;
        Recipe::parse(name, &path.display().to_string(), &bytes)
    }

    fn fetch(&self, name: &str) -> Result<Recipe, RecipeError> {
        let remote = self.remote.as_deref().ok_or(RecipeError::NoRemote)?;
        let url = format!("{remote}/{}/latest/{name}.json", self.distribution);
        let bytes = web::get(&url, RECIPE_LIMIT)
            .map_err(|source| RecipeError::Fetch { name: name.to_owned(), source })?;
        let recipe = Recipe::parse(name, &url, &bytes)?;
        let path = self.path(name);
        let folder = path.parent().unwrap_or(&self.place);
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
        write::publish(
            &path,
            |file| io::Write::write_all(file, &bytes).map_err(failed("write", &path)),
            |_| Ok(()),
        )?;
        Ok(recipe)
    }
}

impl From<PublishError> for RecipeError {
    fn from(error: PublishError) -> Self {
        Self::File { action: "write", path: "a fetched recipe".into(), source: io::Error::other(error) }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecipeError + use<> {
    let path = path.to_owned();
    move |source| RecipeError::File { action, path, source }
}

/// Names with all that they depend on, each once, dependencies first. `dependencies` is asked once for each.
fn in_order(
    names: &[String],
    dependencies: &mut dyn FnMut(&str) -> Result<Vec<String>, RecipeError>,
) -> Result<Vec<String>, RecipeError> {
    /// On the way, or done.
    enum Mark {
        Open,
        Done,
    }
    let mut marks = BTreeMap::<String, Mark>::new();
    let mut order = Vec::new();
    // A path from one of the names, each with those of its dependencies that are still to be looked at.
    let mut path: Vec<(String, Vec<String>)> = Vec::new();
    for name in names {
        let mut next = Some(name.clone());
        loop {
            if let Some(name) = next.take() {
                match marks.get(&name) {
                    Some(Mark::Done) => {}
                    Some(Mark::Open) => return Err(circle(&path, &name)),
                    None => {
                        if marks.len() >= RECIPES_LIMIT {
                            let (what, limit) = ("recipes that it depends on", RECIPES_LIMIT);
                            return Err(RecipeError::TooMuch { name, what, found: marks.len() + 1, limit });
                        }
                        let mut before = dependencies(&name)?;
                        before.reverse();
                        marks.insert(name.clone(), Mark::Open);
                        path.push((name, before));
                    }
                }
            }
            let Some((name, before)) = path.last_mut() else { break };
            next = before.pop();
            if next.is_none() {
                marks.insert(name.clone(), Mark::Done);
                order.extend(path.pop().map(|(name, _)| name));
            }
        }
    }
    Ok(order)
}

/// The way around: from the name that comes again, along the path, back to it.
fn circle(path: &[(String, Vec<String>)], again: &str) -> RecipeError {
    let way = path.iter().map(|(name, _)| name.clone()).skip_while(|name| name != again);
    RecipeError::Circle { circle: way.chain([again.to_owned()]).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(names: &[&str], table: &[(&str, &[&str])]) -> Result<String, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut asked = Vec::new();
        let found = in_order(&names, &mut |name| {
            assert!(!asked.contains(&name.to_owned()), "{name} is asked for once");
            asked.push(name.to_owned());
            let row = table.iter().find(|(known, _)| *known == name);
            Ok(row.map(|(_, on)| on.iter().map(|on| (*on).to_owned()).collect()).unwrap_or_default())
        });
        found.map(|order| order.join(" ")).map_err(|error| error.to_string())
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let diamond: &[(&str, &[&str])] = &[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d"])];
        assert_eq!(ordered(&["a"], diamond).unwrap(), "d b c a");
        assert_eq!(ordered(&["c", "a", "c"], diamond).unwrap(), "d c b a");
        assert_eq!(ordered(&[], diamond).unwrap(), "");
    }

    #[test]
    fn circles_are_named() {
        for (table, expected) in [
            (&[("a", &["a"][..])][..], "a -> a"),
            (&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])], "b -> c -> b"),
        ] {
            let error = ordered(&["a"], table).unwrap_err();
            assert_eq!(
                error,
                format!("cannot order the recipes: {expected} depend on each other in a circle")
            );
        }
    }

    #[test]
    fn endless_chains_end() {
        let mut count = 0;
        let error = in_order(&["r".to_owned()], &mut |_| {
            count += 1;
            Ok(vec![format!("r{count}")])
        });
        assert!(matches!(error, Err(RecipeError::TooMuch { .. })));
        assert_eq!(count, RECIPES_LIMIT);
    }
}
