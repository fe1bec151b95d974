//! `check`: sound archives are found sound, and damage is found and named.

use std::{collections::BTreeSet, fs, ops::ControlFlow, path::Path, sync::Arc};

use fim::dwarfs::{
    Error,
    format::section::SectionKind,
    read::{Archive, BlockCache, Depth, DirEntry, Index, Kind, Part, Place, ReadAt, Report, check},
};

use crate::support::{full, test_data};

pub(crate) const AT_START: Place = Place::At { offset: 0, len: None };

fn check_bytes(bytes: Vec<u8>, place: Place, threads: usize) -> Result<Report, Error> {
    let source: Arc<dyn ReadAt> = Arc::new(bytes);
    let mut last = (0, 0);
    let report = check(&source, place, Depth::Everything, threads, &mut |done, total| {
        assert!(done <= total, "no more than all");
        last = (done, total);
    })?;
    assert_eq!(last.0, last.1, "the bar reaches its end");
    Ok(report)
}

fn findings(report: &Report) -> Vec<String> {
    report
        .findings
        .list
        .iter()
        .map(|finding| format!("{}: {}", finding.part.name(), full(&finding.error)))
        .collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn sound_archives_are_whole() {
    let (mut checked, mut failures) = (0, Vec::new());
    for folder in ["made", "compat"] {
        let Some(folder) = test_data(folder) else { continue };
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = name_of(&path);
            let is_archive = path.extension().is_some_and(|extension| extension == "dwarfs");
            if !is_archive || name == "future-features.dwarfs" {
                continue;
            }
            match check_bytes(fs::read(&path).unwrap(), Place::Auto, 3) {
                Ok(report) => {
                    let found = findings(&report);
                    if !found.is_empty() {
                        failures.push(format!("{name}: {found:?}"));
                    }
                    checked += 1;
                }
                Err(error) => failures.push(format!("{name}: {}", full(&error))),
            }
        }
    }
    eprintln!("{checked} archives are whole");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(checked > 60, "only {checked} archives");
}

/// The files of an archive that cannot be read.
fn unreadable(bytes: Vec<u8>) -> BTreeSet<Vec<u8>> {
    let archive = Archive::open(Arc::new(bytes), AT_START, &BlockCache::new(64 << 20)).unwrap();
    let mut unreadable = BTreeSet::new();
    let mut waiting = vec![(archive.root(), Vec::new())];
    while let Some((directory, path)) = waiting.pop() {
        let visit = &mut |entry: DirEntry<'_>| {
            let path = [&path, entry.name].concat();
            let inode = entry.inode.unwrap();
            match archive.kind(inode).unwrap() {
                Kind::Directory => waiting.push((inode, [&*path, b"/"].concat())),
                Kind::Regular => {
                    let size = usize::try_from(archive.attr(inode).unwrap().size).unwrap();
                    if size < 64 << 20 && archive.read(inode, 0, size).is_err() {
                        unreadable.insert(path);
                    }
                }
                _ => {}
            }
            ControlFlow::Continue(())
        };
        archive.read_dir(directory, 0, visit).unwrap();
    }
    unreadable
}

#[test]
fn damaged_blocks_are_named_with_the_files_that_they_hit() {
    let Some(folder) = test_data("made") else { return };
    let mut hit = 0;
    for name in ["level1", "cx-lz4", "cx-null", "block-S12-W7-w2", "nohardlinktable", "noindex", "pack-all"] {
        let sound = fs::read(folder.join(name).with_extension("dwarfs")).unwrap();
        let index = Index::open(&sound, AT_START).unwrap();
        let blocks: Vec<_> =
            index.sections().iter().filter(|section| section.kind == SectionKind::Block).collect();
        let step = blocks.len().div_ceil(3);
        for (number, section) in (0_u32..).zip(&blocks).step_by(step) {
            let mut bytes = sound.clone();
            bytes[usize::try_from(section.end - 1).unwrap()] ^= 1;
            let report = check_bytes(bytes.clone(), AT_START, 2).unwrap();
            let parts: Vec<_> = report.findings.list.iter().map(|finding| finding.part).collect();
            assert_eq!(parts, [Part::Section { section: **section, block: Some(number) }], "{name}");
            assert!(findings(&report)[0].contains("XXH3-64"), "{name}: {:?}", findings(&report));
            let named: BTreeSet<_> = report.hit.unwrap().paths.into_iter().collect();
            assert_eq!(named, unreadable(bytes), "{name}: block {number}");
            hit += named.len();
        }
    }
    assert!(hit > 20, "only {hit} files were hit");
}

#[test]
fn damage_of_each_kind_is_found() {
    let Some(folder) = test_data("made") else { return };
    let sound = fs::read(folder.join("level1.dwarfs")).unwrap();
    let index = Index::open(&sound, AT_START).unwrap();
    let section = |kind| index.first(kind).unwrap();
    let flip = |at: u64| {
        let mut bytes = sound.clone();
        bytes[usize::try_from(at).unwrap()] ^= 1;
        findings(&check_bytes(bytes, AT_START, 1).unwrap())
    };
    for (kind, name) in [
        (SectionKind::Schema, "schema"),
        (SectionKind::Metadata, "metadata"),
        (SectionKind::History, "history"),
    ] {
        let found = flip(section(kind).end - 1);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert!(found[0].starts_with(name) && found[0].contains("XXH3-64"), "{name}: {found:?}");
    }
    // The index: its payload, and the number in a header.
    let index_section = section(SectionKind::Index);
    assert!(flip(index_section.end - 20).iter().any(|found| found.starts_with("index: ")));
    let number_at = section(SectionKind::Schema).offset + 0x30;
    assert!(!flip(number_at).is_empty());
    // Only the slow checksum is wrong.
    let found = flip(section(SectionKind::Block).offset + 0x10);
    assert!(matches!(&*found, [found] if found.contains("SHA-512/256")), "{found:?}");
    // Cut off: what is left has no index, and ends in the middle of a section.
    let error = check_bytes(sound[..sound.len() / 2].to_vec(), AT_START, 1).unwrap_err();
    assert!(matches!(error, Error::Truncated { .. }), "{error:?}");
}
