//! Commits while two instances write numbers that depend on each other, with a kill at a random moment in half of them.
//!
//! ```text
//! writer   a := i (renamed into place), i appended to log, b := i (renamed into place), ack := seen
//! reader   seen := a (renamed into place)
//! ```
//!
//! At any point of that: `b <= log <= a <= b + 1` and `ack <= seen <= a`. A layer that holds it is a prefix of the work.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use fim::sys::{process::Pidfd, signal::Signal};

use crate::support::{Running, World, for_each_owner, is_full, said};

const WRITER: &str = "i=0; echo ready; while [ ! -e /p/stop ]; do i=$((i+1)); \
    echo $i > /p/a.tmp && mv /p/a.tmp /p/a || exit 9; echo $i >> /p/log || exit 9; \
    echo $i > /p/b.tmp && mv /p/b.tmp /p/b || exit 9; \
    cat /p/seen > /p/ack.tmp && mv /p/ack.tmp /p/ack || exit 9; echo $i; done";

const READER: &str = "echo ready; while [ ! -e /p/stop ]; do v=$(cat /p/a) || exit 9; \
    echo $v > /p/seen.tmp && mv /p/seen.tmp /p/seen || exit 9; echo $v; done";

/// Files with their first numbers.
const BEGIN: &str = "rm -rf /p; mkdir /p; for n in a b seen ack; do echo 0 > /p/$n; done; echo 0 > /p/log";

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Nobody,
    Committer,
    Server,
}

#[test]
fn layers_that_are_committed_under_load_are_prefixes_and_nothing_is_lost() {
    let rounds = if is_full() { 100 } else { 6 };
    for_each_owner(|world| {
        let mut seed = 0x9e37_79b9_7f4a_7c15;
        let mut whole = Duration::from_millis(200);
        for round in 0..rounds {
            let victim = match round % 4 {
                1 => Victim::Committer,
                3 => Victim::Server,
                _ => Victim::Nobody,
            };
            one(world, victim, &mut whole, &mut seed);
        }
    });
}

fn one(world: &World, victim: Victim, whole: &mut Duration, seed: &mut u64) {
    world.says(BEGIN);
    said(world.command(&["fim-layer", "commit", "layer"]).output().unwrap());
    let before = layers(world);
    let (writer, reader) = (world.start(WRITER), world.start(READER));
    thread::sleep(Duration::from_millis(50 + random(seed) % 100));
    let server = Pidfd::open(world.server_pid()).unwrap();
    let started = Instant::now();
    let mut committer = world.command(&["fim-layer", "commit", "layer"]);
    let mut committer = committer.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    if victim != Victim::Nobody {
        thread::sleep(whole.mul_f64((random(seed) % 1200) as f64 / 1000.0));
        match victim {
            Victim::Server => server.signal(Signal::SIGKILL).unwrap(),
            _ => committer.kill().unwrap(),
        }
    }
    let (committed, complaint) = wait(&mut committer);
    if victim == Victim::Nobody {
        assert!(committed, "{complaint}");
        *whole = started.elapsed();
    }
    thread::sleep(Duration::from_millis(50));
    if victim != Victim::Server {
        world.says("touch /p/stop");
    }
    let said = [writer, reader].map(|load| end(load, victim));
    world.assert_nothing_left();
    // The layer, where there is a new one.
    let new: Vec<PathBuf> = layers(world).into_iter().filter(|layer| !before.contains(layer)).collect();
    assert!(new.len() <= 1 && (!committed || new.len() == 1), "{victim:?}: {new:?}");
    let in_layer = new.first().map(|layer| {
        let numbers = Numbers::of(|name| of_layer(world, layer, name));
        numbers.assert_prefix(&format!("{victim:?}, {}", layer.display()));
        numbers
    });
    // And everything, over another start: what was said is there.
    let now = Numbers::of(|name| world.says(&format!("cat /p/{name}")));
    now.assert_prefix(&format!("{victim:?}, afterwards"));
    assert!(now.b >= said[0] && now.seen >= said[1], "{victim:?}: said {said:?}, found {now:?}");
    assert!(in_layer.as_ref().is_none_or(|layer| layer.a <= now.a), "{in_layer:?} {now:?}");
    println!("{victim:?}: said {said:?}, layer {in_layer:?}, afterwards {now:?}");
}

fn wait(committer: &mut Child) -> (bool, String) {
    let mut complaint = String::new();
    committer.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    (committer.wait().unwrap().success(), complaint)
}

/// Waits for the end of a load; the last number that it has said.
fn end(load: Running, victim: Victim) -> u64 {
    let (status, numbers) = load.end();
    // A server that is killed takes its instances along; nobody else is noticed.
    assert_eq!(status, if victim == Victim::Server { 125 } else { 0 }, "{victim:?}");
    let whole = numbers.rfind('\n').map_or("", |at| &numbers[..at]);
    whole.lines().last().map_or(0, |number| number.parse().unwrap())
}

fn layers(world: &World) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(world.path("data/layers")).unwrap();
    entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some()).collect()
}

/// A file of a layer by itself; each of ours has changed since the layer before, or is still at its first number.
fn of_layer(world: &World, layer: &Path, name: &str) -> String {
    let path = format!("/p/{name}");
    let output = world.tool(&["cat", layer.to_str().unwrap(), &path]).output().unwrap();
    if output.status.success() { said(output) } else { "0".to_owned() }
}

#[derive(Debug)]
struct Numbers {
    a: u64,
    b: u64,
    log: u64,
    seen: u64,
    ack: u64,
}

impl Numbers {
    fn of(read: impl Fn(&str) -> String) -> Self {
        let number = |name: &str| -> u64 {
            let text = read(name);
            text.trim().parse().unwrap_or_else(|_| panic!("{name} holds {text:?}"))
        };
        let lines = read("log");
        let lines: Vec<u64> = lines.lines().map(|line| line.parse().unwrap()).collect();
        let last = *lines.last().unwrap();
        assert_eq!(lines, (0..=last).collect::<Vec<_>>(), "the log has gaps");
        Self { a: number("a"), b: number("b"), log: last, seen: number("seen"), ack: number("ack") }
    }

    fn assert_prefix(&self, what: &str) {
        let Self { a, b, log, seen, ack } = self;
        assert!(b <= log && log <= a && *a <= b + 1 && ack <= seen && seen <= a, "{what}: {self:?}");
    }
}

fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed >> 11
}
