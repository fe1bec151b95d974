//! Finds and parses the sources.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The root of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All `.rs` files below `folder` of the repository, sorted, relative to the repository.
pub fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(&root().join(folder), &mut found);
    found.sort();
    let root = root();
    found.into_iter().map(|path| path.strip_prefix(&root).unwrap().to_owned()).collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Parses a file given relative to the repository.
pub fn parse(path: &Path) -> syn::File {
    let text = fs::read_to_string(root().join(path)).unwrap();
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The module path of a file below `src`: `src/dwarfs/read/mod.rs` is `["dwarfs", "read"]`.
pub fn module_path(path: &Path) -> Vec<String> {
    let mut parts: Vec<String> = path
        .strip_prefix("src")
        .unwrap()
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into())
        .collect();
    if parts.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}
