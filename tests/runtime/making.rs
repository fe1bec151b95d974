//! Making archives of trees that cannot be read as a whole, that change, and with makers that are killed.

use std::{
    fs::{self, File, Permissions},
    io::Write as _,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use fim::dwarfs::read::{Archive, BlockCache, Place};

use crate::support::{PLAIN_UID, status};

struct Case {
    scratch: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let case = Self { scratch: tempfile::tempdir().unwrap() };
        fs::create_dir(case.tree()).unwrap();
        case
    }

    fn tree(&self) -> PathBuf {
        self.scratch.path().join("tree")
    }

    fn output(&self) -> PathBuf {
        self.scratch.path().join("out")
    }

    fn create(&self, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fim"));
        command.args(["archive", "create"]).arg(self.tree()).arg(self.output()).args(options);
        command
    }

    /// Whether the archive has these paths.
    fn has<const N: usize>(&self, paths: [&str; N]) -> [bool; N] {
        let place = Place::At { offset: 0, len: None };
        let file = Arc::new(File::open(self.output()).unwrap());
        let archive = Archive::open(file, place, &BlockCache::new(1 << 20)).unwrap();
        archive.verify(&mut |_, _| {}).unwrap();
        paths.map(|path| archive.find(path.as_bytes()).unwrap().is_some())
    }

    /// Names beside the tree.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.scratch.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "tree").collect()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_may_not_be_read_ends_the_work_or_is_left_out() {
    let case = Case::new();
    let tree = case.tree();
    fs::create_dir(tree.join("closed")).unwrap();
    for name in ["good", "secret", "closed/x", "zebra"] {
        fs::write(tree.join(name), "the same in all of them").unwrap();
    }
    fs::hard_link(tree.join("secret"), tree.join("another name")).unwrap();
    for name in ["secret", "closed"] {
        fs::set_permissions(tree.join(name), Permissions::from_mode(0o000)).unwrap();
    }
    let as_plain = |mut command: Command| {
        // Root reads everything.
        if fim::sys::users::Ids::of_caller().unwrap().uid == 0 {
            for path in [case.scratch.path(), &tree] {
                chown(path, Some(PLAIN_UID), None).unwrap();
            }
            command.uid(PLAIN_UID);
        }
        command.output().unwrap()
    };
    let refused = as_plain(case.create(&[]));
    assert_eq!(status(refused.status), 125, "{}", said(&refused));
    assert!(said(&refused).contains("cannot open closed: Permission denied"), "{}", said(&refused));
    assert_eq!(case.names(), [""; 0]);

    let made = as_plain(case.create(&["--ignore-errors", "--json"]));
    assert_eq!(status(made.status), 3, "{}", said(&made));
    let said = said(&made);
    for line in [
        "fim: warning: left out: cannot open closed: Permission denied",
        "fim: warning: left out: cannot open another name: Permission denied",
    ] {
        assert!(said.contains(line), "{said}");
    }
    assert_eq!(said.lines().count(), 2, "{said}");
    let told: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!((&told["left_out"], &told["files"]), (&2.into(), &2.into()));
    assert_eq!(
        case.has(["good", "zebra", "closed", "closed/x", "secret", "another name"]),
        [true, true, true, false, false, false]
    );
    // So that the tree can be removed by whoever made it.
    fs::set_permissions(tree.join("closed"), Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn nothing_is_left_out_of_what_can_be_read() {
    let case = Case::new();
    fs::write(case.tree().join("a"), "a").unwrap();
    let made = case.create(&["--ignore-errors", "--verify"]).output().unwrap();
    assert_eq!((status(made.status), said(&made).as_str()), (0, ""));
    assert_eq!(case.has(["a"]), [true]);
}

/// Appends to a file until it is dropped.
struct Growing(Arc<AtomicBool>, Option<thread::JoinHandle<()>>);

impl Growing {
    fn new(path: &Path) -> Self {
        let mut file = File::options().append(true).open(path).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let writer = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                file.write_all(b"more").unwrap();
                thread::sleep(Duration::from_micros(200));
            }
        });
        Self(stop, Some(writer))
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.take().unwrap().join().unwrap();
    }
}

#[test]
fn a_file_that_does_not_stop_changing_is_named() {
    let case = Case::new();
    fs::write(case.tree().join("log"), vec![b'l'; 64 << 20]).unwrap();
    fs::write(case.tree().join("steady"), "steady").unwrap();
    let growing = Growing::new(&case.tree().join("log"));
    let refused = case.create(&["--level", "1"]).output().unwrap();
    assert_eq!(status(refused.status), 125);
    let expected = "log changed while it was read, 4 times in a row";
    assert!(said(&refused).contains(expected), "{}", said(&refused));
    assert_eq!(case.names(), [""; 0]);
    let made = case.create(&["--level", "1", "--ignore-errors"]).output().unwrap();
    assert_eq!(status(made.status), 3);
    assert!(said(&made).contains(expected), "{}", said(&made));
    assert_eq!(case.has(["steady", "log"]), [true, false]);
    drop(growing);
    let made = case.create(&["--level", "1", "--ignore-errors"]).output().unwrap();
    assert_eq!(status(made.status), 0, "{}", said(&made));
    assert_eq!(case.has(["steady", "log"]), [true, true]);
}

