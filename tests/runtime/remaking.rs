//! Archives made of archives: `fim archive recompress` and `fim archive squash`.

use std::{
    fs,
    os::unix::{fs::symlink, process::ExitStatusExt as _},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::sys::stat::{Mode, SFlag, mknod};

use crate::{
    place::{Place, spoil},
    support::skip,
};

/// Sets an extended attribute; false where the file system has none.
fn mark(path: &Path, name: &str, value: &[u8]) -> bool {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).is_ok()
}

/// Marks a name as deleted; false, and a line, where that cannot be done.
fn delete(path: &Path) -> bool {
    let made = mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0), 0).is_ok();
    if !made {
        skip("whiteouts, which take root");
    }
    made
}

/// A base, a layer that changes, deletes, hides and moves, and one above it: `base.dw`, `mid.dw` and `top.dw`.
fn layers(place: &Place) -> bool {
    let base = place.root("base");
    for dir in ["opt/app/lib", "opt/old", "srv/data"] {
        fs::create_dir_all(base.join(dir)).unwrap();
    }
    for number in 0..30_u32 {
        let bytes: Vec<u8> =
            (0..30_000_u32).map(|at| (at.wrapping_mul(at ^ number) >> 7).to_le_bytes()[0]).collect();
        fs::write(base.join(format!("opt/app/lib/{number}")), bytes).unwrap();
    }
    fs::write(base.join("opt/old/gone"), "gone").unwrap();
    fs::write(base.join("srv/data/moved"), "moved").unwrap();
    fs::hard_link(base.join("hello"), base.join("opt/hello")).unwrap();
    let mid = place.path("mid");
    fs::create_dir_all(mid.join("opt/old")).unwrap();
    fs::create_dir_all(mid.join("srv/new")).unwrap();
    fs::write(mid.join("opt/old/new"), "new").unwrap();
    symlink("/opt/old/new", mid.join("link")).unwrap();
    if !delete(&mid.join("empty")) || !delete(&mid.join("srv/data")) {
        return false;
    }
    let is_marked = mark(&mid.join("opt/old"), "user.overlay.opaque", b"y")
        && mark(&mid.join("srv/new"), "user.fim.redirect", b"/srv/data")
        && mark(&mid.join("opt/old/new"), "user.note", b"noted");
    if !is_marked {
        skip("extended attributes");
        return false;
    }
    let top = place.path("top");
    fs::create_dir_all(top.join("opt/app/lib")).unwrap();
    fs::create_dir_all(top.join("srv/new")).unwrap();
    fs::write(top.join("opt/app/lib/7"), "seven").unwrap();
    fs::write(top.join("srv/new/more"), "more").unwrap();
    delete(&top.join("opt/app/lib/8"));
    delete(&top.join("never"));
    for name in ["base", "mid", "top"] {
        place.ok(&format!("fim archive create {name} {name}.dw --level 1 -S 16"));
    }
    true
}

