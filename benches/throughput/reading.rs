//! Read-only mounts: the same tree in every archive, served by every kind.
//!
//! Cold means: unmounted, the server gone, caches dropped, the server's program warmed again, mounted. Only the
//! archive's bytes and what the server makes of them are cold, not the program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use crate::{
    archives::{self, Archive, Maker, Source},
    args::{Args, Class},
    cleanup,
    failure::{Failure, Result, cannot},
    host::Host,
    mounts::{Stack, within},
    random::{self, Mode},
    report::{Kind, Report, Row},
    tree::Census,
    work,
};

const MOUNT: Row = Row::seconds("mount to first stat, cold", "≤ 10 ms, ≤ .2× dwarfs");
const FIND: Row = Row::seconds("find, cold", "≤ .4× dwarfs");
const FIND_STAT: Row = Row::seconds("find + stat, cold", "≤ .5× dwarfs, ≤ 1.2× squashfs");
const FIND_WARM: Row = Row::seconds("find + stat, warm", "≤ .5× dwarfs, ≤ 1.1× squashfs");
const CAT: Row = Row::seconds("read all, 1 reader, cold", "≤ .85× dwarfs, ≤ 1× squashfs");
const CAT_WARM: Row = Row::seconds("read all, 1 reader, warm", "≤ .5× dwarfs, ≤ 1.1× squashfs");
const CAT_TWO: Row = Row::seconds("read all, 2 readers, cold", "≤ .85× dwarfs, ≤ 1× squashfs");
const RESIDENT: Row = Row::mebibytes("server's memory after that", "≤ .5× dwarfs");
/// Memory after find + stat and reading everything, and some time later: with the default cache, with a small one.
const MEMORY: [(Cache, [Row; 2]); 2] = [
    (
        Cache::Default,
        [Row::mebibytes("memory after walk and read", "≤ .5× dwarfs"), Row::mebibytes("memory, idle", "")],
    ),
    (
        Cache::Small,
        [Row::mebibytes("memory, cache of 64 MiB", ""), Row::mebibytes("memory, cache of 64 MiB, idle", "")],
    ),
];
const BIG: Row = Row::seconds("largest file, cold", "");
const RANDOM: [(usize, Row); 3] = [
    (1, Row::iops("4 KiB random, 1 job, cold", "≥ 2× dwarfs")),
    (4, Row::iops("4 KiB random, 4 jobs, cold", "≥ 2× dwarfs")),
    (16, Row::iops("4 KiB random, 16 jobs, cold", "≥ 2× dwarfs")),
];

/// Threads over one mount: the file's pages leave the kernel's cache before each row, what its server has stays.
const THREADS: [(usize, [Row; 3]); 4] = [
    (1, scaling(["4 KiB random, 1 thread", "  p50, 1 thread", "  p99, 1 thread"])),
    (2, scaling(["4 KiB random, 2 threads", "  p50, 2 threads", "  p99, 2 threads"])),
    (8, scaling(["4 KiB random, 8 threads", "  p50, 8 threads", "  p99, 8 threads"])),
    (32, scaling(["4 KiB random, 32 threads", "  p50, 32 threads", "  p99, 32 threads"])),
];

const fn scaling([rate, p50, p99]: [&'static str; 3]) -> [Row; 3] {
    [Row::iops(rate, "≥ 2× dwarfs"), Row::seconds(p50, ""), Row::seconds(p99, "")]
}

/// Random accesses of a row.
const OPERATIONS: usize = 16_384;

/// Who serves an archive.
#[derive(Debug, Clone)]
pub enum Server {
    /// `fim mount --ro`.
    Fim(PathBuf),
    /// A FUSE program called as `PROGRAM ARCHIVE DIR`.
    Program(PathBuf),
    /// A file system of the kernel over a loop device.
    Kernel {
        /// `losetup`.
        losetup: PathBuf,
        /// The file system's name.
        kind: &'static str,
    },
}

/// How much a server may keep in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cache {
    /// What it takes by itself.
    Default,
    /// 64 MiB of decoded blocks.
    Small,
}

/// An archive and who serves it.
#[derive(Debug, Clone)]
pub struct Served {
    /// Who.
    pub server: Server,
    /// What.
    pub archive: PathBuf,
}

