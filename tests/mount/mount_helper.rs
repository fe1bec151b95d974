//! `mount -t fuse.fim`: the program in the role of mount(8)'s helper.

use std::{fs, os::unix::fs::symlink};

use crate::support::{Machine, User, can_mount, eventually};

/// Everything of one test in one shell, since the place that mount(8) looks for its helpers is the machine's.
fn with_helper(machine: &Machine) {
    fs::create_dir(machine.path("sbin")).unwrap();
    symlink(machine.path("fim"), machine.path("sbin/mount.fuse.fim")).unwrap();
    for name in ["other", "work"] {
        fs::create_dir(machine.path(name)).unwrap();
    }
    fs::write(machine.path("other/file"), "the highest layer\n").unwrap();
}

const MOUNT: &str = "sbin/mount.fuse.fim a-name mount -o";
const LAYERS: &str = "lowerdir=other:lower,upperdir=upper,workdir=work";

fn servers(machine: &Machine) -> usize {
    let program = machine.path("fim");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter(|entry| fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == program)).count()
}

#[test]
fn host_directories_are_mounted_under_a_name() {
    if !can_mount() {
        return;
    }
    let machine = Machine::new(User::Root);
    with_helper(&machine);
    machine.shell(&format!("{MOUNT} rw,noexec,noatime,{LAYERS}"));
    assert_eq!(fs::read_to_string(machine.path("mount/file")).unwrap(), "the highest layer\n");
    fs::write(machine.path("mount/dir/new"), "new").unwrap();
    assert_eq!(fs::read_to_string(machine.path("upper/dir/new")).unwrap(), "new");
    let table = fs::read_to_string("/proc/thread-self/mounts").unwrap();
    let line = table.lines().find(|line| line.starts_with("a-name ")).unwrap();
    assert!(line.contains(" fuse.fim rw,noexec,noatime,"), "{line}");
    assert!(!line.contains("nosuid") && !line.contains("nodev"), "{line}");

    machine.shell("sbin/mount.fuse.fim a-name mount -o remount,ro,user_id=0");
    assert!(fs::write(machine.path("mount/dir/new"), "newer").is_err());
    machine.shell("sbin/mount.fuse.fim a-name mount -o remount,rw");
    fs::write(machine.path("mount/dir/new"), "newer").unwrap();
    machine.shell("umount mount");
    eventually("the server ends with its mount", || servers(&machine) == 0);
}

#[test]
fn the_same_directories_are_mounted_again_at_once() {
    if !can_mount() {
        return;
    }
    let machine = Machine::new(User::Root);
    with_helper(&machine);
    machine.shell(&format!(
        "for i in $(seq 100); do {MOUNT} {LAYERS}; echo $i >mount/count; umount mount; done; cat upper/count"
    ));
    assert_eq!(fs::read_to_string(machine.path("upper/count")).unwrap(), "100\n");
}

#[test]
fn failures_are_told_as_mount_tells_them() {
    if !can_mount() {
        return;
    }
    let machine = Machine::new(User::Root);
    with_helper(&machine);
    for (options, status) in [("lowerdir=no-such-dir", 32), ("odd", 1), ("ro,lowerdir=lower -q", 1)] {
        let said = machine.shell(&format!("{MOUNT} {options} 2>&1 && exit 1; echo $?"));
        assert!(said.starts_with("mount.fuse.fim: ") && said.ends_with(&format!("\n{status}\n")), "{said}");
    }
    assert!(!machine.is_mounted("mount"));
}
