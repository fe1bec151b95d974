//! What an instance gets at its start, and keeps for everything that is started in it.

use std::{fs, path::Path, process::Output};

use crate::support::{World, eventually, for_each_user, said, skip};

fn fim(world: &World, words: &[&str]) -> Output {
    world.command(words).output().unwrap()
}

fn says(world: &World, words: &[&str]) -> String {
    said(fim(world, words))
}

fn inside(world: &World, name: &str, script: &str) -> String {
    says(world, &["fim-instance", "exec", name, "sh", "-c", script])
}

fn error_of(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn binds_are_there_for_every_session() {
    for_each_user(|world| {
        let place = world.path("cwd/shown");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("file"), "text").unwrap();
        if world.who == crate::support::Who::Plain {
            std::os::unix::fs::chown(&place, Some(crate::support::PLAIN_UID), None).unwrap();
        }
        let (ro, rw) = (format!("{}:/shown:ro", text(&place)), format!("{}:/own", text(&place)));
        // A relative place is one of the caller's directory.
        says(world, &["fim-instance", "start", "web", "--bind", &ro, "-b", &rw, "-b", "shown:/rel:ro"]);
        assert_eq!(
            inside(world, "web", "cat /shown/file /rel/file; touch /shown/x 2>/dev/null || echo no"),
            "texttextno"
        );
        inside(world, "web", "touch /own/made");
        assert!(place.join("made").exists());
        let record = says(world, &["fim-instance", "inspect", "web"]);
        assert!(record.contains(&format!("{ro}\"")) && record.contains(&format!("{rw}:rw\"")), "{record}");
        says(world, &["fim-instance", "stop", "web"]);
        // For one program as well.
        assert_eq!(
            says(world, &["fim-exec", "--bind", &ro, "--env", "A=1", "sh", "-c", "cat /shown/file; echo $A"]),
            "text1"
        );
        let wrong = fim(world, &["fim-instance", "start", "web", "--bind", "/nowhere:/x"]);
        assert!(error_of(&wrong).contains("/nowhere"), "{wrong:?}");
    });
}

#[test]
fn an_ephemeral_upper_goes_with_its_instance() {
    for_each_user(|world| {
        says(world, &["fim-exec", "sh", "-c", "echo shared > /shared"]);
        says(world, &["fim-instance", "start", "one", "--ephemeral"]);
        says(world, &["fim-instance", "start", "two", "--ephemeral"]);
        says(world, &["fim-instance", "start", "three"]);
        // Ids are those of the image, whoever serves the files.
        let list = says(world, &["fim-instance", "list"]);
        let ids: Vec<&str> = list.lines().filter_map(|line| line.split_once(':')).map(|(id, _)| id).collect();
        assert_eq!(ids, ["0", "1", "2"]);
        assert_eq!(
            inside(world, "one", "echo $FIM_INSTANCE; echo x > /mine; ls /shared 2>&1; cat /mine"),
            "0\nls: /shared: No such file or directory\nx"
        );
        for other in ["two", "three"] {
            assert_eq!(inside(world, other, "ls /mine 2>/dev/null || echo none"), "none");
        }
        assert_eq!(inside(world, "three", "cat /shared"), "shared");
        let tmp = world.path("data/tmp");
        let uppers = || fs::read_dir(&tmp).unwrap().count();
        assert_eq!(uppers(), 2);
        says(world, &["fim-instance", "stop", "one"]);
        eventually("its upper is gone", || if uppers() == 1 { Ok(()) } else { Err(uppers().to_string()) });
        // What is killed altogether is removed by the next start.
        // Not who tidies up: the servers' directories are not looked for here.
        let janitor = |pid: &i32| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.starts_with(fim::runtime::janitor::NAME.as_bytes()))
        };
        for pid in world.processes().into_iter().filter(|pid| !janitor(pid)) {
            let _ = fim::sys::process::Pidfd::open(pid)
                .and_then(|pid| pid.signal(fim::sys::signal::Signal::SIGKILL));
        }
        eventually("everybody is dead", || match world.processes().as_slice() {
            [] => Ok(()),
            left => Err(format!("{left:?}")),
        });
        assert_eq!(uppers(), 1);
        says(world, &["fim-exec", "true"]);
        assert_eq!(uppers(), 0);
        assert!(!world.upper().join("mine").exists());
    });
}