impl Served {
    /// Mounts at a directory; returns when the first stat has been answered.
    pub fn mount(&self, stack: &mut Stack, directory: &Path, probe: &Path) -> Result<()> {
        self.mount_with(Cache::Default, stack, directory, probe)
    }

    fn mount_with(&self, cache: Cache, stack: &mut Stack, directory: &Path, probe: &Path) -> Result<()> {
        match &self.server {
            Server::Fim(fim) => {
                let mut command = Command::new(fim);
                command.args(["mount", "--ro"]).arg(&self.archive).arg(directory);
                command.env_remove("FIM_CACHE_SIZE");
                if cache == Cache::Small {
                    command.env("FIM_CACHE_SIZE", "64M");
                }
                stack.fuse(&mut command, directory, probe)
            }
            Server::Program(program) => {
                let mut command = Command::new(program);
                command.arg(&self.archive).arg(directory);
                if cache == Cache::Small {
                    command.args(["-o", "cachesize=64m"]);
                }
                stack.fuse(&mut command, directory, probe)
            }
            Server::Kernel { losetup, kind } => stack.looped(losetup, kind, &self.archive, directory, probe),
        }
    }

    /// Whether its cache of decoded blocks can be bounded.
    fn takes(&self, cache: Cache) -> bool {
        let is_dwarfs = |program: &Path| program.file_name().is_some_and(|name| name == "dwarfs");
        match &self.server {
            Server::Fim(_) => true,
            Server::Program(program) => cache == Cache::Default || is_dwarfs(program),
            Server::Kernel { .. } => false,
        }
    }

    /// Brings the server's program back into the page cache.
    pub fn warm(&self) {
        match &self.server {
            Server::Fim(program) | Server::Program(program) => Host::warm(program),
            Server::Kernel { losetup, .. } => Host::warm(losetup),
        }
    }
}

/// The columns: our kinds first, then the peers that are installed.
pub struct Kinds {
    /// For the report.
    pub columns: Vec<Kind>,
    /// In the same order; `None` is the tree itself.
    pub served: Vec<Option<Served>>,
    /// What is left out and why.
    pub missing: Vec<String>,
}

/// Makes the archives of a tree and finds out who can serve them.
pub fn kinds(host: &Host, args: &Args, source: &Source<'_>, folder: &Path) -> Kinds {
    let mut kinds = Kinds { columns: Vec::new(), served: Vec::new(), missing: Vec::new() };
    let class = args.class();
    let make = |maker| archives::make(host, maker, source, args.level, class, folder);
    let fim = |program: PathBuf| Server::Fim(program);
    let ours = || Maker::Fim.program(host).map(fim);
    let tool = |name: &str| {
        host.tool(name).map(Server::Program).ok_or_else(|| Failure::new(format!("{name} is not installed")))
    };
    let squashfuse = || tool("squashfuse_ll").or_else(|_| tool("squashfuse"));
    let kernel = |kind| kernel_server(host, kind);
    // Ours on the very file that the upstream driver reads comes first: there only the readers differ.
    kinds.add(args, "fim", true, Maker::Mkdwarfs, ours(), &make);
    kinds.add(args, "fim-own", true, Maker::Fim, ours(), &make);
    kinds.add(args, "dwarfs", false, Maker::Mkdwarfs, tool("dwarfs"), &make);
    kinds.add(args, "squashfuse", false, Maker::Squashfs, squashfuse(), &make);
    kinds.add(args, "squashfs", false, Maker::Squashfs, kernel("squashfs"), &make);
    kinds.add(args, "erofs", false, Maker::Erofs, kernel("erofs"), &make);
    if class == Class::Zstd {
        kinds.missing.push(
            "erofs with zstd: this erofs-utils writes lz4hc only, so its column is of another class".into(),
        );
    }
    if args.wants_kind("native") {
        kinds.columns.push(Kind {
            name: "native",
            about: "the tree itself on the host".to_owned(),
            ours: false,
        });
        kinds.served.push(None);
    }
    kinds
}

