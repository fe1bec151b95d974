//! Looking into archives and images without a mount: `fim ls`, `cat`, `tree`, `stat` and `cp`.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::Path,
    process::Command,
};

use crate::{
    place::{Done, Place},
    support::skip,
};

/// An archive `a` of a tree with links of every kind.
fn archive(place: &Place) {
    let tree = place.root("tree");
    for dir in ["usr/bin", "usr/lib", ".hidden"] {
        fs::create_dir_all(tree.join(dir)).unwrap();
    }
    fs::write(tree.join("usr/lib/os"), "os\n").unwrap();
    fs::hard_link(tree.join("usr/lib/os"), tree.join("usr/lib/same")).unwrap();
    symlink("usr/bin", tree.join("bin")).unwrap();
    symlink("/usr/lib/os", tree.join("absolute")).unwrap();
    symlink("../../../../usr/lib/os", tree.join("usr/bin/upward")).unwrap();
    symlink("loop2", tree.join("loop1")).unwrap();
    symlink("loop1", tree.join("loop2")).unwrap();
    symlink("nowhere", tree.join("dangling")).unwrap();
    place.ok("fim archive create tree a");
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn directories_are_listed_and_drawn() {
    let place = Place::new();
    archive(&place);
    let listed = place.ok("fim ls a");
    let names = ["absolute", "bin", "dangling", "empty", "etc", "hello", "link", "loop1", "loop2", "usr"];
    assert_eq!(listed.lines().collect::<Vec<_>>(), names);
    assert!(place.ok("fim ls -a a").starts_with(".hidden\n"));
    assert_eq!(
        place.ok("fim ls a usr bin"),
        "/usr:\nbin\nlib\n\n/usr/bin:\nupward\n",
        "a link to a directory"
    );
    assert_eq!(place.ok("fim ls -R a usr"), "/usr:\nbin\nlib\n\n/usr/bin:\nupward\n\n/usr/lib:\nos\nsame\n");
    assert_eq!(place.ok("fim ls -d a usr hello"), "usr\nhello\n");
    let long = place.ok("fim ls -l a usr/lib bin");
    let lines: Vec<&str> = long.lines().collect();
    assert!(lines[0].starts_with("lrwxrwxrwx 1 ") && lines[0].ends_with(" bin -> usr/bin"), "{long}");
    assert!(lines[3].starts_with("-rw-r--r-- 2 ") && lines[3].ends_with(" os"), "{long}");
    assert_eq!(
        place.ok("fim tree a usr"),
        "usr\n├── bin\n│   └── upward -> ../../../../usr/lib/os\n└── lib\n    ├── os\n    └── same\n\n\
         2 directories, 3 files\n"
    );
    assert!(place.ok("fim tree -L 1 a").ends_with("└── usr\n\n2 directories, 8 files\n"));
    assert_eq!(place.ok("fim tree --json a"), by_path(&place.ok("fim ls -R --json a")));
    let stat = place.ok("fim stat a usr/lib/os");
    assert!(stat.contains("Links: 2") && stat.contains("(0644/-rw-r--r--)"), "{stat}");
    assert!(place.ok("fim stat a absolute").contains("absolute -> /usr/lib/os"));
    assert!(place.ok("fim stat -L a absolute").contains("regular file"));
}

/// Lines in the order of their paths, a directory before what is in it.
fn by_path(lines: &str) -> String {
    let path = |line: &str| {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        entry["path"].as_str().unwrap().split('/').map(str::to_owned).collect::<Vec<_>>()
    };
    let mut sorted: Vec<&str> = lines.lines().collect();
    sorted.sort_by_key(|line| path(line));
    sorted.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn links_are_followed_inside_the_tree_and_no_further() {
    let place = Place::new();
    archive(&place);
    for path in ["absolute", "bin/upward", "/usr/bin/../lib/./os", "../../usr/lib/os", "bin/../lib/os"] {
        assert_eq!(place.ok(&format!("fim cat a {path}")), "os\n", "{path}");
    }
    assert_eq!(place.ok("fim cat a absolute hello link"), "os\nhello from tree\nhello from tree\n");
    for (line, said) in [
        ("fim cat a loop1", "fim: cannot find loop1: too many symbolic links"),
        ("fim cat a dangling", "fim: cannot find dangling: no such file or directory"),
        ("fim cat a hello/x", "fim: cannot find hello/x: no such file or directory"),
        ("fim cat a usr", "fim: cannot read usr: it is not a regular file"),
        ("fim tree a hello", "fim: cannot list hello: it is not a directory\n"),
        ("fim stat a nowhere", "fim: cannot find nowhere: no such file or directory"),
        ("fim ls nothing", "fim: cannot open the layer nothing: "),
        ("fim ls tree/hello", "fim: cannot open the layer tree/hello at offset 0: no DwarFS archive"),
    ] {
        let done = place.run(line);
        assert_eq!(done.status, 125, "{line}: {done:?}");
        assert!(done.stderr.starts_with(said.trim_end()) && done.stderr.lines().count() == 1, "{done:?}");
    }
    // What is there is shown, whatever else is not.
    let done = place.run("fim cat a nowhere hello");
    assert_eq!((done.status, done.stdout.as_str()), (125, "hello from tree\n"));
}

#[test]
fn names_are_bytes_when_they_are_piped() {
    let place = Place::new();
    let tree = place.root("tree");
    let name = std::ffi::OsStr::from_bytes(b"new\nline\xff\x1b[31m");
    fs::write(tree.join(name), "contents").unwrap();
    place.ok("fim archive create tree a");
    let output = place.command("fim").args(["ls", "a"]).output().unwrap();
    assert!(output.stdout.windows(name.len()).any(|bytes| bytes == name.as_bytes()), "{output:?}");
    let output = place.command("fim").args(["cat", "a"]).arg(name).output().unwrap();
    assert_eq!(output.stdout, b"contents");
    assert!(place.ok("fim ls --json a").contains("\"path\":\"new%0Aline%FF%1B[31m\""));
    // On a terminal nothing of it reaches the terminal's own language.
    let Some(script) = crate::support::find("script") else { return skip("script on PATH") };
    let line = format!("{} ls {}", env!("CARGO_BIN_EXE_fim"), place.path("a").display());
    let shown = Command::new(script).args(["-qec", &line, "/dev/null"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("new\\nline\\377\\033[31m"), "{shown:?}");
}

#[test]
fn an_image_shows_its_layers_merged() {
    let place = Place::new();
    place.image();
    let tree = place.path("top");
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/added"), "added\n").unwrap();
    fs::write(tree.join("link"), "no link any more\n").unwrap();
    if is_root() {
        let made = Command::new("mknod").arg(tree.join("hello")).args(["c", "0", "0"]).status();
        assert!(made.unwrap().success(), "a whiteout");
    }
    place.ok("fim archive create top top.layer");
    place.ok("fim layer app add top.layer");
    let hello = if is_root() { "" } else { "hello\n" };
    assert_eq!(place.ok("fim ls app"), format!("empty\netc\n{hello}link\n"));
    assert_eq!(place.ok("./app fim-ls /etc"), "added\nos-release\n");
    assert_eq!(place.ok("fim cat app link etc/added"), "no link any more\nadded\n");
    // One layer by itself, where the list of layers says that it is.
    let list = place.ok("fim layer app list");
    let offset = list.lines().nth(1).unwrap().split(':').nth(1).unwrap().to_owned();
    assert_eq!(place.ok(&format!("fim ls --offset {offset} app etc")), "added\n");
    let error = place.refused(&format!("fim ls --offset {} app etc", offset.parse::<u64>().unwrap() + 1));
    assert!(error.contains("no DwarFS archive"), "{error}");
    place.ok("./app fim-cp -r / out");
    assert_eq!(fs::read_to_string(place.path("out/etc/os-release")).unwrap(), "NAME=\"Tiny\"\nID=tiny\n");
    assert_eq!(fs::read_to_string(place.path("out/link")).unwrap(), "no link any more\n");
}

#[test]
fn copies_go_where_cp_would_put_them() {
    let place = Place::new();
    archive(&place);
    let read = |name: &str| fs::read_to_string(place.path(name)).unwrap();
    place.ok("fim cp a hello new");
    assert_eq!(read("new"), "hello from tree\n");
    fs::create_dir(place.path("into")).unwrap();
    place.ok("fim cp a absolute usr/lib/same into");
    assert_eq!((read("into/absolute"), read("into/same")), ("os\n".into(), "os\n".into()));
    assert!(fs::symlink_metadata(place.path("into/absolute")).unwrap().is_file(), "followed without -r");
    place.ok("fim cp -r a absolute usr into");
    assert_eq!(fs::read_link(place.path("into/absolute")).unwrap(), Path::new("/usr/lib/os"));
    let (one, other) = (place.path("into/usr/lib/os"), place.path("into/usr/lib/same"));
    assert_eq!(fs::metadata(&one).unwrap().ino(), fs::metadata(&other).unwrap().ino(), "hard links");
    // Again, over what is there.
    fs::write(&one, "changed").unwrap();
    place.ok("fim cp -r a usr into");
    assert_eq!(read("into/usr/lib/os"), "os\n");
    for (line, said) in [
        ("fim cp a usr into", "fim: cannot copy usr: it is a directory (-r copies directories)"),
        ("fim cp a hello link nodir", "fim: cannot write nodir: not a directory"),
        ("fim cp a nowhere into", "fim: cannot find nowhere: no such file or directory"),
        ("fim cp a hello no/such", "fim: cannot write no: No such file"),
    ] {
        assert!(
            place.refused(line).to_lowercase().starts_with(&said.to_lowercase()),
            "{line}: {}",
            place.refused(line)
        );
    }
    let left = fs::read_dir(place.path("into")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.as_bytes().starts_with(b".fim-copy")), "drafts are gone");
}

#[test]
fn copies_never_follow_links_of_the_destination() {
    let place = Place::new();
    archive(&place);
    for dir in ["out/etc", "outside"] {
        fs::create_dir_all(place.path(dir)).unwrap();
    }
    fs::write(place.path("outside/file"), "untouched").unwrap();
    symlink(place.path("outside/file"), place.path("out/hello")).unwrap();
    symlink(place.path("outside"), place.path("out/usr")).unwrap();
    fs::create_dir(place.path("out/link")).unwrap();
    let done = place.run("fim cp -r a / out");
    assert_eq!(done.status, 125, "{done:?}");
    let said: Vec<&str> = done.stderr.lines().collect();
    assert!(said.iter().any(|line| line.starts_with("fim: warning: cannot write /usr: ")), "{said:?}");
    assert!(
        said.iter().any(|line| line.contains("cannot write /link: ")),
        "a directory is not replaced: {said:?}"
    );
    assert_eq!(said.last(), Some(&"fim: 2 objects could not be copied"));
    assert_eq!(fs::read_to_string(place.path("outside/file")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(place.path("outside")).unwrap().count(), 1);
    let hello = place.path("out/hello");
    assert!(fs::symlink_metadata(&hello).unwrap().is_file(), "a link to a file is replaced");
    assert_eq!(fs::read_to_string(hello).unwrap(), "hello from tree\n");
    assert!(place.path("out/etc/os-release").exists(), "the rest is copied");
}

#[test]
fn copies_keep_what_the_archive_has() {
    let place = Place::new();
    let tree = place.root("tree");
    let sparse = File::create(tree.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    rustix::io::pwrite(&sparse, b"island", 32 << 20).unwrap();
    let mut readonly = File::create(tree.join("readonly")).unwrap();
    readonly.write_all(b"x").unwrap();
    let noted = rustix::fs::fsetxattr(&readonly, "user.note", b"\0\xff", rustix::fs::XattrFlags::empty());
    readonly.set_permissions(fs::Permissions::from_mode(0o440)).unwrap();
    fs::set_permissions(tree.join("etc"), fs::Permissions::from_mode(0o1751)).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_007, 123_456_789);
    readonly.set_modified(time).unwrap();
    assert!(Command::new("mkfifo").arg(tree.join("fifo")).status().unwrap().success());
    place.ok("fim archive create tree a");
    place.ok("fim cp -r a . out");
    let stat = |name: &str| fs::symlink_metadata(place.path(name)).unwrap();
    assert_eq!((stat("out/sparse").len(), stat("out/sparse").blocks() < 1_000), (64 << 20, true));
    let data = fs::read(place.path("out/sparse")).unwrap();
    assert!(data[32 << 20..].starts_with(b"island") && data.iter().filter(|byte| **byte != 0).count() == 6);
    assert_eq!(stat("out/readonly").mode() & 0o7777, 0o440);
    assert_eq!(stat("out/readonly").modified().unwrap(), time);
    assert_eq!(stat("out/etc").mode() & 0o7777, 0o1751);
    assert!(stat("out/fifo").file_type().is_fifo());
    match noted {
        Ok(()) => {
            let mut value = [0; 10];
            let len = rustix::fs::getxattr(place.path("out/readonly"), "user.note", &mut value).unwrap();
            assert_eq!(&value[..len], b"\0\xff");
            assert!(place.ok("fim stat a readonly").contains("Xattr: user.note=%00%FF"));
            assert!(place.ok("fim stat --json a readonly").contains("\"xattrs\":{\"user.note\":\"%00%FF\"}"));
        }
        Err(_) => skip("user xattrs on the file system of the tests"),
    }
    assert!(!place.ok("fim ls -a a").contains("sidecar"), "the side car is not shown");
}

#[test]
fn a_damaged_file_does_not_hide_the_others() {
    let place = Place::new();
    let tree = place.root("tree");
    fs::write(tree.join("a-big"), vec![7; 3 << 20]).unwrap();
    let pattern: Vec<u8> = (0..=255).flat_map(|byte| [byte; 8]).collect();
    fs::write(tree.join("b-big"), pattern.repeat(1_500)).unwrap();
    place.ok("fim archive create --level 0 tree a");
    // Level 0 stores: the pattern of the second file is found as it is.
    let bytes = fs::read(place.path("a")).unwrap();
    let at = bytes.windows(pattern.len()).position(|some| some == pattern);
    crate::place::spoil(&place.path("a"), at.unwrap() as u64);
    let Done { status, stderr, .. } = place.run("fim cp -r a / out");
    assert_eq!(status, 125);
    assert!(stderr.contains("cannot read /b-big") && stderr.contains("checksum"), "{stderr}");
    assert_eq!(fs::read_to_string(place.path("out/hello")).unwrap(), "hello from tree\n");
    assert!(!place.path("out/b-big").exists(), "no half file stays");
    assert!(place.refused("fim cat a b-big").contains("cannot read b-big"));
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let place = Place::new();
    let tree = place.root("tree");
    fs::write(tree.join("big"), vec![b'x'; 4 << 20]).unwrap();
    place.ok("fim archive create tree a");
    let line = format!(
        "'{0}' cat '{1}' big | head -c 10; '{0}' ls -R '{1}' | head -n 1 >/dev/null; echo ${{PIPESTATUS[*]}}",
        env!("CARGO_BIN_EXE_fim"),
        place.path("a").display()
    );
    let output = Command::new("bash").args(["-c", &line]).output().unwrap();
    let Done { stdout, stderr, .. } = Done::of(output);
    assert_eq!((stdout.as_str(), stderr.as_str()), ("xxxxxxxxxx0 0\n", ""));
}