#[test]
fn an_upper_that_was_named_keeps_the_changes() {
    for_each_user(|world| {
        let upper = world.path("cwd/upper");
        says(world, &["fim-instance", "start", "web", "--upper", text(&upper)]);
        inside(world, "web", "echo x > /mine");
        // Who names the same shares it.
        assert_eq!(says(world, &["fim-exec", "--upper", text(&upper), "cat", "/mine"]), "x");
        assert_eq!(says(world, &["fim-exec", "sh", "-c", "ls /mine 2>/dev/null || echo none"]), "none");
        says(world, &["fim-instance", "stop", "web"]);
        assert_eq!(fs::read_to_string(upper.join("mine")).unwrap(), "x\n");
    });
}

#[test]
fn layers_are_for_the_instances_that_name_them() {
    for_each_user(|world| {
        let layer = world.path("cwd/more");
        fs::create_dir_all(layer.join("opt")).unwrap();
        fs::write(layer.join("opt/more"), "more\n").unwrap();
        let file = world.path("cwd/more.layer");
        let made = std::process::Command::new(env!("CARGO_BIN_EXE_fim"))
            .args(["archive", "create"])
            .args([&layer, &file])
            .output()
            .unwrap();
        said(made);
        let plain = world.start("echo ready; exec sleep 1000");
        // Those who share an upper have the same layers.
        let refused = fim(world, &["fim-instance", "start", "web", "--layer", text(&file)]);
        assert!(error_of(&refused).contains("other layers"), "{refused:?}");
        says(world, &["fim-instance", "start", "web", "--layer", text(&file), "--ephemeral"]);
        assert_eq!(inside(world, "web", "cat /opt/more"), "more");
        assert_eq!(
            says(world, &["fim-instance", "exec", "0", "sh", "-c", "ls /opt/more 2>/dev/null || echo none"]),
            "none"
        );
        says(world, &["fim-instance", "stop", "web"]);
        plain.signal(fim::sys::signal::Signal::SIGTERM);
        plain.end();
        assert_eq!(says(world, &["fim-exec", "--layer", text(&file), "cat", "/opt/more"]), "more");
    });
}

#[test]
fn limits_hold_for_all_of_an_instance() {
    for_each_user(|world| {
        let start = fim(
            world,
            &["fim-instance", "start", "small", "--memory", "64M", "--pids", "20", "--cpus", "0.5"],
        );
        if !start.status.success() {
            let error = error_of(&start);
            assert!(
                error.contains("no control group with memory, cpu, pids") && error.contains("systemd-run"),
                "{error}"
            );
            assert_eq!(says(world, &["fim-instance", "list"]), "");
            if world.who == crate::support::Who::Myself {
                skip("control groups that may be made");
            }
            // A user without a delegated group has none: the sentence is what there is to test.
            return;
        }
        let record: serde_json::Value =
            serde_json::from_str(&says(world, &["fim-instance", "inspect", "small"])).unwrap();
        let group = record["group"].clone();
        assert!(group.is_object(), "{record}");
        // More processes than are allowed cannot be started; the session says so and others live on.
        let many = fim(
            world,
            &[
                "fim-instance",
                "exec",
                "small",
                "sh",
                "-c",
                "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 5 & done; echo all",
            ],
        );
        assert!(!String::from_utf8_lossy(&many.stdout).contains("all"), "{many:?}");
        let hungry = |name: &str| {
            let script = "dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null; echo $?";
            inside(world, name, script)
        };
        says(world, &["fim-instance", "start", "large"]);
        assert_eq!((hungry("small").as_str(), hungry("large").as_str()), ("137", "0"));
        says(world, &["fim-instance", "stop", "large"]);
        says(world, &["fim-instance", "stop", "small"]);
        // The groups are gone with it.
        let places: Vec<String> = serde_json::to_string(&group)
            .unwrap()
            .split('"')
            .filter(|word| word.starts_with('/'))
            .map(str::to_owned)
            .collect();
        assert!(!places.is_empty());
        for place in places {
            assert!(!Path::new(&place).exists(), "{place}");
        }
        for wrong in [["--memory", "lots"], ["--cpus", "0"], ["--pids", "x"]] {
            assert_ne!(
                fim(world, &["fim-exec", wrong[0], wrong[1], "true"]).status.code(),
                Some(0),
                "{wrong:?}"
            );
        }
    });
}

