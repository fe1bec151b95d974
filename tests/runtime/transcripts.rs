//! What others show of their instances, line by line: FlatImage's multiple instances, Singularity's of 2.4, and the records
//! of condatainer.

use std::{
    fs,
    path::PathBuf,
    process::{Output, Stdio},
};

use fim::sys::signal::Signal;

use crate::support::{PLAIN_UID, Running, Who, World, eventually, for_each_owner, for_each_user, said};

fn fim(world: &World, words: &[&str]) -> Output {
    world.command(words).output().unwrap()
}

fn says(world: &World, words: &[&str]) -> String {
    said(fim(world, words))
}

/// `./app.flatimage VERB sleep 1000 &`, once it is on the list.
fn in_background(world: &World, verb: &str) -> Running {
    let before = says(world, &["fim-instance", "list"]).lines().count();
    let mut child = world.command(&[verb, "sleep", "1000"]).stdout(Stdio::piped()).spawn().unwrap();
    let output = child.stdout.take().unwrap();
    let running = Running { child, output };
    eventually("the instance is listed", || {
        let list = says(world, &["fim-instance", "list"]);
        if list.lines().count() > before { Ok(()) } else { Err(list) }
    });
    running
}

fn list(world: &World) -> Vec<String> {
    says(world, &["fim-instance", "list"]).lines().map(str::to_owned).collect()
}

/// What a list of these shows.
fn lines(of: &[(u32, &Running)]) -> Vec<String> {
    of.iter().map(|(id, running)| format!("{id}:{}", running.pid())).collect()
}

fn kill(running: Running) {
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, 143);
}

#[test]
fn flatimage_multiple_instances() {
    for_each_user(|world| {
        let user = if world.who == Who::Plain { PLAIN_UID.to_string() } else { "0".to_owned() };
        // "Basic multi-instance example"
        let (zero, one) = (in_background(world, "fim-exec"), in_background(world, "fim-root"));
        assert_eq!(list(world), lines(&[(0, &zero), (1, &one)]));
        let exec = |words: &[&str]| {
            let words: Vec<&str> = ["fim-instance", "exec"].iter().chain(words).copied().collect();
            says(world, &words)
        };
        assert_eq!(exec(&["0", "echo", "Hello from instance 0"]), "Hello from instance 0");
        assert_eq!(exec(&["1", "pwd"]), "/root");
        assert_eq!((exec(&["0", "id", "-u"]), exec(&["1", "id", "-u"])), (user, "0".to_owned()));
        for id in ["0", "1"] {
            let shown = exec(&[id, "ps", "aux"]);
            assert_eq!(shown.matches("sleep 1000").count(), 1, "only those of instance {id}: {shown}");
            assert!(!shown.contains("flatimage"), "{shown}");
        }
        // "Instance lifecycle"
        assert_eq!(exec(&["0", "echo", "Still running"]), "Still running");
        kill(zero);
        kill(one);
        assert!(list(world).is_empty());
        // "Working with instance IDs"
        let [zero, one, two] = [(); 3].map(|()| in_background(world, "fim-exec"));
        assert_eq!(list(world), lines(&[(0, &zero), (1, &one), (2, &two)]));
        kill(one);
        assert_eq!(list(world), lines(&[(0, &zero), (2, &two)]));
        let three = in_background(world, "fim-exec");
        assert_eq!(list(world), lines(&[(0, &zero), (2, &two), (3, &three)]));
        for running in [zero, two, three] {
            kill(running);
        }
    });
}

#[test]
fn flatimage_directories() {
    for_each_user(|world| {
        let running = world.start(
            "for v in GLOBAL APP APP_BIN APP_SBIN INSTANCE RUNTIME RUNTIME_HOST DATA LAYERS; do \
             eval \"echo $v=\\$FIM_DIR_$v\"; done > /places; echo ready; exec sleep 1000",
        );
        let places = says(world, &["fim-instance", "exec", "0", "cat", "/places"]);
        let of = |name: &str| {
            let line = places.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            PathBuf::from(line.unwrap_or_else(|| panic!("no {name} in {places}")))
        };
        let app = of("APP");
        let build = app.file_name().unwrap().to_str().unwrap().split_once('_').unwrap();
        assert!(build.0.len() == 7 && build.1.len() == 14 && build.1.parse::<u64>().is_ok(), "{build:?}");
        assert_eq!(app, of("GLOBAL").join("app").join(app.file_name().unwrap()));
        assert_eq!((of("APP_BIN"), of("APP_SBIN")), (app.join("bin"), app.join("sbin")));
        assert_eq!(of("INSTANCE"), app.join("instance").join(running.pid().to_string()));
        assert_eq!(
            (of("RUNTIME"), of("RUNTIME_HOST")),
            (of("GLOBAL").join("run"), of("GLOBAL").join("run/host"))
        );
        assert_eq!((of("DATA"), of("LAYERS")), (world.path("data"), world.path("data/layers")));
        for place in [
            "bashrc",
            "passwd",
            "portal/daemon/host.fifo",
            "portal/daemon/guest.fifo",
            "portal/dispatcher/host",
            "portal/dispatcher/guest",
            "logs/boot.log",
            "logs/bwrap",
            "logs/daemon/host",
            "logs/daemon/guest",
            "logs/dispatcher/host",
            "logs/dispatcher/guest",
            "logs/fuse",
            "mount",
            "layers",
        ] {
            assert!(of("INSTANCE").join(place).exists(), "{place}");
        }
        for place in ["tmp", "work", "root", "casefold", "layers", "recipes"] {
            assert!(of("DATA").join(place).is_dir(), "{place}");
        }
        // The host's own instance directory is gone with it, its view of the host was never there.
        let gone = of("INSTANCE");
        assert!(!of("RUNTIME_HOST").exists());
        kill(running);
        assert!(!gone.exists());
    });
}

