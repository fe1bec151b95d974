//! The tree of commands: each has help with an example, and a success and a misuse in [`crate::table`] named after it.

use std::collections::BTreeSet;

use clap::Command;

use crate::table;

/// Commands whose success and misuse are tested elsewhere, with the file that does it. A name stands for all below it.
const ELSEWHERE: &[(&str, &str)] = &[
    ("gc", "tests/runtime"),
    ("instance", "tests/runtime"),
    ("portal", "tests/runtime"),
    ("ps", "tests/runtime"),
    ("archive recompress", "tests/runtime"),
    ("archive squash", "tests/runtime"),
    ("layer extract", "tests/runtime"),
    ("layer rollback", "tests/runtime"),
    ("layer squash", "tests/runtime"),
];

/// Every command with the words that lead to it.
fn all(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
    for next in command.get_subcommands() {
        let path = format!("{path} {}", next.get_name()).trim().to_owned();
        found.push((path.clone(), next.clone()));
        all(next, &path, found);
    }
}

fn tree() -> Vec<(String, Command)> {
    let mut found = Vec::new();
    all(&fim::cli::command(), "", &mut found);
    found
}

fn is_elsewhere(path: &str) -> bool {
    ELSEWHERE.iter().any(|(name, _)| path == *name || path.starts_with(&format!("{name} ")))
}

#[test]
fn every_command_has_help_with_an_example() {
    let tree = tree();
    assert!(tree.len() > 60, "{} commands", tree.len());
    for (path, command) in &tree {
        let help = command.clone().render_long_help().to_string();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(about.len() > 10, "{path} says what it is for");
        assert!(help.contains("Example: "), "{path} has an example: {help}");
        let verb = path.split(' ').next().unwrap();
        let example = help.split("Example: ").nth(1).unwrap();
        let shared = ["perms", "unshare"];
        assert!(
            example.contains(verb)
                || shared.contains(&verb) && shared.iter().any(|verb| example.contains(verb)),
            "the example of {path} shows {path}: {example}"
        );
        for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
            assert!(argument.get_help().is_some(), "{path}: {} is explained", argument.get_id());
        }
    }
    println!("{} commands with help", tree.len());
}

#[test]
fn every_command_has_a_success_and_a_misuse() {
    let tested: BTreeSet<String> = table::NAMES.iter().map(|name| name.replace('_', " ")).collect();
    let leaves: BTreeSet<String> = tree()
        .into_iter()
        .filter(|(path, command)| {
            (!command.has_subcommands() || !command.is_subcommand_required_set()) && !is_elsewhere(path)
        })
        .map(|(path, _)| path)
        .collect();
    let untested: Vec<_> = leaves.difference(&tested).collect();
    let unknown: Vec<_> = tested.difference(&leaves).collect();
    assert!(untested.is_empty(), "without a test named after them: {untested:?}");
    assert!(unknown.is_empty(), "tests of no command: {unknown:?}");
    println!("{} commands with a success and a misuse", leaves.len());
}

#[test]
fn the_product_has_its_verbs() {
    let verbs: BTreeSet<String> = tree().into_iter().map(|(path, _)| path).collect();
    for path in [
        "exec",
        "root",
        "run",
        "boot set",
        "boot show",
        "boot clear",
        "perms add",
        "perms del",
        "perms set",
        "perms list",
        "perms clear",
        "unshare add",
        "unshare list",
        "env add",
        "env set",
        "env del",
        "env list",
        "env clear",
        "bind add",
        "bind del",
        "bind list",
        "casefold on",
        "casefold off",
        "notify on",
        "notify off",
        "overlay set",
        "overlay show",
        "layer create",
        "layer add",
        "layer commit",
        "layer list",
        "layer diff",
        "layer info",
        "layer verify",
        "layer rm",
        "layer discard",
        "desktop setup",
        "desktop enable",
        "desktop clean",
        "desktop dump",
        "remote set",
        "remote show",
        "remote clear",
        "recipe fetch",
        "recipe info",
        "recipe install",
        "version",
        "help",
        "mount",
        "umount",
        "create",
        "upgrade",
        "archive create",
        "ls",
        "cat",
        "cp",
        "tree",
        "stat",
        "check",
        "info",
        "stats",
        "doctor",
        "bench",
        "completions",
        "man",
    ] {
        assert!(verbs.contains(path), "{path}");
    }
}

#[test]
fn every_listing_speaks_json() {
    for (path, command) in tree() {
        let last = path.rsplit(' ').next().unwrap();
        if [
            "list", "show", "info", "diff", "stats", "doctor", "verify", "check", "dump", "ls", "tree",
            "stat",
        ]
        .contains(&last)
            && !is_elsewhere(&path)
        {
            assert!(command.get_arguments().any(|argument| argument.get_id() == "json"), "{path} --json");
        }
    }
}
