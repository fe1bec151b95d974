//! Damaged archives: an error or a tree, but no panic, and soon.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use fim::{
    dwarfs::read::Place,
    vfs::{FileKind, Layer, Name, NodeId, SeekWhence},
};

use crate::support::{full, open, test_data};

/// How long one archive may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much of one file is read, and of one archive: damaged ones claim what they like.
const FILE_LIMIT: u64 = 16 << 20;
const ARCHIVE_LIMIT: u64 = 64 << 20;

/// What came of reading an archive.
#[derive(Default)]
struct Tally {
    objects: u64,
    bytes: u64,
    errors: Vec<String>,
}

/// Reads everything that can be read.
fn read_all(layer: &dyn Layer, node: NodeId, tally: &mut Tally) {
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
                    Ok(Some((child, _))) => read_all(layer, child, tally),
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
            let mut offset = 0;
            while offset < attr.size.min(FILE_LIMIT) && tally.bytes < ARCHIVE_LIMIT {
                match layer.read(node, offset, 1 << 20) {
                    Ok(data) if data.is_empty() => {
                        tally.errors.push("nothing before the end of a file".to_owned());
                        break;
                    }
                    Ok(data) => {
                        offset += data.len() as u64;
                        tally.bytes += data.len() as u64;
                    }
                    Err(error) => {
                        tally.errors.push(full(&error));
                        break;
                    }
                }
            }
        }
        _ => {}
    }
}

fn tally(path: &Path, place: Place) -> Result<Tally, String> {
    let layer = open(path, place).map_err(|error| full(&error))?;
    let _ = layer.archive().history();
    let mut tally = Tally::default();
    read_all(&layer, layer.root(), &mut tally);
    let _ = layer.archive().verify(&mut |_, _| {});
    Ok(tally)
}

#[test]
fn damaged_archives_give_errors_soon() {
    let Some(folder) = test_data("bad") else { return };
    let (mut refused, mut partly, mut fully, mut slowest) = (0, 0, 0, Duration::ZERO);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let start = Instant::now();
        for place in [Place::At { offset: 0, len: None }, Place::Auto] {
            match tally(&path, place) {
                Err(error) => {
                    refused += 1;
                    if std::env::var_os("FIM_TEST_VERBOSE").is_some() {
                        eprintln!("{}: {error}", path.display());
                    }
                }
                Ok(tally) if tally.errors.is_empty() => fully += 1,
                Ok(tally) => {
                    partly += 1;
                    if std::env::var_os("FIM_TEST_VERBOSE").is_some() {
                        eprintln!(
                            "{}: {} objects, {:?}",
                            path.display(),
                            tally.objects,
                            tally.errors.first()
                        );
                    }
                }
            }
        }
        let took = start.elapsed();
        slowest = slowest.max(took);
        assert!(took < PATIENCE * 2, "{} took {took:?}", path.display());
    }
    eprintln!(
        "opened twice each: {refused} refused, {partly} partly read, {fully} fully read; slowest {slowest:?}"
    );
    assert!(refused + partly + fully >= 1_200, "the corpus is incomplete");
}

#[test]
fn our_own_damage_is_named() {
    let Some(folder) = test_data("bad") else { return };
    let at_start = Place::At { offset: 0, len: None };
    for (name, place, expected) in [
        ("bad-empty.bin", at_start, "no DwarFS archive"),
        ("bad-major3.bin", at_start, "format version 3."),
        ("bad-minor7.bin", at_start, "format version 2.7"),
        ("bad-minor7.bin", Place::Auto, "no DwarFS archive"),
        ("bad-truncated.bin", at_start, "bytes"),
    ] {
        let error = full(&open(&folder.join(name), place).unwrap_err());
        assert!(error.contains(expected), "{name}: {error}");
    }
    for name in ["bad-block-payload.bin", "bad-xxh.bin"] {
        let tally = tally(&folder.join(name), at_start).unwrap();
        let expected = "does not match its XXH3-64 checksum";
        assert!(tally.errors.iter().any(|error| error.contains(expected)), "{name}: {:?}", tally.errors);
    }
    let layer = open(&folder.join("bad-sha-only.bin"), at_start).unwrap();
    let error = layer.archive().verify(&mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("SHA-512/256"), "{error}");
}
