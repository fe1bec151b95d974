//! Changes become layers, whatever runs meanwhile and whoever is killed.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Instant,
};

use fim::sys::xattr;

use crate::support::{Who, World, eventually, find, for_each_owner, said, skip, status};

/// Everything about every object that a layer must keep, but for what each run makes anew. Size and links of directories
/// are no facts of theirs.
const LISTING: &str = r#"cd /; find etc opt var usr | grep -vxE 'etc/(passwd|group|hosts|resolv.conf)' | sort | while IFS= read -r name; do
    if [ -d "$name" ] && [ ! -h "$name" ]
    then stat -c '%n %F %a %u %g %y' "$name"
    else stat -c '%n %F %a %u %g %y %s %h %t:%T %N' "$name"
    fi
    if [ -f "$name" ] && [ -r "$name" ]; then md5sum "$name"; fi
done"#;

/// What the guests of these tests leave behind.
const CHANGES: &str = "echo added > /etc/added; echo more >> /etc/known; rm /opt/plain; rm -r /usr";

impl World {
    fn layer(&self, words: &str) -> Output {
        let mut arguments = vec!["fim-layer"];
        arguments.extend(words.split(' '));
        self.command(&arguments).output().unwrap()
    }

    /// A verb of `fim-layer` that must succeed without a word on stderr.
    fn layer_says(&self, words: &str) -> String {
        let output = self.layer(words);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words}");
        said(output)
    }

    /// A verb of `fim-layer` that must fail with 125 and one line.
    fn layer_refused(&self, words: &str) -> String {
        refused(&self.layer(words))
    }

    /// Offset, size and path of each layer.
    fn layers(&self) -> Vec<(u64, u64, PathBuf)> {
        let list = self.layer_says("list");
        list.lines()
            .enumerate()
            .map(|(index, line)| {
                let parts: Vec<&str> = line.splitn(4, ':').collect();
                assert_eq!(parts[0], index.to_string(), "{list}");
                (parts[1].parse().unwrap(), parts[2].parse().unwrap(), PathBuf::from(parts[3]))
            })
            .collect()
    }

    fn assert_upper_is_empty(&self) {
        assert_eq!(names(&self.upper()), [""; 0]);
    }

    /// Nothing waits in the data directory that a commit made on its way.
    fn assert_no_scraps(&self) {
        for folder in ["tmp", "work/work"] {
            assert_eq!(names(&self.path("data").join(folder)), [""; 0], "{folder}");
        }
        let layers = names(&self.path("data/layers"));
        assert!(layers.iter().all(|name| name.ends_with(".layer")), "{layers:?}");
    }
}

