//! `fim create --from` a FlatImage 2 file, made here as FlatImage's own build lays it out.

use std::{fs, path::Path};

use crate::place::{Place, spoil};

const AREA: usize = 4 << 20;

/// A file with a program, two tools, the settings and these archives.
fn write(path: &Path, settings: &[(usize, &[u8])], archives: &[Vec<u8>]) {
    let program = fs::read(env!("CARGO_BIN_EXE_fim")).unwrap();
    let end = fim::image::elf::read(&fs::File::open(env!("CARGO_BIN_EXE_fim")).unwrap()).unwrap().end;
    let mut bytes = program[..usize::try_from(end).unwrap()].to_vec();
    for tool in [&b"\x7fELF one"[..], b"\x7fELF two, longer"] {
        bytes.extend_from_slice(&(tool.len() as u64).to_le_bytes());
        bytes.extend_from_slice(tool);
    }
    let area = bytes.len();
    bytes.resize(area + AREA, 0);
    for (at, value) in settings {
        bytes[area + at..area + at + value.len()].copy_from_slice(value);
    }
    for archive in archives {
        bytes.extend_from_slice(&(archive.len() as u64).to_le_bytes());
        bytes.extend_from_slice(archive);
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn layers_and_settings_are_taken_over() {
    let place = Place::new();
    place.root("root");
    place.ok("fim archive create root base.dwarfs");
    place.layer("more");
    let archives = ["base.dwarfs", "more.layer"].map(|name| fs::read(place.path(name)).unwrap());
    let settings: [(usize, &[u8]); 7] = [
        (0, &0b1000_0000_0001_u64.to_le_bytes()),
        (8, &[1, 4, 1]),
        (11, br#"{"name":"Old","categories":["Game"]}"#),
        (4107, br#"{"program":"cat","args":["/hello"]}"#),
        (1_060_875, br#"{"GREETING":"hi"}"#),
        (2_109_451, br#"{"0":{"src":"$HOME/x","dst":"/x","type":"rw"}}"#),
        (3_158_027, b"https://example.org/recipes/"),
    ];
    write(&place.path("old.flatimage"), &settings, &archives);
    place.ok("fim create --from old.flatimage --no-tools");
    let image = "old-fim.flatimage";
    for (words, printed) in [
        ("perms IMAGE list", "home\nnetwork\n"),
        ("notify IMAGE show", "on\n"),
        ("overlay IMAGE show", "fuse\n"),
        ("boot IMAGE show", "{\"args\": [\"/hello\"], \"program\": \"cat\"}\n"),
        ("env IMAGE list", "GREETING=hi\n"),
        ("bind IMAGE list", "{\"0\":{\"dst\":\"/x\",\"src\":\"$HOME/x\",\"type\":\"rw\"}}\n"),
        ("remote IMAGE show", "https://example.org/recipes\n"),
        ("ls IMAGE", "empty\netc\nhello\nlink\nmore\n"),
    ] {
        assert_eq!(place.ok(&format!("fim {}", words.replace("IMAGE", image))), printed, "{words}");
    }
    assert!(place.ok(&format!("fim casefold {image} show")).contains("\"on\":true"));
    assert!(place.ok(&format!("fim desktop {image} dump entry")).contains("Name=Old\n"));
    assert!(place.ok(&format!("fim version {image} full")).contains("\"DISTRIBUTION\":\"tiny\""));
    let list: serde_json::Value =
        serde_json::from_str(&place.ok(&format!("fim layer {image} list --json"))).unwrap();
    assert_eq!((list[0]["kind"].as_str(), list[1]["kind"].as_str()), (Some("base"), Some("layer")));
    assert!(place.ok(&format!("fim check {image}")).lines().all(|line| line.contains("is whole")));
}

/// An archive of upstream's writer, as FlatImage files hold them.
#[test]
fn archives_of_upstream_are_taken_over() {
    let mut roots = vec![std::env::var_os("FIM_TEST_DATA").map(std::path::PathBuf::from)];
    roots.extend(Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|up| Some(up.join("shared/data"))));
    let found = roots.into_iter().flatten().map(|root| root.join("dwarfs/made")).find(|made| made.is_dir());
    let Some(made) = found else { return crate::support::skip("archives of upstream") };
    let place = Place::new();
    let archive = fs::read_dir(made)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension() == Some("dwarfs".as_ref()))
        .find(|path| place.run(&format!("fim check {}", path.display())).status == 0)
        .unwrap();
    println!("{}", archive.display());
    write(&place.path("old"), &[], &[fs::read(&archive).unwrap()]);
    place.ok("fim create -o new --from old --no-tools");
    assert_eq!(place.ok("fim ls -lR new"), place.ok(&format!("fim ls -lR {}", archive.display())));
}

#[test]
fn what_is_none_or_damaged_is_refused_and_leaves_nothing() {
    let place = Place::new();
    place.image();
    assert!(place.refused("fim create -o new --from app").contains("it is an image of fim already"));
    fs::copy(env!("CARGO_BIN_EXE_fim"), place.path("program")).unwrap();
    assert!(place.refused("fim create -o new --from program").contains("it is no FlatImage 2 file"));
    place.ok("fim archive create root base.dwarfs");
    let archive = fs::read(place.path("base.dwarfs")).unwrap();
    write(&place.path("old"), &[], std::slice::from_ref(&archive));
    let begin = fs::metadata(place.path("old")).unwrap().len() - archive.len() as u64;
    spoil(&place.path("old"), begin + 70);
    assert!(place.refused("fim create -o new --from old").contains("cannot use the archive"));
    assert!(
        !place.names().iter().any(|name| name.starts_with("new") || name.ends_with(".part")),
        "{:?}",
        place.names()
    );
    write(&place.path("odd"), &[(4107, b"{"), (9, &[99])], &[archive]);
    let done = place.run("fim create -o new --from odd --no-tools");
    assert_eq!(done.status, 0, "{done:?}");
    assert_eq!(done.stderr.matches("fim: warning: ").count(), 2, "{done:?}");
}
