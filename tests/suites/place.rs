//! Where a suite runs: a scratch directory with the suites in `bin/`, handed to `place.sh`.

use std::{
    env, fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use tempfile::TempDir;

use crate::needs::{missing_for_mounts, skip};

/// A suite that takes longer is taken to be stuck, in minutes: quick and full.
const PATIENCE: (u32, u32) = (10, 24 * 60);

/// Who mounts the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    Root,
    /// Root of a user namespace with 65,536 ids.
    Mapped,
    /// A user with one id.
    One,
}

impl User {
    const fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Mapped => "mapped",
            Self::One => "user",
        }
    }
}

/// The file system below.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Base {
    /// Where temporary files go.
    Disk,
    /// In memory where there is a place: for what is about caches and system calls, not disks.
    Memory,
}

pub(crate) struct Suite<'a> {
    pub(crate) name: &'a str,
    /// Programs without which it is skipped.
    pub(crate) needs: &'a [&'a str],
    pub(crate) base: Base,
    pub(crate) words: &'a [&'a str],
}

/// Runs a suite on a mount of a user.
pub(crate) fn run(suite: &Suite<'_>, user: User) {
    if !can_run(suite.needs) {
        return;
    }
    let scratch = scratch(suite.base);
    let mut command = private();
    command.arg(scratch.path().join("bin/place.sh")).arg(user.word()).arg(scratch.path()).args(suite.words);
    finish(&format!("{} ({})", suite.name, user.word()), command);
}

/// The same random operations on ours and on the kernel's.
pub(crate) fn beside_the_kernel() {
    if !can_run(&["python3"]) {
        return;
    }
    let overlays = fs::read_to_string("/proc/filesystems").unwrap();
    if !overlays.contains("overlay") && !Command::new("modprobe").arg("overlay").status().unwrap().success() {
        return skip("kernel overlayfs");
    }
    let scratch = scratch(Base::Memory);
    // The quick form does the same each time; the full one looks for what nobody has seen yet.
    let seconds = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let seed =
        env::var("FIM_SEED").unwrap_or_else(|_| if is_full() { seconds.to_string() } else { "1".into() });
    let place = scratch.path().join("stacks");
    fs::create_dir(&place).unwrap();
    let mut command = private();
    command.arg(scratch.path().join("bin/differ.py")).arg(scratch.path().join("bin/fim")).arg(place);
    command.arg(if is_full() { "100000" } else { "6000" }).arg(seed);
    finish("differ (root)", command);
}

/// Programs that people run, each with a check of what it did; what they need is much, so only in the full form.
pub(crate) fn programs() {
    if !is_full() {
        return println!("programs: only in the full form (FIM_SUITES=full)");
    }
    for (program, needs) in [
        ("git", "git"),
        ("cargo", "cargo"),
        ("sqlite", "sqlite3"),
        ("postgresql", "psql"),
        ("dpkg", "dpkg-deb"),
        ("apt", "mmdebstrap"),
    ] {
        let words = [format!("{program}.sh")];
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        run(&Suite { name: program, needs: &[needs], base: Base::Disk, words: &words }, User::Root);
    }
}

fn is_full() -> bool {
    env::var("FIM_SUITES").is_ok_and(|form| form == "full")
}

/// Whether the machine has what a suite needs; a skip is printed, and a failure where everything must run.
fn can_run(needs: &[&str]) -> bool {
    if let Some(missing) = missing_for_mounts() {
        skip(missing);
        return false;
    }
    let missing = needs.iter().find(|program| found(program).is_none());
    missing.map(|program| skip(&format!("{program} (.tools/need-tools installs it)"))).is_none()
}

/// Where a program is: among those of `.tools/need-tools`, or where programs are.
fn found(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = [tools()].into_iter().chain(env::split_paths(&path));
    dirs.map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// `target/tools/bin`, beside `target/TRIPLE/PROFILE/fim`.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_fim")).ancestors().nth(3).unwrap().join("tools/bin")
}

/// A scratch directory with `bin/`: fim, the suites and their tools, where every user can read them.
fn scratch(base: Base) -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("fim-suite-");
    let memory = Path::new("/dev/shm");
    let scratch = match base {
        Base::Memory if memory.is_dir() => builder.tempdir_in(memory),
        _ => builder.tempdir(),
    };
    let scratch = scratch.unwrap();
    let bin = scratch.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_fim"), bin.join("fim")).unwrap();
    let suites = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suites");
    for dir in [suites.join("programs"), suites, tools()] {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), bin.join(entry.file_name())).unwrap();
            }
        }
    }
    for dir in [scratch.path(), &bin] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    scratch
}

/// A command in namespaces of its own, which end with it: no mount and no process stays.
fn private() -> Command {
    let minutes = if is_full() { PATIENCE.1 } else { PATIENCE.0 };
    let mut command = Command::new("timeout");
    command.arg("--kill-after=10").arg(format!("{minutes}m"));
    command.args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["--propagation", "private"]);
    command
}

/// Runs a suite to its end, which must be a success; says how long it took.
fn finish(name: &str, mut command: Command) {
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).output().unwrap();
    let seconds = started.elapsed().as_secs_f64();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{said}\n{complained}", output.status);
    println!("{name}: {seconds:.1} s\n{said}");
    if let Some(times) = env::var_os("FIM_SUITES_TIMES") {
        let mut times = fs::File::options().create(true).append(true).open(times).unwrap();
        writeln!(times, "{seconds:8.1} s  {name}").unwrap();
    }
}
