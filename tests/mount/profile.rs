//! What is recorded of a mount, and mounts that start with a profile.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use fim::sys::signal::Signal;

use crate::support::{Machine, User, can_mount, eventually, finish, finish_child, send, text};

const USERS: [User; 2] = [User::Root, User::Nobody];

/// Reads in an order that no directory has, some of it twice, and in parts.
const SCRIPT: &str = "cat mount/dir/c mount/file >/dev/null
    find mount >/dev/null
    cat mount/link mount/dir/a mount/dir/c >/dev/null
    dd if=mount/true of=/dev/null bs=1 count=1 2>/dev/null";
const RECORDED: &str = "fim-profile 1\n/dir/c\t0-65536\n/file\t0-65536\n/dir/a\t0-65536\n/true\t0-65536\n";

/// An archive of the sample layer.
fn pack(machine: &Machine, words: &[&str]) {
    machine.succeed(&[&["archive", "create"], words, &["lower", "archive"]].concat());
}

fn read(machine: &Machine, name: &str) -> String {
    fs::read_to_string(machine.path(name)).unwrap()
}

/// A foreground mount that answers.
fn foreground(machine: &Machine, words: &[&str]) -> Child {
    let mut command = machine.fim(&[&["mount", "-f", "--json"], words].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    child
}

/// Files in the scratch directory that a recording may have left.
fn leftovers(machine: &Machine) -> Vec<String> {
    let entries = fs::read_dir(machine.path(".")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with('.') && name != ".upper.work").collect()
}

#[test]
fn files_are_recorded_in_the_order_of_their_first_reads() {
    if !can_mount() {
        return;
    }
    for user in USERS {
        let machine = Machine::new(user);
        pack(&machine, &[]);
        // In the background, of an archive: written when it is unmounted.
        machine.succeed(&["mount", "--record", "one", "archive", "mount"]);
        machine.shell(SCRIPT);
        assert!(!machine.path("one").exists());
        machine.succeed(&["umount", "mount"]);
        assert_eq!(read(&machine, "one"), RECORDED, "{user:?}");
        // Of a directory, below an upper; the file is replaced.
        fs::write(machine.path("one"), "old").unwrap();
        let words = ["mount", "--record", "one", "--layer", "lower", "--upper", "upper", "mount"];
        machine.succeed(&words);
        machine.shell(SCRIPT);
        machine.shell("echo more >> mount/dir/b; cat mount/dir/b >/dev/null");
        machine.succeed(&["umount", "mount"]);
        assert_eq!(read(&machine, "one"), format!("{RECORDED}/dir/b\t0-65536\n"), "{user:?}");
        assert_eq!(leftovers(&machine), [""; 0]);
    }
}

#[test]
fn a_command_is_recorded_when_it_has_ended() {
    if !can_mount() {
        return;
    }
    let machine = Machine::new(User::Root);
    pack(&machine, &[]);
    machine.succeed(&["mount", "--record", "p", "archive", "mount", "--", "sh", "-c", SCRIPT]);
    assert_eq!(read(&machine, "p"), RECORDED);
    // Only what is read of a large file is in the recording.
    let script = "dd if=mount/big of=/dev/null bs=1024 skip=3071 count=1 2>/dev/null";
    machine.succeed(&["mount", "--record", "p", "archive", "mount", "--", "sh", "-c", script]);
    let recorded = read(&machine, "p");
    let (path, ranges) = recorded.lines().nth(1).unwrap().split_once('\t').unwrap();
    assert_eq!(path, "/big");
    assert!(!ranges.starts_with("0-") && ranges.ends_with(&format!("-{}", 3 << 20)), "{recorded}");
    let words = ["mount", "--record", "no/such/place", "archive", "mount", "--", "touch", "ran"];
    let output = finish(machine.fim(&words));
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("cannot record to"), "{}", text(&output.stderr));
    assert!(!machine.path("ran").exists());
}

