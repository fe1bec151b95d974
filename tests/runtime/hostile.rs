//! A guest that means harm: what comes out of a sandbox, and what is said to process 1 inside.
//!
//! Those who speak the protocol by hand here do so from outside: who they are is the same to the other end.

use std::{
    fs::{self, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::{
        fs::symlink,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use fim::{config::Permission, sys::signal::Signal};

use crate::support::{Running, Who, World, eventually, for_each_owner, said};

/// Most memory that a process of ours may take whatever it is told, in KiB.
const BOUND: u64 = 64 << 10;

/// The portal of the only instance.
fn portal(world: &World) -> PathBuf {
    world.instances().pop().unwrap().join("portal")
}

/// Announces a socket of this name.
fn announce(portal: &Path, wall: &str, name: &str) {
    let mut fifo =
        OpenOptions::new().write(true).open(portal.join("daemon").join(format!("{wall}.fifo"))).unwrap();
    fifo.write_all(format!("\nfim-portal 1 {name}\n").as_bytes()).unwrap();
}

/// Asks as a client does; the other end of the line.
fn ask(portal: &Path, wall: &str, name: &str) -> UnixStream {
    let listener = UnixListener::bind(portal.join("dispatcher").join(wall).join(name)).unwrap();
    announce(portal, wall, name);
    let (line, _) = listener.accept().unwrap();
    line.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    line
}

/// Says something and waits until the other side hangs up.
fn is_hung_up_on(portal: &Path, wall: &str, name: &str, bytes: &[u8]) {
    let mut line = ask(portal, wall, name);
    // It may hang up before it has heard everything.
    let _ = line.write_all(bytes);
    let mut answer = Vec::new();
    match line.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{name}"),
    }
    assert!(answer.len() < 100, "{name}: {answer:?}");
}

/// Every message that makes no sense, and everything that is no socket.
fn molest(portal: &Path, wall: &str) -> Vec<UnixStream> {
    let frame = |payload: &[u8]| {
        let mut frame = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
        frame.push(0);
        frame.extend_from_slice(payload);
        frame
    };
    let lists = |count: u32| {
        let mut payload = vec![2, 3];
        payload.extend_from_slice(&count.to_le_bytes());
        frame(&payload)
    };
    let many_fds = [5, 0, 0, 0, 255, 1, 2, 3, 4, 5];
    for (name, bytes) in [
        ("huge", vec![0xff; 5]),
        ("large", [&(9_u32 << 20).to_le_bytes()[..], &[0]].concat()),
        ("empty", frame(&[])),
        ("version", frame(&[99, 3])),
        ("kind", frame(&[2, 77])),
        ("lists", lists(u32::MAX)),
        ("cut", lists(1)),
        ("start", frame(&[2, 0])),
        ("fds", many_fds.to_vec()),
        ("noise", (0..200_000_u32).map(|number| number.to_le_bytes()[0] ^ 0x5a).collect()),
    ] {
        is_hung_up_on(portal, wall, name, &bytes);
    }
    let place = portal.join("dispatcher").join(wall);
    fs::write(place.join("file"), "").unwrap();
    fs::create_dir(place.join("folder")).unwrap();
    symlink("/run/nobody", place.join("link")).unwrap();
    assert!(Command::new("mkfifo").arg(place.join("fifo")).status().unwrap().success());
    for name in ["file", "folder", "link", "fifo", "missing"] {
        announce(portal, wall, name);
    }
    // Those who ask and then say nothing, or never read.
    (0..30).map(|number| ask(portal, wall, &format!("silent-{number}"))).collect()
}

/// Resident memory of those who descend from a process, in KiB: the largest.
fn largest(head: i32) -> u64 {
    let of = |pid: &str, name: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok())
    };
    let pids: Vec<String> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.parse::<u32>().is_ok())
        .collect();
    let descends = |pid: &&String| {
        let mut at = (*pid).clone();
        while let Some(parent) = of(&at, "PPid:").filter(|parent| *parent > 1) {
            if parent == u64::try_from(head).unwrap() {
                return true;
            }
            at = parent.to_string();
        }
        false
    };
    pids.iter().filter(descends).filter_map(|pid| of(pid, "VmRSS:")).max().unwrap()
}

fn end(running: Running) {
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, 143);
}

