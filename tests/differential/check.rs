//! `check`: sound archives are found sound, and damage is found and named.

use std::{fs, path::Path, sync::Arc};

use fim::dwarfs::{
    Error,
    read::{Depth, Place, ReadAt, Report, check},
};

use crate::support::{full, test_data};

pub(crate) const AT_START: Place = Place::At { offset: 0, len: None };

/// Codecs that are not read yet.
const UNREAD: [&str; 5] = ["brotli", "flac", "ricepp", "media", "nocatnames"];

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
                    let found: Vec<_> = findings(&report)
                        .into_iter()
                        .filter(|_| !UNREAD.iter().any(|part| name.contains(part)))
                        .collect();
                    if !found.is_empty() {
                        failures.push(format!("{name}: {found:?}"));
                    }
                    checked += 1;
                }
                Err(error) if UNREAD.iter().any(|part| name.contains(part)) => {
                    assert!(error.to_string().contains("not supported"), "{name}: {error}");
                }
                Err(error) => failures.push(format!("{name}: {}", full(&error))),
            }
        }
    }
    eprintln!("{checked} archives are whole");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(checked > 60, "only {checked} archives");
}