#[test]
fn a_signal_ends_the_recording_and_a_kill_loses_only_it() {
    if !can_mount() {
        return;
    }
    let machine = Machine::new(User::Root);
    pack(&machine, &[]);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let child = foreground(&machine, &["--record", "p", "archive", "mount"]);
        machine.shell(SCRIPT);
        send(child.id(), signal);
        assert!(finish_child(child).status.success());
        assert_eq!(read(&machine, "p"), RECORDED);
        fs::write(machine.path("p"), "old").unwrap();
    }
    let child = foreground(&machine, &["--record", "p", "archive", "mount"]);
    machine.shell(SCRIPT);
    send(child.id(), Signal::SIGKILL);
    finish_child(child);
    machine.succeed(&["umount", "mount"]);
    assert_eq!(read(&machine, "p"), "old");
    assert_eq!(leftovers(&machine), [""; 0]);
}

#[test]
fn an_archive_packed_by_a_profile_is_the_same_tree() {
    if !can_mount() {
        return;
    }
    let machine = Machine::new(User::Root);
    fs::write(machine.path("p"), RECORDED).unwrap();
    pack(&machine, &["--order", "profile:p"]);
    machine.succeed(&["mount", "--profile", "p", "archive", "mount"]);
    machine.shell("diff -r --no-dereference lower mount");
    machine.succeed(&["umount", "mount"]);
    let output = finish(machine.fim(&["archive", "create", "--order", "size", "lower", "archive"]));
    assert!(text(&output.stderr).contains("list:FILE or profile:FILE"), "{}", text(&output.stderr));
}

#[test]
fn a_mount_is_prefetched_by_its_profile() {
    if !can_mount() {
        return;
    }
    let machine = Machine::new(User::Root);
    // Random bytes, which are stored as they are, would not show in memory, nor would what repeats itself.
    machine.shell("seq 1 9000000 | head -c 40000000 > lower/large; echo 'fim-profile 1\n/large' > p");
    pack(&machine, &["--level", "1"]);
    let resident = |child: &Child| -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    for (words, loads) in
        [(&["--profile", "p", "archive", "mount"][..], true), (&["archive", "mount"], false)]
    {
        let child = foreground(&machine, words);
        if loads {
            eventually("the large file is in memory", || resident(&child) > 45_000);
        } else {
            std::thread::sleep(std::time::Duration::from_millis(500));
            assert!(resident(&child) < 40_000, "{}", resident(&child));
        }
        assert_eq!(machine.shell("head -c 3 mount/large"), "1\n2");
        machine.succeed(&["umount", "mount"]);
        assert!(finish_child(child).status.success());
    }
}

#[test]
fn what_is_no_profile_is_refused() {
    if !can_mount() {
        return;
    }
    let machine = Machine::new(User::Root);
    pack(&machine, &[]);
    let long = [b"fim-profile 1\n".to_vec(), b"/file\n".repeat(1 << 20)].concat();
    for (bytes, why) in [
        (&b""[..], "the first line is not"),
        (b"\x7fELF\0\0\0", "the first line is not"),
        (b"fim-profile 9\n/file\n", "another version"),
        (b"fim-profile 1\n/file\n/../../etc/passwd\n", "line 3: the path has a name"),
        (b"fim-profile 1\n/file\t9-1\n", "line 2: expected ranges"),
        (&long, "at most 4194304 are read"),
    ] {
        fs::write(machine.path("p"), bytes).unwrap();
        for words in [
            &["mount", "--profile", "p", "archive", "mount"][..],
            &["archive", "create", "--order", "profile:p", "lower", "other"],
        ] {
            let output = finish(machine.fim(words));
            assert_eq!(output.status.code(), Some(125), "{why}");
            let said = text(&output.stderr);
            assert!(said.contains(why) && said.lines().count() == 1, "{said}");
        }
        assert!(!machine.is_mounted("mount") && !machine.path("other").exists());
    }
}
