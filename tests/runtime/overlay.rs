//! Kernel overlayfs in place of the engine: the same programs, the same upper.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use fim::sys::{process::Pidfd, signal::Signal, xattr};

use crate::support::{Who, World, find, for_each_owner, said, skip, status};

/// What merges the root of the caller.
const KIND: &str = r#"while read -r _ _ _ _ at rest; do [ "$at" = / ] && kind="${rest##* - }"; done < /proc/self/mountinfo; echo ${kind%% *}"#;

/// Everything that a program sees of the tree, but for what each run makes anew.
const LISTING: &str = r#"cd /; find etc opt var bin usr lower 2>/dev/null | grep -vxE 'etc/(passwd|group|hosts|resolv.conf)' | sort | while IFS= read -r name; do
    if [ -d "$name" ] && [ ! -h "$name" ]
    then stat -c '%n %F %a %u %g %y' "$name"
    else stat -c '%n %F %a %u %g %y %s %N' "$name"
    fi
    if [ -f "$name" ] && [ -r "$name" ]; then md5sum "$name"; fi
done"#;

/// Whether kernel overlayfs can be mounted by everybody; a line where not.
fn can_mount() -> bool {
    let script = "cd \"$(mktemp -d)\" && mkdir l u w m && mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w,userxattr m";
    let as_plain = ["setpriv", "--reuid=47114", "--regid=47114", "--clear-groups", "unshare", "-Urm"];
    let tried = [&["unshare", "-m"][..], &as_plain].map(|how| {
        let mut command = Command::new(how[0]);
        command.args(&how[1..]).args(["sh", "-c", script]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap()
    });
    let can = tried.iter().all(|output| output.status.success());
    if !can {
        skip(&format!("kernel overlayfs: {}", String::from_utf8_lossy(&tried[1].stderr)));
    }
    can
}

/// For each owner of an image, if the kernel can do it at all.
fn with_kernel(test: impl Fn(&World)) {
    if can_mount() {
        for_each_owner(test);
    }
}

impl World {
    fn overlay(&self, words: &[&str]) -> Output {
        self.command(&[&["fim-overlay"], words].concat()).output().unwrap()
    }

    fn set(&self, kind: &str) {
        assert_eq!(said(self.overlay(&["set", kind])), "");
    }

    /// Its one line on stderr, behind status 125.
    fn refused(&self, mut command: Command) -> String {
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((status(output.status), errors.lines().count()), (125, 1), "{errors}");
        errors
    }
}

#[test]
fn the_kind_of_overlay_is_stored_and_shown() {
    let Some(world) = World::with_image(Who::Myself) else { return };
    assert_eq!(said(world.overlay(&["show"])), "fuse");
    for (word, shown) in [
        ("kernel", "kernel"),
        ("AUTO", "auto"),
        ("overlayfs", "fuse"),
        ("bwrap", "kernel"),
        ("unionfs", "fuse"),
    ] {
        world.set(word);
        assert_eq!(said(world.overlay(&["SHOW"])), shown);
        assert_eq!(said(world.overlay(&["show", "--json"])), format!("\"{shown}\""));
    }
    let why = world.refused(world.command(&["fim-overlay", "set", "zfs"]));
    assert!(why.contains("zfs") && why.contains("fuse kernel auto"), "{why}");
}

#[test]
fn the_word_decides_who_merges_and_the_variable_overrules_it() {
    with_kernel(|world| {
        for (stored, variable, expected) in [
            ("fuse", "", "fuse.fim"),
            ("kernel", "", "overlay"),
            ("auto", "", "overlay"),
            ("kernel", "fuse", "fuse.fim"),
            ("fuse", "kernel", "overlay"),
        ] {
            world.set(stored);
            let mut shell = world.shell(KIND);
            assert_eq!(
                said(shell.env("FIM_OVERLAY", variable).output().unwrap()),
                expected,
                "{stored} {variable}"
            );
            world.assert_nothing_left();
        }
    });
}

#[test]
fn programs_run_and_end_as_ever() {
    with_kernel(|world| {
        world.set("kernel");
        for (script, expected) in
            [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143), ("/opt/plain", 126), ("/opt/none", 127)]
        {
            assert_eq!(status(world.shell(script).output().unwrap().status), expected, "{script}");
        }
        assert_eq!(
            said(
                world
                    .command(&["fim-root", "sh", "-c", "id -u; echo x > /opt/new; cat /opt/new"])
                    .output()
                    .unwrap()
            ),
            "0\nx"
        );
        assert_eq!(status(world.command(&["fim-exec", "/opt/plain"]).output().unwrap().status), 126);
    });
}

#[test]
fn instances_share_one_tree() {
    with_kernel(|world| {
        world.set("kernel");
        let one = world.start("echo ready; while [ ! -e /var/stop ]; do usleep 10000; done; cat /var/stop");
        assert_eq!(world.says(KIND), "overlay");
        assert_eq!(world.says("cat $FIM_DIR_INSTANCE/layers/0/etc/known"), "known");
        world.says("echo stopped > /var/stop.new; mv /var/stop.new /var/stop");
        assert_eq!(one.end(), (0, "stopped\n".to_owned()));
    });
}

