//! The import table of `src/ARCHITECTURE.md` holds, and `lib.rs` lists the modules in its order.

use std::{collections::BTreeMap, fs};

use syn::{
    File, Item, ItemMod, UseTree,
    visit::{self, Visit},
};

use crate::source;

/// The code map: each row's module and what it may import, in the order of the table.
struct Table {
    rows: Vec<(String, Vec<String>)>,
}

impl Table {
    /// Reads the table whose head is `| storey | module | … | may import |`.
    fn read() -> Self {
        let text = fs::read_to_string(source::root().join("src/ARCHITECTURE.md")).unwrap();
        let rows = text
            .lines()
            .skip_while(|line| !line.starts_with("| storey | module |"))
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .map(|line| {
                let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
                assert_eq!(cells.len(), 4, "a row of the code map has four cells: {line}");
                let modules = quoted(cells[1]);
                assert_eq!(modules.len(), 1, "one module a row: {line}");
                (modules[0].clone(), quoted(cells[3]))
            })
            .collect();
        Self { rows }
    }

    /// The row that rules a module path: the longest name that it begins with.
    fn row_of(&self, path: &[String]) -> Option<&(String, Vec<String>)> {
        self.rows
            .iter()
            .filter(|(module, _)| begins_with(path, module))
            .max_by_key(|(module, _)| module.len())
    }
}

/// The words between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn begins_with(path: &[String], module: &str) -> bool {
    module.split('/').enumerate().all(|(at, part)| path.get(at).is_some_and(|have| have == part))
}

/// Collects the paths into the crate that a file names, test modules left out.
struct Paths {
    module: Vec<String>,
    found: Vec<Vec<String>>,
}

impl Paths {
    fn of(path: &[String], file: &File) -> Vec<Vec<String>> {
        let mut paths = Self { module: path.to_vec(), found: Vec::new() };
        paths.visit_file(file);
        paths.found
    }

    /// Resolves `crate::a::b` and `super::a` to a path from the crate's root.
    fn add(&mut self, segments: &[String]) {
        let resolved = match segments.first().map(String::as_str) {
            Some("crate") => segments[1..].to_vec(),
            Some("super") => {
                let up = segments.iter().take_while(|part| *part == "super").count();
                let mut base = self.module.clone();
                base.truncate(self.module.len().saturating_sub(up));
                base.extend_from_slice(&segments[up..]);
                base
            }
            _ => return,
        };
        if !resolved.is_empty() {
            self.found.push(resolved);
        }
    }

    fn add_tree(&mut self, prefix: &[String], tree: &UseTree) {
        let mut path = prefix.to_vec();
        match tree {
            UseTree::Path(step) => {
                path.push(step.ident.to_string());
                self.add_tree(&path, &step.tree);
            }
            UseTree::Group(group) => group.items.iter().for_each(|item| self.add_tree(prefix, item)),
            UseTree::Name(name) => {
                path.push(name.ident.to_string());
                self.add(&path);
            }
            UseTree::Rename(name) => {
                path.push(name.ident.to_string());
                self.add(&path);
            }
            UseTree::Glob(_) => self.add(&path),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, node: &'ast syn::ItemUse) {
        self.add_tree(&[], &node.tree);
    }

    fn visit_path(&mut self, node: &'ast syn::Path) {
        let segments: Vec<String> = node.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&segments);
        visit::visit_path(self, node);
    }

    fn visit_item_mod(&mut self, node: &'ast ItemMod) {
        let for_tests = node.attrs.iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
        });
        if !for_tests {
            visit::visit_item_mod(self, node);
        }
    }
}

#[test]
fn modules_import_only_what_their_row_permits() {
    let table = Table::read();
    let mut wrong = Vec::new();
    for path in source::rust_files("src") {
        let module = source::module_path(&path);
        if module.is_empty() || module.last().is_some_and(|last| last == "tests") {
            continue;
        }
        let Some((own, permitted)) = table.row_of(&module) else {
            wrong.push(format!("{}: no row in the code map", path.display()));
            continue;
        };
        for import in Paths::of(&module, &source::parse(&path)) {
            let at_home = begins_with(&import, own);
            if !at_home && !permitted.iter().any(|allowed| begins_with(&import, allowed)) {
                wrong.push(format!("{}: crate::{}", path.display(), import.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that the code map does not permit: {wrong:#?}");
}

#[test]
fn rows_permit_only_what_stands_above_them() {
    let table = Table::read();
    let place: BTreeMap<&str, usize> =
        table.rows.iter().enumerate().map(|(at, (module, _))| (module.as_str(), at)).collect();
    for (at, (module, permitted)) in table.rows.iter().enumerate() {
        for import in permitted {
            let ruling = place.iter().filter(|(name, _)| import.starts_with(**name)).map(|(_, at)| *at).max();
            assert!(
                ruling.is_some_and(|above| above < at),
                "{module} may import {import}, which stands below it or nowhere"
            );
        }
    }
}

#[test]
fn lib_lists_the_modules_in_the_order_of_the_table() {
    let listed: Vec<String> = source::parse("src/lib.rs".as_ref())
        .items
        .iter()
        .filter_map(|item| match item {
            Item::Mod(module) => Some(module.ident.to_string()),
            _ => None,
        })
        .collect();
    let mut expected: Vec<String> = Vec::new();
    for (module, _) in Table::read().rows {
        let top = module.split('/').next().unwrap().to_owned();
        if !expected.contains(&top) {
            expected.push(top);
        }
    }
    assert_eq!(listed, expected);
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let module: Vec<String> = ["dwarfs", "read", "cache"].map(str::to_owned).to_vec();
    let file = syn::parse_file(
        "use crate::{sys::errno::Errno, sync as s};\nuse super::archive::*;\nfn f() { crate::vfs::g(); super::super::limits::h(); }\n#[cfg(test)] mod tests { use crate::cli; }",
    )
    .unwrap();
    let found: Vec<String> = Paths::of(&module, &file).iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["sys::errno::Errno", "sync", "dwarfs::read::archive", "vfs::g", "dwarfs::limits::h"]);
}