#[test]
fn a_maker_that_is_killed_leaves_nothing_under_the_name() {
    let case = Case::new();
    for number in 0..40_u32 {
        let bytes: Vec<u8> = (0..200_000_u32).map(|at| ((at * number) >> 9).to_le_bytes()[0]).collect();
        fs::write(case.tree().join(format!("{number}")), bytes).unwrap();
    }
    let mut create = case.create(&["--level", "6"]);
    let create = create.stdout(Stdio::null());
    let mut killed = 0;
    for before in [None, Some("what was there before")] {
        for delay in (0..24).map(|step| Duration::from_millis(2 + step * step * 3)) {
            fs::remove_file(case.output()).ok();
            if let Some(before) = before {
                fs::write(case.output(), before).unwrap();
            }
            let mut maker = create.spawn().unwrap();
            thread::sleep(delay);
            maker.kill().unwrap();
            if maker.wait().unwrap().signal().is_none() {
                continue;
            }
            killed += 1;
            match fs::read(case.output()) {
                // Killed behind the rename: whole, and proven to be.
                Ok(found) if Some(found.as_slice()) != before.map(str::as_bytes) => {
                    assert_eq!(case.has(["0", "39"]), [true, true]);
                }
                found => assert_eq!(found.is_ok(), before.is_some()),
            }
            let others = case.names().into_iter().filter(|name| name != "out");
            for name in others {
                assert!(name.starts_with(".out.") && name.ends_with(".part"), "{name}");
                fs::remove_file(case.scratch.path().join(name)).unwrap();
            }
        }
    }
    assert!(killed > 10, "only {killed} were killed before they were done");
    assert!(create.status().unwrap().success());
    assert_eq!(case.has(["0", "39"]), [true, true]);
}

/// A tree with text that repeats itself, noise, a program and names of many.
fn varied(case: &Case) {
    for number in 0..300_u32 {
        let directory = case.tree().join(format!("d{}", number % 7));
        fs::create_dir_all(&directory).unwrap();
        let text = format!("{} and then {} ", number % 11, number).repeat(number as usize * 9);
        fs::write(directory.join(format!("file {number}")), text).unwrap();
    }
    let mut state = 3_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[7]
    };
    fs::write(
        case.tree().join("noise"),
        std::iter::repeat_with(&mut next).take(3_000_000).collect::<Vec<_>>(),
    )
    .unwrap();
    let program = fs::read(env!("CARGO_BIN_EXE_fim")).unwrap();
    fs::write(case.tree().join("program"), program.get(..4 << 20).unwrap()).unwrap();
}

#[test]
fn reproducible_archives_have_the_same_bytes_on_any_number_of_threads() {
    let case = Case::new();
    varied(&case);
    for level in ["1", "3", "5"] {
        let made = |threads: &str, epoch: Option<&str>, more: &[&str]| {
            let words =
                [&["--reproducible", "--categorize", "-l", level, "-j", threads, "-S", "16"], more].concat();
            let mut command = case.create(&words);
            command.env_remove("SOURCE_DATE_EPOCH");
            command.envs(epoch.map(|epoch| ("SOURCE_DATE_EPOCH", epoch)));
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", said(&output));
            let bytes = fs::read(case.output()).unwrap();
            fs::remove_file(case.output()).unwrap();
            bytes
        };
        let first = made("1", None, &[]);
        thread::sleep(Duration::from_millis(1_100));
        for threads in ["1", "2", "8"] {
            assert!(made(threads, None, &[]) == first, "level {level}, {threads} threads");
        }
        let dated = made("2", Some("1500000000"), &[]);
        assert!(dated != first && dated == made("8", Some("1500000000"), &["-L", "2G"]), "level {level}");
    }
    // With the clock two archives differ.
    let with_clock = |sleep| {
        thread::sleep(Duration::from_millis(sleep));
        let output = case.create(&["-l", "1"]).env_remove("SOURCE_DATE_EPOCH").output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let bytes = fs::read(case.output()).unwrap();
        fs::remove_file(case.output()).unwrap();
        bytes
    };
    assert!(with_clock(0) != with_clock(1_100));
}

#[test]
fn the_summary_tells_of_duplicates_and_categories() {
    let case = Case::new();
    varied(&case);
    fs::copy(case.tree().join("noise"), case.tree().join("copy")).unwrap();
    let output = case.create(&["-l", "3", "--categorize"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for expected in
        ["found again: 1 whole files", "<default>: ", "binary/x86: 1 files", "incompressible: 1 files"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    fs::remove_file(case.output()).unwrap();
    let output = case.create(&["-l", "3", "--categorize=incompressible", "--json"]).output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["duplicates"], 1);
    assert!(told["matched"].as_u64().unwrap() > 0, "{told}");
    let names: Vec<_> = told["categories"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["<default>", "incompressible"]);
    let noise = &told["categories"][1];
    assert_eq!((&noise["files"], &noise["contents"]), (&1.into(), &3_000_000.into()));
}

#[test]
fn a_memory_limit_is_kept() {
    let case = Case::new();
    let mut text = Vec::new();
    for number in 0..3_000_000_u32 {
        text.extend_from_slice(format!("{} ", number.wrapping_mul(2_654_435_761) % 100_000).as_bytes());
    }
    fs::write(case.tree().join("text"), text).unwrap();
    // Most of what a program of this kind takes without any block.
    let own = 64 << 20;
    for (words, limit) in
        [("-l 5 -C zstd:level=6 -j 8", 200), ("-l 8 -C lzma:level=1 -j 4", 300), ("-l 3 -j 8", 80)]
    {
        let mut words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        words.push(format!("-L{limit}M"));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut child = case.create(&words).stdout(Stdio::null()).spawn().unwrap();
        let mut peak = 0;
        loop {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            let of_now = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let of_now = of_now.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
            peak = peak.max(of_now.unwrap_or(0) << 10);
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{words:?}");
                break;
            }
            thread::sleep(Duration::from_millis(3));
        }
        assert!(peak > 1 << 20 && peak < (limit << 20) + own, "{words:?}: {} MiB", peak >> 20);
        fs::remove_file(case.output()).unwrap();
    }
}
