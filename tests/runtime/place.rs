//! Running the real program on images in a directory of the test.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A directory of one test; its images keep their runtime files in it, too.
pub struct Place {
    dir: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command in this directory: `fim`, or an image by its name.
    pub fn command(&self, program: &str) -> Command {
        let program = if program == "fim" { env!("CARGO_BIN_EXE_fim").into() } else { self.path(program) };
        let mut command = Command::new(program);
        command
            .current_dir(self.dir.path())
            .env("FIM_DIR_GLOBAL", self.path("global"))
            .env_remove("SOURCE_DATE_EPOCH");
        command
    }

    /// Runs a command; arguments are divided by spaces.
    pub fn run(&self, line: &str) -> Done {
        let mut words = line.split(' ');
        let mut command = self.command(words.next().unwrap());
        command.args(words);
        loop {
            match command.output() {
                // A program that this process has just written: the child of another test holds a copy of the
                // descriptor until it executes something.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::yield_now();
                }
                output => return Done::of(output.unwrap()),
            }
        }
    }

    /// Runs a command that must succeed without a word on stderr, and returns what it printed.
    pub fn ok(&self, line: &str) -> String {
        let done = self.run(line);
        assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{line}: {done:?}");
        done.stdout
    }

    /// Runs a command that must fail with 125 and one line, and returns the line.
    pub fn refused(&self, line: &str) -> String {
        let done = self.run(line);
        assert_eq!((done.status, done.stdout.as_str()), (125, ""), "{line}: {done:?}");
        assert!(done.stderr.starts_with("fim: ") && done.stderr.lines().count() == 1, "{line}: {done:?}");
        done.stderr.trim_end().to_owned()
    }

    /// A small root with a directory, a file, a link and an empty file.
    pub fn root(&self, name: &str) -> PathBuf {
        let root = self.path(name);
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/os-release"), "NAME=\"Tiny\"\nID=tiny\n").unwrap();
        fs::write(root.join("hello"), format!("hello from {name}\n")).unwrap();
        fs::write(root.join("empty"), "").unwrap();
        std::os::unix::fs::symlink("hello", root.join("link")).unwrap();
        root
    }

    /// An image without tools, made from [`Place::root`].
    pub fn image(&self) -> PathBuf {
        self.root("root");
        self.ok("fim create -o app --from root --no-tools");
        self.path("app")
    }

    /// A layer file with one file in it.
    pub fn layer(&self, name: &str) -> PathBuf {
        let tree = self.path(&format!("{name}.tree"));
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join(name), format!("content of {name}\n")).unwrap();
        self.ok(&format!("fim archive create {name}.tree {name}.layer"));
        self.path(&format!("{name}.layer"))
    }

    /// The names in the directory, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Done {
    pub fn of(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Flips bits at an offset of a file.
pub fn spoil(path: &Path, offset: u64) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&[byte[0] ^ 0xff]).unwrap();
}

/// Writes a file that may be executed.
pub fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