#[test]
fn a_hostile_guest_harms_no_other_request_to_the_host() {
    let world = World::with_settings(Who::Myself, |settings| settings.permissions.add([Permission::Portal]));
    let Some(world) = world else { return };
    let instance = world.start("echo ready; exec sleep 1000");
    let portal = portal(&world);
    let answers = || {
        let words = ["fim-instance", "exec", "0", "fim_portal", "echo", "still"];
        assert_eq!(said(world.command(&words).output().unwrap()), "still");
    };
    answers();
    let silent = molest(&portal, "host");
    answers();
    // A flood from inside; what it replaces in its own places is its own.
    let flood = "p=$FIM_DIR_INSTANCE/portal; head -c 3000000 /dev/zero > $p/daemon/host.fifo; \
                 rm -rf $p/dispatcher/host/* $p/daemon/* $p/dispatcher/guest; ln -s / $p/dispatcher/host/root; \
                 ls $p/daemon $p/dispatcher";
    let left = said(world.command(&["fim-instance", "exec", "0", "sh", "-c", flood]).output().unwrap());
    assert!(left.contains("host.fifo") && left.contains("guest.fifo") && left.contains("guest\n"), "{left}");
    answers();
    assert!(largest(instance.pid()) < BOUND, "{} KiB", largest(instance.pid()));
    drop(silent);
    end(instance);
    world.assert_nothing_left();
}

#[test]
fn nonsense_said_to_process_1_harms_no_session() {
    let Some(world) = World::new(Who::Myself) else { return };
    let instance = world.start("echo ready; exec sleep 1000");
    let portal = portal(&world);
    let answers = || {
        let words = ["fim-instance", "exec", "0", "echo", "still"];
        assert_eq!(said(world.command(&words).output().unwrap()), "still");
    };
    let silent = molest(&portal, "guest");
    answers();
    assert!(largest(instance.pid()) < BOUND, "{} KiB", largest(instance.pid()));
    drop(silent);
    answers();
    end(instance);
    world.assert_nothing_left();
}

#[test]
fn without_the_permission_nobody_listens() {
    for_each_owner(|world| {
        let mark = world.path("cwd/mark");
        let running = world.start("echo ready; exec sleep 1000");
        let script = format!(
            "p=$FIM_DIR_INSTANCE/portal; ln -s /proc/1/exe /tmp/fim_portal; /tmp/fim_portal touch {0}; \
             touch $p/dispatcher/host/x 2>/dev/null && echo writable; echo done",
            mark.display()
        );
        let done = world.command(&["fim-instance", "exec", "0", "sh", "-c", &script]).output().unwrap();
        assert_eq!(said(done), "done");
        assert!(!mark.exists());
        // Not even the pipe has a reader.
        let fifo = portal(world).join("daemon/host.fifo");
        let refused = rustix::fs::open(
            &fifo,
            rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK,
            rustix::fs::Mode::empty(),
        );
        assert_eq!(refused.unwrap_err(), rustix::io::Errno::NXIO);
        end(running);
    });
}

#[test]
fn requests_to_the_host_are_logged_and_the_log_outlives_the_instance() {
    for_each_owner(|world| {
        assert!(world.command(&["fim-perms", "add", "portal"]).status().unwrap().success());
        let config = world.path("own/config");
        fs::create_dir_all(config.join("fim")).unwrap();
        fs::write(config.join("fim/portal.allow"), "# programs\necho\n").unwrap();
        let script = "fim_portal echo one >/dev/null; fim_portal id 2>/dev/null; \
                      while [ ! -e /go ]; do usleep 10000; done";
        let mut command = world.command(&["fim-instance", "start", "job", "--", "sh", "-c", script]);
        said(command.env("XDG_CONFIG_HOME", &config).output().unwrap());
        let log = portal(world).with_file_name("logs/daemon/host/daemon.log");
        let lines = |log: &Path| {
            let text = fs::read_to_string(log).unwrap_or_default();
            text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect::<Vec<_>>()
        };
        let expected = [r#"start ["echo", "one"]"#, r#"refuse ["id"]"#];
        eventually("both requests are logged", || match lines(&log) {
            lines if lines == expected => Ok(()),
            other => Err(format!("{other:?}")),
        });
        said(world.command(&["fim-instance", "exec", "job", "touch", "/go"]).output().unwrap());
        said(
            world
                .command(&["fim-instance", "wait", "job"])
                .output()
                .unwrap_or_else(|error| panic!("{error}")),
        );
        let list = said(world.command(&["fim-instance", "list", "-a", "-l"]).output().unwrap());
        let place = list.lines().last().unwrap().splitn(3, ':').nth(2).unwrap();
        assert_eq!(lines(&Path::new(place).join("logs/daemon/host/daemon.log")), expected);
    });
}