fn refused(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((status(output.status), output.stdout.as_slice()), (125, &b""[..]), "{errors}");
    assert!(errors.starts_with("fim: ") && errors.lines().count() == 1, "{errors}");
    errors
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn changes_are_listed_and_become_a_layer_of_the_image() {
    for_each_owner(|world| {
        world.says(CHANGES);
        assert_eq!(world.layer_says("diff"), "A /etc/added\nM /etc/known\nD /opt/plain\nD /usr");
        let json: serde_json::Value = serde_json::from_str(&world.layer_says("diff --json")).unwrap();
        assert_eq!(json[2], serde_json::json!({"kind": "D", "path": "/opt/plain"}));
        let before = world.says(LISTING);
        let told = world.layer_says("commit binary --message first");
        assert!(told.contains("app.flatimage") && told.contains("2 files"), "{told}");
        world.assert_upper_is_empty();
        world.assert_no_scraps();
        assert_eq!(world.layer_says("diff"), "");
        let layers = world.layers();
        assert_eq!(layers.len(), 2, "{layers:?}");
        let (offset, size, path) = &layers[1];
        assert_eq!(path, &world.image().canonicalize().unwrap());
        assert_eq!(offset + size, fs::metadata(path).unwrap().len());
        assert_eq!(world.says(LISTING), before);
        assert_eq!(
            world.says("ls /opt; ls -d /usr 2>/dev/null; cat /etc/added; tail -n 1 /etc/known"),
            "broken\nadded\nmore"
        );
        assert_eq!(world.layer_says("commit binary"), "nothing has changed");
        assert_eq!(world.layers(), layers);
    });
}

#[test]
fn changes_become_a_layer_of_the_data_directory() {
    for_each_owner(|world| {
        world.says(CHANGES);
        world.layer_says("commit layer");
        world.assert_upper_is_empty();
        world.says("echo again > /etc/added; rm /opt/broken");
        world.layer_says("commit layer");
        world.assert_upper_is_empty();
        world.assert_no_scraps();
        assert_eq!(names(&world.path("data/layers")), ["layer-001.layer", "layer-002.layer"]);
        let listed: Vec<_> = world.layers().into_iter().map(|(_, _, path)| path).collect();
        let folder = world.path("data/layers").canonicalize().unwrap();
        let image = world.image().canonicalize().unwrap();
        assert_eq!(listed, [image, folder.join("layer-001.layer"), folder.join("layer-002.layer")]);
        assert_eq!(world.says("ls /opt; ls -d /usr 2>/dev/null; cat /etc/added"), "again");
        // what is committed into the image now would lie below them
        world.says("echo third > /etc/added");
        let why = world.layer_refused("commit binary");
        assert!(
            why.contains("layer-001.layer stands above") && why.contains("(use: fim-layer commit layer)"),
            "{why}"
        );
        assert_eq!(world.says("cat /etc/added"), "third");
        world.layer_says("commit layer");
        assert_eq!(world.says("cat /etc/added"), "third");
    });
}

#[test]
fn a_name_that_stands_above_every_new_layer_is_in_the_way() {
    for_each_owner(|world| {
        fs::create_dir_all(world.path("data/layers/zz.layer/etc")).unwrap();
        world.says("echo changed > /etc/known");
        let why = world.layer_refused("commit layer");
        assert!(why.contains("zz.layer stands above") && why.contains("rename"), "{why}");
        assert_eq!(world.says("cat /etc/known"), "changed");
        fs::rename(world.path("data/layers/zz.layer"), world.path("data/layers/a.layer")).unwrap();
        world.layer_says("commit layer");
        assert_eq!(world.says("cat /etc/known"), "changed");
        world.assert_upper_is_empty();
    });
}

#[test]
fn changes_become_a_file_and_stay_where_they_are() {
    for_each_owner(|world| {
        world.says(CHANGES);
        world.layer_says("commit file mine.layer");
        assert_eq!(world.layers().len(), 1);
        assert_eq!(world.layer_says("diff").lines().count(), 4);
        let other = world.path("cwd/other");
        fs::create_dir(&other).unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o777)).unwrap();
        let mut elsewhere = world.shell("cat /etc/added; ls /opt; ls -d /usr 2>/dev/null; true");
        elsewhere.env("FIM_DIR_DATA", &other).env("FIM_LAYERS", world.path("cwd/mine.layer"));
        assert_eq!(said(elsewhere.output().unwrap()), "added\nbroken");
    });
}

#[test]
fn everything_survives_a_commit() {
    for_each_owner(|world| {
        world.says(
            r#"cd /var
            mkdir -m 1777 sticky; mkdir -m 2755 group; mkdir empty; mkdir -m 0 closed
            for mode in 4755 2750 6711 0000 1644; do echo $mode > mode-$mode; chmod $mode mode-$mode; done
            echo one > one; ln one two; ln one sticky/three; ln -s one sym; ln -s '/no where/x' empty/dangling
            ln /etc/known /etc/known2
            mkfifo fifo; chmod 622 fifo; : > nothing; truncate -s 3000000 hole; echo end >> hole
            touch -d '1999-12-31 23:59:58' old; touch -h -d '2001-02-03 04:05:06' sym
            touch "$(printf 'na\377me\n.')"
            rm -r /opt; mkdir /opt; echo only > /opt/only; mv /etc/known /var/moved; rm -r /usr/bin"#,
        );
        if world.who == Who::Myself {
            said(
                world
                    .command(&[
                        "fim-root",
                        "sh",
                        "-c",
                        "cd /var; mknod -m 640 tty c 5 1; mknod loop b 7 3; chown 7:8 one; chown -h 9:10 sym",
                    ])
                    .output()
                    .unwrap(),
            );
        }
        let marks: [(&str, &[u8]); 4] = [
            ("var/one", b"user.note"),
            ("var/empty", b"user.dir"),
            ("var/mode-0000", b"user.\xff"),
            ("var", b"user.upper"),
        ];
        let value: Vec<u8> = (0..=255).collect();
        for (path, name) in marks {
            xattr::set(fs::File::open(world.upper().join(path)).unwrap().as_fd(), name, &value, 0).unwrap();
        }
        let before = world.says(LISTING);
        let diff = world.layer_says("diff");
        world.layer_says("commit binary");
        world.assert_upper_is_empty();
        assert_eq!(world.says(LISTING), before);
        assert_eq!(world.layers().len(), 2);
        for line in
            ["A /opt/only", "D /opt/plain", "D /opt/broken", "D /etc/known", "A /var/moved", "D /usr/bin"]
        {
            assert!(diff.lines().any(|found| found == line), "{line}: {diff}");
        }
        assert_eq!(
            world.says("cat /opt/*; ls /opt /usr; cat /var/hole | tail -c 4"),
            "only\n/opt:\nonly\n\n/usr:\nend"
        );
        assert_eq!(world.says("cd /var; echo more >> one; cat two sticky/three"), "one\nmore\none\nmore");
        assert!(before.contains("1999-12-31 23:59:58"), "{before}");
        let exact = before.lines().filter(|line| line.contains(':') && !line.contains(".000000000 "));
        assert!(exact.count() > 10, "no nanoseconds: {before}");

        // the attributes come up again with what carries them
        world.says("cd /var; chmod u+w one empty mode-0000; chmod g-w .");
        for (path, name) in marks {
            let file = fs::File::open(world.upper().join(path)).unwrap();
            assert_eq!(xattr::get(file.as_fd(), name).unwrap().as_deref(), Some(&value[..]), "{path}");
        }
        let hole = world.says("stat -c '%s %b' /var/hole");
        let (size, blocks) = hole.split_once(' ').unwrap();
        assert_eq!(size, "3000004");
        assert!(blocks.parse::<u64>().unwrap() < 1000, "the hole is gone: {hole}");

        // and once more, over what is a layer by now
        world.says("rm /opt/only /var/two; rm -r /var/sticky; echo x > /usr/bin");
        let before = world.says(LISTING);
        world.layer_says("commit binary");
        assert_eq!(world.says(LISTING), before);
        assert_eq!(world.says("ls -A /opt; cat /usr/bin"), "x");
    });
}

