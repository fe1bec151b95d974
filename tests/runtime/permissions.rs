//! What programs inside reach, permission by permission, on a host that has everything: its devices, sockets and places
//! are made in a mount namespace of the test's own.

use std::{
    collections::BTreeMap,
    env, fs,
    fs::Permissions,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
        net::UnixListener,
    },
    path::Path,
    process::{Command, Stdio},
};

use fim::config::{Bind, BindKind, Namespace, Permission, Settings, Word as _};

use rustix::fs::FlockOperation;

use crate::support::{PLAIN_UID, Who, World, find, said, skip};

/// Covers parts of the host, then becomes the rest of the arguments, as a user where one is named.
const STAGE: &str = r#"
stage=$1 user=$2; shift 2
mount --bind "$stage/x11" /tmp/.X11-unix && mount --bind "$stage/run" /run && mount --bind "$stage/media" /media &&
mount --bind /dev/pts "$stage/dev/pts" && mount --bind "$stage/shm" "$stage/dev/shm" && mount --rbind "$stage/dev" /dev || exit 99
[ "$user" = 0 ] || set -- setpriv --reuid "$user" --regid "$user" --clear-groups "$@"
exec "$@"
"#;

/// Whether each thing is there, a line each. `-c` devices are opened as well.
const PROBE: &str = r#"
say() { name=$1; shift; "$@" >/dev/null 2>&1 && echo "$name" || true; }
opens() { [ -c "$1" ] && (: < "$1"); }
writes() { (: > "$1"); }
writes_at() { [ -e "$1/of-the-host" ] && writes "$1/written"; }
say audio test -S "${PULSE_SERVER#unix:}"
say dbus_system test -S /run/dbus/system_bus_socket
say dbus_user test -S "${DBUS_SESSION_BUS_ADDRESS#unix:path=}"
say dev opens /dev/ttyS9
say gpu opens /dev/dri/card0
say home writes_at "$CALLERS_HOME"
say host writes "$FIM_DIR_RUNTIME_HOST/media/written"
say input opens /dev/input/event0
say media writes_at /media
say network test "$(readlink /proc/self/ns/net)" = "$HOST_NET"
say optical opens /dev/sr0
say portal fim_portal true
say shm test -e /dev/shm/of-the-host
say udev test -e /run/udev/data
say usb opens /dev/bus/usb/001
say view test -d "$FIM_DIR_RUNTIME_HOST/usr"
say wayland test -S "$XDG_RUNTIME_DIR/$WAYLAND_DISPLAY"
say xorg test -S /tmp/.X11-unix/X97 -a -n "$DISPLAY"
"#;

/// Where X11 displays are: it is not there on a host without one, and goes with the last test that covers it.
const X11: &str = "/tmp/.X11-unix";

/// Makes it where it is missing, and holds a lock of it which others share.
fn hold_x11() -> fs::File {
    loop {
        fs::create_dir_all(X11).unwrap();
        let Ok(held) = fs::File::open(X11) else { continue };
        rustix::fs::flock(&held, FlockOperation::LockShared).unwrap();
        // Somebody may have been the last between the two.
        if fs::metadata(X11).is_ok_and(|there| there.ino() == held.metadata().unwrap().ino()) {
            return held;
        }
    }
}

/// A world on such a host.
struct Host {
    world: World,
    _sockets: Vec<UnixListener>,
    x11: fs::File,
}

