//! Test data, manifests, and a walk through a layer that makes one.

use std::{
    collections::BTreeMap,
    env, fs,
    fs::File,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use fim::{
    dwarfs::{
        Error,
        read::{Archive, BlockCache, Place},
    },
    layer::ArchiveLayer,
    vfs::{Attr, FileKind, Layer, Name, NodeId, SeekWhence},
};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// From path to what the manifest says of it.
pub(crate) type Manifest = BTreeMap<String, Map<String, Value>>;

/// An entry of a listing: name, and node with attributes.
type Listed = (Vec<u8>, Option<(NodeId, Attr)>);

/// Longest file that the manifests have a digest of; longer ones are nearly all holes.
pub(crate) const HASHED: u64 = 64 << 20;

/// Before this format files of equal content shared an inode number; ours tells them apart.
const FIRST_MINOR_WITH_ENTRIES: u8 = 3;

/// Finds a folder of the test data, or says that it is missing. The folder `made` is part of the project; the larger
/// ones are looked for in `$FIM_TEST_DATA`, which must have them where it is set, and in shared data beside or above.
pub(crate) fn test_data(name: &str) -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = env::var_os("FIM_TEST_DATA").map(PathBuf::from);
    let candidates = named.iter().cloned().chain([here.join("tests/data")]).chain(
        here.ancestors().flat_map(|folder| [folder.join("shared/data"), folder.join("../shared/data")]),
    );
    let found = candidates.map(|folder| folder.join("dwarfs").join(name)).find(|folder| folder.is_dir());
    if found.is_none() {
        assert!(named.is_none(), "FIM_TEST_DATA has no dwarfs/{name}");
        eprintln!("skipped: no test data dwarfs/{name} (set FIM_TEST_DATA)");
    }
    found
}

/// Opens an archive as a layer.
pub(crate) fn open(path: &Path, place: Place) -> Result<ArchiveLayer, Error> {
    let cache = BlockCache::new(64 << 20);
    let source = Arc::new(File::open(path).expect("the archive can be opened"));
    ArchiveLayer::new(Archive::open(source, place, &cache)?)
}

/// Reads a manifest.
pub(crate) fn read_manifest(path: &Path) -> Manifest {
    let text = fs::read_to_string(path).expect("the manifest can be read");
    let lines =
        text.lines().map(|line| serde_json::from_str::<Map<String, Value>>(line).expect("it is JSON"));
    lines.map(|entry| (entry["path"].as_str().unwrap().to_owned(), entry)).collect()
}

/// Makes the manifest of a layer. Damage fails, except in contents: there it is the text of the error.
pub(crate) fn walk(layer: &dyn Layer) -> Manifest {
    let mut manifest = Manifest::new();
    let root = layer.root();
    add(layer, root, &layer.attr(root).unwrap(), "", &mut manifest);
    manifest
}

fn add(layer: &dyn Layer, node: NodeId, attr: &Attr, path: &str, manifest: &mut Manifest) {
    let mut entry = describe(attr);
    entry.insert("path".to_owned(), json!(path));
    match attr.kind {
        FileKind::Symlink => {
            let target = layer.read_link(node).unwrap();
            assert_eq!(target.len() as u64, attr.size, "length of the target of {path}");
            entry.insert("target".to_owned(), json!(quote(&target)));
        }
        FileKind::Regular => {
            if attr.size <= HASHED {
                entry.insert("sha256".to_owned(), json!(digest(layer, node, attr.size)));
            } else {
                assert_eq!(read_islands(layer, node, attr.size).div_ceil(512), attr.blocks, "data of {path}");
            }
        }
        FileKind::Directory => {
            for (name, listed) in list(layer, node) {
                let (child, attr) =
                    layer.lookup(node, Name::new(&name).unwrap()).unwrap().expect("it is listed");
                assert_eq!(
                    listed,
                    Some((child, attr)),
                    "listing and look-up agree on {path}/{}",
                    quote(&name)
                );
                let separator = if path.is_empty() { "" } else { "/" };
                add(layer, child, &attr, &format!("{path}{separator}{}", quote(&name)), manifest);
            }
        }
        _ => {}
    }
    manifest.insert(path.to_owned(), entry);
}

