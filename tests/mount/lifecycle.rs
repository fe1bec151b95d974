//! How mounts begin and end: foreground, background, with a command, by signals, by kill -9, as root and as a user.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, ErrorKind},
    os::unix::process::ExitStatusExt as _,
    process::{Child, Stdio},
};

use fim::sys::signal::Signal;

use crate::support::{Machine, User, can_mount, eventually, finish, finish_child, send, text};

const USERS: [User; 2] = [User::Root, User::Nobody];
const MOUNT: [&str; 6] = ["mount", "--layer", "lower", "--upper", "upper", "mount"];

/// The words of a mount with some in front.
fn words<'a>(front: &[&'a str]) -> Vec<&'a str> {
    let (verb, rest) = MOUNT.split_first().unwrap();
    [*verb].iter().chain(front).chain(rest).copied().collect()
}

fn gone(pid: u32) -> bool {
    // A zombie whose parent has not looked yet is gone for our purpose.
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

fn field(json: &str, name: &str) -> serde_json::Value {
    serde_json::from_str::<serde_json::Value>(json).unwrap()[name].clone()
}

/// A foreground mount that answers.
fn foreground(machine: &Machine) -> Child {
    let mut command = machine.fim(&words(&["-f", "--json"]));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(field(&line, "pid"), child.id());
    child
}

#[test]
fn a_background_mount_answers_when_the_command_returns() {
    if !can_mount() {
        return;
    }
    for user in USERS {
        let machine = Machine::new(user);
        for _ in 0..3 {
            let json = machine.succeed(&words(&["--json"]));
            assert_eq!(machine.shell("cat mount/file"), "lower file\n");
            assert_eq!(field(&json, "target"), machine.path("mount").to_str().unwrap());
            assert_eq!(field(&json, "read_only"), false);
            let pid = u32::try_from(field(&json, "pid").as_u64().unwrap()).unwrap();
            assert!(!gone(pid));
            machine.succeed(&["umount", "mount"]);
            assert!(gone(pid), "{user:?}: umount waits for the server");
            assert!(!machine.is_mounted("mount"));
        }
    }
}

#[test]
fn a_mount_without_an_upper_directory_is_read_only() {
    if !can_mount() {
        return;
    }
    for user in USERS {
        let machine = Machine::new(user);
        let json = machine.succeed(&["mount", "--json", "lower", "mount"]);
        assert_eq!(field(&json, "read_only"), true);
        let said = machine.shell("cat mount/file; touch mount/new 2>&1 || true");
        assert!(said.starts_with("lower file\n") && said.contains("Read-only"), "{said}");
        machine.succeed(&["umount", "mount"]);
    }
}

#[test]
fn the_source_name_is_shown() {
    if !can_mount() {
        return;
    }
    for user in USERS {
        let machine = Machine::new(user);
        machine.succeed(&words(&["-o", "fsname=/dev/some where"]));
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(table.contains(" fuse.fim /dev/some\\040where "), "{table}");
        machine.succeed(&["umount", "mount"]);
    }
}

#[test]
fn a_signal_unmounts() {
    if !can_mount() {
        return;
    }
    for user in USERS {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            let machine = Machine::new(user);
            let child = foreground(&machine);
            machine.shell("echo written > mount/new");
            send(child.id(), signal);
            let output = finish_child(child);
            assert_eq!(output.status.code(), Some(0), "{user:?} {signal}: {}", text(&output.stderr));
            assert!(!machine.is_mounted("mount"));
            assert_eq!(fs::read_to_string(machine.path("upper/new")).unwrap(), "written\n");
        }
    }
}

#[test]
fn a_signal_to_a_mount_in_use_detaches_it_and_a_second_one_ends_it() {
    if !can_mount() {
        return;
    }
    let machine = Machine::new(User::Root);
    let mut child = foreground(&machine);
    let open = File::open(machine.path("mount/file")).unwrap();
    send(child.id(), Signal::SIGTERM);
    eventually("detached", || !machine.is_mounted("mount"));
    assert_eq!(std::io::read_to_string(&open).unwrap(), "lower file\n", "who has it open goes on");
    assert_eq!(child.try_wait().unwrap(), None);
    send(child.id(), Signal::SIGTERM);
    assert_eq!(finish_child(child).status.code(), Some(0));
    assert_eq!(open.metadata().unwrap_err().kind(), ErrorKind::NotConnected);
}

