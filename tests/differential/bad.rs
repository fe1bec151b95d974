//! Damaged archives: an error or a tree, but no panic, soon, and in little memory; and no less of them than upstream
//! reads.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fim::{
    dwarfs::read::{Depth, Place, check},
    vfs::{FileKind, Layer, Name, NodeId, SeekWhence},
};
use nix::sys::resource::{Resource, setrlimit};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    check::AT_START,
    support::{full, open, test_data},
    upstream::tool,
};

/// How long one archive may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much memory one archive may take: of address space, which is more than what is touched.
const MEMORY: u64 = 256 << 20;
/// Tells a process of this test's own which archive to read.
const CHILD: &str = "FIM_TEST_DAMAGED";
/// Starts the line that such a process tells its result in.
const RESULT: &str = "RESULT ";
/// How much of one file is read, and of one archive: damaged ones claim what they like.
const FILE_LIMIT: u64 = 16 << 20;
const ARCHIVE_LIMIT: u64 = 64 << 20;

/// What came of reading an archive.
#[derive(Default)]
struct Tally {
    objects: u64,
    bytes: u64,
    errors: Vec<String>,
    /// SHA-256 of each file, or what was wrong with it.
    files: BTreeMap<String, String>,
}

/// Reads everything that can be read.
fn read_all(layer: &dyn Layer, node: NodeId, path: &str, tally: &mut Tally) {
    let attr = match layer.attr(node) {
        Ok(attr) => attr,
        Err(error) => return tally.errors.push(full(&error)),
    };
    tally.objects += 1;
    match attr.kind {
        FileKind::Directory => {
            let mut names = Vec::new();
            let listed = layer.read_dir(node, 0, &mut |entry| {
                names.push(entry.name.as_bytes().to_vec());
                std::ops::ControlFlow::Continue(())
            });
            if let Err(error) = listed {
                tally.errors.push(full(&error));
            }
            for name in names {
                match layer.lookup(node, Name::new(&name).unwrap()) {
                    Ok(Some((child, _))) => {
                        let separator = if path.is_empty() { "" } else { "/" };
                        let path = format!("{path}{separator}{}", String::from_utf8_lossy(&name));
                        read_all(layer, child, &path, tally);
                    }
                    Ok(None) => tally.errors.push("listed, but not found".to_owned()),
                    Err(error) => tally.errors.push(full(&error)),
                }
            }
        }
        FileKind::Symlink => {
            if let Err(error) = layer.read_link(node) {
                tally.errors.push(full(&error));
            }
        }
        FileKind::Regular => {
            let _ = layer.seek(node, 0, SeekWhence::Data);
            let _ = layer.seek(node, attr.size / 2, SeekWhence::Hole);
            let read = digest(layer, node, attr.size, tally);
            if let Err(error) = &read {
                tally.errors.push(error.clone());
            }
            tally.files.insert(path.to_owned(), read.unwrap_or_else(|error| error));
        }
        _ => {}
    }
}

/// SHA-256 of a file's contents, or of the beginning of a long one.
fn digest(layer: &dyn Layer, node: NodeId, size: u64, tally: &mut Tally) -> Result<String, String> {
    let mut hash = Sha256::new();
    let mut offset = 0;
    while offset < size.min(FILE_LIMIT) && tally.bytes < ARCHIVE_LIMIT {
        let data = layer.read(node, offset, 1 << 20).map_err(|error| full(&error))?;
        if data.is_empty() {
            return Err("nothing before the end of a file".to_owned());
        }
        data.slices().for_each(|slice| hash.update(slice.as_bytes()));
        offset += data.len() as u64;
        tally.bytes += data.len() as u64;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn tally(path: &Path, place: Place) -> Result<Tally, String> {
    let layer = open(path, place).map_err(|error| full(&error))?;
    let _ = layer.archive().history();
    let mut tally = Tally::default();
    read_all(&layer, layer.root(), "", &mut tally);
    Ok(tally)
}

/// What became of an archive: nothing, some or all of it was read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    refused: usize,
    partly: usize,
    fully: usize,
}

/// The part of [`damaged_archives_give_errors_soon`] that runs in a process of its own, with little memory.
#[test]
fn in_a_process_of_its_own() {
    let Some(path) = env::var_os(CHILD).map(PathBuf::from) else { return };
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY).unwrap();
    let mut results = Vec::new();
    for place in [AT_START, Place::Auto] {
        let start = Instant::now();
        let tally = tally(&path, place);
        let source: Arc<dyn fim::dwarfs::read::ReadAt> = Arc::new(fs::File::open(&path).unwrap());
        let report = check(&source, place, Depth::Everything, 1, &mut |_, _| {});
        let is_whole = report.as_ref().is_ok_and(fim::dwarfs::read::Report::is_whole);
        if let Ok(tally) = &tally {
            assert!(!is_whole || tally.errors.is_empty(), "it is not whole: {:?}", tally.errors);
        }
        let tally = tally
            .map(|tally| json!({ "objects": tally.objects, "errors": tally.errors, "files": tally.files }));
        let millis = u64::try_from(start.elapsed().as_millis()).unwrap();
        results.push(json!({ "tally": tally.as_ref().ok(), "refused": tally.as_ref().err(), "millis": millis, "whole": is_whole }));
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    println!("\n{RESULT}{}", json!({ "results": results, "peak": peak.parse::<u64>().unwrap() * 1_024 }));
}

/// Reads an archive in a process of its own.
fn read_apart(path: &Path) -> Value {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "bad::in_a_process_of_its_own", "--nocapture", "--test-threads=1"]);
    let output = command.env(CHILD, path).env("RUST_BACKTRACE", "0").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let result = said.lines().find_map(|line| line.strip_prefix(RESULT));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(result.is_some(), "{}: {}: {said}{complaint}", path.display(), output.status);
    assert!(output.status.success(), "{}: {complaint}", path.display());
    serde_json::from_str(result.unwrap()).unwrap()
}

