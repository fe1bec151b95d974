//! Archives that mkdwarfs 0.15.3 made from small trees: every codec, packing, level, time resolution.

use std::path::Path;

use fim::dwarfs::read::Place;

use crate::support::{check, test_data};

/// Length of what precedes, and of the archive, in `embedded-tail.bin`.
const EMBEDDED: Place = Place::At { offset: 102, len: Some(48_632) };

/// Where the archive of a name begins in its file.
pub(crate) fn place_of(name: &str) -> Place {
    match name {
        "embedded-tail" => EMBEDDED,
        "header-elf" | "header-sh" => Place::Auto,
        _ => Place::At { offset: 0, len: None },
    }
}

#[test]
fn archives_of_upstream_equal_their_manifests() {
    let Some(folder) = test_data("made") else { return };
    let index = std::fs::read_to_string(folder.join("INDEX.tsv")).unwrap();
    let (mut archives, mut entries, mut failures) = (0, 0, Vec::new());
    for file in index.lines().filter_map(|line| line.split('\t').next()) {
        let name = Path::new(file).file_stem().unwrap().to_str().unwrap();
        let manifest = folder.join(format!("{name}.jsonl"));
        match check(&folder.join(file), place_of(name), &manifest) {
            Ok(count) => {
                archives += 1;
                entries += count;
            }
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    eprintln!("{archives} archives, {entries} entries");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(archives >= 66, "only {archives} archives were found");
}

#[test]
fn archives_are_found_behind_any_prefix() {
    let Some(folder) = test_data("made") else { return };
    for name in ["embedded-tail.bin", "header-elf.dwarfs", "pack-all.dwarfs", "noindex.dwarfs"] {
        let manifest = folder.join(name).with_extension("jsonl");
        let result = check(&folder.join(name), Place::Auto, &manifest);
        // Without its length, what follows an archive with an index is only passed over by its headers.
        assert!(result.is_ok(), "{name}: {result:?}");
    }
}

#[test]
fn whole_archives_verify() {
    let Some(folder) = test_data("made") else { return };
    for name in ["level7", "noindex", "header-elf", "sparse"] {
        let layer =
            crate::support::open(&folder.join(name).with_extension("dwarfs"), place_of(name)).unwrap();
        let mut last = (0, 0);
        layer
            .archive()
            .verify(&mut |done, total| {
                assert!(done >= last.0 && done <= total);
                last = (done, total);
            })
            .unwrap();
        assert!(last.0 == last.1 && last.1 > 0);
        assert!(!layer.archive().history().unwrap().entries.is_empty());
    }
}
