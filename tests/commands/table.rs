//! A success and a misuse of every command. The name of an entry is the command's, with `_` for blanks.

use std::{fs, os::unix::fs::MetadataExt as _, sync::LazyLock, time::SystemTime};

use crate::place::Place;

/// Makes the two tests of each command, and the list of their names.
macro_rules! commands {
    ($($name:ident: $works:expr, misuse $line:literal says $said:literal;)+) => {
        /// The commands of this table.
        pub const NAMES: &[&str] = &[$(stringify!($name)),+];

        $(mod $name {
            #[allow(unused_imports, reason = "some need more than others")]
            use super::*;

            #[test]
            fn works() {
                let works: fn(&Place) = $works;
                works(&image());
            }

            #[test]
            fn misuse() {
                let said = UNTOUCHED.place.refused($line);
                assert!(said.contains($said), "{}: {said}", $line);
                assert_eq!(state(&UNTOUCHED.place), UNTOUCHED.state, "the image is as it was");
            }
        })+
    };
}

/// A place for all misuses, none of which changes its image.
struct Untouched {
    place: Place,
    state: (u64, u64, SystemTime),
}

static UNTOUCHED: LazyLock<Untouched> = LazyLock::new(|| {
    let place = image();
    Untouched { state: state(&place), place }
});

/// Which file the image is, its length, and when it was written last.
fn state(place: &Place) -> (u64, u64, SystemTime) {
    let found = fs::metadata(place.path("app")).unwrap();
    (found.ino(), found.len(), found.modified().unwrap())
}

/// A place with an image `app`, its root `root`, and a layer file `more.layer`.
pub fn image() -> Place {
    let place = Place::new();
    place.image();
    place.layer("more");
    place
}

/// Lines of commands and what they print.
fn story(place: &Place, lines: &[(&str, &str)]) {
    for (line, printed) in lines {
        assert_eq!(place.ok(line), *printed, "{line}");
    }
}

/// Whether programs can be started in sandboxes here; says so where not.
fn can_run() -> bool {
    let able = crate::support::find("bwrap").is_some() && fs::metadata("/dev/fuse").is_ok();
    if !able {
        crate::support::skip("bwrap and /dev/fuse");
    }
    able
}

/// Gives the image a root with busybox in it; false, and a line, where that cannot run here.
pub fn runnable(place: &Place) -> bool {
    let Some(busybox) = crate::support::find("busybox") else {
        crate::support::skip("busybox");
        return false;
    };
    for folder in ["bin", "dev", "proc", "sys", "tmp", "home", "root", "run", "var", "usr/bin"] {
        fs::create_dir_all(place.path("root").join(folder)).unwrap();
    }
    fs::copy(busybox, place.path("root/bin/busybox")).unwrap();
    for name in ["sh", "echo", "touch", "cat", "id", "true", "sleep"] {
        std::os::unix::fs::symlink("busybox", place.path("root/bin").join(name)).unwrap();
    }
    place.ok("fim create -o app --from root --no-tools");
    can_run()
}

