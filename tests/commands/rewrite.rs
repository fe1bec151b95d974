//! `fim upgrade` and `fim-layer rm`: an image is written anew, and is the old or the new one whatever happens.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::{Command, Stdio},
};

use fim::image::ImageFile;

use crate::place::{Place, spoil};

/// The engine with another length: bytes behind what its headers name do not count, so its section table moves.
fn another_engine(place: &Place) -> String {
    let mut bytes = fs::read(env!("CARGO_BIN_EXE_fim")).unwrap();
    let number = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (table, count) = (
        usize::try_from(number(&bytes, 0x28)).unwrap(),
        usize::from(bytes[0x3c]) | usize::from(bytes[0x3d]) << 8,
    );
    let sections = bytes[table..table + count * 64].to_vec();
    bytes.resize(bytes.len() + 100_000, 0);
    let moved = bytes.len() as u64;
    bytes.extend_from_slice(&sections);
    bytes[0x28..0x30].copy_from_slice(&moved.to_le_bytes());
    fs::write(place.path("engine"), bytes).unwrap();
    fs::set_permissions(place.path("engine"), Permissions::from_mode(0o755)).unwrap();
    "./engine".to_owned()
}

fn three_layers() -> Place {
    let place = Place::new();
    place.image();
    for name in ["one", "two"] {
        place.layer(name);
        place.ok(&format!("fim layer app add {name}.layer --message {name}"));
    }
    place.ok("fim env app add KEPT=1");
    place
}

fn end(path: &Path) -> u64 {
    ImageFile::open(path).unwrap().elf_end()
}

#[test]
fn an_upgrade_changes_the_engine_and_nothing_else() {
    let place = three_layers();
    let engine = another_engine(&place);
    let image = place.path("app");
    fs::set_permissions(&image, Permissions::from_mode(0o750)).unwrap();
    symlink("app", place.path("link")).unwrap();
    let before = (end(&image), place.ok("fim ls app"), ImageFile::open(&image).unwrap().settings().clone());
    place.ok(&format!("{engine} upgrade link"));
    assert!(fs::symlink_metadata(place.path("link")).unwrap().is_symlink(), "the link stays a link");
    let after = (end(&image), place.ok("fim ls app"), ImageFile::open(&image).unwrap().settings().clone());
    assert!(after.0 > before.0 + 100_000 - 4096, "the new engine is longer");
    assert_eq!((after.1, after.2), (before.1, before.2));
    assert_eq!(fs::metadata(&image).unwrap().mode() & 0o7777, 0o750);
    assert!(place.ok("fim check app").lines().all(|line| line.contains("is whole")));
    assert_eq!(place.ok("./app fim-env list"), "KEPT=1\n", "it runs with the new engine");
    assert_eq!(place.ok(&format!("{engine} upgrade app")), "the image has this engine already\n");
    place.ok("fim upgrade app");
    assert_eq!(end(&image), before.0, "and back");
    assert!(!place.names().iter().any(|name| name.ends_with(".part")));
}

#[test]
fn a_layer_goes_and_its_space_comes_back() {
    let place = three_layers();
    let image = place.path("app");
    let length = fs::metadata(&image).unwrap().len();
    place.ok("./app fim-layer rm 1");
    let list: serde_json::Value = serde_json::from_str(&place.ok("fim layer app list --json")).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[1]["message"], "two");
    assert!(fs::metadata(&image).unwrap().len() < length);
    assert_eq!(place.ok("fim ls app"), "empty\netc\nhello\nlink\ntwo\n");
    place.ok("fim layer app add one.layer");
    assert!(place.refused("fim layer app rm 7").contains("it has 3, counted from 0"));
}

#[test]
fn a_layer_beside_the_image_goes_as_well_and_one_of_the_user_does_not() {
    let place = three_layers();
    place.ok("fim layer app diff");
    fs::copy(place.path("one.layer"), place.path(".app.data/layers/x.layer")).unwrap();
    place.ok("fim layer app rm 3");
    assert!(!place.path(".app.data/layers/x.layer").exists());
    let done = place
        .command("fim")
        .args(["layer", "app", "rm", "3"])
        .env("FIM_LAYERS", place.path("one.layer"))
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(125));
    assert!(
        String::from_utf8(done.stderr).unwrap().contains("FIM_LAYERS") && place.path("one.layer").exists()
    );
}

#[test]
fn a_damaged_layer_can_be_removed() {
    let place = three_layers();
    let list: serde_json::Value = serde_json::from_str(&place.ok("fim layer app list --json")).unwrap();
    spoil(&place.path("app"), list[1]["offset"].as_u64().unwrap() + 2);
    assert_ne!(place.run("fim ls app").status, 0);
    place.ok("fim layer app rm 1");
    assert_eq!(place.ok("fim ls app"), "empty\netc\nhello\nlink\ntwo\n");
}

#[test]
fn a_writer_that_is_killed_leaves_the_old_image() {
    let place = three_layers();
    let engine = another_engine(&place);
    let image = place.path("app");
    let before = fs::read(&image).unwrap();
    let (mut kills, mut ends) = (0, 0);
    // A limit on the length of files kills the writer in the middle of one, wherever that is.
    for limit in [0, 1, 8, 64, 512, 4096, 20_000, 40_000, 60_000, 70_000, 80_000, 84_000, 400_000] {
        for words in [vec!["layer", "app", "rm", "0"], vec!["upgrade", "app"]] {
            let script = format!("ulimit -f {limit}; exec \"$@\"");
            let status = Command::new("sh")
                .args(["-c", &script, "sh", &engine])
                .args(words)
                .current_dir(place.directory())
                .stderr(Stdio::null())
                .arg0("sh")
                .status()
                .unwrap();
            if status.success() {
                ends += 1;
                fs::write(place.path("old"), &before).unwrap();
                fs::set_permissions(place.path("old"), Permissions::from_mode(0o755)).unwrap();
                fs::rename(place.path("old"), &image).unwrap();
            } else {
                kills += usize::from(status.signal().is_some());
                assert!(fs::read(&image).unwrap() == before, "killed at {limit} blocks");
            }
        }
    }
    println!("{kills} killed, {ends} came to their end");
    assert!(kills >= 10 && ends == 2);
}

#[test]
fn what_cannot_be_replaced_is_told() {
    let place = three_layers();
    let before = fs::read(place.path("app")).unwrap();
    fs::write(place.path("text"), "no image").unwrap();
    assert!(place.refused("fim upgrade text").contains("text"));
    // The table names a layer behind the end: the file was cut off.
    let length = before.len() as u64 - 10;
    fs::File::options().write(true).open(place.path("app")).unwrap().set_len(length).unwrap();
    let engine = another_engine(&place);
    assert!(place.refused(&format!("{engine} upgrade app")).contains("cannot write the new"));
    assert_eq!(fs::metadata(place.path("app")).unwrap().len(), length);
    assert!(!place.names().iter().any(|name| name.ends_with(".part")), "a failure leaves nothing behind");
}
