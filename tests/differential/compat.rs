//! Archives of old releases of upstream, and special cases of its test suite.

use fim::dwarfs::{Error, read::Place};

use crate::support::{check, open, test_data};

#[test]
fn archives_of_old_releases_equal_their_manifests() {
    let Some(folder) = test_data("compat") else { return };
    let (mut archives, mut failures) = (0, Vec::new());
    for entry in std::fs::read_dir(&folder).unwrap() {
        let manifest = entry.unwrap().path();
        let name = manifest.file_stem().unwrap().to_str().unwrap().to_owned();
        if manifest.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        for place in [Place::At { offset: 0, len: None }, Place::Auto] {
            let result = check(&manifest.with_extension("dwarfs"), place, &manifest);
            match result {
                Ok(_) => archives += 1,
                Err(error) => failures.push(format!("{name}: {error}")),
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(archives >= 24, "only {archives} archives were found");
}

#[test]
fn unknown_features_are_refused_by_name() {
    let Some(folder) = test_data("compat") else { return };
    let error = open(&folder.join("future-features.dwarfs"), Place::At { offset: 0, len: None }).unwrap_err();
    assert!(matches!(&error, Error::UnknownFeature { name } if !name.is_empty()), "{error:?}");
}