#[test]
fn singularity_instances() {
    for_each_owner(|world| {
        // "%startscript" and "%stopscript"
        for (which, text) in [("start", "echo start $OMGTACOS\n"), ("stop", "echo stop\n")] {
            fs::write(world.path("own/script"), text).unwrap();
            says(
                world,
                &["fim-instance", "script", "set", which, world.path("own/script").to_str().unwrap()],
            );
        }
        // "I could do that multiple times", with binds at that time, for none can be added later.
        fs::write(world.path("cwd/nginx.conf"), "conf\n").unwrap();
        let bind = format!("{}:/nginx.conf:ro", world.path("cwd/nginx.conf").display());
        for name in ["instance1", "instance2", "instance3"] {
            says(world, &["fim-instance", "start", name, "-b", &bind, "--env", "OMGTACOS=yes"]);
        }
        let table = says(world, &["fim-instance", "list", "--table"]);
        for name in ["instance1", "instance2", "instance3"] {
            assert!(table.contains(name), "{table}");
            let address = format!("instance://{name}");
            let shown = said(
                std::process::Command::new(world.command::<&str>(&[]).get_program())
                    .args(world.command(&["fim-instance", "exec", &address, "cat", "/nginx.conf"]).get_args())
                    .env_clear()
                    .envs(
                        world
                            .command::<&str>(&[])
                            .get_envs()
                            .filter_map(|(name, value)| Some((name, value?))),
                    )
                    .output()
                    .unwrap(),
            );
            assert_eq!(shown, "conf");
            eventually("the start script has run", || {
                let logs = says(world, &["fim-instance", "logs", name]);
                if logs == "start yes" { Ok(()) } else { Err(logs) }
            });
        }
        let stopped = says(world, &["fim-instance", "stop", "instance*"]);
        assert_eq!(stopped.lines().count(), 3, "{stopped}");
        assert_eq!(says(world, &["fim-instance", "logs", "instance2"]), "start yes\nstop");
        assert!(list(world).is_empty());
    });
}

#[test]
fn condatainer_state() {
    for_each_user(|world| {
        says(
            world,
            &[
                "fim-instance",
                "start",
                "myinstance",
                "--env",
                "A=1",
                "--env",
                "B=2",
                "--note",
                "A=what A is for",
            ],
        );
        let record = says(world, &["fim-instance", "inspect", "myinstance"]);
        let state: serde_json::Value = serde_json::from_str(&record).unwrap();
        assert_eq!(state["name"], "myinstance");
        assert_eq!(state["env"], serde_json::json!({"A": "1", "B": "2"}));
        assert_eq!(state["notes"], serde_json::json!({"A": "what A is for"}));
        assert!(state["layers"].is_array() && state["binds"].is_array() && state["image"].is_string());
        // Programs that are started later have the environment of the start, which exec without a program shows.
        assert_eq!(says(world, &["fim-instance", "exec", "myinstance", "sh", "-c", "echo $A $B"]), "1 2");
        assert_eq!(says(world, &["fim-instance", "exec", "myinstance"]), "A=1  # what A is for\nB=2");
        // By its address, without its image.
        let by_address = |words: &[&str]| {
            let image = world.image().to_str().unwrap().to_owned();
            let all = world.command::<&str>(&[]);
            let before: Vec<_> =
                all.get_args().take_while(|word| word.to_str() != Some(image.as_str())).collect();
            let mut command = std::process::Command::new(all.get_program());
            command.args(before).arg(env!("CARGO_BIN_EXE_fim")).args(words).env_clear();
            command.envs(all.get_envs().filter_map(|(name, value)| Some((name, value?))));
            command.current_dir(world.path("cwd")).output().unwrap()
        };
        assert_eq!(said(by_address(&["exec", "instance://myinstance", "sh", "-c", "echo $A"])), "1");
        assert_eq!(said(by_address(&["exec", "--env", "A=3", "instance://my", "sh", "-c", "echo $A"])), "3");
        assert_eq!(said(by_address(&["root", "instance://myinstance", "id", "-u"])), "0");
        for wrong in [
            &["exec", "instance://nobody", "true"][..],
            &["exec", "--ephemeral", "instance://myinstance", "true"],
        ] {
            assert_eq!(by_address(wrong).status.code(), Some(125), "{wrong:?}");
        }
        says(world, &["fim-instance", "stop", "myinstance"]);
        let gone = fim(world, &["fim-instance", "exec", "myinstance", "true"]);
        assert_eq!(gone.status.code(), Some(125));
    });
}