#[test]
fn what_was_moved_without_its_data_survives_commits() {
    for_each_owner(|world| {
        world.says(
            "cd /opt; mkdir -p d/sub e; head -c 400000 /dev/zero | tr '\\0' x > d/big; echo one > d/one; \
             echo kept > d/sub/kept; ln d/one e/two",
        );
        world.layer_says("commit binary");
        world.says("cd /opt; mv d moved; chmod 600 moved/big; mv moved/big e/big; echo changed > e/two");
        assert_eq!(
            world.layer_says("diff"),
            "D /opt/d\nA /opt/e/big\nM /opt/e/two\nA /opt/moved\nD /opt/moved/big"
        );
        let blocks = fs::metadata(world.upper().join("opt/e/big")).unwrap().blocks();
        assert!(blocks < 100, "{blocks} blocks");
        for change in ["true", "cd /opt; mv moved e/again; chmod 640 e/big; rm e/two"] {
            world.says(change);
            let before = world.says(LISTING);
            let told = world.layer_says("commit layer");
            assert!(!told.contains("nothing"), "{told}");
            world.assert_upper_is_empty();
            assert_eq!(names(&world.path("data/work/index")), [""; 0]);
            assert_eq!(world.says(LISTING), before);
        }
        world.says("cd /opt; printf y | dd of=e/big bs=1 seek=5 conv=notrunc 2>/dev/null");
        assert_eq!(
            world.says("cd /opt/e; head -c 8 big; wc -c < big; cat again/one again/sub/kept; ls again"),
            "xxxxxyxx400000\nchanged\nkept\none\nsub"
        );
    });
}

#[test]
fn the_highest_of_twelve_layers_wins() {
    for_each_owner(|world| {
        for number in 1..=12 {
            world.says(&format!(
                "echo {number} > /etc/number; echo {number} > /var/only-{number}; rm -f /var/only-{}",
                number - 3
            ));
            world.layer_says("commit binary");
            world.assert_upper_is_empty();
        }
        assert_eq!(world.layers().len(), 13);
        assert_eq!(world.says("cat /etc/number; cd /var; echo only-*"), "12\nonly-10 only-11 only-12");
    });
}

/// Counts into an open file until it is told to stop.
const COUNTER: &str = "exec 3>>/var/count; i=0; echo ready; while [ ! -e /var/stop ]; do i=$((i+1)); echo $i >&3; usleep 2000; done; echo $i";