impl Kinds {
    fn add(
        &mut self,
        args: &Args,
        name: &'static str,
        ours: bool,
        maker: Maker,
        server: Result<Server>,
        make: &dyn Fn(Maker) -> Result<Archive>,
    ) {
        if !args.wants_kind(name) {
            return;
        }
        match server.and_then(|server| Ok((server, make(maker)?))) {
            Ok((server, archive)) => {
                let by = match &server {
                    Server::Fim(_) => "fim mount --ro".to_owned(),
                    Server::Program(program) => {
                        program.file_name().unwrap_or_default().to_string_lossy().into_owned()
                    }
                    Server::Kernel { kind, .. } => format!("kernel {kind}, loop device"),
                };
                self.columns.push(Kind { name, about: format!("{by} · {}", archive.about), ours });
                self.served.push(Some(Served { server, archive: archive.path }));
            }
            Err(failure) => self.missing.push(format!("{name}: {failure}")),
        }
    }
}

fn kernel_server(host: &Host, kind: &'static str) -> Result<Server> {
    if !host.root {
        return Err(Failure::new("loop devices need root"));
    }
    let losetup = host.tool("losetup").ok_or_else(|| Failure::new("losetup is not installed"))?;
    Ok(Server::Kernel { losetup, kind })
}

/// Measures every kind, `repetitions` times, all kinds in turn.
pub fn measure(
    host: &Host,
    args: &Args,
    tree: &Path,
    census: &Census,
    kinds: Kinds,
    folder: &Path,
) -> Report {
    let mut title = format!("Reading: {} entries, {} files", census.entries, census.files);
    if !args.tree.is_empty() {
        title.push_str(&format!(" of {}", tree.display()));
    }
    if args.idle > 0 {
        title.push_str(&format!("; idle is {} s", args.idle));
    }
    let mut report = Report::new(title, kinds.columns, kinds.missing);
    let count = kinds.served.len();
    for repetition in 0..args.repetitions() {
        // Each kind comes first, second, … once: what grows over a round hits them all.
        for at in (0..count).map(|at| (at + repetition) % count) {
            let Some(served) = kinds.served.get(at) else { continue };
            // It would make every repetition that much longer.
            let idle = Duration::from_secs(if repetition == 0 { args.idle } else { 0 });
            let directory = folder.join("read");
            let place = Place { host, served: served.as_ref(), tree, census, directory, idle };
            eprintln!("reading {}/{}: kind {}", repetition + 1, args.repetitions(), at + 1);
            if let Err(failure) = place.measure(&mut report, at) {
                report.fail(at, &failure.to_string());
            }
            if let Err(failure) = cleanup::remove_tree(&place.directory) {
                report.fail(at, &failure.to_string());
            }
        }
    }
    report
}

struct Place<'a> {
    host: &'a Host,
    served: Option<&'a Served>,
    tree: &'a Path,
    census: &'a Census,
    directory: PathBuf,
    /// How long servers rest before their memory is looked at again; 0 where it is not.
    idle: Duration,
}

