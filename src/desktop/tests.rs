use std::{collections::BTreeSet, fs, path::Path};

use super::*;
use crate::config::{Icon, Integrations};

fn desktop(words: &[Integration]) -> Desktop {
    let mut integrations = Integrations::default();
    integrations.set(words.iter().copied());
    Desktop {
        name: "My \"Tool\" <1>".to_owned(),
        comment: None,
        categories: vec!["Utility".to_owned()],
        terminal: true,
        icon: Some(Icon::new(b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec()).unwrap()),
        integrations,
        unknown: serde_json::Map::new(),
    }
}

fn id() -> ImageId {
    ImageId::from_random([9; 16])
}

fn planned(words: &[Integration], image: &str) -> Vec<Planned> {
    files(&Subject { id: id(), image: Path::new(image), desktop: &desktop(words) }).unwrap()
}

fn paths(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(place) = open.pop() {
        for entry in fs::read_dir(place).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    found
}

#[test]
fn integrations_choose_the_files() {
    assert!(planned(&[], "/x/app").is_empty());
    assert!(planned(&[Integration::None], "/x/app").is_empty());
    assert_eq!(planned(&[Integration::Entry], "/x/app").len(), 1);
    assert_eq!(planned(&[Integration::Icon], "/x/app").len(), 2, "for applications and for files");
    assert_eq!(planned(&[Integration::All], "/x/app").len(), 4);
    let text = |index: usize| {
        String::from_utf8(planned(&[Integration::All], "/x/a b")[index].contents.clone()).unwrap()
    };
    assert!(text(0).contains("Exec=\"/x/a b\" %F\n") && text(0).contains("Icon=fim-0909"), "{}", text(0));
    assert!(text(1).contains("My &quot;Tool&quot; &lt;1&gt;"), "{}", text(1));
    let odd = Subject { id: id(), image: Path::new("/x/a\nb"), desktop: &desktop(&[Integration::Entry]) };
    assert!(matches!(files(&odd), Err(DesktopError::Path { .. })));
}

#[test]
fn clean_removes_exactly_what_was_written() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("share");
    fs::create_dir_all(data.join("applications")).unwrap();
    fs::write(data.join("applications/other.desktop"), "x").unwrap();
    let before = paths(&data);
    let home = Home::new(data.clone(), id());
    let put = |words: &[Integration]| home.put(&planned(words, "/x/app"));
    let parts = [Integration::Entry, Integration::Icon];
    put(&parts).unwrap();
    assert!(!home.is_outdated(&planned(&parts, "/x/app")).unwrap());
    assert!(home.is_outdated(&planned(&parts, "/moved/app")).unwrap());
    assert!(data.join("icons/hicolor/scalable/apps").is_dir());
    put(&[Integration::Entry]).unwrap();
    assert!(!data.join("icons").exists(), "what is not wanted any more goes");
    let entry = data.join(format!("applications/fim-{}.desktop", id()));
    assert!(entry.is_file());
    assert_eq!(home.clean().unwrap(), Vec::<PathBuf>::new());
    assert!(!home.is_outdated(&planned(&parts, "/moved/app")).unwrap(), "shown nowhere");
    let mut after = paths(&data);
    // The cache of the desktop's own tool.
    after.remove(&data.join("applications/mimeinfo.cache"));
    assert_eq!(after, before);
}

#[test]
fn what_somebody_has_changed_stays() {
    let place = tempfile::tempdir().unwrap();
    let home = Home::new(place.path().to_owned(), id());
    home.put(&planned(&[Integration::Entry], "/x/app")).unwrap();
    let entry = place.path().join(format!("applications/fim-{}.desktop", id()));
    fs::write(&entry, "mine").unwrap();
    assert_eq!(home.clean().unwrap(), std::slice::from_ref(&entry));
    assert_eq!(fs::read(entry).unwrap(), b"mine");
}

#[test]
fn a_hostile_list_reaches_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("share");
    let home = Home::new(data.clone(), id());
    let victim = place.path().join("victim");
    fs::write(&victim, "").unwrap();
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    fs::create_dir_all(data.join("fim/desktop")).unwrap();
    for path in ["../victim", victim.to_str().unwrap()] {
        let list = format!(r#"{{"files":[{{"path":"{path}","sha256":"{empty}"}}],"directories":["/"]}}"#);
        fs::write(data.join(format!("fim/desktop/{}.json", id())), list).unwrap();
        home.clean().unwrap();
        assert!(victim.exists());
    }
    fs::write(data.join(format!("fim/desktop/{}.json", id())), "[").unwrap();
    assert!(matches!(home.clean(), Err(DesktopError::Record { .. })));
}
