//! Power failures: at every flush of the disk, and between two flushes with any part of what came after the first.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::{
    disk::{Disk, Event, apply, apply_some},
    history::{History, dump},
    machine::{Fim, Volume, can_crash, check_swept, format, run, scratch, text},
    rng::Rng,
    workload::{Workload, make_lower},
};

/// Size of the disk in bytes.
const DISK: u64 = 48 << 20;

/// Power failures for each seed.
const CASES: usize = 40;

/// Steps of the program.
const STEPS: usize = 400;

const SEEDS: std::ops::Range<u64> = 1..3;

/// When the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    /// Number of events that have happened.
    at: usize,
    /// Whether all of those after the last flush are there, or some of them.
    whole: bool,
}

#[test]
fn a_power_failure_leaves_what_was_promised() {
    if !can_crash() {
        return;
    }
    let cases = std::env::var("FIM_CRASH_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES);
    let (mut tried, mut begun) = (0, 0);
    for seed in seeds() {
        let (points, steps) = one_seed(seed, cases);
        tried += points;
        begun += steps;
    }
    println!("{tried} power failures during {begun} steps, all opened to an allowed state");
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("FIM_CRASH_SEEDS") else { return SEEDS };
    let number = |text: &str| text.parse::<u64>().expect("a seed is a number");
    match text.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => number(&text)..number(&text) + 1,
    }
}

/// Runs the program of a seed once, and fails the power `cases` times; says how often that was, and over how many steps.
fn one_seed(seed: u64, cases: usize) -> (usize, usize) {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    make_lower(&at("lower"), &mut Rng::new(seed));
    let mut fresh = format(scratch.path(), DISK, &["-J", "size=4"]);
    let disk = Disk::serve(&at("disk"), fresh.clone());
    {
        let volume = Volume::mount(&disk.path(), &at("volume"), "ext4", "");
        fs::create_dir(volume.join("upper")).unwrap();
        fs::create_dir(volume.join("work")).unwrap();
    }
    // Everything up to here is on the disk for good.
    disk.log().iter().for_each(|event| apply(&mut fresh, event));
    disk.load(fresh.clone());

    let history = record(&disk, scratch.path(), seed);
    let log = disk.log();
    let points = choose(&log, cases, &mut Rng::new(seed ^ 0xc4a5));
    let mut image = fresh;
    let mut applied = 0;
    for point in &points {
        let flushed = log[..point.at].iter().rposition(|event| matches!(event, Event::Flush)).unwrap_or(0);
        log[applied..flushed].iter().for_each(|event| apply(&mut image, event));
        applied = flushed;
        let mut crashed = image.clone();
        let mut rng = Rng::new(seed ^ (point.at as u64) << 20);
        for event in &log[flushed..point.at] {
            if point.whole { apply(&mut crashed, event) } else { apply_some(&mut crashed, event, &mut rng) }
        }
        disk.load(crashed);
        if let Err(why) = look(&disk, scratch.path(), &history, *point) {
            panic!("seed {seed}, {point:?} of {} events: {why}", log.len());
        }
    }
    let lower = dump(&at("lower"));
    make_lower(&at("again"), &mut Rng::new(seed));
    let again = dump(&at("again"));
    assert!(lower.keys().eq(again.keys()), "names of the layer");
    (points.len(), history.trees.len() - 1)
}

/// Runs the program on a mount whose upper is on the disk.
fn record(disk: &Disk, scratch: &Path, seed: u64) -> History {
    let volume = Volume::mount(&disk.path(), &scratch.join("volume"), "ext4", "commit=1");
    let fim = Fim::mount(&scratch.join("lower"), &volume.join("upper"), &scratch.join("mount"));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Commits that nobody asked for come in the middle of everything.
        scope.spawn(|| {
            let file = fs::File::create(volume.join("noise")).unwrap();
            let mut rng = Rng::new(seed ^ 0x4e01);
            while !done.load(Ordering::Relaxed) {
                file.set_len(rng.next() % 4096).unwrap();
                file.sync_all().unwrap();
                thread::sleep(Duration::from_micros(rng.next() % 4000));
            }
        });
        let now = || disk.now();
        let mut workload = Workload::new(&fim.path, seed, &now);
        let result = workload.run(STEPS);
        done.store(true, Ordering::Relaxed);
        result.unwrap();
        std::mem::take(&mut workload.history)
    })
}

/// Chooses when the power fails: half of the times at a flush, and half in between.
fn choose(log: &[Event], cases: usize, rng: &mut Rng) -> Vec<Point> {
    let flushes: Vec<_> = (0..log.len()).filter(|at| matches!(log[*at], Event::Flush)).collect();
    assert!(flushes.len() > 20, "flushes reach the disk: {} of {} events", flushes.len(), log.len());
    let mut points: Vec<_> = (0..cases)
        .map(|number| match number % 2 {
            0 => Point { at: rng.pick(&flushes) + 1, whole: true },
            _ => Point { at: rng.below(log.len()), whole: rng.below(4) == 0 },
        })
        .collect();
    points.sort();
    points.dedup();
    points
}

/// Starts everything again after a power failure, twice, and looks at it.
fn look(disk: &Disk, scratch: &Path, history: &History, point: Point) -> Result<(), String> {
    let allowed = history.allowed(point.at);
    {
        let volume = Volume::mount(&disk.path(), &scratch.join("volume"), "ext4", "errors=remount-ro");
        let upper = volume.join("upper");
        let fim = Fim::mount(&scratch.join("lower"), &upper, &scratch.join("mount"));
        check_swept(&upper);
        let seen = dump(&fim.path);
        history.check(&seen, &allowed)?;
        drop(fim);
        let fim = Fim::mount(&scratch.join("lower"), &upper, &scratch.join("mount"));
        if dump(&fim.path) != seen {
            return Err("another start shows something else".to_owned());
        }
        fs::write(fim.path.join("goes on"), b"x").map_err(|error| error.to_string())?;
    }
    if point.at.is_multiple_of(8) {
        let checked = run("e2fsck", &["-fn", text(&disk.path())]);
        if !checked.status.success() {
            return Err(String::from_utf8_lossy(&checked.stdout).into_owned());
        }
    }
    Ok(())
}
