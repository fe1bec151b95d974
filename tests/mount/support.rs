//! Mounts as guards, each test in a mount namespace of its own, with a watchdog.

use std::{
    env, fs,
    io::Read as _,
    os::{
        fd::AsFd as _,
        unix::{
            fs::{PermissionsExt as _, symlink},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use fim::{
    fuse::{self, Notices, Options, Requests, Serving},
    sync::Arc,
    sys::{
        fuse_dev,
        mount::{Access, FuseMount, Unmount, Visitors, bind, mount_fuse, unmount},
        namespace,
        process::Pidfd,
        signal::Signal,
    },
    vfs::FileSystem,
};
use tempfile::TempDir;

use crate::needs::missing_for_mounts;
pub(crate) use crate::needs::skip;

/// When a test stalls for longer, its connection is aborted and everybody who waits gets an error.
const STALL: Duration = Duration::from_secs(120);

/// Where a test that runs inside a mount finds it.
const INSIDE: &str = "FIM_TEST_AT";

/// Says whether real mounts can be made here; if not the caller's test is skipped, with a line that says so.
pub(crate) fn can_mount() -> bool {
    missing_for_mounts().map(skip).is_none()
}

/// Moves the calling thread into a mount namespace of its own and gives it a scratch directory.
pub(crate) fn scratch() -> TempDir {
    namespace::enter_private().expect("a private mount namespace");
    tempfile::Builder::new().prefix("fim-test-").tempdir().expect("a scratch directory")
}

/// Sends a signal to a process that has not been waited for.
pub(crate) fn send(pid: u32, signal: Signal) {
    Pidfd::open(pid.cast_signed()).unwrap().signal(signal).unwrap();
}

/// Waits until `done` or fails the test.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < patience, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Aborts a connection unless dropped in time.
pub(crate) struct Watchdog(#[expect(dead_code, reason = "its end is what is waited for")] mpsc::Sender<()>);

impl Watchdog {
    pub(crate) fn over(target: &Path) -> Self {
        let (sender, receiver) = mpsc::channel();
        let target = target.to_owned();
        thread::spawn(move || {
            if receiver.recv_timeout(STALL) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("the test stalls: aborting the mount on {}", target.display());
                let _ = unmount(&target, Unmount::Abort);
            }
        });
        Self(sender)
    }
}

/// A file system served on a directory by this process.
pub(crate) struct Served {
    pub(crate) path: PathBuf,
    pub(crate) notices: Arc<Notices>,
    serving: Option<Serving>,
    _watchdog: Watchdog,
    _scratch: TempDir,
}

impl Served {
    pub(crate) fn start(fs: Arc<dyn FileSystem>, options: Options) -> Self {
        let scratch = scratch();
        let path = scratch.path().join("mount");
        fs::create_dir(&path).unwrap();
        let device = fuse_dev::open().unwrap();
        let access = if fs.is_read_only() { Access::ReadOnly } else { Access::ReadWrite };
        let mount = FuseMount {
            target: &path,
            source: "test".as_ref(),
            access,
            visitors: Visitors::All,
            devices: true,
            set_id: true,
        };
        mount_fuse(&mount, device.as_fd(), 0, 0).unwrap();
        let watchdog = Watchdog::over(&path);
        let notices = Notices::new();
        let serving = fuse::serve(fs, device, options, Arc::clone(&notices)).unwrap();
        Self { path, notices, serving: Some(serving), _watchdog: watchdog, _scratch: scratch }
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> &Requests {
        self.serving.as_ref().unwrap().requests()
    }

    /// Unmounts and waits for the session's end.
    pub(crate) fn stop(mut self) {
        // A descriptor of a process that has just ended may be closed a moment later.
        let patience = Instant::now() + Duration::from_secs(5);
        while let Err(errno) = unmount(&self.path, Unmount::Unused) {
            assert!(Instant::now() < patience, "{errno}");
            thread::sleep(Duration::from_millis(2));
        }
        self.serving.take().unwrap().wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            let _ = unmount(&self.path, Unmount::Abort);
            let _ = serving.wait();
        }
    }
}

/// Who runs fim in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    Root,
    /// A user without rights, on a machine where everybody may open the FUSE device.
    Nobody,
    /// The same with an id that is in no passwd file, whom fusermount3 refuses.
    Nameless,
}

impl User {
    const fn id(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::Nobody => 65_534,
            Self::Nameless => 12_345,
        }
    }
}

/// A private mount namespace with fim, a sample layer, an empty upper directory and a mount point, all of one user.
///
/// ```text
/// lower/file  "lower file\n"      lower/big   3 MiB + 5 bytes, see `pattern`
/// lower/dir/{a,b,c}               lower/link -> file          lower/hard1 = lower/hard2
/// lower/true  the program         lower/empty/
/// ```
pub(crate) struct Machine {
    pub(crate) user: User,
    scratch: TempDir,
    _watchdog: Watchdog,
}

impl Machine {
    pub(crate) fn new(user: User) -> Self {
        let scratch = scratch();
        let root = scratch.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_fim"), root.join("fim")).unwrap();
        fs::copy(env::current_exe().unwrap(), root.join("tests")).unwrap();
        for dir in ["mount", "upper", "lower", "lower/dir", "lower/empty"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        let lower = root.join("lower");
        fs::write(lower.join("file"), "lower file\n").unwrap();
        fs::write(lower.join("big"), pattern((3 << 20) + 5)).unwrap();
        for name in ["a", "b", "c"] {
            fs::write(lower.join("dir").join(name), name).unwrap();
        }
        symlink("file", lower.join("link")).unwrap();
        fs::write(lower.join("hard1"), "hard").unwrap();
        fs::hard_link(lower.join("hard1"), lower.join("hard2")).unwrap();
        fs::copy("/bin/true", lower.join("true")).unwrap();
        give(root, user);
        if user != User::Root {
            let node = root.join("fuse");
            let made =
                Command::new("mknod").arg("-m").arg("666").arg(&node).args(["c", "10", "229"]).status();
            assert!(made.unwrap().success());
            bind(&node, Path::new(fuse_dev::PATH)).unwrap();
        }
        Self { user, _watchdog: Watchdog::over(&root.join("mount")), scratch }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A command of the user.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        if self.user != User::Root {
            command.uid(self.user.id()).gid(self.user.id());
        }
        command.current_dir(self.scratch.path()).stdin(Stdio::null());
        command
    }

    /// fim with these words, in the scratch directory.
    pub(crate) fn fim(&self, words: &[&str]) -> Command {
        let mut command = self.command(self.path("fim"));
        command.args(words);
        command
    }

    /// Runs fim to its end, which must be a success.
    pub(crate) fn succeed(&self, words: &[&str]) -> String {
        let output = finish(self.fim(words));
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs a shell script as the user and returns what it printed; it must succeed.
    pub(crate) fn shell(&self, script: &str) -> String {
        let mut command = self.command("sh");
        command.args(["-ec", script]);
        let output = finish(command);
        assert!(output.status.success(), "{script}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Whether something is mounted on a place, as this thread sees it.
    pub(crate) fn is_mounted(&self, name: &str) -> bool {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let place = format!(" {} ", self.path(name).display());
        table.lines().any(|line| line.contains(&place))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A test that failed half-way leaves a server; without its mount it ends.
        let _ = unmount(&self.path("mount"), Unmount::Abort);
        if self.user != User::Root {
            // The next machine of this thread could not be given its own device over a deleted one.
            unmount(Path::new(fuse_dev::PATH), Unmount::Lazy).unwrap();
        }
    }
}

/// Runs a command with its output caught; kills it when it stalls.
pub(crate) fn finish(mut command: Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    finish_child(child)
}

/// As [`finish`] for a command that runs already.
pub(crate) fn finish_child(mut child: Child) -> Output {
    let mut pipes = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let stdout = thread::spawn(move || {
        let mut bytes = Vec::new();
        pipes.0.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let stderr = thread::spawn(move || {
        let mut bytes = Vec::new();
        pipes.1.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let patience = Instant::now() + STALL;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > patience {
            let _ = child.kill();
            panic!("a command stalls");
        }
        thread::sleep(Duration::from_millis(2));
    };
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Runs `body` inside a writable mount over the sample layer, once as root and once as an ordinary user: the test's
/// own binary is started again as the command of `fim mount`, for this one test.
pub(crate) fn inside(test: &str, body: impl FnOnce(&Path)) {
    if let Some(path) = env::var_os(INSIDE) {
        return body(Path::new(&path));
    }
    if !can_mount() {
        return;
    }
    let name = test.split_once("::").map_or(test, |(_, name)| name);
    for user in [User::Root, User::Nameless] {
        let machine = Machine::new(user);
        let words = ["mount", "-o", "suid,dev", "--layer", "lower", "--upper", "upper", "mount", "--"];
        let mut command = machine.fim(&words);
        command.arg(machine.path("tests")).args(["--exact", name, "--nocapture"]);
        command.env(INSIDE, machine.path("mount")).env("RUST_BACKTRACE", "0");
        let output = finish(command);
        let (said, complained) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{user:?}: {said}\n{complained}");
        assert!(said.contains("1 passed"), "{name} did not run: {said}");
    }
}

/// Declares tests whose body runs [`inside`] a mount.
macro_rules! on_mount {
    ($($(#[$meta:meta])* fn $name:ident($path:ident) $body:block)+) => {
        $(
            $(#[$meta])*
            #[test]
            fn $name() {
                $crate::support::inside(concat!(module_path!(), "::", stringify!($name)), |$path| $body);
            }
        )+
    };
}
pub(crate) use on_mount;

/// Makes everything below a place the user's.
fn give(path: &Path, user: User) {
    std::os::unix::fs::lchown(path, Some(user.id()), Some(user.id())).unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), user);
        }
    }
}