#[test]
fn what_an_instance_takes_is_measured() {
    for_each_user(|world| {
        says(world, &["fim-instance", "start", "busy", "--", "sh", "-c", "while :; do :; done"]);
        says(world, &["fim-instance", "start", "idle"]);
        let samples: serde_json::Value =
            serde_json::from_str(&says(world, &["fim-instance", "stats", "--no-stream", "--json"])).unwrap();
        let of = |at: usize, name: &str| samples[at][name].as_f64().unwrap_or_else(|| panic!("{samples}"));
        assert_eq!((samples[0]["name"].as_str(), samples[1]["name"].as_str()), (Some("busy"), Some("idle")));
        // How much a busy one gets depends on who else is busy here.
        assert!(of(0, "cpu_percent") > 5.0 && of(1, "cpu_percent") < 5.0, "{samples}");
        for at in [0, 1] {
            for figure in ["memory_bytes", "pids"] {
                let value = samples[at][figure]["value"].as_u64().unwrap_or_else(|| panic!("{samples}"));
                assert!(value > 0, "{figure}: {samples}");
            }
            let source = samples[at]["memory_bytes"]["source"].as_str().unwrap();
            let expected = if samples[at]["pids"]["source"] == "proc" { "proc" } else { source };
            assert_eq!(source, expected, "{samples}");
        }
        assert!(samples[0]["cpu_usec"]["value"].as_u64() > Some(0), "{samples}");
        let table = says(world, &["fim-instance", "stats", "idle", "--no-stream"]);
        assert!(table.lines().count() == 2 && table.starts_with("ID") && table.contains("idle"), "{table}");
        // A stream goes on until there is nothing to measure.
        let stream = world
            .command(&["fim-instance", "stats", "--json"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        says(world, &["fim-instance", "stop", "--all", "--force"]);
        let said = String::from_utf8(stream.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(said.lines().last(), Some("[]"), "{said}");
        assert!(error_of(&fim(world, &["fim-instance", "stats", "idle"])).contains("idle"));
    });
}

#[test]
fn logs_are_followed_and_looked_up_by_time() {
    for_each_user(|world| {
        let script = "echo one; read x < /go; echo two; echo err >&2; read x < /go; echo three";
        says(world, &["fim-exec", "mkfifo", "/go"]);
        says(world, &["fim-instance", "start", "job", "--", "sh", "-c", script]);
        let follower = |words: &[&str]| {
            let words: Vec<&str> =
                ["fim-instance", "logs", "job", "-f"].iter().chain(words).copied().collect();
            let pipe = std::process::Stdio::piped;
            world.command(&words).stdout(pipe()).stderr(pipe()).spawn().unwrap()
        };
        let (all, last) = (follower(&[]), follower(&["--tail", "0"]));
        eventually("the first line is there", || {
            match says(world, &["fim-instance", "logs", "job"]).as_str() {
                "one" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
        std::thread::sleep(std::time::Duration::from_millis(1200));
        let moment = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        inside(world, "job", "echo > /go");
        eventually("the second line is there", || {
            match says(world, &["fim-instance", "logs", "job"]).as_str() {
                "one\ntwo" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
        let since = format!("@{}", moment.as_secs());
        assert_eq!(says(world, &["fim-instance", "logs", "job", "--since", &since]), "two");
        assert_eq!(says(world, &["fim-instance", "logs", "job", "--since", "1h"]), "one\ntwo");
        assert_eq!(says(world, &["fim-instance", "logs", "job", "--since", "@9999999999"]), "");
        assert!(error_of(&fim(world, &["fim-instance", "logs", "job", "--since", "x"])).contains("time"));
        // With the program its instance ends, and this session perhaps before it has said so.
        fim(world, &["fim-instance", "exec", "job", "sh", "-c", "echo > /go"]);
        let all = all.wait_with_output().unwrap();
        assert_eq!(
            (all.stdout.as_slice(), all.stderr.as_slice()),
            (&b"one\ntwo\nthree\n"[..], &b"err\n"[..])
        );
        let last = last.wait_with_output().unwrap().stdout;
        assert!(last.ends_with(b"two\nthree\n"), "{last:?}");
        // They are there when it has ended, with the instance's own logs.
        assert_eq!(says(world, &["fim-instance", "logs", "job", "--tail", "1"]), "three");
        let list = says(world, &["fim-instance", "list", "-a", "-l"]);
        let place = list.lines().last().unwrap().splitn(3, ':').nth(2).unwrap().to_owned();
        assert!(Path::new(&place).join("logs/boot.log").exists(), "{list}");
    });
}