commands! {
    create: |p| {
        let said = p.ok("fim create -o second --from root --no-tools");
        assert!(said.contains("second"), "{said}");
    }, misuse "fim create -o x --from nowhere" says "cannot make a root from";
    upgrade: |p| assert_eq!(p.ok("fim upgrade app"), "the image has this engine already\n"),
        misuse "fim upgrade more.layer" says "more.layer";
    archive_create: |p| {
        p.ok("fim archive create root a.dwarfs");
        assert!(p.ok("fim check a.dwarfs").contains("is whole"));
    }, misuse "fim archive create nowhere a.dwarfs" says "nowhere";
    layer_create: |p| {
        p.ok("fim layer app create root a.layer");
        assert!(p.path("a.layer").is_file());
    }, misuse "fim layer app create nowhere a.layer" says "nowhere";
    layer_add: |p| {
        p.ok("fim layer app add more.layer");
        assert_eq!(p.ok("fim layer app list").lines().count(), 2);
    }, misuse "fim layer app add root/hello" says "root/hello";
    layer_commit: |p| assert_eq!(p.ok("fim layer app commit binary"), "nothing has changed\n"),
        misuse "fim layer app commit elsewhere" says "elsewhere";
    layer_diff: |p| {
        p.ok("fim layer app diff");
        fs::write(p.path(".app.data/root/new"), "x").unwrap();
        story(p, &[("fim layer app diff", "A /new\n"), ("fim layer app diff --json", "[{\"kind\":\"A\",\"path\":\"/new\"}]\n")]);
    }, misuse "fim layer more.layer diff" says "more.layer";
    layer_verify: |p| assert!(p.ok("fim layer app verify").contains("is whole")),
        misuse "fim layer root/hello verify" says "root/hello";
    layer_list: |p| assert!(p.ok("./app fim-layer list").starts_with("0:")),
        misuse "fim layer app list twice" says "twice";
    layer_info: |p| {
        p.ok("fim layer app add more.layer --message fonts");
        let said = p.ok("fim layer app info");
        assert!(said.contains("layer 1") && said.contains("fonts"), "{said}");
        let json: serde_json::Value = serde_json::from_str(&p.ok("fim layer app info --json")).unwrap();
        assert_eq!(json[1]["known"]["message"], "fonts");
    }, misuse "fim layer more.layer info" says "more.layer";
    layer_rm: |p| {
        p.ok("fim layer app add more.layer");
        p.ok("fim layer app rm 0");
        assert_eq!(p.ok("fim ls app"), "more\n");
    }, misuse "fim layer app rm 0" says "cannot remove the only layer";
    layer_discard: |p| {
        p.ok("fim layer app diff");
        fs::write(p.path(".app.data/root/new"), "x").unwrap();
        assert!(p.refused("fim layer app discard").contains("--yes"), "asks first");
        assert!(p.path(".app.data/root/new").exists());
        p.ok("fim layer app discard --yes");
        story(p, &[("fim layer app diff", ""), ("fim layer app discard", "nothing has changed\n")]);
        // What one that was killed has left is taken away, too.
        fs::create_dir_all(p.path(".app.data/tmp/discarded/root")).unwrap();
        p.ok("fim layer app discard --yes");
        assert!(!p.path(".app.data/tmp/discarded").exists());
    }, misuse "fim layer more.layer discard --yes" says "more.layer";
    layer_profile_set: |p| {
        fs::write(p.path("profile"), "fim-profile 1\n/hello\n").unwrap();
        p.ok("fim layer app profile set profile");
        assert!(p.ok("fim layer app profile show").contains("/hello"));
    }, misuse "fim layer app profile set root/hello" says "root/hello";
    layer_profile_show: |p| story(p, &[("fim layer app profile show", ""), ("fim layer app profile show --json", "[]\n")]),
        misuse "fim layer root/hello profile show" says "root/hello";
    layer_profile_clear: |p| story(p, &[("fim layer app profile clear", "")]),
        misuse "fim layer app profile clear all" says "all";
    check: |p| assert!(p.ok("fim check app").contains("is whole")),
        misuse "fim check root/hello" says "root/hello";
    info: |p| {
        assert!(p.ok("fim info more.layer").contains("DwarFS 2.5 archive"));
        let json: serde_json::Value = serde_json::from_str(&p.ok("fim info app --json")).unwrap();
        assert_eq!(json["image"]["archives"][0]["known"]["kind"], "base");
        assert_eq!(json["image"]["settings"]["labels"]["distribution"], "tiny");
    }, misuse "fim info root/hello" says "root/hello";
    bench: |p| {
        let json: serde_json::Value = serde_json::from_str(&p.ok("fim bench app --json")).unwrap();
        let what: Vec<_> = json.as_array().unwrap().iter().map(|row| row["what"].as_str().unwrap()).collect();
        assert_eq!(what, ["open", "walk", "read", "read again", "small reads"]);
        assert_eq!((json[1]["count"].as_u64(), json[2]["bytes"].as_u64()), (Some(6), Some(36)), "{json}");
        assert_eq!(p.ok("fim bench more.layer").lines().count(), 5);
    }, misuse "fim bench root/hello" says "root/hello";
    exec: |p| if runnable(p) { assert_eq!(p.ok("./app fim-exec echo inside"), "inside\n") },
        misuse "fim exec app" says "PROG";
    root: |p| if runnable(p) { assert_eq!(p.ok("./app fim-root id -u"), "0\n") },
        misuse "fim root app" says "PROG";
    run: |p| if runnable(p) {
        p.ok("fim boot app set echo booted");
        assert_eq!(p.ok("./app twice"), "booted twice\n");
    }, misuse "fim run nowhere" says "nowhere";
    mount: |p| if can_run() {
        fs::create_dir(p.path("m")).unwrap();
        assert_eq!(p.ok("fim mount app m -- cat m/hello"), "hello from root\n");
    }, misuse "fim mount app nowhere" says "nowhere";
    umount: |p| if can_run() {
        fs::create_dir(p.path("m")).unwrap();
        story(p, &[("fim mount app m", ""), ("fim umount m", "")]);
    }, misuse "fim umount root" says "root";
    stats: |p| if can_run() {
        fs::create_dir(p.path("m")).unwrap();
        // By the name of the verb, and from inside.
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_fim"), p.path("fim-stats")).unwrap();
        assert!(p.ok("fim mount app m -- ./fim-stats m").contains("requests"));
    }, misuse "fim stats root" says "not in a mount of fim";
    ls: |p| assert_eq!(p.ok("fim ls app"), "empty\netc\nhello\nlink\n"),
        misuse "fim ls root/hello" says "root/hello";
    cat: |p| assert_eq!(p.ok("fim cat app hello"), "hello from root\n"),
        misuse "fim cat more.layer" says "FILE";
    cp: |p| {
        p.ok("fim cp app hello copied");
        assert_eq!(fs::read(p.path("copied")).unwrap(), b"hello from root\n");
    }, misuse "fim cp app hello" says "DEST";
    tree: |p| assert!(p.ok("fim tree app").contains("hello")),
        misuse "fim tree root/hello" says "root/hello";
    stat: |p| assert!(p.ok("fim stat app hello").contains("hello")),
        misuse "fim stat root/hello x" says "root/hello";
    boot_set: |p| story(p, &[
        ("fim boot app set python3 -q", ""),
        ("fim boot app show", "{\"args\": [\"-q\"], \"program\": \"python3\"}\n"),
    ]), misuse "fim boot app set" says "CMD";
    boot_show: |p| story(p, &[("fim boot app show", "{\"args\": [], \"program\": \"bash\"}\n")]),
        misuse "fim boot more.layer show" says "more.layer";
    boot_clear: |p| story(p, &[("fim boot app set x", ""), ("fim boot app clear", ""),
        ("fim boot app show --json", "{\"args\": [], \"program\": \"bash\"}\n")]),
        misuse "fim boot app clear x" says "x";
    env_add: |p| story(p, &[("fim env app add A=1", ""), ("fim env app list", "A=1\n")]),
        misuse "fim env app add A" says "NAME=VALUE";
    env_set: |p| story(p, &[("fim env app add A=1", ""), ("fim env app set B=2", ""), ("fim env app list", "B=2\n")]),
        misuse "fim env app set =1" says "NAME=VALUE";
    env_del: |p| story(p, &[("fim env app add A=1 B=2", ""), ("fim env app del A", ""), ("fim env app list", "B=2\n")]),
        misuse "fim env app del NOTHING" says "not set in the image";
    env_list: |p| story(p, &[("fim env app add A=1", ""), ("fim env app list --json", "{\"A\":\"1\"}\n")]),
        misuse "fim env more.layer list" says "more.layer";
    env_clear: |p| story(p, &[("fim env app add A=1", ""), ("fim env app clear", ""), ("fim env app list", "")]),
        misuse "fim env app clear A" says "A";
    perms_add: |p| story(p, &[("fim perms app add Home,gpu", ""), ("fim perms app list", "gpu\nhome\n")]),
        misuse "fim perms app add homes" says "unknown permission";
    perms_del: |p| story(p, &[("fim perms app add home,gpu", ""), ("fim perms app del gpu", ""), ("fim perms app list", "home\n")]),
        misuse "fim perms app del" says "WORDS";
    perms_set: |p| story(p, &[("fim perms app add gpu", ""), ("fim perms app set home", ""), ("fim perms app list", "home\n")]),
        misuse "fim perms app set nothing" says "unknown permission";
    perms_list: |p| story(p, &[("fim perms app list --json", "[]\n")]),
        misuse "fim perms more.layer list" says "more.layer";
    perms_clear: |p| story(p, &[("fim perms app add gpu", ""), ("fim perms app clear", ""), ("fim perms app list", "")]),
        misuse "fim perms app clear gpu" says "gpu";
    unshare_add: |p| story(p, &[("fim unshare app add ipc", ""), ("fim unshare app list", "ipc\n")]),
        misuse "fim unshare app add mnt" says "mnt";
    unshare_del: |p| story(p, &[("fim unshare app add ipc,uts", ""), ("fim unshare app del ipc", ""), ("fim unshare app list", "uts\n")]),
        misuse "fim unshare app del" says "WORDS";
    unshare_set: |p| story(p, &[("fim unshare app set net", ""), ("fim unshare app list", "net\n")]),
        misuse "fim unshare app set x" says "x";
    unshare_list: |p| story(p, &[("fim unshare app list --json", "[]\n")]),
        misuse "fim unshare app list x" says "x";
    unshare_clear: |p| story(p, &[("fim unshare app add ipc", ""), ("fim unshare app clear", ""), ("fim unshare app list", "")]),
        misuse "fim unshare nowhere clear" says "nowhere";
    overlay_set: |p| story(p, &[("fim overlay app set BWRAP", ""), ("fim overlay app show", "kernel\n")]),
        misuse "fim overlay app set zfs" says "zfs";
    overlay_show: |p| story(p, &[("fim overlay app show --json", "\"fuse\"\n")]),
        misuse "fim overlay more.layer show" says "more.layer";
    overlay_export: |p| story(p, &[("fim overlay app export", "")]),
        misuse "fim overlay app export --work x" says "--upper";
    bind_add: |p| story(p, &[("fim bind app add ro /a /b", "0\n"), ("fim bind app add rw /c /d", "1\n")]),
        misuse "fim bind app add ro /a b" says "absolute";
    bind_del: |p| story(p, &[("fim bind app add ro /a /b", "0\n"), ("fim bind app del 0", ""), ("fim bind app list", "{}\n")]),
        misuse "fim bind app del 0" says "the image has 0";
    bind_list: |p| story(p, &[("fim bind app list --json", "{}\n")]),
        misuse "fim bind app list x" says "x";
    casefold_on: |p| {
        p.ok("fim casefold app on --mode ascii /a");
        assert_eq!(p.ok("fim casefold app show"), "{\"on\":true,\"mode\":\"ascii\",\"subtrees\":[\"/a\"]}\n");
    }, misuse "fim casefold app on a" says "absolute path";
    casefold_off: |p| {
        story(p, &[("fim casefold app on", ""), ("fim casefold app off", "")]);
        assert!(p.ok("fim casefold app show").contains("\"on\":false"));
    }, misuse "fim casefold app off /a" says "/a";
    casefold_show: |p| assert!(p.ok("fim casefold app show --json").contains("\"on\":false")),
        misuse "fim casefold more.layer show" says "more.layer";
    notify_on: |p| story(p, &[("fim notify app on", ""), ("fim notify app show", "on\n")]),
        misuse "fim notify app on twice" says "twice";
    notify_off: |p| story(p, &[("fim notify app on", ""), ("fim notify app off", ""), ("fim notify app show --json", "false\n")]),
        misuse "fim notify nowhere off" says "nowhere";
    notify_show: |p| story(p, &[("./app fim-notify SHOW", "off\n")]),
        misuse "fim notify more.layer show" says "more.layer";
    desktop_setup: |p| {
        fs::write(p.path("d.json"), r#"{"name":"App","categories":["Network"]}"#).unwrap();
        p.ok("fim desktop app setup d.json");
        assert!(p.ok("fim desktop app dump entry").contains("Name=App\n"));
    }, misuse "fim desktop app setup root/hello" says "cannot understand root/hello";
    desktop_enable: |p| {
        fs::write(p.path("d.json"), r#"{"name":"App"}"#).unwrap();
        p.ok("fim desktop app setup d.json");
        let share = p.path("share");
        let done = p.command("fim").args(["desktop", "app", "enable", "entry"]).env("XDG_DATA_HOME", &share).status();
        assert!(done.unwrap().success());
        assert_eq!(fs::read_dir(share.join("applications")).unwrap().flatten().filter(|e| e.path().extension() == Some("desktop".as_ref())).count(), 1);
    }, misuse "fim desktop app enable entry" says "fim-desktop setup";
    desktop_clean: |p| {
        let done = p.command("fim").args(["desktop", "app", "clean"]).env("XDG_DATA_HOME", p.path("share")).status();
        assert!(done.unwrap().success() && !p.path("share").exists());
    }, misuse "fim desktop more.layer clean" says "more.layer";
    desktop_dump: |p| {
        fs::write(p.path("d.json"), r#"{"name":"App","icon":"i.svg"}"#).unwrap();
        fs::write(p.path("i.svg"), "<svg/>").unwrap();
        p.ok("fim desktop app setup d.json");
        p.ok("fim desktop app dump icon out");
        assert_eq!(fs::read(p.path("out.svg")).unwrap(), b"<svg/>");
        assert!(p.ok("fim desktop app dump mimetype").contains("<mime-info"));
    }, misuse "fim desktop app dump entry" says "no description for the desktop";
    remote_set: |p| story(p, &[("fim remote app set https://example.org/r/", ""), ("fim remote app show", "https://example.org/r\n")]),
        misuse "fim remote app set example.org" says "https://";
    remote_show: |p| story(p, &[("fim remote app show", ""), ("fim remote app show --json", "null\n")]),
        misuse "fim remote more.layer show" says "more.layer";
    remote_clear: |p| story(p, &[("fim remote app set http://x", ""), ("fim remote app clear", ""), ("fim remote app show", "")]),
        misuse "fim remote app clear x" says "x";
    recipe_fetch: |p| crate::recipe::fetch_works(p),
        misuse "fim recipe app fetch gpu" says "\"tiny\"";
    recipe_info: |p| crate::recipe::info_works(p),
        misuse "fim recipe app info ../gpu" says "\"tiny\"";
    recipe_install: |p| crate::recipe::install_works(p),
        misuse "fim recipe app install" says "RECIPE";
    version: |p| assert_eq!(p.ok("./app fim-version"), format!("{}\n", env!("CARGO_PKG_VERSION"))),
        misuse "fim version app long" says "long";
    version_short: |p| assert_eq!(p.ok("fim version app short"), format!("{}\n", env!("CARGO_PKG_VERSION"))),
        misuse "fim version app short x" says "x";
    version_full: |p| assert!(p.ok("./app fim-version FULL").contains("\"DISTRIBUTION\":\"tiny\"")),
        misuse "fim version nowhere full" says "nowhere";
    version_deps: |p| assert_eq!(p.ok("./app fim-version deps"), "[]\n"),
        misuse "fim version more.layer deps" says "more.layer";
    help: |p| {
        assert!(p.ok("./app fim-help layer rm").contains("app.flatimage fim-layer rm 2"));
        assert!(p.ok("fim help").contains("doctor"));
    }, misuse "fim help nothing" says "there is no such verb";
    doctor: |p| {
        let done = p.run("fim doctor --json");
        let said: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(said["well"], done.status == 0);
        assert!(said["findings"].as_array().unwrap().len() >= 6);
    }, misuse "fim doctor more.layer" says "more.layer";
    completions: |p| assert!(p.ok("fim completions BASH").contains("complete -o nosort -F _fim fim")),
        misuse "fim completions tcsh" says "tcsh";
    complete: |p| assert_eq!(p.ok("fim complete -- fim umou"), "umount\tUnmounts what fim has mounted on a directory, and waits until its server has written everything and gone\n"),
        misuse "fim complete fim" says "fim";
    man: |p| {
        p.ok("fim man pages");
        assert!(fs::read_to_string(p.path("pages/fim-layer-rm.1")).unwrap().contains("fim\\-layer rm"));
    }, misuse "fim man root/hello" says "root/hello";
}