impl Place<'_> {
    /// A failed mount ends this kind's turn, a failed row only the row.
    fn measure(&self, report: &mut Report, at: usize) -> Result<()> {
        let census = self.census;
        self.fresh(|root, stack, seconds| {
            if let Some(seconds) = seconds {
                self.add(report, MOUNT, at, Ok(seconds));
            }
            self.row(report, FIND, at, stack, || same("entries", work::walk(root, false)?, census.entries));
        })?;
        self.fresh(|root, stack, _| {
            for row in [FIND_STAT, FIND_WARM] {
                self.row(report, row, at, stack, || same("entries", work::walk(root, true)?, census.entries));
            }
        })?;
        self.fresh(|root, stack, _| {
            for row in [CAT, CAT_WARM] {
                self.row(report, row, at, stack, || {
                    same("bytes", work::read_all(root, None, 1)?, census.bytes)
                });
            }
        })?;
        self.fresh(|root, stack, _| {
            self.row(report, CAT_TWO, at, stack, || {
                same("bytes", work::read_all(root, None, 2)?, census.bytes)
            });
            if let Some(size) = stack.resident() {
                report.add(RESIDENT, at, Ok(size));
            }
        })?;
        let largest = fs::metadata(self.tree.join(&census.largest)).map_err(cannot("stat", self.tree))?.len();
        self.fresh(|root, stack, _| {
            let file = root.join(&census.largest);
            self.row(report, BIG, at, stack, || same("bytes", work::read_file(&file)?, largest));
        })?;
        for (jobs, row) in RANDOM {
            self.fresh(|root, stack, _| {
                let found = self.random(root, stack, jobs);
                self.add(report, row, at, found.map(|found| found.rate));
            })?;
        }
        self.fresh(|root, stack, _| self.threads(report, at, root, stack))?;
        for (cache, rows) in MEMORY {
            self.memory(report, at, cache, rows)?;
        }
        Ok(())
    }

    /// How random reads grow with the threads.
    fn threads(&self, report: &mut Report, at: usize, root: &Path, stack: &Stack) {
        let file = root.join(&self.census.largest);
        let ready = within(self.host.limit, stack.directories(), || work::read_file(&file));
        for (threads, [rate, p50, p99]) in THREADS {
            let ready = ready.as_ref().map_err(|failure| Failure::new(failure.to_string()));
            match ready
                .and_then(|_| random::drop_pages(&file))
                .and_then(|()| self.random(root, stack, threads))
            {
                Ok(found) => {
                    for (row, value) in [(rate, found.rate), (p50, found.p50), (p99, found.p99)] {
                        report.add(row, at, Ok(value));
                    }
                }
                Err(failure) => report.add(rate, at, Err(failure)),
            }
        }
    }

    fn random(&self, root: &Path, stack: &Stack, jobs: usize) -> Result<random::Found> {
        let file = root.join(&self.census.largest);
        within(self.host.limit, stack.directories(), || random::access(&file, OPERATIONS, jobs, Mode::Read))
    }

    /// The server's memory when it has shown and read everything, and, once, when it has rested.
    fn memory(&self, report: &mut Report, at: usize, cache: Cache, [full, idle]: [Row; 2]) -> Result<()> {
        if !self.served.is_some_and(|served| served.takes(cache)) {
            return Ok(());
        }
        self.fresh_with(cache, |root, stack, _| {
            let done = within(self.host.limit, stack.directories(), || {
                same("entries", work::walk(root, true)?, self.census.entries)?;
                same("bytes", work::read_all(root, None, 1)?, self.census.bytes)
            });
            let resident = || stack.resident().ok_or_else(|| Failure::new("no server is left"));
            let outcome = done.and_then(|()| resident());
            let rests = outcome.is_ok() && !self.idle.is_zero();
            report.add(full, at, outcome);
            if rests {
                thread::sleep(self.idle);
                report.add(idle, at, resident());
            }
        })
    }

    /// Mounts with everything cold and hands over the root, the mounts and the seconds to the first stat.
    fn fresh(&self, use_it: impl FnOnce(&Path, &Stack, Option<f64>)) -> Result<()> {
        self.fresh_with(Cache::Default, use_it)
    }

    fn fresh_with(&self, cache: Cache, use_it: impl FnOnce(&Path, &Stack, Option<f64>)) -> Result<()> {
        if self.host.root {
            self.host.drop_caches()?;
        }
        let Some(served) = self.served else {
            use_it(self.tree, &Stack::default(), None);
            return Ok(());
        };
        served.warm();
        let mut stack = Stack::default();
        let seconds =
            work::timed(|| served.mount_with(cache, &mut stack, &self.directory, &self.census.first))?;
        use_it(&self.directory, &stack, Some(seconds));
        Ok(())
    }

    fn row(
        &self,
        report: &mut Report,
        row: Row,
        at: usize,
        stack: &Stack,
        work: impl FnOnce() -> Result<()>,
    ) {
        let seconds = within(self.host.limit, stack.directories(), || work::timed(work));
        self.add(report, row, at, seconds);
    }

    /// Without root nothing is cold, and a figure that says so would lie.
    fn add(&self, report: &mut Report, row: Row, at: usize, outcome: Result<f64>) {
        if self.host.root || !row.name.ends_with("cold") {
            report.add(row, at, outcome);
        }
    }
}

/// A run that did less work than the tree holds has no time.
fn same(what: &str, found: u64, expected: u64) -> Result<()> {
    if found == expected {
        Ok(())
    } else {
        Err(Failure::new(format!("{found} {what} instead of {expected}")))
    }
}
