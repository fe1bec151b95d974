//! Read-only mounts: the same tree in every archive, served by every kind.
//!
//! Cold means: unmounted, the server gone, caches dropped, the server's program warmed again, mounted. Only the
//! archive's bytes and what the server makes of them are cold, not the program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    archives::{self, Archive, Maker, Source},
    args::{Args, Class},
    cleanup,
    failure::{Failure, Result, cannot},
    host::Host,
    mounts::{Stack, within},
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
const RESIDENT: Row =
    Row {
        name: "server's memory after that", unit: crate::figures::Unit::Mebibytes, goal: "≤ .5× dwarfs"
    };
const BIG: Row = Row::seconds("largest file, cold", "");
const RANDOM: [(usize, Row); 3] = [
    (1, Row::iops("4 KiB random, 1 job, cold", "≥ 2× dwarfs")),
    (4, Row::iops("4 KiB random, 4 jobs, cold", "≥ 2× dwarfs")),
    (16, Row::iops("4 KiB random, 16 jobs, cold", "≥ 2× dwarfs")),
];

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
        match &self.server {
            Server::Fim(fim) => {
                let mut command = Command::new(fim);
                command.args(["mount", "--ro"]).arg(&self.archive).arg(directory);
                stack.fuse(&mut command, directory, probe)
            }
            Server::Program(program) => {
                stack.fuse(Command::new(program).arg(&self.archive).arg(directory), directory, probe)
            }
            Server::Kernel { losetup, kind } => stack.looped(losetup, kind, &self.archive, directory, probe),
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
    let title = format!("Reading: {} entries, {} files", census.entries, census.files);
    let mut report = Report::new(title, kinds.columns, kinds.missing);
    let count = kinds.served.len();
    for repetition in 0..args.repetitions() {
        // Each kind comes first, second, … once: what grows over a round hits them all.
        for at in (0..count).map(|at| (at + repetition) % count) {
            let Some(served) = kinds.served.get(at) else { continue };
            let place = Place { host, served: served.as_ref(), tree, census, directory: folder.join("read") };
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
                let file = root.join(&census.largest);
                let rate =
                    within(self.host.limit, stack.directories(), || work::random_reads(&file, 16_384, jobs));
                self.add(report, row, at, rate);
            })?;
        }
        Ok(())
    }

    /// Mounts with everything cold and hands over the root, the mounts and the seconds to the first stat.
    fn fresh(&self, use_it: impl FnOnce(&Path, &Stack, Option<f64>)) -> Result<()> {
        if self.host.root {
            self.host.drop_caches()?;
        }
        let Some(served) = self.served else {
            use_it(self.tree, &Stack::default(), None);
            return Ok(());
        };
        served.warm();
        let mut stack = Stack::default();
        let seconds = work::timed(|| served.mount(&mut stack, &self.directory, &self.census.first))?;
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