#[test]
fn umount_of_a_mount_in_use_is_lazy_and_says_so() {
    if !can_mount() {
        return;
    }
    let machine = Machine::new(User::Root);
    let json = machine.succeed(&words(&["--json"]));
    let pid = u32::try_from(field(&json, "pid").as_u64().unwrap()).unwrap();
    let open = File::open(machine.path("mount/file")).unwrap();
    let output = finish(machine.fim(&["umount", "mount"]));
    assert!(output.status.success());
    assert!(text(&output.stderr).contains("still in use"), "{}", text(&output.stderr));
    assert!(!machine.is_mounted("mount") && !gone(pid));
    drop(open);
    eventually("the server ends with its last user", || gone(pid));
}

#[test]
fn kill_9_leaves_a_dead_mount_that_can_be_taken_away() {
    if !can_mount() {
        return;
    }
    for user in USERS {
        let machine = Machine::new(user);
        let json = machine.succeed(&words(&["--json"]));
        let pid = u32::try_from(field(&json, "pid").as_u64().unwrap()).unwrap();
        send(pid, Signal::SIGKILL);
        eventually("dead", || machine.shell("stat -f mount 2>&1 || true").contains("not connected"));
        let said = machine.shell("cat mount/file 2>&1 || true; ls mount 2>&1 || true");
        assert_eq!(said.matches("not connected").count(), 2, "{said}");
        let again = finish(machine.fim(&MOUNT));
        assert_eq!(again.status.code(), Some(125));
        assert!(text(&again.stderr).contains("fim umount"), "{}", text(&again.stderr));
        machine.succeed(&["umount", "mount"]);
        assert!(!machine.is_mounted("mount"));
        machine.succeed(&MOUNT);
        machine.succeed(&["umount", "mount"]);
    }
}

#[test]
fn a_command_runs_in_a_private_mount_and_gives_its_status() {
    if !can_mount() {
        return;
    }
    for user in USERS {
        let machine = Machine::new(user);
        for (script, status) in [("exit 7", 7), ("kill -TERM $$", 143), ("cat mount/file >/dev/null", 0)] {
            let mut words = words(&[]);
            words.extend(["--", "sh", "-c", script]);
            let output = finish(machine.fim(&words));
            assert_eq!(output.status.code(), Some(status), "{user:?} {script}: {}", text(&output.stderr));
        }
        let mut words = words(&[]);
        words.extend([
            "--",
            "sh",
            "-c",
            "id -u; cat mount/file; pwd; echo kept > mount/new; cat /proc/self/mountinfo",
        ]);
        let said = machine.succeed(&words);
        let id = if user == User::Root { "0" } else { "65534" };
        assert!(
            said.starts_with(
                &format!("{id}\nlower file\n{}\n", machine.path("").display()).replace("/\n", "\n")
            ),
            "{said}"
        );
        assert!(said.contains("fuse.fim"));
        assert!(!machine.is_mounted("mount"));
        assert_eq!(fs::read_to_string(machine.path("upper/new")).unwrap(), "kept\n");
        for (program, status) in [("/no/such/program", 127), ("/etc/passwd", 126)] {
            let output = finish(machine.fim(&["mount", "lower", "mount", "--", program]));
            assert_eq!(output.status.code(), Some(status));
            assert!(text(&output.stderr).starts_with("fim: cannot run"), "{}", text(&output.stderr));
        }
    }
}

#[test]
fn a_command_whose_front_is_killed_ends_with_its_server() {
    if !can_mount() {
        return;
    }
    for user in USERS {
        let machine = Machine::new(user);
        let mut words = words(&["--json"]);
        words.extend(["--", "sh", "-c", "echo $$; exec sleep 1000"]);
        let mut child = machine.fim(&words).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let server = u32::try_from(field(&lines.next().unwrap(), "pid").as_u64().unwrap()).unwrap();
        let command: u32 = lines.next().unwrap().parse().unwrap();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        eventually("the command is killed", || gone(command));
        eventually("the server has ended", || gone(server));
    }
}