impl Host {
    fn new(who: Who) -> Option<Self> {
        if fim::sys::users::Ids::of_caller().unwrap().uid != 0 {
            skip("root, to cover parts of the host");
            return None;
        }
        let world = World::with_settings(who, |_| {})?;
        let x11 = hold_x11();
        let stage = |name: &str| world.path("stage").join(name);
        let id = if who == Who::Plain { PLAIN_UID } else { 0 };
        for folder in [
            "x11",
            "media",
            "shm",
            "run/udev/data",
            "run/dbus",
            "dev/pts",
            "dev/shm",
            "dev/dri",
            "dev/snd",
            "dev/input",
            "dev/bus/usb",
        ] {
            fs::create_dir_all(stage(folder)).unwrap();
        }
        let session = format!("run/user/{id}");
        fs::create_dir_all(stage(&session).join("pulse")).unwrap();
        fs::create_dir_all(world.path("home")).unwrap();
        for place in [stage("shm"), stage("media"), world.path("home")] {
            fs::write(place.join("of-the-host"), "").unwrap();
        }
        // Each is /dev/null by another name, except those that the engine needs.
        for (name, numbers) in [
            ("null", "1 3"),
            ("zero", "1 5"),
            ("full", "1 7"),
            ("random", "1 8"),
            ("urandom", "1 9"),
            ("tty", "5 0"),
            ("ptmx", "5 2"),
            ("fuse", "10 229"),
            ("dri/card0", "1 3"),
            ("snd/control", "1 3"),
            ("input/event0", "1 3"),
            ("bus/usb/001", "1 3"),
            ("sr0", "1 3"),
            ("ttyS9", "1 3"),
            ("tty1", "1 3"),
        ] {
            let made = Command::new("mknod")
                .args(["-m", "0666"])
                .arg(stage("dev").join(name))
                .arg("c")
                .args(numbers.split(' '))
                .status();
            assert!(made.unwrap().success());
        }
        let sockets = ["x11/X97", "run/dbus/system_bus_socket"]
            .map(String::from)
            .into_iter()
            .chain(["bus", "wayland-0", "pulse/native"].map(|name| format!("{session}/{name}")))
            .map(|name| UnixListener::bind(stage(&name)).unwrap())
            .collect();
        for folder in ["stage/media", "home", "own", "own/app.flatimage"] {
            chown(world.path(folder), Some(id), Some(id)).unwrap();
        }
        chown(stage(&session), Some(id), Some(id)).unwrap();
        Some(Self { world, _sockets: sockets, x11 })
    }

    /// Runs a verb of the image on the staged host.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        let id = if self.world.who == Who::Plain { PLAIN_UID } else { 0 };
        command
            .args(["-m", "sh", "-c", STAGE, "sh"])
            .arg(self.world.path("stage"))
            .arg(id.to_string())
            .arg(self.world.image())
            .args(arguments)
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap())
            .env("HOME", self.world.path("home"))
            .env("FIM_DIR_DATA", self.world.path("data"))
            .env("FIM_DIR_GLOBAL", self.world.path("global"))
            .env("DISPLAY", ":97")
            .current_dir(self.world.path("cwd"))
            .stdin(Stdio::null());
        command
    }

    /// What a program reaches.
    fn reaches(&self, verb: &[&str]) -> Vec<String> {
        let net = fs::read_link("/proc/self/ns/net").unwrap();
        let home = self.world.path("home");
        let script = format!("HOST_NET='{}'; CALLERS_HOME='{}'\n{PROBE}", net.display(), home.display());
        let arguments: Vec<&str> = verb.iter().copied().chain(["sh", "-c", &script]).collect();
        let reached = said(self.command(&arguments).output().unwrap());
        reached.lines().map(str::to_owned).collect()
    }

    fn permit(&self, permissions: &[Permission]) {
        self.world.change_settings(|settings| settings.permissions.set(permissions.iter().copied()));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if rustix::fs::flock(&self.x11, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // It is not ours where it holds something.
            let _ = fs::remove_dir(X11);
        }
    }
}

fn on_each_host(test: impl Fn(&Host)) {
    for who in [Who::Myself, Who::Plain] {
        let Some(host) = Host::new(who) else { return };
        println!("as {who:?}");
        test(&host);
        host.world.assert_nothing_left();
    }
}

