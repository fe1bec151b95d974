//! Several instances of one image: listed, entered, ended.

use std::{
    io::{Read as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    process::{Command, Output, Stdio},
};

use fim::sys::{process::Pidfd, signal::Signal};

use crate::support::{Running, World, eventually, for_each_owner, for_each_user, said, status};

/// Lives until it is told to end.
const WAIT: &str = "echo ready; exec sleep 1000";

fn list(world: &World) -> Vec<(u32, i32)> {
    said(world.command(&["fim-instance", "list"]).output().unwrap())
        .lines()
        .map(|line| {
            let (id, pid) = line.split_once(':').unwrap();
            (id.parse().unwrap(), pid.parse().unwrap())
        })
        .collect()
}

fn ids(world: &World) -> Vec<u32> {
    list(world).into_iter().map(|(id, _)| id).collect()
}

fn exec(world: &World, words: &[&str]) -> Output {
    let words: Vec<&str> = ["fim-instance", "exec"].iter().chain(words).copied().collect();
    world.command(&words).output().unwrap()
}

fn exec_says(world: &World, words: &[&str]) -> String {
    said(exec(world, words))
}

fn end(running: Running) {
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, 143);
}

#[test]
fn ids_count_on_and_leave_gaps() {
    for_each_user(|world| {
        assert!(list(world).is_empty());
        let (zero, one, two) = (world.start(WAIT), world.start_with("fim-root", WAIT), world.start(WAIT));
        // The pid is that of the process that the user started.
        let expected: Vec<(u32, i32)> = vec![(0, zero.pid()), (1, one.pid()), (2, two.pid())];
        assert_eq!(list(world), expected);
        end(one);
        assert_eq!(ids(world), [0, 2]);
        let three = world.start(WAIT);
        assert_eq!(ids(world), [0, 2, 3]);
        // A front that is killed leaves the list at once.
        three.signal(Signal::SIGKILL);
        eventually("the killed one is gone", || match ids(world).as_slice() {
            [0, 2] => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let ended = said(world.command(&["fim-instance", "list", "-a", "--json"]).output().unwrap());
        let ended: serde_json::Value = serde_json::from_str(&ended).unwrap();
        let of = |id: u64| {
            let all = ended.as_array().unwrap();
            all.iter().find(|one| one["id"] == id).unwrap_or_else(|| panic!("no {id} in {ended}"))
        };
        assert_eq!(of(1)["ended"]["status"], 143);
        assert_eq!(of(1)["ended"]["signal"], 15);
        assert!(of(3)["ended"].is_object() && of(3)["ended"]["status"].is_null());
        assert!(of(0)["ended"].is_null());
        let table = said(world.command(&["fim-instance", "list", "--table"]).output().unwrap());
        assert!(table.contains("running") && table.lines().count() == 3, "{table}");
        let everywhere = said(world.command(&["fim-exec", "true"]).output().unwrap());
        assert_eq!(everywhere, "");
        end(zero);
        end(two);
        assert!(list(world).is_empty());
    });
}

#[test]
fn programs_run_in_the_instance_that_was_meant() {
    for_each_user(|world| {
        let zero = world.start("touch /tmp/mine; echo ready; exec sleep 1000");
        let one = world.start(WAIT);
        assert_eq!(exec_says(world, &["0", "ls", "/tmp/mine"]), "/tmp/mine");
        assert_ne!(exec(world, &["1", "ls", "/tmp/mine"]).status.code(), Some(0));
        // The same root, and processes of the own instance only.
        exec_says(world, &["0", "sh", "-c", "echo shared > /shared"]);
        assert_eq!(exec_says(world, &["1", "cat", "/shared"]), "shared");
        let processes = exec_says(world, &["1", "ps", "-o", "pid,comm"]);
        assert_eq!(processes.matches("sleep").count(), 1, "{processes}");
        // Environment of the instance, with what is given over it.
        assert_eq!(exec_says(world, &["1", "sh", "-c", "echo $FIM_INSTANCE"]), "1");
        assert_eq!(exec_says(world, &["--env", "K=V=W", "1", "sh", "-c", "echo $K"]), "V=W");
        assert_eq!(exec_says(world, &["--cwd", "/opt", "1", "pwd"]), "/opt");
        assert_eq!(exec_says(world, &["--user", "root", "1", "sh", "-c", "echo $(id -u) $HOME"]), "0 /root");
        // Exit codes as they are.
        for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137), ("kill $$", 143)] {
            assert_eq!(exec(world, &["0", "sh", "-c", script]).status.code(), Some(code), "{script}");
        }
        for (program, code) in [("nowhere", 127), ("/opt/plain", 126)] {
            assert_eq!(exec(world, &["0", program]).status.code(), Some(code), "{program}");
        }
        let wrong = exec(world, &["7", "true"]);
        assert_eq!(wrong.status.code(), Some(125));
        assert!(String::from_utf8_lossy(&wrong.stderr).contains("instance 7"), "{wrong:?}");
        assert_eq!(exec(world, &["--env", "x", "0", "true"]).status.code(), Some(125));
        end(zero);
        end(one);
    });
}