/// Reads all the time what never changes, and says how often it was something else.
const READER: &str = "exec 4</etc/known; wrong=0; cat /etc/steady /etc/known > /tmp/first; echo ready; while [ ! -e /var/stop ]; do cat /etc/steady /etc/known > /tmp/now || wrong=$((wrong+1)); [ \"$(cat /tmp/now)\" = \"$(cat /tmp/first)\" ] || wrong=$((wrong+1)); done; cat <&4; echo $wrong";

#[test]
fn programs_go_on_while_layers_are_committed_and_added() {
    for_each_owner(|world| {
        world.says("echo steady > /etc/steady; echo more >> /etc/known");
        let counter = world.start(COUNTER);
        let reader = world.start(READER);
        let tree = world.path("cwd/tree");
        fs::create_dir_all(tree.join("opt")).unwrap();
        fs::write(tree.join("opt/from-added"), "added\n").unwrap();
        world.layer_says("create tree added.layer");
        for round in 1..=4 {
            if round == 2 {
                world.layer_says("add added.layer");
            }
            world.says(&format!("echo {round} > /var/round"));
            world.layer_says("commit binary");
            assert_eq!(world.says("cat /var/round"), round.to_string());
            eventually("what is written afterwards is in the new upper", || {
                let found = fs::read_to_string(world.upper().join("var/count")).unwrap_or_default();
                if found.is_empty() { Err(names(&world.upper()).join(" ")) } else { Ok(()) }
            });
            assert!(!world.upper().join("etc/steady").exists());
        }
        world.says("touch /var/stop");
        let (ended, counted) = counter.end();
        assert_eq!(ended, 0);
        assert_eq!(reader.end(), (0, "known\nmore\n0\n".to_owned()));
        let counted: u32 = counted.trim().parse().unwrap();
        let expected: Vec<String> = (1..=counted).map(|number| number.to_string()).collect();
        assert_eq!(world.says("cat /var/count"), expected.join("\n"));
        assert_eq!(world.says("cat /opt/from-added /var/round"), "added\n4");
        assert_eq!(world.layers().len(), 6);
    });
}

/// Maps a file, waits for a line, changes the mapping, and shows what the file holds.
const MAPPER: &str = "
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 8192, mmap.MAP_SHARED)
m[0:6] = b'before'
print('ready', flush=True)
sys.stdin.readline()
assert m[0:6] == b'before', m[0:6]
m[4096:4101] = b'after'
m.flush()
assert os.pread(fd, 5, 4096) == b'after'
print(os.fstat(fd).st_ino, flush=True)
";

#[test]
fn mappings_go_on_over_a_commit() {
    for_each_owner(|world| {
        let python = PathBuf::from("/usr/bin/python3");
        if !python.exists() || find("nsenter").is_none() {
            return skip("/usr/bin/python3 and nsenter");
        }
        world.says("truncate -s 8192 /var/map");
        let running = world.start("echo ready; while [ ! -e /var/stop ]; do usleep 10000; done");
        let server = world.server_pid();
        let mount = world.servers()[0].join("mount/var/map");
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &server.to_string()]);
        if world.who == Who::Plain {
            let owner = fs::metadata(world.upper()).unwrap().uid().to_string();
            command.args(["-U", "-S", &owner, "-G", &owner]);
        }
        command.arg(python).args(["-c", MAPPER]).arg(mount);
        let mut mapper = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(mapper.stdout.take().unwrap()).lines();
        assert_eq!(output.next().unwrap().unwrap(), "ready");
        let inode = world.says("stat -c %i /var/map");
        world.layer_says("commit binary");
        assert!(!world.upper().join("var/map").exists());
        writeln!(mapper.stdin.take().unwrap()).unwrap();
        assert_eq!(output.next().unwrap().unwrap(), inode, "the inode number has changed");
        assert!(mapper.wait().unwrap().success());
        let upper = fs::read(world.upper().join("var/map")).unwrap();
        assert_eq!((&upper[..6], &upper[4096..4101]), (&b"before"[..], &b"after"[..]));
        world.says("touch /var/stop");
        assert_eq!(running.end().0, 0);
    });
}