/// All that programs see in a mount of layers, the lowest first: paths, kinds, modes, owners, sizes, times, targets,
/// contents, attributes, and which names are one file.
fn mounted(place: &Place, layers: &[&str]) -> String {
    let mut words = vec!["mount".to_owned(), "--ro".to_owned()];
    words.extend(layers.iter().flat_map(|layer| ["--layer".to_owned(), (*layer).to_owned()]));
    let script = "cd at && find . -printf '%p %y %m %U %G %T@ %l ' \\( -type f -printf '%s' -o -true \\) -printf '\\n' \
                  | LC_ALL=C sort && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum \
                  && find . -type f -links +1 -printf '%i %p\\n' | LC_ALL=C sort -k2 | cut -d' ' -f2 \
                  && (getfattr -R -d -m - . 2>/dev/null || true)";
    fs::create_dir_all(place.path("at")).unwrap();
    let mut command = place.command("fim");
    let output = command.args(words).arg("at").args(["--", "sh", "-c", script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn can_mount() -> bool {
    let can = Path::new("/dev/fuse").exists() && nix::unistd::geteuid().is_root();
    if !can {
        skip("root and /dev/fuse");
    }
    can
}

#[test]
fn a_mount_of_the_squash_shows_what_a_mount_of_its_layers_shows() {
    let place = Place::new();
    if !can_mount() || !layers(&place) {
        return;
    }
    let stack = mounted(&place, &["base.dw", "mid.dw", "top.dw"]);
    for path in ["./srv/new/moved ", "./srv/new/more ", "./opt/old/new ", "./opt/hello "] {
        assert!(stack.contains(path), "{path} in {stack}");
    }
    for path in ["./empty ", "./srv/data ", "./opt/old/gone ", "./opt/app/lib/8 ", "./never "] {
        assert!(!stack.contains(path), "{path} in {stack}");
    }
    let told = place.ok("fim archive squash base.dw mid.dw top.dw whole.dw --base --verify");
    assert!(told.starts_with("whole.dw: ") && !told.contains("deletions"), "{told}");
    assert_eq!(mounted(&place, &["whole.dw"]), stack);
    assert!(!place.ok("fim ls -R whole.dw").contains("never"));

    let told = place.ok("fim archive squash mid.dw top.dw both.dw");
    assert!(told.contains(", 4 deletions kept for what lies below"), "{told}");
    assert_eq!(mounted(&place, &["base.dw", "both.dw"]), stack);
    assert_eq!(place.ok("fim check both.dw").lines().count(), 1);
}

#[test]
fn what_was_squashed_is_told() {
    let place = Place::new();
    if !layers(&place) {
        return;
    }
    let told = place.ok("fim archive squash base.dw mid.dw top.dw out.dw --level 1 --json");
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["layers"], &told["deletions_kept"]), (&3.into(), &4.into()));
    let number = |key: &str| told[key].as_u64().unwrap();
    let copied = number("blocks_copied");
    // Of the base's 14 blocks one or two each hold what is gone.
    assert!(copied >= 8 && copied < number("blocks"), "{told}");
    assert_eq!(number("size"), fs::metadata(place.path("out.dw")).unwrap().len());
}

#[test]
fn misuse_is_told_with_its_cure() {
    let place = Place::new();
    place.layer("a");
    place.layer("b");
    let before = fs::read(place.path("b.layer")).unwrap();
    assert_eq!(
        place.refused("fim archive squash a.layer b.layer"),
        "fim: cannot make b.layer: it is there already (the last path is the new archive; --force replaces it)"
    );
    assert_eq!(fs::read(place.path("b.layer")).unwrap(), before);
    assert_eq!(
        place.refused("fim archive squash a.tree b.layer c"),
        "fim: cannot squash a.tree: it is a directory (make an archive of it with fim archive create)"
    );
    for (line, expected) in [
        ("fim archive squash a.layer", "2 values required"),
        ("fim archive squash a.layer missing c", "missing"),
        ("fim archive recompress missing c", "missing"),
        ("fim archive recompress a.layer c --keep zip", "expected null, zstd, lzma"),
        ("fim archive recompress a.layer c --keep zstd -S 20", "--block-size-bits packs everything anew"),
        ("fim archive recompress a.layer c --ignore-errors", "(add --rebuild)"),
        ("fim archive recompress a.layer c --level 11", "0..=9"),
    ] {
        let said = place.refused(line);
        assert!(said.contains(expected), "{line}: {said}");
    }
    // An image with two archives.
    place.image();
    place.ok("fim layer app add a.layer");
    let said = place.refused("fim archive recompress app c");
    assert!(said.starts_with("fim: app holds 2 archives (name one with --offset"), "{said}");
    place.ok("fim archive squash app b.layer all.layer --base");
    assert_eq!(place.ok("fim ls all.layer a b hello"), "a\nb\nhello\n");
    assert!(!place.names().contains(&"c".to_owned()), "{:?}", place.names());
}

#[test]
fn an_archive_takes_the_place_of_what_it_is_made_from() {
    let place = Place::new();
    place.layer("a");
    place.layer("b");
    place.ok("fim archive squash a.layer b.layer b.layer --force");
    assert_eq!(place.ok("fim ls b.layer"), "a\nb\n");
    for words in ["--level 9", "-C lz4 --keep none", "--level 2 --rebuild", "--order path --verify"] {
        place.ok(&format!("fim archive recompress b.layer b.layer {words}"));
        assert_eq!(place.ok("fim cat b.layer a b"), "content of a\ncontent of b\n", "{words}");
    }
    let told = place.ok("fim archive recompress b.layer c.layer --keep same --json");
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(told["blocks_copied"].is_u64() && told["size"].is_u64(), "{told}");
}

#[test]
fn what_is_damaged_makes_nothing() {
    let place = Place::new();
    place.layer("a");
    place.layer("b");
    // In the payload of the first block.
    spoil(&place.path("a.layer"), 70);
    let names = place.names();
    for line in [
        "fim archive recompress a.layer c",
        "fim archive recompress a.layer c --rebuild",
        "fim archive squash a.layer b.layer c",
    ] {
        let said = place.refused(line);
        assert!(said.contains("checksum"), "{line}: {said}");
        assert_eq!(place.names(), names, "{line}");
    }
    // What can be read is saved on request.
    let saved = place.run("fim archive recompress a.layer c --rebuild --ignore-errors");
    assert_eq!(saved.status, 3, "{saved:?}");
    assert!(saved.stderr.contains("left out: cannot read a"), "{saved:?}");
    assert_eq!(place.ok("fim ls c"), "");
}

#[test]
fn a_maker_that_is_killed_leaves_nothing_under_the_name() {
    let place = Place::new();
    let tree = place.root("tree");
    for number in 0..40_u32 {
        let bytes: Vec<u8> = (0..200_000_u32).map(|at| ((at * number) >> 9).to_le_bytes()[0]).collect();
        fs::write(tree.join(number.to_string()), bytes).unwrap();
    }
    place.ok("fim archive create tree a.dw --level 1");
    place.ok("fim archive create tree b.dw --level 1 -S 16");
    let mut killed = 0;
    for line in [
        "recompress a.dw out -C lzma",
        "recompress a.dw out --level 6 --rebuild",
        "squash a.dw b.dw out --level 6",
    ] {
        for delay in (0..10).map(|step| Duration::from_millis(3 + step * step * 8)) {
            let mut command: Command = place.command("fim");
            let command =
                command.arg("archive").args(line.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
            let mut maker = command.spawn().unwrap();
            thread::sleep(delay);
            maker.kill().unwrap();
            if maker.wait().unwrap().signal().is_some() {
                killed += 1;
            }
            // Killed behind the rename, or done: whole.
            if place.path("out").exists() {
                place.ok("fim check out");
                fs::remove_file(place.path("out")).unwrap();
            }
            for name in place.names().into_iter().filter(|name| name.starts_with(".out.")) {
                assert!(name.ends_with(".part"), "{name}");
                fs::remove_file(place.path(&name)).unwrap();
            }
        }
    }
    assert!(killed > 8, "only {killed} were killed before they were done");
}
