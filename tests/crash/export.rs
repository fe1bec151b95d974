//! Exporting an upper, and a power failure at any moment of it: every state shows the tree that there was, and exporting
//! again comes to the end, where kernel overlayfs shows it as well.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
};

use fim::runtime::{
    export::make_plain,
    stack::{LayerSource, StackPlan, UpperPlan},
};
use nix::mount::{MsFlags, mount};

use crate::{
    disk::{Disk, Event, apply, apply_some},
    history::{Allowed, History, begin, dump},
    machine::{self, Fim, Volume, can_crash, scratch, text, unmount_patiently, work_of},
    rng::Rng,
    workload::make_lower,
};

/// Size of the disk in bytes.
const DISK: u64 = 48 << 20;

/// Power failures.
const CASES: usize = 60;

#[test]
fn a_power_failure_during_an_export_costs_time_only() {
    if !can_crash() {
        return;
    }
    let cases = std::env::var("FIM_CRASH_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES);
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    make_lower(&at("lower"), &mut Rng::new(1));
    let mut fresh = machine::format(scratch.path(), DISK, &["-J", "size=4"]);
    let disk = Disk::serve(&at("disk"), fresh.clone());
    let mut history = History::default();
    on_volume(&disk, scratch.path(), |upper| {
        for dir in [upper, &work_of(upper)] {
            fs::create_dir(dir).unwrap();
        }
        let fim = Fim::mount(&at("lower"), upper, &at("mount"));
        change_everything(&fim.path);
        history = begin(&dump(&fim.path));
        drop(fim);
        let notes = work_of(upper).join("work/incompat");
        assert_eq!(fs::read_dir(notes).unwrap().count(), 3, "redirects, missing data and an index");
    });
    disk.log().iter().for_each(|event| apply(&mut fresh, event));
    disk.load(fresh.clone());
    on_volume(&disk, scratch.path(), |upper| export(scratch.path(), upper));
    let log = disk.log();

    let flushes: Vec<_> = (0..log.len()).filter(|at| matches!(log[*at], Event::Flush)).collect();
    assert!(flushes.len() > 4, "{} flushes", flushes.len());
    let mut rng = Rng::new(5);
    for number in 0..cases {
        let whole = number < flushes.len();
        let end = if whole { flushes[number] + 1 } else { rng.below(log.len()) };
        let flushed = log[..end].iter().rposition(|event| matches!(event, Event::Flush)).unwrap_or(0);
        let mut crashed = fresh.clone();
        log[..flushed].iter().for_each(|event| apply(&mut crashed, event));
        for event in &log[flushed..end] {
            if whole { apply(&mut crashed, event) } else { apply_some(&mut crashed, event, &mut rng) }
        }
        disk.load(crashed);
        on_volume(&disk, scratch.path(), |upper| {
            look(scratch.path(), upper, &history)
                .unwrap_or_else(|why| panic!("failure {number} at {end} of {} events: {why}", log.len()));
        });
    }
    println!("{cases} power failures during an export of {} events", log.len());
}

/// Carries `act` out with the upper on the disk, which is unmounted afterwards.
fn on_volume(disk: &Disk, scratch: &Path, act: impl FnOnce(&Path)) {
    let volume = Volume::mount(&disk.path(), &scratch.join("volume"), "ext4", "");
    act(&volume.join("upper"));
}

/// Leaves everything in the upper that only the engine understands.
fn change_everything(root: &Path) {
    let at = |path: &str| root.join(path);
    fs::rename(at("a"), at("moved")).unwrap();
    fs::rename(at("moved/a"), at("b/deep")).unwrap();
    fs::rename(at("c"), at("moved/cc")).unwrap();
    fs::rename(at("b"), at("B")).unwrap();
    fs::remove_file(at("moved/cc/b")).unwrap();
    fs::remove_file(at("B/deep/a")).unwrap();
    fs::create_dir(at("c")).unwrap();
    fs::write(at("c/new"), "new").unwrap();
    for path in ["moved/d", "B/a", "f", "B/deep/b/e"] {
        fs::set_permissions(at(path), Permissions::from_mode(0o640)).unwrap();
    }
    OpenOptions::new().write(true).open(at("B/c/f")).unwrap().write_all_at(b"changed", 7).unwrap();
    fs::write(at("moved/new"), Rng::new(9).bytes(100_000)).unwrap();
    File::open(root).unwrap().sync_all().unwrap();
}

fn export(scratch: &Path, upper: &Path) {
    let stack = StackPlan {
        layers: vec![LayerSource::Path(scratch.join("lower"))],
        upper: Some(UpperPlan { root: upper.to_owned(), work: work_of(upper) }),
        ..StackPlan::default()
    };
    make_plain(&stack, &mut || ()).unwrap();
}

/// Looks at what the crash has left, and once more when it has been exported.
fn look(scratch: &Path, upper: &Path, history: &History) -> Result<(), String> {
    let allowed = Allowed { steps: (0, 0), ..history.allowed(0) };
    let check = |what: &str, root: &Path| {
        history.check(&dump(root), &allowed).map(drop).map_err(|why| format!("{what}: {why}"))
    };
    let (lower, at) = (scratch.join("lower"), scratch.join("mount"));
    let fim = Fim::mount(&lower, upper, &at);
    check("behind the crash", &fim.path)?;
    drop(fim);
    export(scratch, upper);
    if work_of(upper).join("work/incompat").exists() {
        return Err("notes are left".to_owned());
    }
    let fim = Fim::mount(&lower, upper, &at);
    check("exported", &fim.path)?;
    drop(fim);
    let words = format!(
        "lowerdir={},upperdir={},workdir={},userxattr",
        text(&lower),
        text(upper),
        text(&work_of(upper))
    );
    mount(Some("overlay"), &at, Some("overlay"), MsFlags::empty(), Some(words.as_str()))
        .map_err(|errno| format!("kernel overlayfs: {errno}"))?;
    let checked = check("kernel overlayfs", &at);
    assert!(unmount_patiently(&at));
    checked
}