/// What one writes the other reads, and back again, with moved directories, attributes without data and several names.
#[test]
fn both_read_and_write_the_same_upper() {
    with_kernel(|world| {
        world.set("fuse");
        // A layer to change: made by the first run, then committed.
        world.says("mkdir -p /var/d/e/f /var/x; seq 1 50000 > /var/d/e/big; echo one > /var/d/one; ln /var/d/one /var/x/two; echo gone > /var/d/gone; ln -s one /var/d/link");
        said(world.command(&["fim-layer", "commit", "binary"]).output().unwrap());
        world.says("mv /var/d /var/moved; rm /var/moved/gone; chmod 600 /var/moved/e/big; echo 1 > /var/x/two; mkdir /var/moved/new; rm -r /opt; mkdir /opt; echo new > /opt/new");
        assert!(world.path("data/work/work/incompat").exists());
        let before = world.says(LISTING);
        world.set("kernel");
        assert_eq!(world.says(LISTING), before, "over what the engine left");
        assert!(!world.path("data/work/work/incompat").exists());
        assert_eq!(world.says("cat /var/moved/one; echo kernel >> /var/moved/one; rm -r /var/moved/e; mkdir /var/moved/e; echo more > /var/x/more; mv /var/x/more /var/more; mv /var/x /var/y 2>/dev/null || echo refused"), "1");
        let after = world.says(LISTING);
        world.set("fuse");
        assert_eq!(world.says(LISTING), after, "over what the kernel left");
        world.says("mv /var/moved /var/again; echo engine > /var/again/engine");
        let last = world.says(LISTING);
        world.set("auto");
        assert_eq!(world.says(LISTING), last);
        assert_eq!(world.says(KIND), "overlay");
        let committed = said(world.command(&["fim-layer", "commit", "binary"]).output().unwrap());
        assert!(committed.contains("app.flatimage"), "{committed}");
        assert_eq!(fs::read_dir(world.upper()).unwrap().count(), 0);
        assert_eq!(world.says(LISTING), last, "over the layer made of it");
    });
}

#[test]
fn nothing_is_committed_or_exported_while_the_kernel_merges() {
    with_kernel(|world| {
        world.set("kernel");
        let one =
            world.start("echo new > /etc/new; echo ready; while [ ! -e /var/stop ]; do usleep 10000; done");
        let why = world.refused(world.command(&["fim-layer", "commit", "binary"]));
        assert!(why.contains("end its instances first") && why.contains("FIM_OVERLAY=fuse"), "{why}");
        let why = world.refused(world.command(&["fim-overlay", "export"]));
        assert!(why.contains("the image is running"), "{why}");
        assert_eq!(said(world.command(&["fim-layer", "diff"]).output().unwrap()), "A /etc/new");
        world.says("touch /var/stop");
        assert_eq!(one.end().0, 0);
        world.assert_nothing_left();
        said(world.command(&["fim-layer", "commit", "binary"]).output().unwrap());
        assert_eq!(fs::read_dir(world.upper()).unwrap().count(), 0);
        assert_eq!(world.says("cat /etc/new"), "new");
    });
}

const LOAD: &str = "cd /var; echo ready; i=0; while :; do i=$((i+1)); echo $i > n.tmp; mv n.tmp n; sync; echo $i > synced; done";

#[test]
fn whatever_is_killed_nothing_stays() {
    with_kernel(|world| {
        world.set("kernel");
        let kill = |pid| Pidfd::open(pid).unwrap().signal(Signal::SIGKILL).unwrap();
        for of_server in [false, true, false] {
            let running = world.start(LOAD);
            std::thread::sleep(std::time::Duration::from_millis(300));
            if of_server {
                kill(world.server_pid());
                assert_eq!(running.end().0, 125);
            } else {
                kill(running.pid());
            }
            world.assert_nothing_left();
            let number = |name: &str| -> u64 {
                fs::read_to_string(world.upper().join("var").join(name))
                    .unwrap_or_default()
                    .trim()
                    .parse()
                    .unwrap_or(0)
            };
            assert!(number("n") > 0 && number("n") >= number("synced"));
        }
        assert_eq!(world.says("echo again"), "again");
    });
}

/// A note that is not ours makes the kernel refuse the work directory: as good as a file system that it refuses.
#[test]
fn auto_goes_on_without_the_kernel_and_kernel_says_why_not() {
    with_kernel(|world| {
        world.says("true");
        let note = world.path("data/work/work/incompat/of-another");
        fs::create_dir_all(&note).unwrap();
        world.set("auto");
        assert_eq!(world.says(KIND), "fuse.fim");
        assert!(note.exists(), "it is not ours to remove");
        world.set("kernel");
        let why = world.refused(world.shell("true"));
        for part in ["kernel overlayfs", "data/root", "EINVAL", "FIM_OVERLAY=fuse"] {
            assert!(why.contains(part), "{why}");
        }
        world.assert_nothing_left();
        fs::remove_dir(&note).unwrap();
        assert_eq!(world.says(KIND), "overlay");
        let mut folding = world.shell("true");
        folding.env("FIM_CASEFOLD", "1");
        let why = world.refused(folding);
        assert!(why.contains("fold case"), "{why}");
    });
}