#[test]
fn signals_reach_the_command() {
    if !can_mount() {
        return;
    }
    let machine = Machine::new(User::Root);
    let mut words = words(&[]);
    words.extend(["--", "sh", "-c", "trap 'exit 33' USR1; echo ready; while :; do sleep 0.01; done"]);
    let mut child = machine.fim(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    send(child.id(), Signal::SIGUSR1);
    assert_eq!(finish_child(child).status.code(), Some(33));
}

#[test]
fn failures_are_one_line_and_125() {
    if !can_mount() {
        return;
    }
    for user in USERS {
        let machine = Machine::new(user);
        fs::write(machine.path("garbage"), "no archive").unwrap();
        for (words, expected) in [
            (&["mount", "absent", "mount"][..], "cannot find absent"),
            (&["mount", "garbage", "mount"][..], "garbage"),
            (&["mount", "-f", "garbage", "mount"][..], "garbage"),
            (&["mount", "garbage", "mount", "--", "true"][..], "garbage"),
            (&["mount", "mount"][..], "nothing to mount"),
            (&["umount", "mount"][..], "no mount of fim"),
            (&["umount", "/proc"][..], "no mount of fim"),
        ] {
            let output = finish(machine.fim(words));
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{words:?}: {said}");
            assert!(said.starts_with("fim: ") && said.contains(expected), "{words:?}: {said}");
            assert_eq!(said.lines().count(), 1, "{words:?}: {said}");
            assert!(!machine.is_mounted("mount"));
        }
    }
}

#[test]
fn a_user_without_the_device_is_told_the_cure() {
    if !can_mount() {
        return;
    }
    let machine = Machine::new(User::Nobody);
    fs::set_permissions(machine.path("fuse"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let output = finish(machine.fim(&["mount", "lower", "mount", "--", "true"]));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125));
    assert!(said.contains("/dev/fuse") && said.contains("chmod 0666 /dev/fuse"), "{said}");
}

#[test]
fn an_upper_directory_has_one_writer() {
    if !can_mount() {
        return;
    }
    for user in USERS {
        let machine = Machine::new(user);
        machine.succeed(&MOUNT);
        machine.shell("mkdir other; echo kept > mount/new");
        let second = finish(machine.fim(&["mount", "--upper", "upper", "other"]));
        assert_eq!(second.status.code(), Some(125));
        assert!(text(&second.stderr).contains("in use"), "{}", text(&second.stderr));
        assert_eq!(machine.shell("cat mount/new"), "kept\n");
        machine.succeed(&["umount", "mount"]);
        machine.succeed(&["mount", "--ro", "--layer", "lower", "--upper", "upper", "mount"]);
        assert_eq!(machine.shell("cat mount/new mount/file"), "kept\nlower file\n", "shown, not written");
        machine.succeed(&["umount", "mount"]);
    }
}

#[test]
fn what_was_fsynced_survives_the_server() {
    if !can_mount() {
        return;
    }
    let machine = Machine::new(User::Root);
    let json = machine.succeed(&words(&["--json"]));
    let pid = u32::try_from(field(&json, "pid").as_u64().unwrap()).unwrap();
    let script = "for n in $(seq 20); do dd if=/dev/zero of=mount/load$n bs=1M count=2 conv=fsync 2>/dev/null && echo $n; done; true";
    let mut command = machine.command("sh");
    let mut load = command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut synced = BufReader::new(load.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut seen: Vec<String> = synced.by_ref().take(3).collect();
    send(pid, Signal::SIGKILL);
    seen.extend(synced);
    load.wait().unwrap();
    assert!(seen.len() >= 3);
    for number in seen {
        let len = fs::metadata(machine.path(&format!("upper/load{number}"))).unwrap().len();
        assert_eq!(len, 2 << 20, "load{number}");
    }
    machine.succeed(&["umount", "mount"]);
}

#[test]
fn what_the_protocol_lacks_is_refused_as_programs_expect() {
    if !can_mount() {
        return;
    }
    let machine = Machine::new(User::Root);
    machine.succeed(&MOUNT);
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR;
    let refused = rustix::fs::open(machine.path("mount"), flags, 0o600.into());
    assert_eq!(refused.err(), Some(rustix::io::Errno::OPNOTSUPP), "O_TMPFILE");
    let root = File::open(machine.path("mount")).unwrap();
    assert_eq!(rustix::fs::ioctl_getflags(&root).err(), Some(rustix::io::Errno::NOTTY), "lsattr");
    rustix::fs::syncfs(&root).unwrap();
    drop(root);
    machine.succeed(&["umount", "mount"]);
}