/// The entries of a directory, listed three at a time: positions to go on from must work.
pub(crate) fn list(layer: &dyn Layer, dir: NodeId) -> Vec<Listed> {
    let mut entries = Vec::new();
    let mut after = 0;
    loop {
        let before = entries.len();
        layer
            .read_dir(dir, after, &mut |entry| {
                entries.push((entry.name.as_bytes().to_vec(), entry.node));
                after = entry.next;
                if entries.len() - before == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        if entries.len() == before {
            return entries;
        }
    }
}

fn describe(attr: &Attr) -> Map<String, Value> {
    let nanos = |time: fim::vfs::Time| json!(time.seconds * 1_000_000_000 + i64::from(time.nanos));
    let kind = match attr.kind {
        FileKind::Regular => "f",
        FileKind::Directory => "d",
        FileKind::Symlink => "l",
        FileKind::CharDevice => "c",
        FileKind::BlockDevice => "b",
        FileKind::Fifo => "p",
        FileKind::Socket => "s",
    };
    let mode = attr.kind.mode_bits() | u32::from(attr.perm);
    let pairs = [
        ("type", json!(kind)),
        ("mode", json!(format!("{mode:06o}"))),
        ("uid", json!(attr.uid)),
        ("gid", json!(attr.gid)),
        ("nlink", json!(attr.nlink)),
        ("size", json!(attr.size)),
        ("blocks", json!(attr.blocks)),
        ("ino", json!(attr.ino)),
        ("atime_ns", nanos(attr.atime)),
        ("mtime_ns", nanos(attr.mtime)),
        ("ctime_ns", nanos(attr.ctime)),
        ("rdev", json!([attr.rdev.major, attr.rdev.minor])),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// SHA-256 of a file's contents, read in pieces of an odd length.
fn digest(layer: &dyn Layer, node: NodeId, size: u64) -> String {
    const STEP: usize = 100_003;
    let mut hash = Sha256::new();
    let mut offset = 0;
    while offset < size {
        let data = match layer.read(node, offset, STEP) {
            Ok(data) => data,
            Err(error) => return full(&error),
        };
        assert!(!data.is_empty() && data.len() <= STEP, "a read before the end gives bytes");
        data.slices().for_each(|slice| hash.update(slice.as_bytes()));
        offset += data.len() as u64;
    }
    assert_eq!(offset, size);
    assert!(layer.read(node, size, 1).unwrap().is_empty());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the data between the holes of a file, and returns how much there is.
fn read_islands(layer: &dyn Layer, node: NodeId, size: u64) -> u64 {
    let (mut offset, mut total) = (0, 0);
    while let Ok(start) = layer.seek(node, offset, SeekWhence::Data) {
        let end = layer.seek(node, start, SeekWhence::Hole).unwrap();
        assert!(start >= offset && end > start && end <= size);
        let len = usize::try_from(end - start).unwrap();
        assert_eq!(layer.read(node, start, len).unwrap().len(), len);
        total += end - start;
        offset = end;
    }
    assert!(layer.read(node, size - 10, 100).unwrap().len() == 10, "the end of a long file");
    total
}

/// An error with its causes.
pub(crate) fn full(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Bytes outside of printable ASCII as %XX.
fn quote(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| match byte {
        b'%' => text + "%25",
        b' '..=b'~' => text + &char::from(*byte).to_string(),
        _ => text + &format!("%{byte:02X}"),
    })
}

/// Lists the differences of two manifests, in what the expected one says. Sizes of directories are free.
pub(crate) fn differences(found: &Manifest, expected: &Manifest) -> Vec<String> {
    let mut differences = Vec::new();
    for path in found.keys().filter(|path| !expected.contains_key(*path)) {
        differences.push(format!("{path:?} should not be there"));
    }
    for (path, entry) in expected {
        let Some(ours) = found.get(path) else {
            differences.push(format!("{path:?} is missing"));
            continue;
        };
        let is_directory = entry["type"] == "d";
        for (key, value) in
            entry.iter().filter(|(key, _)| !(is_directory && matches!(key.as_str(), "size" | "blocks")))
        {
            if ours.get(key) != Some(value) {
                differences.push(format!("{path:?}: {key} is {:?}, expected {value}", ours.get(key)));
            }
        }
    }
    differences
}

/// Checks that every path leads to an object that leads back to it, or to the first of its paths.
fn paths_lead_back(archive: &Archive) -> Result<(), String> {
    let mut first = BTreeMap::new();
    let mut damage = None;
    let walked = archive.paths(&mut |path, inode| {
        let first = first.entry(inode).or_insert_with(|| path.to_vec());
        let back = archive.path_of(inode).map_err(|error| full(&error));
        // Which of several names comes first is the archive's choice.
        let same =
            back.as_ref().is_ok_and(|back| back == first || archive.find(back).unwrap() == Some(inode));
        if !same {
            damage.get_or_insert(format!("{} leads back to {back:?}", quote(path)));
        }
    });
    walked.map_err(|error| full(&error))?;
    damage.map_or(Ok(()), Err)
}

/// Checks that an archive equals its manifest.
pub(crate) fn check(path: &Path, place: Place, manifest: &Path) -> Result<usize, String> {
    let layer = open(path, place).map_err(|error| full(&error))?;
    let found = walk(&layer);
    let mut expected = read_manifest(manifest);
    if layer.archive().index().minor() < FIRST_MINOR_WITH_ENTRIES {
        expected.values_mut().for_each(|entry| {
            entry.remove("ino");
        });
    }
    paths_lead_back(layer.archive())?;
    let differences = differences(&found, &expected);
    if differences.is_empty() {
        return Ok(found.len());
    }
    let shown: Vec<_> = differences.iter().take(5).cloned().collect();
    Err(format!("{} differences: {}", differences.len(), shown.join("; ")))
}
