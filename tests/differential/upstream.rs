//! Upstream's tools.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use fim::dwarfs::read::Place;

/// Finds a tool, or says that its test is skipped.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let places = env::var_os("FIM_JUDGES").into_iter().chain(env::var_os("PATH"));
    let found = places
        .flat_map(|places| env::split_paths(&places).collect::<Vec<_>>())
        .map(|place| place.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("{name} is neither in $FIM_JUDGES nor on PATH"));
    }
    found
}

/// Says why a test is skipped.
pub(crate) fn skip(reason: &str) {
    assert!(env::var_os("FIM_JUDGES").is_none(), "FIM_JUDGES is set, but {reason}");
    eprintln!("skipped: {reason}");
}

/// Runs a tool and returns what it printed; panics if it fails.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// Has `dwarfsck` verify an archive, metadata and every block.
pub(crate) fn check(archive: &Path) {
    let Some(dwarfsck) = tool("dwarfsck") else { return };
    let text = run(Command::new(dwarfsck).arg("--check-integrity").arg("-d0").arg("-i").arg(archive));
    let complaints = text.lines().filter(|line| line.starts_with("E ") || line.starts_with("W "));
    assert_eq!(complaints.collect::<Vec<_>>(), [""; 0]);
}

/// An archive mounted by upstream's FUSE driver, until it is dropped.
pub(crate) struct Mounted {
    point: tempfile::TempDir,
}

impl Mounted {
    pub(crate) fn new(archive: &Path) -> Option<Self> {
        Self::at(archive, Place::At { offset: 0, len: None })
    }

    pub(crate) fn at(archive: &Path, place: Place) -> Option<Self> {
        let driver = tool("dwarfs")?;
        if !Path::new("/dev/fuse").exists() || !nix::unistd::geteuid().is_root() {
            skip("mounting needs /dev/fuse and root");
            return None;
        }
        let mounted = Self { point: tempfile::tempdir().unwrap() };
        let options = match place {
            Place::Auto => "offset=auto".to_owned(),
            Place::At { offset, len: None } => format!("offset={offset}"),
            Place::At { offset, len: Some(len) } => format!("offset={offset},imagesize={len}"),
        };
        run(Command::new(driver).arg(archive).arg(mounted.path()).args(["-o", &options]));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !mounted.is_there() {
            assert!(Instant::now() < deadline, "the mount does not appear");
            thread::sleep(Duration::from_millis(20));
        }
        Some(mounted)
    }

    pub(crate) fn path(&self) -> &Path {
        self.point.path()
    }

    fn is_there(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
        mounts.lines().any(|line| line.split(' ').nth(1) == self.path().to_str())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}
