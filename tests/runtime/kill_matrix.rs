//! Every process of ours, every way to be killed, during a load: what goes on, what survives, and that nothing stays.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::FileTypeExt as _,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use fim::sys::{process::Pidfd, signal::Signal};

use crate::support::{Who, World, eventually, for_each_owner, is_full, said};

/// Writes much, and holds a program of the host.
const LOAD: &str = "fim_portal sleep 4004 & cd /var; while :; do dd if=/dev/zero of=big bs=64k count=8 2>/dev/null; mv big bigger; done";

/// Says each number when it is on the disk for good.
const SYNCED: &str = "cd /var; i=0; while :; do i=$((i+1)); echo $i | dd of=n.tmp conv=fsync 2>/dev/null && mv n.tmp n && echo $i || exit 9; done";

/// A process of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Front,
    Server,
    Bwrap,
    GuestInit,
    Session,
    Client,
    HostDaemon,
    HostRequest,
    KeeperOfLogs,
    Janitor,
}

const ROLES: [Role; 10] = [
    Role::Front,
    Role::Server,
    Role::Bwrap,
    Role::GuestInit,
    Role::Session,
    Role::Client,
    Role::HostDaemon,
    Role::HostRequest,
    Role::KeeperOfLogs,
    Role::Janitor,
];

/// How it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Kill,
    Term,
    StopAndKill,
}

/// What becomes of the instance whose process is killed.
fn ends(role: Role, how: How) -> bool {
    match role {
        Role::Front | Role::Server | Role::Bwrap => true,
        // Nobody ends process 1 of a sandbox by asking.
        Role::GuestInit => how != How::Term,
        _ => false,
    }
}

#[test]
fn whatever_is_killed_however_nothing_stays_and_nothing_is_lost() {
    for_each_owner(|world| {
        said(world.command(&["fim-perms", "add", "portal"]).output().unwrap());
        world.says("echo committed > /etc/committed");
        said(world.command(&["fim-layer", "commit", "binary"]).output().unwrap());
        println!(
            "{:<14} {:<12} {:<9} {:<9} {:>6} {:>6}  left",
            "process", "by", "instance", "others", "said", "disk"
        );
        for (number, role) in ROLES.into_iter().enumerate() {
            for how in ways(world.who, number) {
                one(world, role, how);
            }
        }
    });
}

/// All of them in the full form; in the quick one SIGKILL as root, and one of the others as an ordinary user.
fn ways(who: Who, number: usize) -> Vec<How> {
    match who {
        _ if is_full() => vec![How::Kill, How::Term, How::StopAndKill],
        Who::Myself => vec![How::Kill],
        Who::Plain => vec![[How::Term, How::StopAndKill][number % 2]],
    }
}

fn one(world: &World, role: Role, how: How) {
    let what = format!("{role:?} {how:?}");
    let before = Count::of(world);
    assert_eq!(before, Count::default(), "{what}");
    instance(world, &["start", "stays"]);
    instance(world, &["start", "victim", "--", "sh", "-c", LOAD]);
    let mut client = Client::start(world);
    client.hear(3);
    let pid = find(world, role, &client);
    let process = Pidfd::open(pid).unwrap();
    match how {
        How::Kill => process.signal(Signal::SIGKILL).unwrap(),
        How::Term => process.signal(Signal::SIGTERM).unwrap(),
        How::StopAndKill => {
            process.signal(Signal::SIGSTOP).unwrap();
            thread::sleep(Duration::from_millis(50));
            process.signal(Signal::SIGKILL).unwrap();
        }
    }
    let others = check_others(world, role, &what);
    let is_over = ends(role, how);
    if is_over {
        client.end();
    }
    eventually(&format!("the instance is over or not: {what}"), || {
        let names = names(world);
        if names.contains(&"victim".to_owned()) == is_over { Err(format!("{names:?}")) } else { Ok(()) }
    });
    if !is_over {
        assert_eq!(instance(world, &["exec", "victim", "echo", "x"]), "x", "{what}");
    }
    if !names(world).is_empty() {
        instance(world, &["stop", "--timeout", "1", "--all"]);
    }
    client.end();
    world.assert_nothing_left();
    let left = Count::of(world);
    let disk = fs::read_to_string(world.upper().join("var/n")).unwrap_or_default();
    let disk: u64 = disk.trim().parse().unwrap_or(0);
    let state = |goes_on: bool| if goes_on { "goes on" } else { "ends" };
    println!(
        "{:<14} {:<12} {:<9} {:<9} {:>6} {:>6}  {left}",
        format!("{role:?}"),
        format!("{how:?}"),
        state(!is_over),
        state(others),
        client.said,
        disk
    );
    assert_eq!(left, before, "{what}");
    assert!(
        client.said >= 3 && (disk == client.said || disk == client.said + 1),
        "{what}: said {}, found {disk}",
        client.said
    );
    assert_eq!(world.says("cat /etc/committed"), "committed", "{what}");
    world.assert_nothing_left();
}

