//! Loop devices, file systems and mounts of fim, as guards in a mount namespace of the test's own.
//!
//! Loop devices let go of their file with the last mount, and mounts end with the namespace: a test that is killed
//! leaves nothing.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use fim::sys::{
    mount::{Unmount, unmount},
    namespace,
    process::Pidfd,
};
use nix::mount::{MsFlags, mount};
use tempfile::TempDir;

use crate::needs::{missing_for_mounts, skip};

/// When a test stalls for longer its mounts of fim are aborted.
const STALL: Duration = Duration::from_secs(1200);

/// Says whether the tests can run here; if not says what is missing.
pub(crate) fn can_crash() -> bool {
    let loops = (!Path::new("/dev/loop-control").exists()).then_some("loop devices");
    let program = ["mkfs.ext4", "losetup"].into_iter().find(|program| !has(program));
    let missing = missing_for_mounts().or(loops).or(program);
    missing.map(skip).is_none()
}

/// Whether a program is installed.
pub(crate) fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(program).exists())
}

/// Moves the calling thread into a mount namespace of its own and gives it a scratch directory, in memory where that is
/// possible.
pub(crate) fn scratch() -> TempDir {
    namespace::enter_private().expect("a private mount namespace");
    let shm = Path::new("/dev/shm");
    let base = if shm.is_dir() { shm.to_owned() } else { env::temp_dir() };
    tempfile::Builder::new().prefix("fim-crash-").tempdir_in(base).expect("a scratch directory")
}

/// Runs a program to its end.
pub(crate) fn run(program: &str, words: &[&str]) -> Output {
    Command::new(program).args(words).stdin(Stdio::null()).output().unwrap()
}

/// Runs a program, which must succeed, and returns what it printed.
pub(crate) fn succeed(program: &str, words: &[&str]) -> String {
    let output = run(program, words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {words:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// An image of an empty file system of `len` bytes, made with `words`.
pub(crate) fn format(scratch: &Path, len: u64, words: &[&str]) -> Vec<u8> {
    let path = scratch.join("fresh");
    fs::File::create(&path).unwrap().set_len(len).unwrap();
    let fixed = ["-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"];
    succeed("mkfs.ext4", &[&fixed[..], words, &[text(&path)]].concat());
    let image = fs::read(&path).unwrap();
    fs::remove_file(path).unwrap();
    image
}

/// A file system on a loop device over a file.
pub(crate) struct Volume {
    pub(crate) path: PathBuf,
}

impl Volume {
    /// Mounts the image `file` on `path`.
    pub(crate) fn mount(file: &Path, path: &Path, kind: &str, options: &str) -> Self {
        Self::try_mount(file, path, kind, options)
            .unwrap_or_else(|errno| panic!("mount {} ({kind}, {options}): {errno}", file.display()))
    }

    /// The same where the kernel may lack something.
    pub(crate) fn try_mount(file: &Path, path: &Path, kind: &str, options: &str) -> nix::Result<Self> {
        fs::create_dir_all(path).unwrap();
        let words = ["--find", "--show", "--direct-io=on", text(file)];
        let device = succeed("losetup", &words).trim().to_owned();
        let mounted = mount(Some(device.as_str()), path, Some(kind), MsFlags::empty(), Some(options));
        // With the mount goes the device, and without one at once.
        succeed("losetup", &["--detach", &device]);
        mounted.map(|()| Self { path: path.to_owned() })
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if !unmount_patiently(&self.path) {
            eprintln!("{} stays in use", self.path.display());
            let _ = unmount(&self.path, Unmount::Lazy);
        }
    }
}

/// Unmounts what nobody uses any more. Descriptors of a process that has just ended may be closed a moment later.
pub(crate) fn unmount_patiently(path: &Path) -> bool {
    let patience = Instant::now() + Duration::from_secs(20);
    while unmount(path, Unmount::Unused).is_err() {
        if Instant::now() > patience {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// A mount of fim, by a process of its own.
pub(crate) struct Fim {
    pub(crate) path: PathBuf,
    pid: i32,
    _watchdog: mpsc::Sender<()>,
}

impl Fim {
    /// Mounts `upper` over `lower`; the work directory is beside the upper.
    pub(crate) fn mount(lower: &Path, upper: &Path, path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        let work = work_of(upper);
        let words = ["mount", "--json", "--upper", text(upper), "--work", text(&work)];
        let words = [&words[..], &["--layer", text(lower), text(path)]].concat();
        let json = succeed(env!("CARGO_BIN_EXE_fim"), &words);
        let report: serde_json::Value = serde_json::from_str(&json).unwrap();
        let pid = i32::try_from(report["pid"].as_i64().unwrap()).unwrap();
        let (sender, receiver) = mpsc::channel();
        let target = path.to_owned();
        thread::spawn(move || {
            if receiver.recv_timeout(STALL) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("the test stalls: aborting the mount on {}", target.display());
                let _ = unmount(&target, Unmount::Abort);
            }
        });
        Self { path: path.to_owned(), pid, _watchdog: sender }
    }

    /// The server.
    pub(crate) fn server(&self) -> Pidfd {
        Pidfd::open(self.pid).unwrap()
    }
}

impl Drop for Fim {
    fn drop(&mut self) {
        let output = run(env!("CARGO_BIN_EXE_fim"), &["umount", text(&self.path)]);
        if !output.status.success() {
            eprintln!("umount: {}", String::from_utf8_lossy(&output.stderr));
            let _ = unmount(&self.path, Unmount::Abort);
        }
    }
}

/// The work directory of an upper.
pub(crate) fn work_of(upper: &Path) -> PathBuf {
    upper.with_file_name("work")
}

/// Checks that staging is empty, as it must be after a start; the notes of what the upper uses stay.
pub(crate) fn check_swept(upper: &Path) {
    let left: Vec<_> = fs::read_dir(work_of(upper).join("work"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "#whiteout" && name != "incompat")
        .collect();
    assert!(left.is_empty(), "left in the work directory: {left:?}");
}
