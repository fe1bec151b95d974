//! The image file: making, listing, changing, and what happens when something breaks.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use fim::{
    dwarfs::read::{Archive, BlockCache, Place as ArchivePlace},
    image::{ImageFile, reserved::Reserved},
};

use crate::{
    place::{Done, Place, script, spoil},
    support::skip,
};

/// Where the layers of an image are: offset and size.
fn layers(place: &Place, image: &str) -> Vec<(u64, u64)> {
    let list = place.ok(&format!("fim layer {image} list"));
    list.lines()
        .enumerate()
        .map(|(index, line)| {
            let parts: Vec<&str> = line.splitn(4, ':').collect();
            assert_eq!(parts[0], index.to_string());
            assert_eq!(Path::new(parts[3]).file_name().unwrap(), image);
            (parts[1].parse().unwrap(), parts[2].parse().unwrap())
        })
        .collect()
}

/// Reads a file out of a layer.
fn content(image: &Path, (offset, size): (u64, u64), path: &str) -> Option<String> {
    let file = Arc::new(File::open(image).unwrap());
    let place = ArchivePlace::At { offset, len: Some(size) };
    let archive = Archive::open(file, place, &BlockCache::new(1 << 24)).unwrap();
    let inode = archive.find(path.as_bytes()).unwrap()?;
    let size = usize::try_from(archive.attr(inode).unwrap().size).unwrap();
    let data = archive.read(inode, 0, size).unwrap();
    Some(String::from_utf8(data.contiguous().into_owned()).unwrap())
}

fn reserved(image: &Path) -> Reserved {
    ImageFile::open(image).unwrap().reserved()
}