#[test]
fn a_killed_committer_loses_nothing() {
    for_each_owner(|world| {
        // noise takes its time
        world.says("dd if=/dev/urandom of=/var/noise bs=1M count=6 2>/dev/null; rm /opt/plain; echo last > /etc/last");
        let before = world.says(LISTING);
        let started = Instant::now();
        world.layer_says("commit binary");
        let whole = started.elapsed();
        let mut unfinished = 0;
        for round in 0..10_u32 {
            let running = (round % 2 == 0).then(|| {
                world.start("echo ready; while [ ! -e /tmp/stop ]; do echo x > /var/x; usleep 5000; done")
            });
            world.says("cat /var/noise > /var/n; mv /var/n /var/noise; rm -f /opt/broken; touch /var/x");
            let mut committer =
                world.command(&["fim-layer", "commit", ["binary", "layer"][usize::from(round > 5)]]);
            let mut committer = committer.stdout(Stdio::null()).process_group_of_its_own().spawn().unwrap();
            thread::sleep(whole * round / 9);
            unfinished += u32::from(committer.try_wait().unwrap().is_none());
            committer.kill().unwrap();
            committer.wait().unwrap();
            let now = world.says("md5sum /var/noise; cat /etc/last; ls /opt; test -e /var/x");
            let noise = now.lines().next().unwrap();
            assert!(before.contains(noise.split(' ').next().unwrap()), "{now}");
            assert_eq!(now.lines().skip(1).collect::<Vec<_>>(), ["last"]);
            drop(running);
            world.assert_nothing_left();
        }
        println!("{unfinished} of 10 were killed at work, which takes {whole:?}");
        assert!(unfinished > 0);
        world.says("echo end > /etc/last");
        world.layer_says("commit layer");
        world.assert_upper_is_empty();
        world.assert_no_scraps();
        assert_eq!(world.says("cat /etc/last"), "end");
        let (offset, size, image) = world.layers().into_iter().rfind(|(offset, _, _)| *offset > 0).unwrap();
        assert!(offset + size <= fs::metadata(image).unwrap().len());
    });
}

/// So that a kill of the test's reaches nobody else.
trait OwnGroup {
    fn process_group_of_its_own(&mut self) -> &mut Self;
}