/// The exported upper of an image, under the mounts of others.
#[test]
fn an_exported_upper_is_everybodys() {
    with_kernel(|world| {
        world.says("mv /usr/bin /usr/moved; chmod 700 /bin/busybox; echo x > /etc/known; rm /opt/plain");
        let notes = world.path("data/work/work/incompat");
        assert_eq!(fs::read_dir(&notes).unwrap().count(), 2);
        assert_eq!(said(world.overlay(&["export"])), "");
        assert!(!notes.exists());
        assert!(world.upper().join("usr/moved").is_dir());
        let busybox = fs::File::open(world.upper().join("bin/busybox")).unwrap();
        let mark = xattr::get(std::os::fd::AsFd::as_fd(&busybox), b"user.fim.metacopy").unwrap();
        assert_eq!(mark, None);
        assert_eq!(busybox.metadata().unwrap().len(), fs::metadata(find("busybox").unwrap()).unwrap().len());
        assert!(busybox.metadata().unwrap().blocks() > 0);
        // Once more, and of nothing.
        assert_eq!(said(world.overlay(&["export"])), "");
    });
}

/// The tree below a directory, as text.
fn tree(root: &Path) -> String {
    let script = "cd \"$1\" && find . | sort | while IFS= read -r name; do stat -c '%n %f %u %g %h %Y' \"$name\" | sed 's/^\\(.* 4...\\( [0-9]*\\)\\{2\\}\\) [0-9]* /\\1 - /'; [ -f \"$name\" ] && md5sum < \"$name\"; [ -h \"$name\" ] && readlink \"$name\"; done; true";
    said(Command::new("sh").args(["-c", script, "sh"]).arg(root).output().unwrap())
}

/// Makes a directory of layers, and an upper that has everything that needs to be exported.
fn changed_mount(folder: &Path, fim: &dyn Fn(&[&str]) -> String) -> String {
    let at = |name: &str| folder.join(name);
    for dir in ["low/d/sub/deep", "low/o", "upper", "mnt"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    for (name, content) in
        [("low/d/a", "a"), ("low/d/sub/b", "b"), ("low/d/gone", "x"), ("low/o/hidden", "x")]
    {
        fs::write(at(name), content).unwrap();
    }
    fs::write(at("low/d/big"), vec![7; 300_000]).unwrap();
    fs::write(at("low/one"), "one").unwrap();
    fs::hard_link(at("low/one"), at("low/d/sub/two")).unwrap();
    fim(&["mount", "low", "--upper", "upper", "mnt"]);
    let script = "cd mnt && mv d moved && rm moved/gone && chmod 640 moved/big && mv moved/sub elsewhere && echo 1 > one && rm -r o && mkdir o && echo n > o/new";
    said(Command::new("sh").args(["-c", script]).current_dir(folder).output().unwrap());
    let shown = tree(&at("mnt"));
    fim(&["umount", "mnt"]);
    shown
}

#[test]
fn an_exported_upper_of_a_mount_looks_the_same_to_others() {
    if !can_mount() || !fim::sys::users::Ids::of_caller().is_ok_and(|ids| ids.uid == 0) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let fim = |words: &[&str]| {
        said(Command::new(env!("CARGO_BIN_EXE_fim")).args(words).current_dir(folder.path()).output().unwrap())
    };
    let shown = changed_mount(folder.path(), &fim);
    fim(&["overlay", "low", "export", "--upper", "upper"]);
    let seen_by = |mount: &str| {
        let script = format!("cd \"$1\" && {mount} && sleep 0.1; exec sleep 1000");
        let mut holder = Command::new("unshare")
            .args(["-m", "sh", "-c", &script, "sh"])
            .arg(folder.path())
            .spawn()
            .unwrap();
        let root = PathBuf::from(format!("/proc/{}/root", holder.id()))
            .join(folder.path().strip_prefix("/").unwrap());
        let mounted = || fs::metadata(root.join("mnt/moved")).is_ok();
        for _ in 0..100 {
            if mounted() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let seen = tree(&root.join("mnt"));
        holder.kill().unwrap();
        holder.wait().unwrap();
        seen
    };
    let options = "lowerdir=low,upperdir=upper,workdir=.upper.work";
    assert_eq!(seen_by(&format!("mount -t overlay o -o {options},userxattr mnt")), shown);
    assert_eq!(seen_by(&format!("mount -t overlay o -o {options} mnt")), shown);
    if find("fuse-overlayfs").is_some() {
        assert_eq!(seen_by(&format!("fuse-overlayfs -o {options} mnt")), shown, "fuse-overlayfs");
    } else {
        skip("fuse-overlayfs on PATH");
    }
    assert_eq!(fs::metadata(folder.path().join("upper/one")).unwrap().nlink(), 2);
}