#[test]
fn an_image_is_an_executable_with_its_archive_at_the_listed_offset() {
    let place = Place::new();
    let image = place.image();
    let bytes = fs::read(&image).unwrap();
    assert_eq!(&bytes[..4], b"\x7fELF");
    assert_eq!(&bytes[8..11], b"FI\x01");
    let found = layers(&place, "app");
    let [(offset, size)] = found[..] else { panic!("{found:?}") };
    assert_eq!(offset % 4096, 0);
    assert_eq!(offset + size, bytes.len() as u64, "the base is last");
    assert_eq!(content(&image, found[0], "hello").unwrap(), "hello from root\n");
    let mut names = Vec::new();
    let archive = Archive::open(
        Arc::new(File::open(&image).unwrap()),
        ArchivePlace::At { offset, len: None },
        &BlockCache::new(1 << 20),
    )
    .unwrap();
    archive
        .read_dir(archive.root(), 0, &mut |entry| {
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(names, ["empty", "etc", "hello", "link"]);
    assert_eq!(place.names(), ["app", "root"], "no draft stays");
    let full = place.ok("./app fim-version full");
    assert!(full.contains("\"DISTRIBUTION\":\"tiny\""), "{full}");
    assert_eq!(place.ok("./app fim-version"), format!("{}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn images_are_different_ones() {
    let place = Place::new();
    let image = place.image();
    place.ok("fim create -o other --from root --no-tools");
    let id = |path: &Path| ImageFile::open(path).unwrap().settings().image_id;
    assert_ne!(id(&image), id(&place.path("other")));
}

#[test]
fn an_image_makes_an_image() {
    let place = Place::new();
    let image = place.image();
    let layer = place.layer("extra");
    place.ok("fim layer app add extra.layer");
    // the program that runs is the image's own copy; only its ELF part goes into the new image
    let copied = fs::read_dir(place.path("global/app"));
    assert!(copied.is_err(), "the tool needs no copy of itself");
    place.ok("./app fim-layer list");
    let build = fs::read_dir(place.path("global/app")).unwrap().next().unwrap().unwrap().path();
    fs::copy(build.join("bin/fim"), place.path("copy")).unwrap();
    place.ok("./copy create -o second --from root --no-tools");
    assert_eq!(layers(&place, "second").len(), 1);
    let end = |path: &Path| ImageFile::open(path).unwrap().elf_end();
    assert_eq!(end(&image), end(&place.path("second")));
    assert!(layer.is_file());
}

#[test]
fn layers_are_added_on_top_by_the_tool_and_by_the_image() {
    let place = Place::new();
    let image = place.image();
    for (name, line) in [
        ("one", "fim layer app add one.layer --message first"),
        ("two", "./app fim-layer add two.layer"),
        ("three", "fim LAYER app ADD three.layer"),
    ] {
        place.layer(name);
        place.ok(line);
    }
    let found = layers(&place, "app");
    assert_eq!(found.len(), 4);
    for (at, name) in [(1, "one"), (2, "two"), (3, "three")] {
        assert_eq!(content(&image, found[at], name).unwrap(), format!("content of {name}\n"));
        assert_eq!(content(&image, found[at], "hello"), None);
    }
    let json: serde_json::Value = serde_json::from_str(&place.ok("./app fim-layer list --json")).unwrap();
    assert_eq!(json[1]["message"], "first");
    assert_eq!(json[0]["kind"], "base");
    assert_eq!(json[3]["offset"], found[3].0);
    assert!(json[3]["content"].as_str().unwrap().starts_with("sections:"));
    assert_eq!(
        place.ok("./app fim-layer list"),
        place.ok("fim layer ./app list").replace("./app", image.to_str().unwrap())
    );
}

#[test]
fn twelve_layers_and_a_prefix_in_front_of_one() {
    let place = Place::new();
    let image = place.image();
    let layer = fs::read(place.layer("x")).unwrap();
    fs::write(place.path("prefixed"), [b"#!/bin/sh\nexit 1\n".as_slice(), &layer].concat()).unwrap();
    for _ in 0..11 {
        place.ok("fim layer app add x.layer");
    }
    place.ok("fim layer app add prefixed");
    let found = layers(&place, "app");
    assert_eq!(found.len(), 13);
    assert_eq!(found[12].1, layer.len() as u64, "the prefix is left out");
    assert_eq!(content(&image, found[12], "x").unwrap(), "content of x\n");
}

#[test]
fn settings_are_stored_and_listed() {
    let place = Place::new();
    place.image();
    for (line, printed) in [
        ("fim boot app show", "{\"args\": [], \"program\": \"bash\"}\n"),
        ("./app fim-boot set python3 -q --x", ""),
        ("fim boot app show", "{\"args\": [\"-q\", \"--x\"], \"program\": \"python3\"}\n"),
        ("./app fim-boot clear", ""),
        ("./app fim-boot show", "{\"args\": [], \"program\": \"bash\"}\n"),
        ("./app fim-perms list", ""),
        ("./app fim-perms add Wayland,home network", ""),
        ("fim perms app LIST", "home\nnetwork\nwayland\n"),
        ("fim perms app del home", ""),
        ("fim perms app list --json", "[\"network\",\"wayland\"]\n"),
        ("fim perms app set all", ""),
        ("fim perms app list", "all\n"),
        ("fim perms app clear", ""),
        ("fim perms app list", ""),
        ("fim unshare app add ipc,uts", ""),
        ("./app fim-unshare list", "ipc\nuts\n"),
        ("fim env app add B=$HOME/x A=1=2 C=", ""),
        ("./app fim-env list", "A=1=2\nB=$HOME/x\nC=\n"),
        ("./app fim-env del A C", ""),
        ("./app fim-env list --json", "{\"B\":\"$HOME/x\"}\n"),
        ("./app fim-env set Z=1", ""),
        ("./app fim-env list", "Z=1\n"),
        ("fim bind app add ro $HOME/in /out", "0\n"),
        ("fim bind app add DEV /dev/dri /dev/dri", "1\n"),
        ("fim bind app del 0", ""),
        ("fim bind app list", "{\"0\":{\"dst\":\"/dev/dri\",\"src\":\"/dev/dri\",\"type\":\"dev\"}}\n"),
    ] {
        assert_eq!(place.ok(line), printed, "{line}");
    }
}

#[test]
fn what_cannot_be_stored_is_refused_and_changes_nothing() {
    let place = Place::new();
    let image = place.image();
    assert!(Command::new("mkfifo").arg(place.path("fifo")).status().unwrap().success());
    let before = fs::read(&image).unwrap();
    for (line, said) in [
        (
            "fim perms app add home,netwrok",
            "unknown permission \"netwrok\": expected one of all strict audio",
        ),
        ("fim unshare app set everything", "unknown namespace \"everything\""),
        ("fim env app add NOVALUE", "cannot read the variable \"NOVALUE\": expected NAME=VALUE"),
        ("fim env app del NOPE", "cannot delete the variable \"NOPE\": it is not set in the image"),
        ("fim bind app add rx /a /b", "unknown kind of bind \"rx\""),
        ("fim bind app add ro /a b", "cannot bind to \"b\""),
        ("fim bind app del 3", "cannot delete bind 3: the image has 0"),
        ("fim perms nowhere list", "cannot open nowhere: No such file or directory"),
        ("fim perms root/hello list", "root/hello is not an image: not an ELF file"),
        ("fim perms fifo list", "cannot use fifo: it is not a regular file"),
        ("fim perms root add home", "cannot use root: it is not a regular file"),
        ("fim layer app add fifo", "cannot use fifo: it is not a regular file"),
        ("fim layer app add root/hello", "cannot use the archive at offset 0x0 of root/hello"),
        ("fim layer app add app", "cannot add app: it is an image, not a layer"),
    ] {
        let found = place.refused(line);
        assert!(found.contains(said), "{line}: {found}");
    }
    assert_eq!(place.run("fim perms app").status, 125);
    assert_eq!(place.run("fim layer app add").status, 125);
    assert!(fs::read(&image).unwrap() == before);
}

#[test]
fn the_tool_itself_is_no_image() {
    let place = Place::new();
    let said = place.refused(&format!("fim perms {} list", env!("CARGO_BIN_EXE_fim")));
    assert!(said.contains("is not an image: no settings area at offset 0x"), "{said}");
}

#[test]
fn one_damaged_copy_is_survived_and_two_are_named() {
    let place = Place::new();
    let image = place.image();
    let area = reserved(&image);
    place.ok("fim env app add A=1");
    place.ok("fim env app add A=2");
    for (what, twin, line) in [
        ("settings", area.settings(), "fim env app list"),
        ("layer table", area.table(), "fim layer app list"),
    ] {
        let whole = fs::read(&image).unwrap();
        for offset in [twin.offset, twin.offset + u64::from(twin.room)] {
            spoil(&image, offset + 70);
            let printed = place.ok(line);
            assert!(["A=1\n", "A=2\n"].contains(&printed.as_str()) || printed.starts_with("0:"), "{printed}");
            place.ok("./app fim-env list");
            fs::write(&image, &whole).unwrap();
        }
        spoil(&image, twin.offset + 70);
        spoil(&image, twin.offset + u64::from(twin.room) + 70);
        let first = twin.offset;
        let second = twin.offset + u64::from(twin.room);
        let expected = format!(
            "fim: cannot use the image app: both copies of the {what} are damaged, at offsets {first:#x} and {second:#x}"
        );
        assert_eq!(place.refused(line), expected);
        assert!(place.refused("./app fim-env list").contains("both copies"));
        fs::write(&image, &whole).unwrap();
    }
}

#[test]
fn a_change_after_damage_repairs_the_copy() {
    let place = Place::new();
    let image = place.image();
    let twin = reserved(&image).settings();
    spoil(&image, twin.offset + 70);
    place.ok("fim env app add A=1");
    spoil(&image, twin.offset + u64::from(twin.room) + 70);
    assert_eq!(place.ok("fim env app list"), "A=1\n");
}

#[test]
fn a_torn_append_is_ignored_and_overwritten() {
    let place = Place::new();
    let image = place.image();
    place.layer("one");
    let end = fs::metadata(&image).unwrap().len();
    let half = &fs::read(place.path("one.layer")).unwrap()[..200];
    let mut file = OpenOptions::new().append(true).open(&image).unwrap();
    file.write_all(&vec![0; 4096 - usize::try_from(end % 4096).unwrap()]).unwrap();
    file.write_all(half).unwrap();
    file.write_all(&[0xaa; 1 << 20]).unwrap();
    drop(file);
    assert_eq!(layers(&place, "app").len(), 1);
    place.ok("./app fim-layer list");
    place.ok("fim layer app add one.layer");
    let found = layers(&place, "app");
    assert_eq!(content(&image, found[1], "one").unwrap(), "content of one\n");
    assert_eq!(
        fs::metadata(&image).unwrap().len(),
        found[1].0 + found[1].1,
        "nothing of the torn one is left"
    );
}

#[test]
fn a_damaged_layer_is_not_added() {
    let place = Place::new();
    let image = place.image();
    let layer = place.layer("one");
    let before = fs::read(&image).unwrap();
    let whole = fs::read(&layer).unwrap();
    // without the magic of the last section, the index, it is an archive without one and something behind it
    let (_, last) = whole.split_last_chunk::<8>().unwrap();
    let index = usize::try_from(u64::from_le_bytes(*last) & ((1 << 48) - 1)).unwrap();
    let counts = |at: &usize| !(index..index + 6).contains(at);
    for at in (0..16).chain((16..whole.len()).step_by(13)).filter(counts) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&layer, &damaged).unwrap();
        let done = place.run("fim layer app add one.layer");
        assert_eq!(done.status, 125, "byte {at}: {done:?}");
        assert!(fs::read(&image).unwrap() == before, "byte {at}");
    }
    fs::write(&layer, &whole[..whole.len() - 1]).unwrap();
    place.refused("fim layer app add one.layer");
    assert!(fs::read(&image).unwrap() == before);
}

#[test]
fn a_check_tells_what_is_damaged_and_whom_it_hits() {
    let place = Place::new();
    let image = place.image();
    place.layer("one");
    place.ok("fim layer app add one.layer");
    let said = place.ok("fim check app");
    assert_eq!(said.lines().filter(|line| line.contains(" is whole: ")).count(), 2, "{said}");
    assert!(said.contains("(base)") && said.contains("(layer)"), "{said}");
    assert_eq!(place.ok("fim layer app verify"), said);
    let report: serde_json::Value = serde_json::from_str(&place.ok("fim check --json app")).unwrap();
    assert_eq!((&report["whole"], &report["archives"][1]["blocks"]), (&true.into(), &1.into()));
    // The first section of the base is its block.
    let (offset, _) = layers(&place, "app")[0];
    spoil(&image, offset + 64);
    let done = place.run("fim check app");
    assert_eq!((done.status, done.stderr.as_str()), (1, ""), "{done:?}");
    for expected in ["is damaged: 1 finding;", "XXH3-64 checksum", "    hello\n", "(layer) is whole"] {
        assert!(done.stdout.contains(expected), "{expected}: {}", done.stdout);
    }
    assert_eq!(place.run("fim check --quick app").status, 1);
    assert_eq!(place.run(&format!("fim check --offset {offset} app")).status, 1);
    assert_eq!(place.run("fim layer app verify").status, 1);
    let done = place.run("fim check --json app");
    let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let base = &report["archives"][0];
    assert_eq!((&report["whole"], &base["findings"][0]["part"]), (&false.into(), &"block".into()));
    assert!(base["files"].as_array().unwrap().contains(&"hello".into()), "{base}");
    // The file with an archive alone, cut off, and what is none.
    let bytes = fs::read(place.path("one.layer")).unwrap();
    fs::write(place.path("cut"), &bytes[..bytes.len() / 2]).unwrap();
    let done = place.run("fim check cut");
    assert_eq!(done.status, 1, "{done:?}");
    fs::write(place.path("none"), "no archive").unwrap();
    for file in ["none", "absent", "."] {
        let why = place.refused(&format!("fim check {file}"));
        assert!(why.contains(file), "{why}");
    }
}

#[test]
fn a_copy_and_a_renamed_image_are_images() {
    let place = Place::new();
    let image = place.image();
    place.ok("fim env app add A=1");
    fs::create_dir(place.path("elsewhere")).unwrap();
    fs::copy(&image, place.path("elsewhere/copy")).unwrap();
    fs::rename(&image, place.path("renamed")).unwrap();
    for name in ["elsewhere/copy", "renamed"] {
        assert_eq!(place.ok(&format!("./{name} fim-env list")), "A=1\n");
        place.ok(&format!("./{name} fim-env add B={name}"));
        assert_eq!(place.ok(&format!("./{name} fim-env list")), format!("A=1\nB={name}\n"));
    }
}

#[test]
fn an_image_is_changed_while_it_runs() {
    let place = Place::new();
    let image = place.image();
    place.layer("one");
    // more than a pipe holds, so that whoever prints it waits
    place
        .command("fim")
        .args(["env", "app", "add"])
        .arg(format!("LONG={}", "x".repeat(100_000)))
        .status()
        .unwrap();
    let mut running =
        place.command("./app").args(["fim-env", "list"]).stdout(Stdio::piped()).spawn().unwrap();
    let exe = PathBuf::from(format!("/proc/{}/exe", running.id()));
    let wait_channel = || fs::read_to_string(format!("/proc/{}/wchan", running.id())).unwrap_or_default();
    for _ in 0..500 {
        if fs::read_link(&exe).is_ok_and(|target| target != image) && wait_channel().contains("pipe") {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let target = fs::read_link(&exe).unwrap();
    assert!(target.starts_with(place.path("global").canonicalize().unwrap()), "{}", target.display());
    place.ok("./app fim-env add B=2");
    place.ok("./app fim-layer add one.layer");
    assert!(running.try_wait().unwrap().is_none(), "it still runs");
    drop(running.stdout.take());
    running.wait().unwrap();
    assert_eq!(layers(&place, "app").len(), 2);
}

#[test]
fn changes_at_the_same_time_are_all_kept() {
    let place = Place::new();
    place.image();
    place.layer("one");
    let editors: Vec<_> = (0..12)
        .map(|number| {
            let mut command = place.command(if number % 2 == 0 { "fim" } else { "./app" });
            match number {
                0 => command.args(["layer", "app", "add", "one.layer"]),
                1 => command.args(["fim-layer", "add", "one.layer"]),
                _ if number % 2 == 0 => command.args(["env", "app", "add"]).arg(format!("K{number}=1")),
                _ => command.arg("fim-env").arg("add").arg(format!("K{number}=1")),
            };
            command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn()
        })
        .collect();
    let mut busy = 0;
    let mut expected = Vec::new();
    for (number, editor) in editors.into_iter().enumerate() {
        match editor {
            Ok(editor) => {
                let done = Done::of(editor.wait_with_output().unwrap());
                assert_eq!(done.status, 0, "{done:?}");
                expected.push(number);
            }
            // Linux refuses to start what is being written at this very moment
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ExecutableFileBusy);
                busy += 1;
            }
        }
    }
    println!("{busy} could not be started");
    let added = expected.iter().filter(|number| **number < 2).count();
    assert_eq!(layers(&place, "app").len(), 1 + added);
    let listed = place.ok("fim env app list");
    assert_eq!(listed.lines().count(), expected.len() - added, "{listed}");
}

#[test]
fn a_killed_add_leaves_the_old_or_the_new_image() {
    let place = Place::new();
    let image = place.image();
    let tree = place.path("big.tree");
    fs::create_dir(&tree).unwrap();
    let noise: Vec<u8> =
        (0_u32..4 << 20).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(tree.join("noise"), noise).unwrap();
    place.ok("fim archive create big.tree big.layer");
    let mut added = 0;
    for round in 0..12_u64 {
        let mut editor = place.command("fim").args(["layer", "app", "add", "big.layer"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(5 + round * 15));
        editor.kill().unwrap();
        added = {
            editor.wait().unwrap();
            let count = layers(&place, "app").len() - 1;
            assert!(count == added || count == added + 1);
            count
        };
        place.ok("./app fim-env list");
    }
    println!("{added} of 12 were done before they were killed");
    place.ok("fim layer app add big.layer");
    let found = layers(&place, "app");
    assert_eq!(found.len(), added + 2);
    let last = found[found.len() - 1];
    assert_eq!(fs::metadata(&image).unwrap().len(), last.0 + last.1);
}

#[test]
fn read_only_media_are_read_and_not_changed() {
    let place = Place::new();
    place.image();
    place.layer("one");
    let dir = place.directory();
    let inside = |command: &str| {
        let text = format!(
            "mount --bind '{0}' '{0}' && mount -o remount,bind,ro '{0}' && cd '{0}' && {command}",
            dir.display()
        );
        let output = Command::new("unshare").args(["-m", "sh", "-c", &text]).output().unwrap();
        Done::of(output)
    };
    let probe = inside("true");
    if probe.status != 0 {
        skip("no private mount namespace here");
        return;
    }
    let global = tempfile::tempdir().unwrap();
    let set = format!("FIM_DIR_GLOBAL='{}/g'", global.path().display());
    assert_eq!(inside(&format!("{set} ./app fim-env list")).status, 0);
    assert_eq!(inside(&format!("{set} ./app fim-layer list")).stdout.lines().count(), 1);
    for command in ["fim-env add A=1", "fim-layer add one.layer", "fim-perms clear"] {
        let done = inside(&format!("{set} ./app {command}"));
        assert_eq!(done.status, 125, "{done:?}");
        let said = "fim: cannot change ";
        let cure =
            "app (copy the image to a place that you can write): Read-only file system (os error 30)\n";
        assert!(done.stderr.starts_with(said) && done.stderr.ends_with(cure), "{done:?}");
    }
}

#[test]
fn without_a_place_for_the_copy_it_runs_from_memory() {
    let place = Place::new();
    place.image();
    let file = place.path("not-a-directory");
    fs::write(&file, "").unwrap();
    let done = Done::of(
        place.command("./app").args(["fim-layer", "list"]).env("FIM_DIR_GLOBAL", &file).output().unwrap(),
    );
    assert_eq!((done.status, done.stdout.lines().count()), (0, 1), "{done:?}");
}

#[test]
fn a_copy_that_was_tampered_with_is_replaced() {
    let place = Place::new();
    place.image();
    place.ok("./app fim-layer list");
    let build = fs::read_dir(place.path("global/app")).unwrap().next().unwrap().unwrap().path();
    let copy = build.join("bin/fim");
    let whole = fs::read(&copy).unwrap();
    fs::remove_file(&copy).unwrap();
    script(&copy, "#!/bin/sh\necho bad\n");
    assert!(place.ok("./app fim-layer list").starts_with("0:"));
    assert!(fs::read(&copy).unwrap() == whole);
}

#[test]
fn nothing_appears_where_making_fails() {
    let place = Place::new();
    place.root("root");
    fs::write(place.path("bad.tar"), [b'x'; 1000]).unwrap();
    fs::create_dir(place.path("dir")).unwrap();
    let names = place.names();
    for (line, said) in [
        ("fim create -o app --from nowhere --no-tools", "cannot make a root from \"nowhere\""),
        ("fim create -o app --from bad.tar --no-tools", "cannot archive bad.tar"),
        ("fim create -o dir --from root --no-tools", "cannot make dir: it is a directory"),
        ("fim create -o no/such/app --from root --no-tools", "no/such/app"),
        ("fim archive create nowhere x.layer", "nowhere"),
    ] {
        let found = place.refused(line);
        assert!(found.contains(said), "{line}: {found}");
        assert_eq!(place.names(), names, "{line}");
    }
}

#[test]
fn a_tar_becomes_a_root() {
    let place = Place::new();
    place.root("root");
    let made = Command::new("tar")
        .args(["--owner=:4321", "--group=:8765", "-czf"])
        .arg(place.path("root.tar.gz"))
        .args(["-C", place.path("root").to_str().unwrap(), "."])
        .status()
        .unwrap();
    assert!(made.success());
    let said = place.ok("fim create --from root.tar.gz --no-tools");
    assert!(said.starts_with("root.flatimage: "), "{said}");
    let image = place.path("root.flatimage");
    let found = layers(&place, "root.flatimage");
    assert_eq!(content(&image, found[0], "hello").unwrap(), "hello from root\n");
    let archive = Archive::open(
        Arc::new(File::open(&image).unwrap()),
        ArchivePlace::At { offset: found[0].0, len: None },
        &BlockCache::new(1 << 20),
    )
    .unwrap();
    let stat = archive.attr(archive.find(b"hello").unwrap().unwrap()).unwrap();
    assert_eq!((stat.uid, stat.gid), (4321, 8765), "owners are those of the tar file");
}

#[test]
fn mmdebstrap_is_asked_for_a_tar() {
    let place = Place::new();
    place.root("root");
    fs::create_dir(place.path("path")).unwrap();
    script(
        &place.path("path/mmdebstrap"),
        "#!/bin/sh\necho \"$@\" > asked\necho 'I: working' >&2\nexec tar -cf - -C root .\n",
    );
    let path = format!("{}:{}", place.path("path").display(), std::env::var("PATH").unwrap());
    let run = |args: &[&str]| Done::of(place.command("fim").args(args).env("PATH", &path).output().unwrap());
    let args = ["create", "-o", "app", "--no-tools", "--include", "git,make", "--mirror", "http://m/"];
    let done = run(&[&args[..], &["--from", "debian:trixie"]].concat());
    assert_eq!(done.status, 0, "{done:?}");
    assert_eq!(
        fs::read_to_string(place.path("asked")).unwrap(),
        "--variant=minbase --mode=auto --format=tar --include=git,make trixie - http://m/\n"
    );
    assert_eq!(layers(&place, "app").len(), 1);

    script(
        &place.path("path/mmdebstrap"),
        "#!/bin/sh\necho 'I: x' >&2\necho 'E: no such suite' >&2\nexit 25\n",
    );
    let done = run(&["create", "-o", "new", "--from", "debian:nope"]);
    assert_eq!(
        (done.status, done.stderr.as_str()),
        (125, "fim: cannot make a root of Debian nope: mmdebstrap: no such suite\n")
    );
    let nothing = place.path("root");
    let without = place.command("fim").args(["create", "--from", "debian:x"]).env("PATH", nothing).output();
    let done = Done::of(without.unwrap());
    assert_eq!(
        done.stderr,
        "fim: cannot make a Debian root: mmdebstrap is not installed (apt install mmdebstrap)\n"
    );
    assert!(!place.path("new").exists());
}

#[test]
fn the_clock_can_be_replaced() {
    let place = Place::new();
    place.root("root");
    let make = |name: &str| {
        let status = place
            .command("fim")
            .args(["archive", "create", "root", name])
            .env("SOURCE_DATE_EPOCH", "1000000000")
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success());
        fs::read(place.path(name)).unwrap()
    };
    assert!(make("a") == make("b"));
}

#[test]
fn the_level_is_chosen_by_word_or_by_variable() {
    let place = Place::new();
    let tree = place.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("text"), "hard to compress, or not at all\n".repeat(10_000)).unwrap();
    let size = |words: &str, variable: &str| {
        let mut command = place.command("fim");
        command.args(words.split(' ')).env("FIM_COMPRESSION_LEVEL", variable);
        let done = Done::of(command.output().unwrap());
        assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{words}: {done:?}");
        fs::metadata(place.path("out")).unwrap().len()
    };
    let stored = size("archive create tree out --level 0", "9");
    assert!(stored > 320_000, "{stored}");
    assert!(size("archive create tree out", "") < 10_000);
    assert!(size("archive create tree out -l 1", "0") < 10_000);
    assert_eq!(size("archive create tree out", "0"), stored);
    let image =
        |words: &str, variable| size(&format!("create -o out --no-tools --from tree{words}"), variable);
    assert!(image("", "0") - image(" --level 9", "0") > 300_000);
    for line in ["fim archive create tree out --level 10", "fim create -o out --from tree -l x"] {
        let why = place.refused(line);
        assert!(why.contains("--level <0..9>"), "{why}");
    }
    let done = place
        .command("fim")
        .args(["archive", "create", "tree", "out"])
        .env("FIM_COMPRESSION_LEVEL", "10")
        .output();
    let done = Done::of(done.unwrap());
    assert_eq!(done.status, 125);
    assert!(done.stderr.contains("expected a level from 0 to 9"), "{done:?}");
}

#[test]
fn each_part_of_a_level_is_settable_alone() {
    let place = Place::new();
    let tree = place.path("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0..40_u32 {
        let kind = ["red green blue ", "one two three ", "x y z "][number as usize % 3];
        fs::write(tree.join(format!("f{number}")), format!("{number} {}", kind.repeat(200))).unwrap();
    }
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[7]
    };
    fs::write(tree.join("noise"), std::iter::repeat_with(&mut next).take(50_000).collect::<Vec<_>>())
        .unwrap();
    fs::write(place.path("list"), "f7\n./noise\n\n/f3\nnothing\n").unwrap();
    let words = [
        "--order none",
        "--order path",
        "--order revpath",
        "--order similarity",
        "--order list:list",
        "-S 12 -C zstd:level=1 -W 8 -w 3 -B 2",
        "--block-size-bits 16 --compression null --window-size 0",
        "--level 1 --window-size 10 --lookback 4",
        "-S 14 -C lzma:level=3:binary=auto",
        "-C zstd:level=3:long",
        "-C brotli:quality=5",
        "--level 9",
        "--categorize",
        "--categorize=incompressible --memory-limit 1G",
        "--categorize=pcmaudio,binary --threads 3 -C lzma:level=2",
        "--pack-metadata all --metadata-compression null --schema-compression zstd:level=3",
        "-P plain --keep-all-times --time-resolution 100ms",
        "-P names,names_index --owner 7 --group 8 --set-time 12345 --no-history",
        "--reproducible --time-resolution 1h",
    ];
    for words in words {
        place.ok(&format!("fim archive create {words} tree out"));
        place.ok("fim check out");
        if let Some(dwarfsck) = judge("dwarfsck") {
            let status = Command::new(dwarfsck)
                .args(["--check-integrity", "-q"])
                .arg(place.path("out"))
                .stdout(Stdio::null())
                .status();
            assert!(status.unwrap().success(), "dwarfsck of {words}");
        }
        fs::remove_file(place.path("out")).unwrap();
    }
    for (words, expected) in [
        ("--order random", "expected none, path, revpath, similarity, list:FILE or profile:FILE"),
        ("--order list:missing", "cannot read the list missing"),
        ("-C zip", "expected null, zstd, lzma, lz4, lz4hc, brotli or flac"),
        ("-C zstd:level=23", "zstd level is 23, it must be from -131072 to 22"),
        ("-S 31", "block size (bits) is 31, it must be from 10 to 30"),
        ("-l 1 -w 2", "set --window-size"),
        ("-W 0 -B 2", "set --window-size"),
        ("--categorize=fits", "expected pcmaudio, binary, incompressible"),
        ("-P zip", "possible values"),
        ("-P all,plain", "must stand alone"),
        ("--time-resolution 7ns", "time resolution (ns, a part of a second) is 7"),
        ("--time-resolution soon", "expected a time such as"),
        ("--set-time yesterday", "expected seconds since the epoch, or now"),
        ("--reproducible --keep-all-times", "cannot be used with"),
        ("-L 1M", "memory limit (MiB) is 1, it must be from"),
        ("-L much", "expected a size such as 512M or 2G"),
    ] {
        let why = place.refused(&format!("fim archive create {words} tree out"));
        assert!(why.contains(expected), "{words}: {why}");
        assert!(!place.path("out").exists(), "{words}");
    }
}

