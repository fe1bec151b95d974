//! An image of a small root, users who run it, and eyes for what is left behind.

use std::{
    env,
    ffi::OsStr,
    fs::{self, OpenOptions, Permissions},
    os::unix::{
        fs::{PermissionsExt as _, chown, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use fim::{
    config::{self, ImageId, Settings},
    image::{ImageEdit, LayerTable, elf, reserved::Reserved},
};
use tempfile::TempDir;

/// An ordinary user, whom no passwd file knows.
pub const PLAIN_UID: u32 = 47_114;

/// Home of the callers; it is on no host.
pub const HOME: &str = "/home/tester";

/// Programs of the small root, all of them busybox.
const APPLETS: [&str; 44] = [
    "chmod", "find", "md5sum", "mkfifo", "sort", "tail", "truncate", "sh", "cat", "chown", "cp", "dd",
    "echo", "env", "false", "cut", "grep", "head", "hostname", "id", "kill", "ln", "ls", "mkdir", "mknod",
    "mount", "mv", "nslookup", "ps", "pwd", "readlink", "rm", "seq", "setsid", "sleep", "stat", "stty",
    "sync", "test", "touch", "true", "tty", "usleep", "printenv",
];

/// Who runs an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The user of the tests: root, or whoever it is.
    Myself,
    /// An ordinary user.
    Plain,
}

/// Prints why a test is skipped; fails where skipping is not allowed.
pub fn skip(why: &str) {
    assert!(env::var_os("FIM_TEST_REQUIRE").is_none(), "missing: {why}");
    println!("skipped: {why}");
}

/// Whether tests take their time (`.tools/test full`).
pub fn is_full() -> bool {
    env::var_os("FIM_SUITES").is_some_and(|form| form == "full")
}

/// Finds a program on PATH.
pub fn find(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn is_root() -> bool {
    fim::sys::users::Ids::of_caller().unwrap().uid == 0
}

/// Runs a test for each kind of user.
pub fn for_each_user(test: impl Fn(&World)) {
    for_each_world(World::new, test);
}

/// Runs a test for each kind of user, who has an image of his own that holds its root.
pub fn for_each_owner(test: impl Fn(&World)) {
    for_each_world(World::with_image, test);
}

fn for_each_world(make: impl Fn(Who) -> Option<World>, test: impl Fn(&World)) {
    for who in [Who::Myself, Who::Plain] {
        if let Some(world) = make(who) {
            println!("as {who:?}");
            test(&world);
            world.assert_nothing_left();
        }
    }
}

/// At which level the tests' archives are made: each is read a few times only.
const LEVEL: &str = "1";

/// The image: the engine, the settings area, and no archive. The root is a layer beside it.
static IMAGE: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("app.flatimage");
    fs::copy(env!("CARGO_BIN_EXE_fim"), &path).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let area = Reserved::behind(elf::read(&file).unwrap().end);
    let mut settings = Settings::new(ImageId::from_random([7; 16]));
    settings.environment.add([("FROM_IMAGE".to_owned(), "$USER-${NOTHING:-x}".to_owned())]);
    area.settings().create(&file, config::encode(&settings).unwrap()).unwrap();
    area.table().create(&file, LayerTable::default().encode().unwrap()).unwrap();
    file.set_len(area.end()).unwrap();
    (folder, path)
});

/// One image with its own data directory and its own `FIM_DIR_GLOBAL`.
pub struct World {
    pub who: Who,
    pub folder: TempDir,
    image: PathBuf,
}

impl World {
    /// Makes it; `None`, and a line, where something is missing.
    pub fn new(who: Who) -> Option<Self> {
        for program in ["bwrap", "busybox", "unshare", "setpriv", "setsid"] {
            if find(program).is_none() {
                skip(&format!("{program} on PATH"));
                return None;
            }
        }
        if who == Who::Plain && !is_root() {
            skip("root, to become another user");
            return None;
        }
        if !Path::new("/dev/fuse").exists() {
            skip("/dev/fuse");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let world = Self { who, folder, image: IMAGE.1.clone() };
        world.make_root();
        if who == Who::Plain {
            let made = Command::new("mknod")
                .args(["-m", "0666"])
                .arg(world.path("fuse"))
                .args(["c", "10", "229"])
                .status();
            assert!(made.unwrap().success());
        }
        for own in ["data", "global", "own", "cwd"] {
            let path = world.path(own);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            if who == Who::Plain {
                own_all(&path);
            }
        }
        Some(world)
    }

    /// Makes it with an image that belongs to its user and holds the root, with a place for everything that a run
    /// mounts.
    pub fn with_image(who: Who) -> Option<Self> {
        let mut world = Self::new(who)?;
        for folder in ["tmp", &HOME[1..]] {
            fs::create_dir_all(world.root().join(folder)).unwrap();
        }
        for file in ["etc/hosts", "etc/resolv.conf", "etc/known"] {
            fs::write(world.root().join(file), "known\n").unwrap();
        }
        let image = world.path("own/app.flatimage");
        let made = Command::new(env!("CARGO_BIN_EXE_fim"))
            .args(["create", "--no-tools", "--from"])
            .arg(world.root())
            .arg("-o")
            .arg(&image)
            .env("FIM_DIR_GLOBAL", world.path("own/global"))
            .env("FIM_COMPRESSION_LEVEL", LEVEL)
            .output();
        said(made.unwrap());
        fs::remove_dir_all(world.root()).unwrap();
        for path in ["data/layers", "own/app.flatimage"] {
            if who == Who::Plain {
                own_all(&world.path(path));
            }
        }
        world.image = image;
        Some(world)
    }

    /// Makes it with an image of its own whose settings are changed.
    pub fn with_settings(who: Who, change: impl FnOnce(&mut Settings)) -> Option<Self> {
        let mut world = Self::new(who)?;
        let image = world.path("own/app.flatimage");
        fs::copy(&world.image, &image).unwrap();
        let mut edit = ImageEdit::open(&image).unwrap();
        let mut settings = edit.settings().unwrap();
        change(&mut settings);
        edit.set_settings(&settings).unwrap();
        drop(edit);
        world.image = image;
        Some(world)
    }

    /// Changes the settings of an image made by [`with_settings`](Self::with_settings).
    pub fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        let mut edit = ImageEdit::open(&self.image).unwrap();
        let mut settings = edit.settings().unwrap();
        change(&mut settings);
        edit.set_settings(&settings).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The image file.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// The layer that is the root of the image; it belongs to whoever made the image.
    pub fn root(&self) -> PathBuf {
        self.path("data/layers/base.layer")
    }

    /// The upper.
    pub fn upper(&self) -> PathBuf {
        self.path("data/root")
    }

    fn make_root(&self) {
        let root = self.root();
        for folder in ["bin", "etc", "dev", "proc", "sys", "root", "home", "usr/bin", "var", "run", "opt"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::copy(find("busybox").unwrap(), root.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
        fs::write(root.join("opt/plain"), "no program").unwrap();
        fs::write(root.join("opt/broken"), "#!/nowhere\n").unwrap();
        fs::set_permissions(root.join("opt/broken"), Permissions::from_mode(0o755)).unwrap();
    }

    /// The image with arguments, as the world's user.
    pub fn command<T: AsRef<OsStr>>(&self, arguments: &[T]) -> Command {
        self.program(&self.image, arguments)
    }

    /// The tool with arguments, as the world's user.
    pub fn tool<T: AsRef<OsStr>>(&self, arguments: &[T]) -> Command {
        self.program(Path::new(env!("CARGO_BIN_EXE_fim")), arguments)
    }

    fn program<T: AsRef<OsStr>>(&self, program: &Path, arguments: &[T]) -> Command {
        let mut command = match self.who {
            Who::Myself => {
                let mut command = Command::new("env");
                command.arg(OPEN_SIGNALS).arg(program);
                command
            }
            Who::Plain => {
                let mut command = Command::new("unshare");
                let id = PLAIN_UID.to_string();
                command
                    .args(["-m", "sh", "-c", PRIVATE_FUSE, "sh"])
                    .arg(self.path("fuse"))
                    .args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"])
                    .args(["env", OPEN_SIGNALS])
                    .arg(program);
                command
            }
        };
        command
            .args(arguments)
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap())
            .env("HOME", HOME)
            .env("FIM_DIR_DATA", self.path("data"))
            .env("FIM_DIR_GLOBAL", self.path("global"))
            .env("FIM_COMPRESSION_LEVEL", LEVEL)
            .current_dir(self.path("cwd"))
            .stdin(Stdio::null());
        command
    }

    /// `fim-exec` of a shell script.
    pub fn shell(&self, script: &str) -> Command {
        self.command(&["fim-exec", "sh", "-c", script])
    }

    /// Runs a script to its end; what it printed, without the last newline.
    pub fn says(&self, script: &str) -> String {
        said(self.shell(script).output().unwrap())
    }

    /// Starts a script and waits until it has printed `ready`.
    pub fn start(&self, script: &str) -> Running {
        self.start_with("fim-exec", script)
    }

    /// As [`start`](Self::start), by `fim-exec` or `fim-root`.
    pub fn start_with(&self, verb: &str, script: &str) -> Running {
        let mut command = self.command(&[verb, "sh", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let mut first = Vec::new();
        let mut byte = [0];
        while std::io::Read::read(&mut output, &mut byte).unwrap() == 1 && byte != *b"\n" {
            first.push(byte[0]);
        }
        assert_eq!(first, b"ready");
        Running { child, output }
    }

    /// Instance directories that are there.
    pub fn instances(&self) -> Vec<PathBuf> {
        let Ok(builds) = fs::read_dir(self.path("global/app")) else { return Vec::new() };
        builds
            .flatten()
            .filter_map(|build| fs::read_dir(build.path().join("instance")).ok())
            .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
            .collect()
    }

    /// Directories of servers that are there.
    pub fn servers(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path("global/server")) else { return Vec::new() };
        entries.flatten().map(|entry| entry.path()).collect()
    }

    /// Processes that run our image, by their environment or their arguments.
    pub fn processes(&self) -> Vec<i32> {
        let needle = self.folder.path().as_os_str().as_encoded_bytes();
        let holds = |file: PathBuf| {
            fs::read(file).is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
        };
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| *pid != fim::sys::process::id())
            .filter(|pid| {
                let folder = PathBuf::from(format!("/proc/{pid}"));
                ["environ", "cmdline", "mountinfo"].into_iter().any(|file| holds(folder.join(file)))
            })
            .collect()
    }

    /// The server: the process of ours that is in a session of its own and has the FUSE device open.
    pub fn server_pid(&self) -> i32 {
        *self
            .processes()
            .iter()
            .find(|pid| {
                fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|fds| {
                    fds.flatten()
                        .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == Path::new("/dev/fuse")))
                })
            })
            .unwrap_or_else(|| panic!("no server among {:?}", self.processes()))
    }

    /// Nothing of ours is left, at the latest after a second.
    pub fn assert_nothing_left(&self) {
        eventually("nothing is left", || {
            let left = (self.instances(), self.servers(), self.processes());
            if left.0.is_empty() && left.1.is_empty() && left.2.is_empty() {
                Ok(())
            } else {
                let words =
                    |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let words: Vec<String> = left.2.iter().map(words).collect();
                Err(format!("{left:?} {words:?}"))
            }
        });
    }
}