/// What upstream reads of an archive: SHA-256 of each file that it extracts, and whether it was content.
fn extract(dwarfsextract: &Path, archive: &Path) -> (BTreeMap<String, String>, bool) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(dwarfsextract);
    command.args(["--continue-on-error", "-O", "auto", "-i"]).arg(archive).arg("-o").arg(folder.path());
    let is_content = command.output().unwrap().status.success();
    let mut files = BTreeMap::new();
    collect(folder.path(), "", &mut files);
    (files, is_content)
}

fn collect(folder: &Path, path: &str, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let separator = if path.is_empty() { "" } else { "/" };
        let name = format!("{path}{separator}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            collect(&entry.path(), &name, files);
        } else if kind.is_file() {
            let digest = Sha256::digest(fs::read(entry.path()).unwrap());
            files.insert(name, digest.iter().map(|byte| format!("{byte:02x}")).collect());
        }
    }
}

/// Compares with upstream: what it reads is read here as well, except where it serves a stored block that is wrong.
fn compare(name: &str, ours: &Value, upstream: &BTreeMap<String, String>) -> Vec<String> {
    let mut differences = Vec::new();
    for (path, digest) in upstream {
        let found = ours["tally"]["files"][path].as_str();
        let is_refused = found.is_some_and(|found| found.contains("does not match its XXH3-64 checksum"));
        if found != Some(digest) && !is_refused {
            differences.push(format!("{name}: {path}: {found:?}, upstream reads {digest}"));
        }
    }
    differences
}

#[test]
fn damaged_archives_give_errors_soon() {
    let Some(folder) = test_data("bad") else { return };
    let dwarfsextract = tool("dwarfsextract");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 600, "the corpus is incomplete");
    let next = AtomicUsize::new(0);
    let all = Mutex::new((Counts::default(), Counts::default(), 0, 0, Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let name = path.file_name().unwrap().to_string_lossy();
                    let read = read_apart(path);
                    let extracted = dwarfsextract.as_ref().map(|tool| extract(tool, path));
                    let mut all = all.lock().unwrap();
                    let (ours, upstream, peak, slowest, differences) = &mut *all;
                    for result in read["results"].as_array().unwrap() {
                        *slowest = result["millis"].as_u64().unwrap().max(*slowest);
                    }
                    *peak = read["peak"].as_u64().unwrap().max(*peak);
                    let found = &read["results"][1];
                    match found["tally"]["errors"].as_array() {
                        None => ours.refused += 1,
                        Some(errors) if errors.is_empty() => ours.fully += 1,
                        Some(_) => ours.partly += 1,
                    }
                    if env::var_os("FIM_TEST_VERBOSE").is_some() {
                        eprintln!("{name}: {} {}", found["refused"], found["tally"]["errors"]);
                    }
                    if let Some((files, is_content)) = extracted {
                        match (files.is_empty(), is_content) {
                            (true, false) => upstream.refused += 1,
                            (false, false) => upstream.partly += 1,
                            (_, true) => upstream.fully += 1,
                        }
                        differences.extend(compare(&name, found, &files));
                    }
                }
            });
        }
    });
    let (ours, upstream, peak, slowest, differences) = all.into_inner().unwrap();
    eprintln!("ours:     {ours:?}; slowest {slowest} ms, peak {} KiB", peak / 1_024);
    if dwarfsextract.is_some() {
        eprintln!("upstream: {upstream:?}");
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(u128::from(slowest) < PATIENCE.as_millis(), "the slowest took {slowest} ms");
    assert!(peak < MEMORY, "{peak} bytes of memory");
    assert_eq!(ours.refused + ours.partly + ours.fully, paths.len());
}

#[test]
fn our_own_damage_is_named() {
    let Some(folder) = test_data("bad") else { return };
    for (name, place, expected) in [
        ("bad-empty.bin", AT_START, "no DwarFS archive"),
        ("bad-major3.bin", AT_START, "format version 3."),
        ("bad-minor7.bin", AT_START, "format version 2.7"),
        ("bad-minor7.bin", Place::Auto, "format version 2.7"),
        ("bad-truncated.bin", AT_START, "bytes"),
    ] {
        let error = full(&open(&folder.join(name), place).unwrap_err());
        assert!(error.contains(expected), "{name}: {error}");
    }
    for name in ["bad-block-payload.bin", "bad-xxh.bin"] {
        let tally = tally(&folder.join(name), AT_START).unwrap();
        let expected = "does not match its XXH3-64 checksum";
        assert!(tally.errors.iter().any(|error| error.contains(expected)), "{name}: {:?}", tally.errors);
    }
    let layer = open(&folder.join("bad-sha-only.bin"), AT_START).unwrap();
    let error = layer.archive().verify(&mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("SHA-512/256"), "{error}");
}
