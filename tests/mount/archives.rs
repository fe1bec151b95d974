//! Archives of the upstream tool, mounted: what programs see equals the manifest.

use std::{
    collections::BTreeMap,
    env, fs,
    fs::File,
    io::Read as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Machine, User, can_mount};

/// Longest file that the manifests have a digest of.
const HASHED: u64 = 64 << 20;

/// What a manifest says of each path, as far as it binds us: sizes and link counts of directories, inode numbers and
/// blocks are our own choice.
type Manifest = BTreeMap<String, Map<String, Value>>;

#[test]
fn mounted_archives_equal_their_manifests() {
    if !can_mount() {
        return;
    }
    let machine = Machine::new(User::Root);
    let mut compared = 0;
    for archive in [Some(made()), compat()].into_iter().flatten().flat_map(|folder| archives(&folder)) {
        let name = archive.file_name().unwrap().to_str().unwrap().to_owned();
        let expected = read_manifest(&archive.with_extension("jsonl"));
        machine.succeed(&["mount", "-o", "dev", "--ro", archive.to_str().unwrap(), "mount"]);
        let mut found = Manifest::new();
        walk(&machine.path("mount"), "", &mut found);
        for (path, entry) in &expected {
            let known = found.get_mut(path).map(|found| {
                found.retain(|key, _| entry.contains_key(key));
                &*found
            });
            assert_eq!(known, Some(entry), "{name}: {path}");
        }
        assert_eq!(found.len(), expected.len(), "{name}");
        machine.succeed(&["umount", "mount"]);
        compared += 1;
    }
    println!("{compared} archives");
    assert!(compared > 80, "only {compared} archives");
}

fn made() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dwarfs/made")
}

/// Archives of old releases: in `$FIM_TEST_DATA`, or in shared data beside the repository or above it.
fn compat() -> Option<PathBuf> {
    let named = env::var_os("FIM_TEST_DATA").map(PathBuf::from);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let near =
        here.ancestors().flat_map(|folder| [folder.join("shared/data"), folder.join("../shared/data")]);
    let found = named.iter().cloned().chain(near).map(|folder| folder.join("dwarfs/compat"));
    let found = found.into_iter().find(|folder| folder.is_dir());
    if found.is_none() {
        println!("skipped: archives of old releases (set FIM_TEST_DATA)");
    }
    found
}

/// The archives of a folder that have a manifest.
fn archives(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_none_or(|extension| extension != "jsonl"))
        .filter(|path| path.with_extension("jsonl").exists())
        .collect();
    found.sort();
    found
}

fn read_manifest(path: &Path) -> Manifest {
    let text = fs::read_to_string(path).unwrap();
    let entries = text.lines().map(|line| serde_json::from_str::<Map<String, Value>>(line).unwrap());
    entries.map(|entry| (entry["path"].as_str().unwrap().to_owned(), binding(entry))).collect()
}

/// Leaves of an entry what binds us.
fn binding(mut entry: Map<String, Value>) -> Map<String, Value> {
    let directory = entry["type"] == "d";
    let kind = entry["type"].as_str().unwrap().to_owned();
    entry.retain(|key, _| match key.as_str() {
        "type" | "mode" | "uid" | "gid" | "mtime_ns" | "atime_ns" | "ctime_ns" | "target" | "sha256" => true,
        "size" => matches!(kind.as_str(), "f" | "l"),
        "nlink" => !directory,
        "rdev" => matches!(kind.as_str(), "c" | "b"),
        _ => false,
    });
    entry
}

fn walk(path: &Path, name: &str, found: &mut Manifest) {
    let stat = fs::symlink_metadata(path).unwrap();
    let kind = stat.file_type();
    let mut entry = Map::new();
    let letter = match () {
        () if kind.is_dir() => "d",
        () if kind.is_symlink() => "l",
        () if kind.is_char_device() => "c",
        () if kind.is_block_device() => "b",
        () if kind.is_fifo() => "p",
        () if kind.is_socket() => "s",
        () => "f",
    };
    entry.insert("type".into(), json!(letter));
    entry.insert("mode".into(), json!(format!("{:06o}", stat.mode())));
    entry.insert("uid".into(), json!(stat.uid()));
    entry.insert("gid".into(), json!(stat.gid()));
    entry.insert("nlink".into(), json!(stat.nlink()));
    entry.insert("size".into(), json!(stat.len()));
    for (key, seconds, nanos) in [
        ("atime_ns", stat.atime(), stat.atime_nsec()),
        ("mtime_ns", stat.mtime(), stat.mtime_nsec()),
        ("ctime_ns", stat.ctime(), stat.ctime_nsec()),
    ] {
        entry.insert(key.into(), json!(seconds * 1_000_000_000 + nanos));
    }
    let (major, minor) = (nix::sys::stat::major(stat.rdev()), nix::sys::stat::minor(stat.rdev()));
    entry.insert("rdev".into(), json!([major, minor]));
    if kind.is_symlink() {
        entry.insert("target".into(), json!(quote(fs::read_link(path).unwrap().as_os_str().as_bytes())));
    }
    if kind.is_file() && stat.len() <= HASHED {
        entry.insert("sha256".into(), json!(digest(path)));
    }
    found.insert(name.to_owned(), binding(entry));
    if kind.is_dir() {
        for child in fs::read_dir(path).unwrap() {
            let child = child.unwrap();
            let separator = if name.is_empty() { "" } else { "/" };
            walk(&child.path(), &format!("{name}{separator}{}", quote(child.file_name().as_bytes())), found);
        }
    }
}

fn digest(path: &Path) -> String {
    let (mut file, mut hash, mut buffer) = (File::open(path).unwrap(), Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            len => hash.update(&buffer[..len]),
        }
    }
}

/// Bytes outside of printable ASCII as %XX.
fn quote(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| match byte {
        b'%' => text + "%25",
        b' '..=b'~' => text + &char::from(*byte).to_string(),
        _ => text + &format!("%{byte:02X}"),
    })
}
