//! `fim-desktop`: valid by the desktop's own tools, whatever the names are, and gone without a trace.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    place::Place,
    support::{find, skip},
};

/// Every file below a directory, with its contents.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(place) = open.pop() {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                found.insert(entry.path(), fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

/// A command in the place, with its own data directory; what it says on both outputs.
fn desktop(place: &Place, image: &str, words: &[&str]) -> (bool, String) {
    let mut command = place.command("fim");
    command.args(["desktop", image]).args(words).env("XDG_DATA_HOME", place.path("share"));
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn png(place: &Place) {
    let picture = image::RgbaImage::from_pixel(200, 100, image::Rgba([1, 2, 200, 255]));
    picture.save(place.path("icon.png")).unwrap();
}

/// A tool of the desktop has nothing to say against a file or directory below `share`.
fn valid(program: &str, share: &Path, subject: &Path) {
    let output = Command::new(program).arg(subject).env("XDG_DATA_HOME", share).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{program}: {}", String::from_utf8_lossy(&said));
}

#[test]
fn entry_type_and_icons_are_valid_and_clean_takes_all_away() {
    if find("desktop-file-validate").is_none() || find("update-mime-database").is_none() {
        return skip("desktop-file-validate and update-mime-database");
    }
    let hostile = [
        ("app", "App"),
        ("a b\"c`d$e\\f%g", "Quote \" ' & <tag> \\n %f $HOME `id`"),
        ("*[x]?", ";;=[Desktop Entry]"),
        ("ü&<>", "日本語"),
    ];
    for (image, name) in hostile {
        let place = Place::new();
        place.image();
        if image != "app" {
            fs::rename(place.path("app"), place.path(image)).unwrap();
        }
        png(&place);
        let setup = serde_json::json!({
            "name": name, "icon": "./icon.png", "categories": ["Network", "X-Own"], "comment": "a & b",
            "integrations": ["ENTRY", "MIMETYPE", "ICON"],
        });
        fs::write(place.path("d.json"), setup.to_string()).unwrap();
        let share = place.path("share");
        fs::create_dir_all(share.join("applications")).unwrap();
        fs::create_dir_all(share.join("mime/packages")).unwrap();
        fs::write(share.join("mime/packages/own.xml"), "<?xml version=\"1.0\"?><mime-info xmlns=\"http://www.freedesktop.org/standards/shared-mime-info\"/>").unwrap();
        valid("update-mime-database", &share, &share.join("mime"));
        let before = files(&share);
        assert_eq!(desktop(&place, image, &["setup", "d.json"]), (true, String::new()), "{image}");

        let shown = files(&share);
        let by_ending = |ending: &str| -> Vec<&PathBuf> {
            shown
                .keys()
                .filter(|path| path.to_string_lossy().ends_with(ending) && !before.contains_key(*path))
                .collect()
        };
        let entries = by_ending(".desktop");
        assert_eq!(entries.len(), 1, "{image}");
        valid("desktop-file-validate", &share, entries[0]);
        valid("update-mime-database", &share, &share.join("mime"));
        assert_eq!(by_ending(".png").len(), 18, "nine sizes, for applications and files");
        // The file manager's own look-up knows the file by its name.
        let globs = fs::read_to_string(share.join("mime/globs2")).unwrap();
        assert!(
            globs.contains("application/x-fim-") && globs.contains("application/x-flatimage:*.flatimage"),
            "{globs}"
        );
        let (_, dumped) = desktop(&place, image, &["dump", "entry"]);
        assert_eq!(dumped.as_bytes(), shown[entries[0]]);

        assert_eq!(desktop(&place, image, &["clean"]), (true, String::new()));
        let mut after = files(&share);
        // The cache of the desktop's own tool, which has no entries now.
        let cache = share.join("applications/mimeinfo.cache");
        if let Some(cache) = after.remove(&cache) {
            assert!(!String::from_utf8_lossy(&cache).contains("fim"));
        }
        let (after, before): (Vec<_>, Vec<_>) = (after.keys().collect(), before.keys().collect());
        assert_eq!(after, before, "{image}");
    }
}

#[test]
fn a_moved_image_is_followed_when_it_starts() {
    if find("bwrap").is_none() || !Path::new("/dev/fuse").exists() {
        return skip("bwrap and /dev/fuse");
    }
    let place = Place::new();
    place.image();
    fs::write(place.path("d.json"), r#"{"name":"App","integrations":["entry"]}"#).unwrap();
    assert!(desktop(&place, "app", &["setup", "d.json"]).0);
    fs::rename(place.path("app"), place.path("moved")).unwrap();
    let started = place
        .command("fim")
        .args(["exec", "moved", "nothing"])
        .env("XDG_DATA_HOME", place.path("share"))
        .output()
        .unwrap();
    assert_eq!(started.status.code(), Some(127), "{started:?}");
    let entry = files(&place.path("share"))
        .into_iter()
        .find(|(path, _)| path.extension() == Some("desktop".as_ref()))
        .unwrap()
        .1;
    let exec = format!("Exec=\"{}\" %F", place.path("moved").display());
    assert!(String::from_utf8(entry).unwrap().contains(&exec));
    assert!(desktop(&place, "moved", &["clean"]).0);
    place
        .command("fim")
        .args(["exec", "moved", "nothing"])
        .env("XDG_DATA_HOME", place.path("share"))
        .output()
        .unwrap();
    assert!(
        files(&place.path("share")).keys().all(|path| path.extension() != Some("desktop".as_ref())),
        "not shown again by itself"
    );
}

#[test]
fn what_cannot_be_shown_is_refused_and_changes_nothing() {
    let place = Place::new();
    place.image();
    let before = fs::read(place.path("app")).unwrap();
    fs::write(place.path("gif"), "GIF89a").unwrap();
    fs::write(place.path("bad.png"), b"\x89PNG\r\n\x1a\nnonsense").unwrap();
    fs::write(place.path("long"), vec![b'<'; (1 << 20) + 1]).unwrap();
    for (description, said) in [
        ("{", "cannot understand d.json"),
        ("{}", "missing field `name`"),
        (r#"{"name":"a\nb"}"#, "expected one line of text"),
        (r#"{"name":"x","categories":["Nonsense"]}"#, "unknown category"),
        (r#"{"name":"x","icon":"nothing"}"#, "nothing"),
        (r#"{"name":"x","icon":"gif"}"#, "neither PNG nor SVG"),
        (r#"{"name":"x","icon":"bad.png"}"#, "cannot use the icon"),
        (r#"{"name":"x","icon":"long"}"#, "longer than"),
        (r#"{"name":"x","integrations":["DOCK"]}"#, "unknown integration"),
    ] {
        fs::write(place.path("d.json"), description).unwrap();
        let (ok, line) = desktop(&place, "app", &["setup", "d.json"]);
        assert!(!ok && line.contains(said) && line.lines().count() == 1, "{description}: {line}");
    }
    assert!(fs::read(place.path("app")).unwrap() == before && !place.path("share").exists());
}
