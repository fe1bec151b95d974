//! Whatever is killed, nothing stays.

use std::{fs, time::Duration};

use fim::sys::{process::Pidfd, signal::Signal};

use crate::support::{Running, World, eventually, for_each_user, said};

fn kill(pid: i32) {
    Pidfd::open(pid).unwrap().signal(Signal::SIGKILL).unwrap();
}

/// A program that holds a layer open, writes all the time, and tells each number that is on the disk for good.
const LOAD: &str = "exec 9< $FIM_DIR_INSTANCE/layers/0/bin/busybox; cd /var; echo ready; i=0; while :; do i=$((i+1)); echo $i > n.tmp; mv n.tmp n; sync; echo $i > synced; dd if=/dev/zero of=big bs=64k count=4 2>/dev/null; done";

fn load(world: &World) -> Running {
    let running = world.start(LOAD);
    std::thread::sleep(Duration::from_millis(300));
    running
}

fn numbers_are_whole(world: &World) {
    let number = |name: &str| -> u64 {
        fs::read_to_string(world.upper().join("var").join(name))
            .unwrap_or_default()
            .trim()
            .parse()
            .unwrap_or(0)
    };
    assert!(number("n") > 0 && number("n") >= number("synced"), "{} {}", number("n"), number("synced"));
}

#[test]
fn a_killed_front_takes_everything_along() {
    for_each_user(|world| {
        for _ in 0..3 {
            let running = load(world);
            kill(running.pid());
            world.assert_nothing_left();
            numbers_are_whole(world);
        }
        assert_eq!(world.says("echo again"), "again");
    });
}

#[test]
fn a_killed_server_ends_its_instances_with_125() {
    for_each_user(|world| {
        let running = load(world);
        kill(world.server_pid());
        assert_eq!(running.end().0, 125);
        world.assert_nothing_left();
        assert_eq!(world.says("echo again"), "again");
    });
}

#[test]
fn a_told_server_ends_its_instances_and_unmounts() {
    for_each_user(|world| {
        let running = load(world);
        Pidfd::open(world.server_pid()).unwrap().signal(Signal::SIGTERM).unwrap();
        assert_eq!(running.end().0, 125);
        world.assert_nothing_left();
        numbers_are_whole(world);
    });
}

#[test]
fn a_killed_bubblewrap_ends_the_run() {
    for_each_user(|world| {
        let running = load(world);
        let bwrap = children_of(running.pid());
        assert_eq!(bwrap.len(), 1, "{bwrap:?}");
        kill(bwrap[0]);
        assert_eq!(running.end().0, 125);
        world.assert_nothing_left();
    });
}

#[test]
fn a_killed_process_1_ends_the_run() {
    for_each_user(|world| {
        let running = load(world);
        let init = children_of(children_of(running.pid())[0]);
        kill(init[0]);
        assert_eq!(running.end().0, 125);
        world.assert_nothing_left();
    });
}

#[test]
fn the_janitor_takes_away_what_server_and_front_leave_that_are_killed_together() {
    for_each_user(|world| {
        let running = load(world);
        let server = world.server_pid();
        // A front that cannot do anything about it: nobody else is left then.
        Pidfd::open(running.pid()).unwrap().signal(Signal::SIGSTOP).unwrap();
        kill(server);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(world.instances().len(), 1, "it has not ended yet");
        kill(running.pid());
        world.assert_nothing_left();
        assert_eq!(world.says("echo again"), "again");
    });
}

#[test]
fn a_janitor_lets_the_next_server_be() {
    for_each_user(|world| {
        let stopped = load(world);
        let janitor = janitor(world);
        Pidfd::open(janitor).unwrap().signal(Signal::SIGSTOP).unwrap();
        Pidfd::open(stopped.pid()).unwrap().signal(Signal::SIGSTOP).unwrap();
        kill(world.server_pid());
        let next = world.start("echo ready; while [ ! -e /var/stop ]; do usleep 10000; done; echo ended");
        kill(stopped.pid());
        drop(stopped);
        Pidfd::open(janitor).unwrap().signal(Signal::SIGCONT).unwrap();
        eventually("the first one's directory is gone, and its janitor", || {
            let left = (world.instances().len(), world.processes().contains(&janitor));
            if left == (1, false) { Ok(()) } else { Err(format!("{left:?}")) }
        });
        said(world.shell("touch /var/stop").output().unwrap());
        assert_eq!(next.end(), (0, "ended\n".to_owned()));
    });
}

#[test]
fn server_front_and_janitor_killed_together_leave_nothing_behind_the_next_start() {
    for_each_user(|world| {
        let running = load(world);
        let server = world.server_pid();
        kill(janitor(world));
        Pidfd::open(running.pid()).unwrap().signal(Signal::SIGSTOP).unwrap();
        kill(server);
        kill(running.pid());
        eventually("all processes have ended", || {
            let left = world.processes();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        assert!(!world.instances().is_empty(), "nobody was left to clean up");
        assert_eq!(world.says("echo again"), "again");
    });
}

#[test]
fn other_instances_go_on() {
    for_each_user(|world| {
        let stays = world.start("echo ready; while [ ! -e /var/stop ]; do usleep 10000; done; echo ended");
        let dies = load(world);
        let server = world.server_pid();
        kill(dies.pid());
        eventually("its directory is gone", || match world.instances().len() {
            1 => Ok(()),
            other => Err(other.to_string()),
        });
        assert_eq!(world.server_pid(), server);
        said(world.shell("touch /var/stop").output().unwrap());
        assert_eq!(stays.end(), (0, "ended\n".to_owned()));
    });
}

#[test]
fn a_guest_cannot_outlive_by_new_sessions() {
    for_each_user(|world| {
        let running = world
            .start("setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' & echo ready; sleep 60");
        kill(running.pid());
        world.assert_nothing_left();
    });
}

fn janitor(world: &World) -> i32 {
    let is_janitor = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.starts_with(b"fim_janitor\0"))
    };
    let found: Vec<i32> = world.processes().into_iter().filter(is_janitor).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

fn children_of(pid: i32) -> Vec<i32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap()
        .split_whitespace()
        .map(|child| child.parse().unwrap())
        .collect()
}