impl Drop for World {
    /// A test that fails leaves no process behind; one that goes well has looked.
    fn drop(&mut self) {
        if thread::panicking() {
            for pid in self.processes() {
                let killed = fim::sys::process::Pidfd::open(pid)
                    .and_then(|process| process.signal(fim::sys::signal::Signal::SIGKILL));
                drop(killed);
            }
        }
    }
}

/// A shell cannot trap what was ignored when it started, and whoever runs the tests may ignore what he likes.
const OPEN_SIGNALS: &str = "--default-signal";

/// Binds a `/dev/fuse` for everybody in a private namespace, then becomes the rest of the arguments.
const PRIVATE_FUSE: &str = r#"
node=$1; shift
mount --bind "$node" /dev/fuse || exit 99
exec "$@"
"#;

fn own_all(path: &Path) {
    chown(path, Some(PLAIN_UID), Some(PLAIN_UID)).unwrap();
}

/// A run that is under way.
pub struct Running {
    pub child: Child,
    pub output: std::process::ChildStdout,
}

impl Running {
    /// Its process: the front.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Sends a signal to the front.
    pub fn signal(&self, signal: fim::sys::signal::Signal) {
        fim::sys::process::Pidfd::open(self.pid()).unwrap().signal(signal).unwrap();
    }

    /// Waits for its end; exit status as a shell shows it, and what else it printed.
    pub fn end(mut self) -> (i32, String) {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut rest).unwrap();
        (status(self.child.wait().unwrap()), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Exit status as a shell shows it.
pub fn status(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

/// What a run that went well has printed.
pub fn said(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap().trim_end_matches('\n').to_owned()
}

/// Waits until something holds, a second at most.
pub fn eventually(what: &str, check: impl Fn() -> Result<(), String>) {
    let started = Instant::now();
    loop {
        match check() {
            Ok(()) => return,
            Err(why) if started.elapsed() > Duration::from_secs(1) => {
                panic!("not within a second: {what}: {why}")
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}