#[test]
fn descriptors_are_passed_and_not_copied() {
    for_each_user(|world| {
        let zero = world.start(WAIT);
        let mut child = world
            .command(&["fim-instance", "exec", "0", "sh", "-c", "cat; echo err >&2; exit 7"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let bytes = vec![b'x'; 3 << 20];
        let mut input = child.stdin.take().unwrap();
        let sent = bytes.clone();
        let writer = std::thread::spawn(move || input.write_all(&sent).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(output.stdout == bytes);
        assert_eq!(output.stderr, b"err\n");
        assert_eq!(output.status.code(), Some(7));
        // The very file of the caller.
        let file = world.path("cwd/out");
        let to = std::fs::File::create(&file).unwrap();
        let done = world.command(&["fim-instance", "exec", "0", "echo", "direct"]).stdout(to).status();
        assert!(done.unwrap().success());
        assert_eq!(std::fs::read(&file).unwrap(), b"direct\n");
        let directory = std::fs::File::open(world.path("cwd")).unwrap();
        let refused =
            world.command(&["fim-instance", "exec", "0", "true"]).stdin(directory).output().unwrap();
        assert_eq!(refused.status.code(), Some(125));
        end(zero);
    });
}

#[test]
fn a_session_ends_with_its_client_unless_it_is_detached() {
    for_each_user(|world| {
        let zero = world.start(WAIT);
        let count = |name: &str| {
            let processes = exec_says(world, &["0", "ps", "-o", "args"]);
            processes.lines().filter(|line| line.trim() == name).count()
        };
        let mut child = world
            .command(&["fim-instance", "exec", "0", "sh", "-c", "echo ready; exec sleep 2001"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        assert_eq!(count("sleep 2001"), 1);
        // SIGKILL, so that only the closed line can tell.
        child.kill().unwrap();
        child.wait().unwrap();
        eventually("the session has ended", || match count("sleep 2001") {
            0 => Ok(()),
            left => Err(format!("{left} left")),
        });
        assert_eq!(exec_says(world, &["-d", "0", "sleep", "2002"]), "");
        assert_eq!(count("sleep 2002"), 1);
        assert_eq!(exec(world, &["-d", "0", "nowhere"]).status.code(), Some(127));
        // A signal to the client reaches the program.
        let client =
            world.command(&["fim-instance", "exec", "0", "sh", "-c", SAYS_TERM]).spawn_and_wait_ready();
        client.signal(Signal::SIGTERM);
        assert_eq!(client.end(), (5, "term\n".to_owned()));
        // Sessions end with their instance.
        let client = world.command(&["fim-instance", "exec", "0", "sh", "-c", WAIT]).spawn_and_wait_ready();
        end(zero);
        assert_eq!(client.end().0, 143);
    });
}

const SAYS_TERM: &str = "trap 'echo term; exit 5' TERM; echo ready; while :; do sleep 0.05; done";

trait Ready {
    fn spawn_and_wait_ready(&mut self) -> Running;
}

impl Ready for Command {
    fn spawn_and_wait_ready(&mut self) -> Running {
        let mut child = self.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let mut ready = [0; 6];
        output.read_exact(&mut ready).unwrap();
        assert_eq!(&ready, b"ready\n");
        Running { child, output }
    }
}

#[test]
fn many_sessions_at_once() {
    for_each_user(|world| {
        let zero = world.start(WAIT);
        let clients: Vec<_> = (0..20)
            .map(|number: u8| {
                let script = format!("cat; exit {number}");
                let mut child = world
                    .command(&["fim-instance", "exec", "0", "sh", "-c", &script])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let mut input = child.stdin.take().unwrap();
                input.write_all(format!("{number}").as_bytes()).unwrap();
                child
            })
            .collect();
        for (number, client) in clients.into_iter().enumerate() {
            let output = client.wait_with_output().unwrap();
            assert_eq!(output.status.code(), i32::try_from(number).ok());
            assert_eq!(output.stdout, number.to_string().as_bytes());
        }
        end(zero);
    });
}

#[test]
fn garbage_in_the_pipe_harms_nobody() {
    for_each_user(|world| {
        let flood = "head -c 300000 /dev/zero > $FIM_DIR_INSTANCE/portal/daemon/guest.fifo; \
                     printf 'fim-portal 1 ../../x' > $FIM_DIR_INSTANCE/portal/daemon/guest.fifo; \
                     for n in 1 2 3; do printf '\\nfim-portal 1 nobody\\n' \
                     > $FIM_DIR_INSTANCE/portal/daemon/guest.fifo; done; \
                     touch $FIM_DIR_INSTANCE/portal/x 2>/dev/null && echo writable; echo ready; exec sleep 1000";
        let zero = world.start(flood);
        for _ in 0..5 {
            assert_eq!(exec_says(world, &["0", "echo", "x"]), "x");
        }
        end(zero);
    });
}

#[test]
fn a_stopped_front_is_listed_and_a_client_killed_by_a_signal_leaves_nothing() {
    for_each_user(|world| {
        let zero = world.start(WAIT);
        zero.signal(Signal::SIGSTOP);
        assert_eq!(ids(world), [0]);
        assert_eq!(exec_says(world, &["0", "echo", "x"]), "x");
        zero.signal(Signal::SIGKILL);
        let ended = zero.end();
        assert_eq!(ended.0, 137);
        let code = status(std::process::ExitStatus::from_raw(9));
        assert_eq!(code, 137);
    });
}

/// `fim-instance` with words; what it printed.
fn instance(world: &World, words: &[&str]) -> Output {
    let words: Vec<&str> = ["fim-instance"].iter().chain(words).copied().collect();
    world.command(&words).output().unwrap()
}

fn instance_says(world: &World, words: &[&str]) -> String {
    said(instance(world, words))
}

#[test]
fn background_instances_live_until_they_are_stopped() {
    for_each_user(|world| {
        assert_eq!(instance_says(world, &["start", "web", "--env", "A=1", "--note", "A=first"]), "");
        assert_eq!(ids(world), [0]);
        // Sessions have its variables, and its record tells them.
        assert_eq!(exec_says(world, &["web", "sh", "-c", "echo $A"]), "1");
        assert_eq!(exec_says(world, &["web"]), "A=1  # first");
        // Nobody else is called so, by a beginning it is found.
        let taken = instance(world, &["start", "web"]);
        assert_eq!(taken.status.code(), Some(125));
        assert!(String::from_utf8_lossy(&taken.stderr).contains("web"), "{taken:?}");
        assert_eq!(exec_says(world, &["instance://we", "echo", "x"]), "x");
        for wrong in ["7", "a/b", ""] {
            assert_eq!(instance(world, &["start", wrong]).status.code(), Some(125), "{wrong}");
        }
        let inspected: serde_json::Value =
            serde_json::from_str(&instance_says(world, &["inspect", "web"])).unwrap();
        assert_eq!((inspected["name"].as_str(), inspected["id"].as_u64()), (Some("web"), Some(0)));
        instance_says(world, &["rename", "web", "site"]);
        assert_eq!(instance(world, &["exec", "web", "true"]).status.code(), Some(125));
        assert_eq!(instance_says(world, &["stop", "site"]), "stopped site");
        assert!(ids(world).is_empty());
        assert_eq!(instance(world, &["wait", "site"]).status.code(), Some(0));
        assert_eq!(instance(world, &["stop", "--all"]).status.code(), Some(125));
    });
}

#[test]
fn a_program_in_the_background_has_its_output_and_its_end_on_record() {
    for_each_user(|world| {
        let pid_file = world.path("cwd/pid");
        let script =
            "echo out; echo err >&2; read line < /dev/null; while [ ! -e /go ]; do sleep 0.05; done; exit 9";
        let started = instance(
            world,
            &["start", "job", "--pid-file", pid_file.to_str().unwrap(), "--", "sh", "-c", script],
        );
        assert!(started.status.success(), "{started:?}");
        let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        assert_eq!(list(world), [(0, pid)]);
        let waiter = world.command(&["fim-instance", "wait", "job"]).spawn().unwrap();
        exec_says(world, &["job", "touch", "/go"]);
        let mut waiter = waiter;
        assert_eq!(waiter.wait().unwrap().code(), Some(9));
        let logs = instance(world, &["logs", "job"]);
        assert_eq!((logs.stdout.as_slice(), logs.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(instance(world, &["start", "bad", "--", "nowhere"]).status.code(), Some(125));
    });
}

#[test]
fn stop_tells_who_had_to_be_killed() {
    for_each_user(|world| {
        let stubborn = "trap '' TERM; while :; do sleep 0.05; done";
        instance_says(world, &["start", "a-1", "--", "sh", "-c", stubborn]);
        instance_says(world, &["start", "a-2"]);
        instance_says(world, &["start", "b"]);
        let foreground = world.start(WAIT);
        let stopped = instance_says(world, &["stop", "--timeout", "1", "a-*"]);
        let mut lines: Vec<_> = stopped.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["killed a-1", "stopped a-2"]);
        assert_eq!(instance(world, &["stop", "c*"]).status.code(), Some(125));
        assert_eq!(instance(world, &["stop", "b", "nobody"]).status.code(), Some(125));
        assert_eq!(ids(world), [2, 3]);
        assert_eq!(instance_says(world, &["stop", "--all", "--force"]).lines().count(), 2);
        assert_eq!(foreground.end().0, 137);
        assert!(list(world).is_empty());
    });
}

#[test]
fn scripts_of_the_image_run_at_start_and_stop() {
    for_each_owner(|world| {
        let set = |which: &str, text: &str| {
            let file = world.path("own/script");
            std::fs::write(&file, text).unwrap();
            instance_says(world, &["script", "set", which, file.to_str().unwrap()]);
        };
        set("start", "echo started $A\ntouch /marks-start\n");
        set("stop", "#!/bin/sh -e\necho over\ntouch /marks-stop\n");
        assert_eq!(instance_says(world, &["script", "show", "start"]), "echo started $A\ntouch /marks-start");
        instance_says(world, &["start", "web", "-e", "A=7"]);
        eventually("the start script has run", || {
            match exec(world, &["web", "ls", "/marks-start"]).status.success() {
                true => Ok(()),
                false => Err("not yet".to_owned()),
            }
        });
        // It has returned, and the instance lives.
        assert_eq!(ids(world), [0]);
        assert_eq!(instance_says(world, &["stop", "web"]), "stopped web");
        assert_eq!(world.says("ls /marks-stop"), "/marks-stop");
        assert_eq!(instance_says(world, &["logs", "web"]), "started 7\nover");
        // A stop script that fails is told, and the instance ends all the same.
        for (script, complaint) in [("exit 3\n", "it ended with 3"), ("sleep 60\n", "it was ended after 1 s")]
        {
            set("stop", script);
            instance_says(world, &["start", "web"]);
            let stopped = instance(world, &["stop", "web", "--timeout", "1"]);
            assert!(stopped.status.success(), "{stopped:?}");
            let said = String::from_utf8_lossy(&stopped.stderr).into_owned();
            assert!(said.contains("stop script of web") && said.contains(complaint), "{said}");
        }
        instance_says(world, &["script", "clear", "start"]);
        assert_eq!(instance_says(world, &["script", "show", "start"]), "");
    });
}

#[test]
fn programs_of_the_host_are_started_from_inside_where_that_is_permitted() {
    for_each_owner(|world| {
        let refused = world.shell("fim_portal true").output().unwrap();
        assert_eq!(refused.status.code(), Some(127), "{refused:?}");
        assert!(world.command(&["fim-perms", "add", "portal"]).status().unwrap().success());
        let own = std::fs::read_link("/proc/self/ns/pid").unwrap();
        let inside = world.says("readlink /proc/self/ns/pid");
        let there = world.says("fim_portal readlink /proc/self/ns/pid");
        assert_eq!(there, own.to_str().unwrap());
        assert_ne!(inside, there);
        // Exit codes, descriptors, the working directory, and none of the environment that leads programs.
        let status = |script: &str| world.shell(script).status().unwrap().code();
        assert_eq!(status("fim_portal sh -c 'exit 42'"), Some(42));
        assert_eq!(status("fim_portal sh -c 'kill -9 $$'"), Some(137));
        assert_eq!(status("fim_portal /nowhere"), Some(127));
        assert_eq!(world.says("echo text | fim_portal cat"), "text");
        assert_eq!(world.says("cd /usr; fim_portal pwd"), "/usr");
        assert_eq!(
            world.says("LD_LIBRARY_PATH=/x PATH=/y:$PATH fim_portal sh -c 'echo $LD_LIBRARY_PATH'"),
            ""
        );
        assert_eq!(status("fim_portal cat < /"), Some(125));
        // It ends with whoever asked, and with the instance.
        let asking = world.start("echo ready; fim_portal sleep 3003");
        asking.signal(Signal::SIGKILL);
        drop(asking);
        eventually("the program on the host has ended", || {
            let left = Command::new("pgrep").args(["-f", "^sleep 3003$"]).output().unwrap().stdout;
            if left.is_empty() { Ok(()) } else { Err(String::from_utf8_lossy(&left).into_owned()) }
        });
        // Garbage and strangers harm nobody.
        let hostile = "p=$FIM_DIR_INSTANCE/portal; head -c 200000 /dev/zero > $p/daemon/host.fifo; \
                       ln -s /run/x $p/dispatcher/host/1; printf '\\nfim-portal 1 1\\n' > $p/daemon/host.fifo; \
                       rm -f $p/daemon/host.fifo 2>/dev/null && echo removed; fim_portal echo still";
        assert_eq!(world.says(hostile), "still");
        // The user's list is the end of it.
        let config = world.path("own/config");
        std::fs::create_dir_all(config.join("fim")).unwrap();
        std::fs::write(config.join("fim/portal.allow"), "echo\n").unwrap();
        let listed = |script: &str| world.shell(script).env("XDG_CONFIG_HOME", &config).output().unwrap();
        assert_eq!(said(listed("fim_portal echo yes")), "yes");
        assert_eq!(listed("fim_portal sh -c true").status.code(), Some(126));
    });
}

/// What a program may do, and where it is.
const BOUNDS: &str = "grep -E 'Cap|NoNewPrivs|Seccomp' /proc/self/status; cat /proc/self/cgroup; id; \
    readlink /proc/self/ns/*; grep -c . /proc/self/mountinfo; echo $FIM_INSTANCE $A; pwd; env | grep -v _= | sort";

#[test]
fn an_instance_whose_process_1_is_stopped_is_entered_without_it() {
    for_each_user(|world| {
        instance_says(world, &["start", "web", "--env", "A=1"]);
        let front = list(world)[0].1;
        let children = |pid: i32| -> Vec<i32> {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
            children.split_whitespace().map(|child| child.parse().unwrap()).collect()
        };
        let init = children(front).into_iter().flat_map(children).find(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
        });
        let init = Pidfd::open(init.unwrap()).unwrap();
        let bounds = |words: &[&str]| exec_says(world, &[words, &["web", "sh", "-c", BOUNDS]].concat());
        let [before, as_root] = [&["--cwd", "/opt"][..], &["--user", "root"]].map(bounds);
        assert!(before.contains("NoNewPrivs:\t1") && before.contains("\nA=1\n"), "{before}");
        init.signal(Signal::SIGSTOP).unwrap();
        // As the normal way: bounds, group, namespaces, environment, directory, users.
        assert_eq!(bounds(&["--cwd", "/opt"]), before);
        assert_eq!(bounds(&["--user", "root"]), as_root);
        for (script, code) in [("exit 42", 42), ("kill -9 $$", 137)] {
            assert_eq!(exec(world, &["web", "sh", "-c", script]).status.code(), Some(code), "{script}");
        }
        let client =
            world.command(&["fim-instance", "exec", "web", "sh", "-c", SAYS_TERM]).spawn_and_wait_ready();
        client.signal(Signal::SIGTERM);
        assert_eq!(client.end(), (5, "term\n".to_owned()));
        // A session that is there when the instance ends goes with it, and does not keep it.
        assert_eq!(exec_says(world, &["-d", "web", "sleep", "2003"]), "");
        init.signal(Signal::SIGCONT).unwrap();
        assert_eq!(exec_says(world, &["web", "echo", "back"]), "back");
        assert_eq!(instance_says(world, &["stop", "web"]), "stopped web");
        world.assert_nothing_left();
    });
}
