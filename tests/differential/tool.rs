//! The tool without a mount: what `fim ls`, `stat`, `cat` and `cp` show of upstream's archives equals the manifests.

use std::{
    ffi::OsString,
    fs,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::support::{HASHED, Manifest, differences, read_manifest, test_data};

fn fim(words: &[&str], archive: &Path, paths: &[Vec<u8>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fim"));
    command.args(words).arg(archive);
    command.args(paths.iter().map(|path| OsString::from_vec(path.clone())));
    command.output().unwrap()
}

/// What fim printed; it must have succeeded without a word on stderr.
fn said(output: Output) -> Result<Vec<u8>, String> {
    match output.status.success() && output.stderr.is_empty() {
        true => Ok(output.stdout),
        false => Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

fn entries(lines: &[u8]) -> Manifest {
    let lines = std::str::from_utf8(lines).unwrap().lines();
    let entries = lines.map(|line| serde_json::from_str::<Map<String, Value>>(line).unwrap());
    entries.map(|entry| (entry["path"].as_str().unwrap().to_owned(), entry)).collect()
}

/// Takes `%XX` back.
fn unquote(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, after) = match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                (u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap(), after)
            }
            _ => (*first, tail),
        };
        bytes.push(byte);
        rest = after;
    }
    bytes
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the manifest says of contents: files in the order of paths, with their length and digest.
fn files(manifest: &Manifest) -> Vec<(Vec<u8>, usize, String)> {
    let files = manifest.iter().filter(|(_, entry)| entry.contains_key("sha256"));
    files
        .map(|(path, entry)| {
            let len = usize::try_from(entry["size"].as_u64().unwrap()).unwrap();
            (unquote(path), len, entry["sha256"].as_str().unwrap().to_owned())
        })
        .collect()
}

/// The manifest without what is each reader's own choice, and without what only some entries have.
fn expected(path: &Path) -> Manifest {
    let mut manifest = read_manifest(path);
    for entry in manifest.values_mut() {
        let is_device = entry["type"] == "c" || entry["type"] == "b";
        entry.retain(|key, _| !matches!(key.as_str(), "ino" | "blocks" | "sha256"));
        if !is_device {
            entry.remove("rdev");
        }
    }
    manifest
}

/// Compares an archive with its manifest through the tool.
fn compare(archive: &Path, manifest: &Path) -> Result<(), String> {
    let mut found = entries(&said(fim(&["ls", "-R", "--json"], archive, &[]))?);
    found.extend(entries(&said(fim(&["stat", "--json"], archive, &[]))?));
    let whole = expected(manifest);
    let wrong = differences(&found, &whole);
    if !wrong.is_empty() {
        return Err(format!("ls: {} differences: {}", wrong.len(), wrong[..wrong.len().min(3)].join("; ")));
    }
    // Each object by itself, as far as one command line takes them.
    let paths: Vec<Vec<u8>> =
        whole.keys().map(|path| unquote(path)).filter(|path| !path.is_empty()).collect();
    for some in paths.chunks(500) {
        let alone = entries(&said(fim(&["stat", "--json"], archive, some))?);
        for (path, entry) in &alone {
            if found.get(path) != Some(entry) {
                return Err(format!("stat: {path} is {entry:?}, ls says {:?}", found.get(path)));
            }
        }
        if alone.len() != some.len() {
            return Err(format!("stat: {} of {} objects", alone.len(), some.len()));
        }
    }
    for some in files(&read_manifest(manifest)).chunks(500) {
        let paths: Vec<_> = some.iter().map(|(path, ..)| path.clone()).collect();
        let printed = said(fim(&["cat"], archive, &paths))?;
        let mut rest = printed.as_slice();
        for (path, len, digest) in some {
            let (contents, after) = rest.split_at_checked(*len).ok_or("cat printed too little")?;
            if hex(contents) != *digest {
                return Err(format!("cat: {} differs", path.escape_ascii()));
            }
            rest = after;
        }
        if !rest.is_empty() {
            return Err(format!("cat printed {} bytes too many", rest.len()));
        }
    }
    Ok(())
}

/// The archives of a folder with their manifests.
fn archives(folder: &Path) -> Vec<(String, PathBuf, PathBuf)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let manifest = path.with_extension("jsonl");
        if path != manifest && manifest.exists() {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            found.push((name, path, manifest));
        }
    }
    found.sort();
    found
}

#[test]
fn the_tool_shows_what_the_manifests_say() {
    let (mut compared, mut failures) = (0, Vec::new());
    for folder in ["made", "compat"].into_iter().filter_map(test_data) {
        for (name, archive, manifest) in archives(&folder) {
            match compare(&archive, &manifest) {
                Ok(()) => compared += 1,
                Err(error) => failures.push(format!("{name}: {error}")),
            }
        }
    }
    eprintln!("{compared} archives");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(compared >= 60 || test_data("made").is_none(), "only {compared} archives were compared");
}

#[test]
fn copies_equal_the_manifests() {
    let Some(folder) = test_data("made") else { return };
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root, to keep owners");
        return;
    }
    for name in ["level5", "sparse", "nonutf8", "own-set", "time-us", "pack-all", "dirs"] {
        let archive = folder.join(name).with_extension("dwarfs");
        if !archive.exists() {
            continue;
        }
        let scratch = tempfile::tempdir().unwrap();
        let target = scratch.path().join("copy");
        let output = Command::new(env!("CARGO_BIN_EXE_fim"))
            .args(["cp", "-r"])
            .arg(&archive)
            .arg("/")
            .arg(&target)
            .output()
            .unwrap();
        said(output).unwrap();
        let mut inodes = std::collections::HashMap::new();
        let whole = read_manifest(&folder.join(name).with_extension("jsonl"));
        for (path, entry) in &whole {
            let place = target.join(OsString::from_vec(unquote(path)));
            let stat = fs::symlink_metadata(&place).unwrap_or_else(|error| panic!("{name}: {path}: {error}"));
            let number = |key: &str| entry[key].as_u64().unwrap();
            let blocks = entry.get("blocks").and_then(Value::as_u64);
            assert_eq!(format!("{:06o}", stat.mode()), entry["mode"], "{name}: {path}");
            assert_eq!(
                (u64::from(stat.uid()), u64::from(stat.gid())),
                (number("uid"), number("gid")),
                "{path}"
            );
            let nanos = stat.mtime() * 1_000_000_000 + stat.mtime_nsec();
            assert_eq!(entry["mtime_ns"].as_i64(), Some(nanos), "{name}: mtime of {path}");
            if entry["type"] == "f" {
                assert_eq!((stat.len(), stat.nlink()), (number("size"), number("nlink")), "{name}: {path}");
                if let Some(ino) = entry.get("ino") {
                    let first = inodes.entry(ino.as_u64()).or_insert(stat.ino());
                    assert_eq!(*first, stat.ino(), "{name}: names of one file: {path}");
                }
                // The host rounds up to its own blocks, at each end of each piece of data.
                assert!(blocks.is_none_or(|blocks| stat.blocks() <= 2 * blocks + 128), "{name}: {path}");
            }
            if let Some(digest) = entry.get("sha256").filter(|_| stat.len() <= HASHED) {
                assert_eq!(hex(&fs::read(&place).unwrap()), *digest, "{name}: {path}");
            }
            if entry["type"] == "l" {
                let link = fs::read_link(&place).unwrap();
                assert_eq!(link.as_os_str().as_bytes(), unquote(entry["target"].as_str().unwrap()), "{path}");
            }
        }
    }
}