#[test]
fn upstream_checks_every_layer() {
    let Some(dwarfsck) = judge("dwarfsck") else {
        // No package has it, so the test command cannot install it.
        println!("skipped: no dwarfsck on PATH or in FIM_JUDGES");
        return;
    };
    let place = Place::new();
    let image = place.image();
    let check = |file: &Path, offset: u64| {
        let offset = offset.to_string();
        let mut command = Command::new(&dwarfsck);
        let output = command.args(["--check-integrity", "-O", &offset]).arg(file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    place.layer("one");
    for _ in 0..2 {
        // upstream looks for the index at the end of the file: the last archive needs an offset alone
        let found = layers(&place, "app");
        check(&image, found[found.len() - 1].0);
        place.ok("fim layer app add one.layer");
    }
    // what lies before others is whole by itself; upstream's driver takes its length by `-o imagesize`
    let bytes = fs::read(&image).unwrap();
    for (offset, size) in layers(&place, "app") {
        let (from, len) = (usize::try_from(offset).unwrap(), usize::try_from(size).unwrap());
        fs::write(place.path("cut"), &bytes[from..from + len]).unwrap();
        check(&place.path("cut"), 0);
    }
}

fn judge(name: &str) -> Option<PathBuf> {
    let judges = std::env::var_os("FIM_JUDGES").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    judges
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}