/// Whether the other instance goes on: it does, unless its server is gone.
fn check_others(world: &World, role: Role, what: &str) -> bool {
    if role == Role::Server {
        eventually(&format!("all instances are over: {what}"), || match names(world) {
            names if names.is_empty() => Ok(()),
            names => Err(format!("{names:?}")),
        });
        return false;
    }
    assert_eq!(instance(world, &["exec", "stays", "echo", "x"]), "x", "{what}");
    true
}

fn instance(world: &World, words: &[&str]) -> String {
    let words: Vec<&str> = ["fim-instance"].iter().chain(words).copied().collect();
    said(world.command(&words).output().unwrap())
}

fn names(world: &World) -> Vec<String> {
    let list: serde_json::Value = serde_json::from_str(&instance(world, &["list", "--json"])).unwrap();
    list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

/// A session that says what it has synced.
struct Client {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    said: u64,
}

impl Client {
    fn start(world: &World) -> Self {
        let mut command = world.command(&["fim-instance", "exec", "victim", "sh", "-c", SYNCED]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output, said: 0 }
    }

    /// Waits until this number has been said, or no more is.
    fn hear(&mut self, until: u64) {
        let mut line = String::new();
        while self.said < until && self.output.read_line(&mut line).unwrap() > 0 {
            // A line may be cut where its writer was killed.
            if let Some(number) = line.strip_suffix('\n') {
                self.said = number.parse().unwrap();
            }
            line.clear();
        }
    }

    fn end(&mut self) {
        self.hear(u64::MAX);
        self.child.wait().unwrap();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process that plays the role, for the instance `victim` where there are several.
fn find(world: &World, role: Role, client: &Client) -> i32 {
    let state: serde_json::Value = serde_json::from_str(&instance(world, &["inspect", "victim"])).unwrap();
    let front = i32::try_from(state["identity"]["pid"].as_i64().unwrap()).unwrap();
    let only = |found: Vec<i32>| {
        assert_eq!(found.len(), 1, "{role:?}: {found:?}");
        found[0]
    };
    let children = || children_of(front);
    let bwrap = || only(children().into_iter().filter(|pid| comm(*pid) == "bwrap").collect());
    let init = || only(children_of(bwrap()));
    let daemon = || only(children().into_iter().filter(|pid| has_open(*pid, "host.fifo")).collect());
    match role {
        Role::Front => front,
        Role::Server => world.server_pid(),
        Role::Bwrap => bwrap(),
        Role::GuestInit => init(),
        Role::Session => {
            only(children_of(init()).into_iter().filter(|pid| comm(*pid) == comm(init())).collect())
        }
        Role::Client => i32::try_from(client.child.id()).unwrap(),
        Role::HostDaemon => daemon(),
        Role::HostRequest => only(children_of(daemon())),
        Role::KeeperOfLogs => {
            let others = [bwrap(), daemon()];
            only(children().into_iter().filter(|pid| !others.contains(pid)).collect())
        }
        Role::Janitor => {
            only(world.processes().into_iter().filter(|pid| is_called(*pid, "fim_janitor")).collect())
        }
    }
}

fn children_of(pid: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

fn comm(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim().to_owned()
}

fn is_called(pid: i32, name: &str) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|words| words.split(|byte| *byte == 0).next() == Some(name.as_bytes()))
}

fn has_open(pid: i32, name: &str) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten().any(|fd| {
        fs::read_link(fd.path()).is_ok_and(|target| target.file_name().is_some_and(|found| found == name))
    })
}

/// What there is of ours.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    processes: usize,
    mounts: usize,
    directories: usize,
    fifos: usize,
}

impl Count {
    fn of(world: &World) -> Self {
        let folder = world.folder.path().to_str().unwrap().to_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        Self {
            processes: world.processes().len(),
            mounts: mounts.lines().filter(|line| line.contains(&folder)).count(),
            directories: world.instances().len() + world.servers().len(),
            fifos: fifos(&world.path("global")),
        }
    }
}

fn fifos(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => fifos(&entry.path()),
            Ok(kind) => usize::from(kind.is_fifo()),
            Err(_) => 0,
        })
        .sum()
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { processes, mounts, directories, fifos } = self;
        write!(f, "{processes} processes, {mounts} mounts, {directories} directories, {fifos} fifos")
    }
}
