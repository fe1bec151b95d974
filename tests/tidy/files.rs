//! No forgotten test file: what lies in a test folder is named by the folder's `main.rs`.

use std::{collections::BTreeSet, path::Path};

use crate::source;

#[test]
fn every_test_file_is_listed() {
    let mut forgotten = Vec::new();
    for path in source::rust_files("tests") {
        let parts: Vec<_> = path.iter().collect();
        if parts.len() != 3 || path.ends_with("main.rs") {
            continue;
        }
        let main = path.with_file_name("main.rs");
        if !source::root().join(&main).exists() {
            continue;
        }
        let listed = modules(&main);
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if !listed.contains(&stem) {
            forgotten.push(path);
        }
    }
    assert!(forgotten.is_empty(), "not listed in their main.rs: {forgotten:#?}");
}

#[test]
fn every_source_file_is_a_module() {
    let mut forgotten = Vec::new();
    for path in source::rust_files("src") {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let folder = path.parent().unwrap();
        let (face, name) = match stem.as_str() {
            "lib" | "main" => continue,
            "mod" => (
                face_of(folder.parent().unwrap()),
                folder.file_name().unwrap().to_string_lossy().into_owned(),
            ),
            _ => (face_of(folder), stem),
        };
        if !face.as_ref().is_some_and(|face| modules(face).contains(&name)) {
            forgotten.push(path);
        }
    }
    assert!(forgotten.is_empty(), "not a module of any file: {forgotten:#?}");
}

/// The file that declares the modules of a folder: `lib.rs`, `mod.rs`, or `folder.rs` beside it.
fn face_of(folder: &Path) -> Option<std::path::PathBuf> {
    [folder.join("lib.rs"), folder.join("mod.rs"), folder.with_extension("rs")]
        .into_iter()
        .find(|face| source::root().join(face).exists())
}

fn modules(path: &Path) -> BTreeSet<String> {
    source::parse(path)
        .items
        .iter()
        .filter_map(|item| match item {
            syn::Item::Mod(module) => Some(module.ident.to_string()),
            _ => None,
        })
        .collect()
}