/// Prints what was reached as a table: a row a permission, a column a thing.
fn print_table(rows: &[(String, Vec<String>)]) {
    let things: Vec<String> = rows.iter().flat_map(|(_, reached)| reached.clone()).collect();
    let things: Vec<String> =
        things.into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
    println!("{:14}{}", "held", things.join(" "));
    for (name, reached) in rows {
        let cells: Vec<String> = things
            .iter()
            .map(|thing| {
                format!("{:width$}", if reached.contains(thing) { "x" } else { "." }, width = thing.len())
            })
            .collect();
        println!("{name:14}{}", cells.join(" "));
    }
}

/// What is reached with a permission beyond what is reached without it.
fn more(permission: Permission) -> Vec<&'static str> {
    match permission {
        Permission::Dev => vec!["dev", "gpu", "input", "optical", "usb"],
        Permission::Host => vec!["host", "view"],
        Permission::Strict => vec![],
        Permission::All => vec![
            "audio",
            "dbus_system",
            "dbus_user",
            "dev",
            "gpu",
            "home",
            "host",
            "input",
            "media",
            "network",
            "optical",
            "portal",
            "shm",
            "udev",
            "usb",
            "view",
            "wayland",
            "xorg",
        ],
        one => vec![one.name()],
    }
}

#[test]
fn under_deny_all_each_permission_gives_its_thing_alone() {
    on_each_host(|host| {
        let mut rows = Vec::new();
        host.permit(&[Permission::Strict]);
        rows.push(("strict".to_owned(), host.reaches(&["fim-exec"])));
        for permission in Permission::LIST.iter().copied().filter(|word| *word != Permission::Strict) {
            host.permit(&[permission, Permission::Strict]);
            rows.push((permission.name().to_owned(), host.reaches(&["fim-exec"])));
        }
        print_table(&rows);
        for (name, reached) in &rows {
            assert_eq!(reached, &more(Permission::parse(name).unwrap()), "{name}");
        }
    });
}

#[test]
fn by_default_each_permission_adds_its_thing() {
    on_each_host(|host| {
        let mut rows = Vec::new();
        host.permit(&[]);
        rows.push(("none".to_owned(), host.reaches(&["fim-exec"])));
        for permission in Permission::LIST.iter().copied().filter(|word| *word != Permission::Strict) {
            host.permit(&[permission]);
            rows.push((permission.name().to_owned(), host.reaches(&["fim-exec"])));
        }
        print_table(&rows);
        for (name, reached) in &rows {
            let mut expected = Permission::parse(name).map(more).unwrap_or_default();
            expected.extend(["network", "view"]);
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(reached, &expected, "{name}");
        }
        // The command line can be stricter than the image.
        host.permit(&[Permission::Home]);
        assert_eq!(host.reaches(&["fim-exec", "--strict"]), ["home"]);
        assert_eq!(host.reaches(&["fim-root", "--strict"]), ["home"]);
    });
}