impl OwnGroup for Command {
    fn process_group_of_its_own(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}

#[test]
fn layers_above_the_image_are_in_the_way_of_its_own() {
    for_each_owner(|world| {
        fs::create_dir_all(world.path("cwd/above/x.layer")).unwrap();
        world.says("echo x > /etc/x");
        let mut command = world.command(&["fim-layer", "commit", "binary"]);
        let why = refused(&command.env("FIM_LAYERS", world.path("cwd/above")).output().unwrap());
        assert!(why.contains("/x.layer stands above its layers (use: fim-layer commit layer)"), "{why}");
        assert_eq!(world.layer_says("diff"), "A /etc/x");
    });
}

#[test]
fn a_read_only_image_says_so_and_nothing_is_lost() {
    for_each_owner(|world| {
        world.says("echo x > /etc/x");
        let own = world.path("own");
        let command = world.command(&["fim-layer", "commit", "binary"]);
        // root writes what it may not; a mount stops it
        let text =
            "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" || exit 99; shift; exec \"$@\"";
        let mut inside = Command::new("unshare");
        inside
            .args(["-m", "sh", "-c", text, "sh"])
            .arg(&own)
            .arg(command.get_program())
            .args(command.get_args());
        inside.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let why = refused(&inside.current_dir(world.path("cwd")).stdin(Stdio::null()).output().unwrap());
        assert!(
            why.contains("cannot change") && why.contains("copy the image to a place that you can write"),
            "{why}"
        );
        assert!(why.contains("Read-only file system"), "{why}");
        if world.who == Who::Plain {
            fs::set_permissions(world.image(), fs::Permissions::from_mode(0o555)).unwrap();
            let why = world.layer_refused("commit binary");
            assert!(why.contains("Permission denied"), "{why}");
        }
        world.assert_no_scraps();
        assert_eq!((world.layer_says("diff").as_str(), world.says("cat /etc/x").as_str()), ("A /etc/x", "x"));
        world.layer_says("commit layer");
        assert_eq!(world.says("cat /etc/x"), "x");
    });
}

#[test]
fn all_layers_of_the_stack_are_listed() {
    for_each_owner(|world| {
        world.says("echo 1 > /etc/n");
        world.layer_says("commit layer");
        world.says("echo 2 > /etc/n");
        world.layer_says("commit file plain.layer");
        // one behind a prefix, and a directory
        let mut prefixed = b"#!/bin/sh\n".repeat(1000);
        prefixed.extend(fs::read(world.path("cwd/plain.layer")).unwrap());
        fs::write(world.path("cwd/prefixed"), &prefixed).unwrap();
        fs::create_dir(world.path("cwd/folder")).unwrap();
        fs::create_dir(world.path("cwd/folder/tree.layer")).unwrap();
        fs::rename(world.path("cwd/plain.layer"), world.path("cwd/folder/b.layer")).unwrap();
        let list = |words: &[&str]| {
            let mut command = world.command(words);
            let further = format!("{0}/prefixed:{0}/folder", world.path("cwd").display());
            said(command.env("FIM_LAYERS", further).output().unwrap())
        };
        let size = |path: &str| fs::metadata(world.path(path)).unwrap().len();
        let (plain, first) = (size("cwd/folder/b.layer"), size("data/layers/layer-001.layer"));
        let at = |path: &str| world.path(path).canonicalize().unwrap().display().to_string();
        let text = list(&["fim-layer", "list"]);
        let (image, further) = text.split_once('\n').unwrap();
        assert!(image.starts_with("0:") && image.ends_with(&at("own/app.flatimage")), "{image}");
        let expected = [
            format!("1:10000:{plain}:{}", at("cwd/prefixed")),
            format!("2:0:{plain}:{}", at("cwd/folder/b.layer")),
            format!("3:0:0:{}", at("cwd/folder/tree.layer")),
            format!("4:0:{first}:{}", at("data/layers/layer-001.layer")),
        ];
        assert_eq!(further.lines().collect::<Vec<_>>(), expected);
        let json: Vec<serde_json::Value> =
            serde_json::from_str(&list(&["fim-layer", "list", "--json"])).unwrap();
        let short: Vec<String> = json
            .iter()
            .map(|layer| {
                let path = layer["path"].as_str().unwrap();
                format!("{}:{}:{}:{path}", layer["index"], layer["offset"], layer["size"])
            })
            .collect();
        assert_eq!(short.join("\n"), text);
    });
}

/// Runs a command with a terminal of 100 columns as its stdout and stderr; what the terminal got.
fn on_a_terminal(world: &World, words: &[&str]) -> String {
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''"));
    let command = world.command(words);
    let line: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
    let mut script = Command::new("script");
    script.args(["-qec", &format!("stty cols 100; {}", line.join(" ")), "/dev/null"]);
    script.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    said(script.env("TERM", "xterm").stdin(Stdio::null()).current_dir(world.path("cwd")).output().unwrap())
}

#[test]
fn a_terminal_shows_how_far_it_is_and_a_clean_result() {
    for_each_owner(|world| {
        if find("script").is_none() {
            return skip("script on PATH");
        }
        world.says("dd if=/dev/urandom of=/var/noise bs=1M count=24 2>/dev/null");
        fs::create_dir(world.path("cwd/tree")).unwrap();
        fs::copy(world.upper().join("var/noise"), world.path("cwd/tree/noise")).unwrap();
        fs::set_permissions(world.path("cwd/tree/noise"), fs::Permissions::from_mode(0o644)).unwrap();
        for (words, bar, result) in [
            (&["fim-layer", "create", "tree", "made.layer", "-l", "6"][..], "packing", "made.layer: "),
            (&["fim-layer", "add", "made.layer"], "adding the layer", ""),
            (&["fim-layer", "commit", "binary", "-l", "6"], "packing", "app.flatimage: "),
        ] {
            let text = on_a_terminal(world, words);
            let frames: Vec<&str> =
                text.split(['\r', '\n']).map(|frame| frame.trim_start_matches("\u{1b}[2K")).collect();
            let drawn =
                |what: &str| frames.iter().any(|frame| frame.starts_with(bar) && frame.contains(what));
            assert!(drawn("/24.00 MiB") && drawn("/s eta "), "{words:?}: {frames:?}");
            assert!(bar != "packing" || drawn(" MiB/24.00 MiB "), "it does not move: {frames:?}");
            assert!(frames.iter().all(|frame| frame.chars().count() <= 100), "{frames:?}");
            // what stands there in the end: the result alone, in a line that was cleared before
            let left: Vec<&&str> = frames.iter().rev().skip_while(|frame| frame.is_empty()).collect();
            if result.is_empty() {
                assert!(text.trim_end_matches('\n').ends_with("\u{1b}[2K"), "{text:?}");
            } else {
                assert!(left[0].contains(result) && left[0].ends_with(" s"), "{left:?}");
                assert!(text.contains(&format!("\r\u{1b}[2K{}", left[0])), "{text:?}");
            }
        }
        // elsewhere: not a word, not a control character
        let quiet = world.layer("create tree made.layer");
        assert_eq!(String::from_utf8_lossy(&quiet.stderr), "");
        assert!(!said(quiet).contains('\u{1b}'));
    });
}