#[test]
fn a_policy_takes_away_what_the_image_has() {
    on_each_host(|host| {
        host.permit(&[Permission::Home, Permission::Media, Permission::Wayland]);
        let place = host.world.path("home/.config/fim");
        fs::create_dir_all(&place).unwrap();
        let policy = |text: &str| fs::write(place.join("policy.json"), text).unwrap();
        policy(r#"{"default":{"deny":["home","network"]}}"#);
        assert_eq!(host.reaches(&["fim-exec"]), ["media", "view", "wayland"]);
        policy(r#"{"default":{"allow":["home","gpu"]}}"#);
        assert_eq!(host.reaches(&["fim-exec"]), ["home"]);
        policy(r#"{"default":{"strict":true}}"#);
        assert_eq!(host.reaches(&["fim-exec"]), ["home", "media", "wayland"]);
        policy(r#"{"default":{"deny":["hom"]}}"#);
        let output = host.command(&["fim-exec", "true"]).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(125));
        assert!(error.contains("policy.json") && error.contains("\"hom\""), "{error}");
    });
}

#[test]
fn nothing_of_what_is_shown_gets_into_the_upper() {
    on_each_host(|host| {
        host.permit(&[Permission::All]);
        said(host.command(&["fim-exec", "true"]).output().unwrap());
        let mut files = Vec::new();
        let mut folders = vec![host.world.upper()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let kind = entry.file_type().unwrap();
                if kind.is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
            }
        }
        // Mount points: empty files, nothing of a device, a driver or a cookie.
        for file in files {
            assert_eq!(fs::metadata(&file).unwrap().len(), 0, "{}", file.display());
            let below = file.strip_prefix(host.world.upper()).unwrap().to_owned();
            assert!(["etc", "run"].iter().any(|place| below.starts_with(place)), "{}", below.display());
        }
    });
}

/// The namespaces that a program shares with the host.
fn shared(world: &World, verb: &str) -> Vec<String> {
    let script = "for n in cgroup ipc net pid user uts; do echo $n $(readlink /proc/self/ns/$n); done";
    let said = said(world.command(&[verb, "sh", "-c", script]).output().unwrap());
    let inside: BTreeMap<&str, &str> = said.lines().filter_map(|line| line.split_once(' ')).collect();
    inside
        .into_iter()
        .filter(|(name, link)| fs::read_link(format!("/proc/self/ns/{name}")).unwrap() == Path::new(link))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn each_namespace_is_unshared_where_the_image_says_so() {
    for who in [Who::Myself, Who::Plain] {
        let Some(world) = World::with_settings(who, |_| {}) else { return };
        let always: &[&str] = if who == Who::Plain { &["pid", "user"] } else { &["pid"] };
        let mut rows = Vec::new();
        for word in [None].into_iter().chain(Namespace::LIST.iter().copied().map(Some)) {
            world.change_settings(|settings| settings.unshare.set(word));
            let shared = shared(&world, "fim-exec");
            let own = match word {
                None => vec![],
                Some(Namespace::All) => vec!["cgroup", "ipc", "net", "pid", "user", "uts"],
                Some(one) => vec![one.name()],
            };
            let mut expected = vec!["cgroup", "ipc", "net", "pid", "user", "uts"];
            expected.retain(|name| !own.contains(name) && !always.contains(name));
            let name = word.map_or("none", |word| word.name());
            rows.push((name.to_owned(), shared.clone()));
            assert_eq!(shared, expected, "{who:?} {name}");
        }
        println!("as {who:?}: shared with the host");
        print_table(&rows);
        world.assert_nothing_left();
    }
}

fn with_binds(settings: &mut Settings, binds: &[(&Path, &str, BindKind)]) {
    settings.binds = Default::default();
    for (source, destination, kind) in binds {
        let source = source.to_str().unwrap().to_owned();
        settings.binds.add(Bind { source, destination: (*destination).to_owned(), kind: *kind }).unwrap();
    }
}

#[test]
fn binds_show_places_of_the_host_and_a_missing_one_is_said() {
    for who in [Who::Myself, Who::Plain] {
        let Some(world) = World::with_settings(who, |_| {}) else { return };
        let place = world.path("cwd");
        fs::write(place.join("note"), "of the host").unwrap();
        fs::set_permissions(place.join("note"), Permissions::from_mode(0o644)).unwrap();
        let missing = world.path("missing");
        world.change_settings(|settings| {
            with_binds(
                settings,
                &[
                    (&place, "/ro", BindKind::Ro),
                    (&place, "$HOME/deep/rw", BindKind::Rw),
                    (&missing, "/missing", BindKind::Ro),
                    (&place.join("note"), "/opt/note", BindKind::Ro),
                ],
            );
        });
        let script = "cat /ro/note /opt/note; (: > /ro/x) 2>/dev/null || echo read-only; : > ~/deep/rw/made; [ -e /missing ] || echo missing";
        let output = world.shell(script).output().unwrap();
        let errors = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(said(output), "of the hostof the hostread-only\nmissing");
        assert!(errors.starts_with("fim: left out bind 2, ") && errors.contains("/missing"), "{errors}");
        assert!(place.join("made").exists());
        world.assert_nothing_left();
    }
}

#[test]
fn the_image_says_who_its_programs_are_and_root_is_root() {
    for who in [Who::Myself, Who::Plain] {
        let Some(world) = World::with_settings(who, |_| {}) else { return };
        world.change_settings(|settings| {
            settings.environment.add(
                [
                    ("UID", "4321"),
                    ("GID", "765"),
                    ("USER", "bob"),
                    ("HOME", "/home/bob"),
                    ("SHELL", "/bin/sh"),
                    ("PS1", "> "),
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
            );
        });
        let script = "id -u; id -g; id -un; id -gn; echo $USER $HOME $SHELL \"$PS1\"; pwd; grep -c bob /etc/passwd /etc/group";
        let said_inside = world.says(script);
        assert_eq!(
            said_inside,
            "4321\n765\nbob\nbob\nbob /home/bob /bin/sh > \n/home/bob\n/etc/passwd:1\n/etc/group:1"
        );
        let output =
            world.command(&["fim-root", "sh", "-c", "id -u; id -g; echo $USER $HOME"]).output().unwrap();
        assert_eq!(said(output), "0\n0\nroot /root");
        let mut by_variable = world.shell("id -u");
        assert_eq!(said(by_variable.env("FIM_ROOT", "1").output().unwrap()), "0");
        world.change_settings(|settings| settings.environment.add([("UID".to_owned(), "many".to_owned())]));
        let output = world.shell("true").output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(125));
        assert!(error.contains("UID=\"many\"") && error.contains("fim-env"), "{error}");
        world.assert_nothing_left();
    }
}

#[test]
fn a_dry_run_tells_everything_and_runs_nothing() {
    on_each_host(|host| {
        host.permit(&[Permission::Home, Permission::Wayland]);
        let dry = |more: &[&str]| {
            let arguments: Vec<&str> = ["fim-exec", "--dry-run"].iter().chain(more).copied().collect();
            said(host.command(&arguments).output().unwrap())
        };
        let text = dry(&["touch", "/made"]);
        let home = host.world.path("home");
        let home = home.display();
        for line in [
            format!("mount {home}: {home} of the host, writable  [permission home]"),
            "variable WAYLAND_DISPLAY: wayland-0  [permission wayland]".to_owned(),
            "namespace pid: its own  [every program needs it]".to_owned(),
            "mount /sys: /sys of the host, read-only  [the default profile]".to_owned(),
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(!host.world.upper().join("made").exists());
        let rows: serde_json::Value = serde_json::from_str(&dry(&["--strict", "--json"])).unwrap();
        let find = |name: &str| rows.as_array().unwrap().iter().find(|row| row["name"] == name).cloned();
        assert_eq!(find("net").unwrap()["reason"], "--strict");
        assert_eq!(find("WAYLAND_DISPLAY").unwrap()["permission"], "wayland");
        assert!(find("/sys").is_none());
        // What it tells is what is there.
        let inside = said(host.command(&["fim-exec", "env"]).output().unwrap());
        for line in inside.lines() {
            let (name, value) = line.split_once('=').unwrap();
            assert!(
                ["PWD", "SHLVL", "_"].contains(&name)
                    || value.is_empty()
                    || text.contains(&format!("\nvariable {name}: ")),
                "{name}"
            );
        }
    });
}

#[test]
fn nobody_gets_out() {
    on_each_host(|host| {
        host.permit(&[Permission::Dev]);
        let script = r#"
            tried() { name=$1; shift; "$@" >/dev/null 2>&1 && echo "ESCAPED: $name" || echo "stopped: $name"; }
            writes() { (: > "$1"); }
            opens() { [ -e "$1" ] && (: < "$1"); }
            node() { mknod "$1" c 1 5 && [ "$(head -c 4 "$1" | busybox wc -c)" = 4 ]; }
            H=$FIM_DIR_RUNTIME_HOST
            tried 'write below run/host' writes $H/media/escaped
            tried 'remount run/host' mount -o remount,rw,bind $H
            tried 'uncover the homes' busybox umount $H/tmp
            tried 'uncover the homes lazily' busybox umount -l $H/tmp
            tried 'bind over a cover' mount --bind / $H/tmp
            tried 'mount a new proc' mount -t proc proc /mnt
            tried 'write to the engine' writes $FIM_DIR_RUNTIME/fim_init
            tried 'write to the tools' writes $FIM_DIR_APP_BIN/bash
            tried 'write to sys' writes /sys/kernel/uevent_helper
            tried 'write to proc sys' writes /proc/sys/kernel/core_pattern
            tried 'trigger sysrq' writes /proc/sysrq-trigger
            tried 'device node in /tmp' node /tmp/node
            tried 'device node in the root' node /node
            tried 'root of process 1' ls /proc/1/root/
            tried 'files of process 1' readlink /proc/1/fd/0
            tried 'memory of process 1' opens /proc/1/mem
            tried 'console of the host' opens /dev/tty1
            tried 'terminal of the host' opens /dev/pts/0
            tried 'memory of the kernel' opens /dev/mem
            tried 'other processes' test -e /proc/2000000000 -o $(ls -d /proc/[0-9]* | busybox wc -l) -gt 6
        "#;
        for verb in ["fim-exec", "fim-root"] {
            let said = said(host.command(&[verb, "sh", "-c", script]).output().unwrap());
            println!("{verb}:\n{said}");
            assert!(!said.contains("ESCAPED") && said.lines().count() == 20, "{verb}\n{said}");
        }
        assert!(!host.world.path("stage/media/escaped").exists());
    });
}

#[test]
fn an_images_symlinks_lead_no_permission_out() {
    on_each_host(|host| {
        let outside = host.world.path("cwd");
        let root = host.world.root();
        fs::remove_dir(root.join("run")).unwrap();
        symlink(&outside, root.join("run")).unwrap();
        symlink("../../../../../../../../../../..", root.join("media")).unwrap();
        symlink(outside.join("made"), root.join("place")).unwrap();
        host.permit(&[Permission::All]);
        let binds = host.world.path("home");
        host.world.change_settings(|settings| with_binds(settings, &[(&binds, "/place/deep", BindKind::Rw)]));
        assert_eq!(said(host.command(&["fim-exec", "echo", "in"]).output().unwrap()), "in");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    });
}

/// The host's perl as a program inside can start it: with the loader and the libraries of the host.
fn hosts_perl() -> Option<String> {
    let (Some(perl), Ok(loader)) = (find("perl"), fs::canonicalize("/lib64/ld-linux-x86-64.so.2")) else {
        skip("perl of an x86-64 host");
        return None;
    };
    let perl = fs::canonicalize(perl).unwrap();
    let libraries = loader.parent().unwrap();
    Some(format!(
        "$FIM_DIR_RUNTIME_HOST{} --library-path $FIM_DIR_RUNTIME_HOST{}:$FIM_DIR_RUNTIME_HOST/usr{1} $FIM_DIR_RUNTIME_HOST{}",
        loader.display(),
        libraries.display(),
        perl.display()
    ))
}

/// Escapes by system calls (x86-64). Each says whether it has got anywhere; `@ARGV`: a process of the host, and what the
/// caller's keyring holds.
const ESCAPES: &str = r#"
    my ($outside, $key) = @ARGV; my $H = $ENV{FIM_DIR_RUNTIME_HOST}; my $covered = "$H/tmp";
    sub tried { my ($name, $got) = @_; print(($got ? "ESCAPED: " : "stopped: "), $name, "\n"); }
    # Runs in a process of its own, which may leave its namespaces.
    sub apart { my ($do) = @_; pipe(my $r, my $w); my $p = fork(); if (!$p) { close $r; print $w ($do->() ? 1 : 0); close $w; exit 0 }
        close $w; my $said = <$r>; waitpid($p, 0); return $said // 0 }
    sub ok { my ($n, @a) = @_; my $r = syscall($n, @a); return $r >= 0 }
    sub put { my ($f, $t) = @_; open(my $h, ">", $f) or return 0; my $r = syswrite($h, $t); return close($h) && $r }
    my @fds = map { readlink("/proc/self/fd/$_") // () } 3 .. 255;
    my @left = grep { !/^\/proc\/|^\/opt\/escapes|^$/ } @fds;
    tried("descriptors that the caller left open (@left)", scalar @left);
    my @old = stat("/");
    tried("attach to a process of the host", ok(101, 16, $outside, 0, 0));
    tried("attach to process 1", ok(101, 16, 1, 0, 0));
    my $word = "x" x 8; my $iov = pack("PQ", $word, 8);
    tried("read the memory of process 1", ok(310, 1, $iov, 1, pack("QQ", 0x400000, 8), 1, 0));
    tried("signal a process of the host", kill(0, $outside));
    my ($user, $name) = ("user", $key);
    tried("search the caller's session keyring", ok(250, 10, -3, $user, $name, 0));
    tried("search the user's keyring", ok(250, 10, -4, $user, $name, 0));
    tried("add a key", ok(248, $user, $name, "v", 1, -3));
    my ($proc, $none, $mnt) = ("proc", "none", "/mnt"); mkdir $mnt;
    tried("mount proc", ok(165, $none, $mnt, $proc, 0, 0));
    tried("make the root of another mount namespace ours", ok(308, syscall(2, my $ns = "/proc/1/ns/mnt", 0), 0));
    my $handle = pack("Ii", 128, 0) . "\0" x 128; my $id = pack("i", 0); my $root = "/";
    syscall(303, -100, $root, $handle, $id, 0);
    tried("open by handle", ok(304, syscall(2, $root, 0), $handle, 0));
    tried("load a kernel module", ok(313, 0, my $e = "", 0));
    tried("replace the kernel", ok(246, 0, 0, 0, 0));
    tried("raw io ports", ok(172, 3));
    tried("set the clock", ok(227, 0, pack("qq", time(), 0)));
    tried("set the name of the host", ok(170, my $h = "escaped", 7));
    tried("swap on", ok(167, my $swap = "/opt/plain", 0));
    tried("leave by chroot", apart(sub { mkdir "/var/jail"; return 0 unless chroot("/var/jail"); chdir("..") for 1 .. 20; chroot(".");
        my @new = stat("/"); return "@new[0,1]" ne "@old[0,1]" }));
    my $nested = sub { my ($do) = @_; return apart(sub { my ($u, $g) = ($>, $) + 0); return 0 unless ok(272, 0x10020000);
        put("/proc/self/setgroups", "deny"); put("/proc/self/uid_map", "0 $u 1"); put("/proc/self/gid_map", "0 $g 1");
        $do->() }) };
    tried("nested: uncover what is covered", $nested->(sub { ok(166, $covered, 2) }));
    tried("nested: look beneath a cover by a bind", $nested->(sub { ok(165, $H, $mnt, $none, 4096, 0) && -e "$mnt/tmp/fim" }));
    tried("nested: make the host writable", $nested->(sub { ok(165, $none, $H, $none, 4096 | 32, 0) && put("$H/tmp/escaped", "x") }));
    tried("nested: make the engine writable", $nested->(sub { ok(165, $none, $ENV{FIM_DIR_GLOBAL}, $none, 4096 | 32, 0) && put("$ENV{FIM_DIR_RUNTIME}/fim_init", "x") }));
    tried("nested: uncover by another root", $nested->(sub { ok(165, $H, $H, $none, 4096 | 16384, 0) && ok(155, $H, $covered) && chdir("/")
        && (put("/etc/escaped", "x") || (ok(166, "/tmp", 2) && ok(166, "/tmp", 2))) }));
    tried("nested: a device that works", $nested->(sub { ok(133, my $d = "/var/zero", 0020666, 0x105) && open(my $z, "<", $d) && read($z, my $b, 4) == 4 }));
    tried("a set-id program of our own", apart(sub { system("mkdir -p /var/set; cp /bin/busybox /var/set/; chmod 6755 /var/set/busybox"); return `/var/set/busybox id -u` != $> }));
    tried("a set-id program of the host", apart(sub { open(my $s, "<", "/proc/self/status"); return !grep { /^NoNewPrivs:\s*1/ } <$s> }));
    tried("set the run-away agent of cgroups", put("/sys/fs/cgroup/release_agent", "/x") || put("/sys/fs/cgroup/cgroup.procs", $$));
    tried("write to the host through its view", put("$H/etc/fim-escaped", "x") || put("$H/var/tmp/fim-escaped", "x"));
    tried("sockets of the server", -e "$ENV{FIM_DIR_GLOBAL}/server");
    opendir(my $all, "/proc"); for my $pid (grep { /^\d+$/ && $_ != $$ && $_ != getppid() } readdir($all)) {
        next if readlink("/proc/$pid/exe");
        tried("memory of what is not ours", open(my $m, "<", "/proc/$pid/mem"));
        tried("files of what is not ours", chown(1, 1, "/proc/$pid/root/opt/plain") || stat("/proc/$pid/cwd/opt"));
        last;
    }
    print "end\n";
"#;

#[test]
fn nobody_gets_out_by_system_calls() {
    let Some(perl) = hosts_perl() else { return };
    let Some(hosts_own) = find("perl") else { return };
    on_each_host(|host| {
        fs::write(host.world.root().join("opt/escapes.pl"), ESCAPES).unwrap();
        fs::write(host.world.root().join("opt/zero"), [0; 4]).unwrap();
        host.permit(&[Permission::Dev]);
        let mut bystander = Command::new("sleep").arg("100").spawn().unwrap();
        let script = format!("exec {perl} /opt/escapes.pl {} fim-secret", bystander.id());
        for verb in ["fim-exec", "fim-root"] {
            // The caller has a session keyring with a key in it.
            let image = host.command(&[verb, "sh", "-c", &script]);
            let keep = r#"my ($t, $n, $v) = ("user", "fim-secret", "v"); syscall(250, 1, 0); syscall(248, $t, $n, $v, 1, -3) > 0 or die;
                syscall(250, 10, -3, $t, $n, 0) > 0 or die;
                $^F = 99; opendir(my $d, "/"); open(my $f, "<", "/etc/passwd"); exec @ARGV"#;
            let mut command = Command::new(&hosts_own);
            command.args(["-e", keep]).arg(image.get_program()).args(image.get_args());
            command.env_clear().envs(image.get_envs().filter_map(|(name, value)| Some((name, value?))));
            let output = command.current_dir(image.get_current_dir().unwrap()).stdin(Stdio::null()).output();
            let said = said(output.unwrap());
            println!("{verb}:\n{said}");
            assert!(
                !said.contains("ESCAPED") && said.ends_with("\nend") && said.lines().count() > 28,
                "{verb}\n{said}"
            );
        }
        bystander.kill().unwrap();
        bystander.wait().unwrap();
    });
}

#[test]
fn what_is_typed_into_the_terminal_inside_stays_inside() {
    if let Some(perl) = hosts_perl() {
        crate::terminal::nothing_is_typed_outside(&perl);
    }
}
