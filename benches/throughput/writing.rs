//! The writable stack: two lowers (the tree, and the work tree that is changed) and a fresh upper for each turn.
//!
//! Table A has host directories as lowers for every kind, table B archives: ours reads them itself, the others stand
//! on mounts of them. Cold means everything unmounted and caches dropped; remounted means unmounted and mounted
//! again with the page cache of what lies below still warm.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    archives::{self, Maker, Source},
    args::{Args, Lower},
    cleanup, command,
    failure::{Failure, Result, cannot},
    host::Host,
    mounts::{Stack, overlay_options, within},
    random::{self, Mode},
    reading::{Served, Server},
    report::{Kind, Report, Row},
    tree::{self, Census, Sizes},
    work,
};

const STAT: [Row; 3] = [
    Row::seconds("stat all, cold", ""),
    Row::seconds("stat all, remounted", ""),
    Row::seconds("stat all, warm", "≤ 1.3× kovl, ≤ .4× fo"),
];
const READ: [Row; 3] = [
    Row::seconds("read all, cold", "≤ 1.2× kovl, ≤ .7× fo"),
    Row::seconds("read all, remounted", "≤ 1.2× kovl, ≤ .7× fo"),
    Row::seconds("read all, warm", "≤ 1.3× kovl, ≤ .4× fo"),
];
const CREATE: Row = Row::seconds("create files of 1 KB", "≤ 4× kovl, ≤ .5× fo");
const STAT_NEW: Row = Row::seconds("stat those", "≤ 1.3× kovl, ≤ .4× fo");
const RENAME: Row = Row::seconds("rename those", "≤ 4× kovl, ≤ .5× fo");
const UNLINK: Row = Row::seconds("unlink those", "≤ 4× kovl, ≤ .5× fo");
const COPY_SMALL: Row = Row::seconds("copy-up, small files", "≤ 1.3× kovl, ≤ .4× fo");
const COPY_HUGE: Row = Row::seconds("copy-up, one large file", "≤ 1.3× kovl, ≤ 1.1× fo");
const UNTAR: Row = Row::seconds("untar", "≤ 2.5× kovl, ≤ .5× fo");
const REMOVE: Row = Row::seconds("rm -r of a lower tree", "≤ 2.5× kovl, ≤ .5× fo");
const WRITE: Row = Row::seconds("sequential write", "≤ 1.3× kovl, ≤ .7× fo");
const WRITE_SYNC: Row = Row::seconds("sequential write and fsync", "");
const RANDOM: [(usize, Row); 2] = [
    (1, Row::iops("4 KiB random write, 1 job", "≥ .6× kovl, ≥ 8× fo")),
    (4, Row::iops("4 KiB random write, 4 jobs", "")),
];

/// How much is changed.
#[derive(Debug, Clone, Copy)]
pub struct Amounts {
    /// Files created, asked for, renamed and removed.
    pub files: usize,
    /// Bytes of the sequential write.
    pub write: usize,
    /// Bytes of the file for random writes.
    pub random: usize,
    /// Random writes.
    pub operations: usize,
    /// Bytes in the tar.
    pub tar: u64,
}

impl Amounts {
    /// Those of a full run.
    pub const FULL: Self =
        Self { files: 5_000, write: 512 << 20, random: 256 << 20, operations: 65_536, tar: 53 << 20 };
    /// Those of a quick run.
    pub const QUICK: Self =
        Self { files: 500, write: 64 << 20, random: 32 << 20, operations: 8_192, tar: 8 << 20 };
}

/// A tree with its census.
#[derive(Debug)]
pub struct Counted<'a> {
    /// Where it lies.
    pub path: &'a Path,
    /// What it holds.
    pub census: &'a Census,
}

/// What the part works on.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The machine.
    pub host: &'a Host,
    /// The command line.
    pub args: &'a Args,
    /// The lower that is read.
    pub base: Counted<'a>,
    /// The lower that is changed.
    pub work: Counted<'a>,
    /// What the trees were made of.
    pub sizes: Sizes,
    /// Where archives and the tar lie.
    pub kept: &'a Path,
    /// Where mounts and uppers go.
    pub run: &'a Path,
}

/// What makes the tree writable.
#[derive(Debug, Clone)]
enum Union {
    /// `fim mount --upper`.
    Fim(PathBuf),
    /// Kernel overlayfs.
    Kernel,
    /// `fuse-overlayfs`.
    FuseOverlayfs(PathBuf),
    /// No union: a copy of the trees.
    Native,
}

/// What the union stands on.
#[derive(Debug, Clone)]
enum Lowers {
    /// Directories, or archives that the union reads itself.
    Direct(Vec<PathBuf>),
    /// Mounts of archives.
    Served(Vec<Served>),
}

#[derive(Debug, Clone)]
struct Setup {
    union: Union,
    lowers: Lowers,
}

struct Columns {
    kinds: Vec<Kind>,
    setups: Vec<Setup>,
    missing: Vec<String>,
}

impl Columns {
    fn add(&mut self, args: &Args, name: &'static str, ours: bool, about: &str, setup: Result<Setup>) {
        match setup {
            _ if !args.wants_kind(name) => {}
            Ok(setup) => {
                self.kinds.push(Kind { name, about: about.to_owned(), ours });
                self.setups.push(setup);
            }
            Err(failure) => self.missing.push(format!("{name}: {failure}")),
        }
    }
}

/// Measures one table, all kinds in turn.
pub fn measure(plan: &Plan<'_>, lower: Lower) -> Result<Report> {
    let amounts = if plan.args.quick { Amounts::QUICK } else { Amounts::FULL };
    let (columns, title) = match lower {
        Lower::Dir => (over_directories(plan), "Writing, table A: host directories below"),
        Lower::Archive => (over_archives(plan), "Writing, table B: archives below"),
    };
    let tar = plan.kept.join(format!("untar-{:x}-{}.tar", plan.base.census.fingerprint, amounts.tar));
    if !tar.exists() {
        work::tar(plan.base.path, &tar, amounts.tar)?;
    }
    let title = format!(
        "{title}; {} entries, {} files created, {} copied up, {} and {} MiB large, {} MiB random, \
         {} MiB untarred",
        plan.base.census.entries + plan.work.census.entries,
        amounts.files,
        plan.sizes.small,
        plan.sizes.huge >> 20,
        amounts.write >> 20,
        amounts.random >> 20,
        amounts.tar >> 20,
    );
    let mut report = Report::new(title, columns.kinds, columns.missing);
    let count = columns.setups.len();
    for repetition in 0..plan.args.repetitions() {
        for at in (0..count).map(|at| (at + repetition) % count) {
            let Some(setup) = columns.setups.get(at) else { continue };
            eprintln!("writing {}/{}: kind {}", repetition + 1, plan.args.repetitions(), at + 1);
            let place = plan.run.join("write");
            let turn = Turn { plan, setup, amounts, tar: &tar, place: &place };
            let outcome = turn.measure(&mut report, at);
            for failure in [outcome, cleanup::remove_tree(&place)].into_iter().filter_map(Result::err) {
                report.fail(at, &failure.to_string());
            }
        }
    }
    Ok(report)
}

fn over_directories(plan: &Plan<'_>) -> Columns {
    let mut columns = Columns { kinds: Vec::new(), setups: Vec::new(), missing: Vec::new() };
    let lowers = || Lowers::Direct(vec![plan.base.path.to_owned(), plan.work.path.to_owned()]);
    let setup = |union: Result<Union>| union.map(|union| Setup { union, lowers: lowers() });
    let args = plan.args;
    columns.add(args, "fim", true, "fim mount --upper --layer DIR --layer DIR", setup(fim(plan.host)));
    columns.add(args, "kovl", false, "kernel overlayfs", setup(kernel(plan.host)));
    columns.add(args, "fo", false, "fuse-overlayfs", setup(fuse_overlayfs(plan.host)));
    columns.add(args, "native", false, "a copy of the trees, no union", setup(Ok(Union::Native)));
    columns
}

fn over_archives(plan: &Plan<'_>) -> Columns {
    let mut columns = Columns { kinds: Vec::new(), setups: Vec::new(), missing: Vec::new() };
    let (host, args) = (plan.host, plan.args);
    let dwarfs = archives_of(plan, Maker::Mkdwarfs).or_else(|_| archives_of(plan, Maker::Fim));
    let by_program = |name: &str| {
        let program = host.tool(name).ok_or_else(|| Failure::new(format!("{name} is not installed")))?;
        served(&dwarfs, &Server::Program(program))
    };
    let by_fim = || served(&dwarfs, &Server::Fim(Maker::Fim.program(host)?));
    let squashed = || {
        let losetup = host.tool("losetup").ok_or_else(|| Failure::new("losetup is not installed"))?;
        served(&archives_of(plan, Maker::Squashfs), &Server::Kernel { losetup, kind: "squashfs" })
    };
    let stack = |union: Result<Union>, lowers: Result<Lowers>| Ok(Setup { union: union?, lowers: lowers? });
    let about = |text: &str, archives: &Result<Made>| match archives {
        Ok(made) => format!("{text} · {}", made.about),
        Err(_) => text.to_owned(),
    };
    let direct = dwarfs.clone().map(|made| Lowers::Direct(made.paths));
    columns.add(
        args,
        "fim",
        true,
        &about("fim mount --upper --layer FILE …", &dwarfs),
        stack(fim(host), direct),
    );
    columns.add(
        args,
        "fim-ro+kovl",
        true,
        "kernel overlayfs over fim mount --ro",
        stack(kernel(host), by_fim()),
    );
    columns.add(
        args,
        "dw+kovl",
        false,
        "kernel overlayfs over dwarfs",
        stack(kernel(host), by_program("dwarfs")),
    );
    columns.add(
        args,
        "dw+fo",
        false,
        "fuse-overlayfs over dwarfs",
        stack(fuse_overlayfs(host), by_program("dwarfs")),
    );
    let squashed = if host.root { squashed() } else { Err(Failure::new("loop devices need root")) };
    columns.add(
        args,
        "sq+kovl",
        false,
        "kernel overlayfs over kernel squashfs",
        stack(kernel(host), squashed),
    );
    columns
}

#[derive(Debug, Clone)]
struct Made {
    paths: Vec<PathBuf>,
    about: String,
}

fn archives_of(plan: &Plan<'_>, maker: Maker) -> Result<Made> {
    let level = plan.args.level;
    let of = |name, counted: &Counted<'_>, level| {
        let source = Source { name, tree: counted.path, fingerprint: counted.census.fingerprint };
        archives::make(plan.host, maker, &source, level, plan.args.class(), plan.kept)
    };
    // The work tree's large file would take minutes at the highest levels and tell nothing more.
    let (base, work) = (of("base", &plan.base, level)?, of("work", &plan.work, level.min(3))?);
    Ok(Made { about: format!("{} · {}", base.about, work.about), paths: vec![base.path, work.path] })
}

fn served(archives: &Result<Made>, server: &Server) -> Result<Lowers> {
    let archives = archives.clone()?.paths.into_iter();
    Ok(Lowers::Served(archives.map(|archive| Served { server: server.clone(), archive }).collect()))
}

fn fim(host: &Host) -> Result<Union> {
    Maker::Fim.program(host).map(Union::Fim)
}

fn kernel(host: &Host) -> Result<Union> {
    if host.root { Ok(Union::Kernel) } else { Err(Failure::new("mounting kernel overlayfs needs root")) }
}

fn fuse_overlayfs(host: &Host) -> Result<Union> {
    let program =
        host.tool("fuse-overlayfs").ok_or_else(|| Failure::new("fuse-overlayfs is not installed"))?;
    Ok(Union::FuseOverlayfs(program))
}

/// One kind's turn in one repetition.
struct Turn<'a> {
    plan: &'a Plan<'a>,
    setup: &'a Setup,
    amounts: Amounts,
    tar: &'a Path,
    place: &'a Path,
}

/// What is mounted now.
struct Mounted {
    root: PathBuf,
    stack: Stack,
}

impl Turn<'_> {
    fn measure(&self, report: &mut Report, at: usize) -> Result<()> {
        for folder in ["upper", "work"] {
            let folder = self.place.join(folder);
            cleanup::folder(&folder)?;
        }
        if matches!(self.setup.union, Union::Native) {
            self.copy_native()?;
        }
        let entries = self.plan.base.census.entries + self.plan.work.census.entries;
        let bytes = self.plan.base.census.bytes;
        drop(self.looked_at(report, at, STAT, |root| same("entries", work::walk(root, true)?, entries))?);
        let read = |root: &Path| same("bytes", work::read_all(root, Some(tree::WORK), 1)?, bytes);
        let mounted = self.looked_at(report, at, READ, read)?;
        self.change(report, at, &mounted);
        Ok(())
    }

    /// Looks at everything three times: cold, remounted, warm. Leaves the last mount.
    fn looked_at(
        &self,
        report: &mut Report,
        at: usize,
        [cold, remounted, warm]: [Row; 3],
        look: impl Fn(&Path) -> Result<()>,
    ) -> Result<Mounted> {
        let native = matches!(self.setup.union, Union::Native);
        if self.plan.host.root {
            self.plan.host.drop_caches()?;
            self.warm_programs();
            let mounted = self.mount()?;
            self.row(report, cold, at, &mounted, || look(&mounted.root));
        }
        let mounted = self.mount()?;
        if !native {
            self.row(report, remounted, at, &mounted, || look(&mounted.root));
        }
        self.row(report, warm, at, &mounted, || look(&mounted.root));
        Ok(mounted)
    }

    fn change(&self, report: &mut Report, at: usize, mounted: &Mounted) {
        let (root, amounts, sizes) = (&mounted.root, self.amounts, self.plan.sizes);
        let mut row = |row, work: &dyn Fn() -> Result<()>| self.row(report, row, at, mounted, work);
        let new = root.join("fim-bench-new");
        row(CREATE, &|| work::create(&new, amounts.files));
        row(STAT_NEW, &|| work::stat_each(&new, amounts.files));
        row(RENAME, &|| work::rename_each(&new, amounts.files));
        row(UNLINK, &|| work::unlink_each(&new, amounts.files));
        if !matches!(self.setup.union, Union::Native) {
            let small = || (0..sizes.small).try_for_each(|at| work::touch(&root.join(tree::small_file(at))));
            row(COPY_SMALL, &small);
            row(COPY_HUGE, &|| work::touch(&root.join(tree::huge())));
        }
        row(UNTAR, &|| work::untar(self.tar, &root.join("fim-bench-untar")));
        row(REMOVE, &|| work::remove(&root.join(tree::share())));
        let file = root.join("fim-bench-file");
        row(WRITE, &|| work::write_file(&file, amounts.write, false));
        // The next file is a new one, too.
        let _ = fs::remove_file(&file);
        row(WRITE_SYNC, &|| work::write_file(&file, amounts.write, true));
        let _ = fs::remove_file(&file);
        for (jobs, row) in RANDOM {
            let rate = within(self.plan.host.limit, mounted.stack.directories(), || {
                work::write_file(&file, amounts.random, true)?;
                random::access(&file, amounts.operations, jobs, Mode::Write).map(|found| found.rate)
            });
            report.add(row, at, rate);
        }
    }

    fn row(
        &self,
        report: &mut Report,
        row: Row,
        at: usize,
        mounted: &Mounted,
        work: impl FnOnce() -> Result<()>,
    ) {
        // What the row before left to be written is not this row's business.
        nix::unistd::sync();
        report.add(row, at, within(self.plan.host.limit, mounted.stack.directories(), || work::timed(work)));
    }

    fn mount(&self) -> Result<Mounted> {
        let (root, mut stack) = (self.place.join("merged"), Stack::default());
        let lowers = match &self.setup.lowers {
            Lowers::Direct(lowers) => lowers.clone(),
            Lowers::Served(served) => self.mount_lowers(served, &mut stack)?,
        };
        let (upper, work) = (self.place.join("upper"), self.place.join("work"));
        let probe = &self.plan.base.census.first;
        match &self.setup.union {
            Union::Native => {}
            Union::Kernel => stack.overlay(&lowers, &upper, &work, &root)?,
            Union::FuseOverlayfs(program) => {
                let mut command = Command::new(program);
                command.arg("-o").arg(overlay_options(&lowers, &upper, &work)).arg(&root);
                stack.fuse(&mut command, &root, probe)?;
            }
            Union::Fim(program) => {
                stack.fuse(&mut fim_command(program, &lowers, &upper, &root), &root, probe)?;
            }
        }
        Ok(Mounted { root, stack })
    }

    fn mount_lowers(&self, served: &[Served], stack: &mut Stack) -> Result<Vec<PathBuf>> {
        let probes = [&self.plan.base.census.first, &self.plan.work.census.first];
        let mut lowers = Vec::new();
        for ((at, served), probe) in served.iter().enumerate().zip(probes) {
            let directory = self.place.join(format!("lower{at}"));
            served.mount(stack, &directory, probe)?;
            lowers.push(directory);
        }
        Ok(lowers)
    }

    fn warm_programs(&self) {
        if let Union::Fim(program) | Union::FuseOverlayfs(program) = &self.setup.union {
            Host::warm(program);
        }
        if let Lowers::Served(served) = &self.setup.lowers {
            served.iter().for_each(Served::warm);
        }
    }

    /// The native kind changes a copy: the trees are everybody's. It has nothing to copy up, so the large file stays
    /// empty.
    fn copy_native(&self) -> Result<()> {
        let root = self.place.join("merged");
        let work = root.join(tree::WORK);
        cleanup::folder(&work)?;
        let copy = |from: PathBuf, to: &Path| {
            command::run(Command::new("cp").arg("-a").arg(from).arg(to), Duration::from_secs(600)).map(drop)
        };
        copy(self.plan.base.path.join("."), &root)?;
        for folder in ["small", "share"] {
            copy(self.plan.work.path.join(tree::WORK).join(folder), &work)?;
        }
        fs::write(root.join(tree::huge()), []).map_err(cannot("make", &root))
    }
}

/// `fim mount` of a writable stack, lowers from the lowest to the highest.
pub fn fim_command(program: &Path, lowers: &[PathBuf], upper: &Path, root: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("mount").arg("--upper").arg(upper);
    for lower in lowers {
        command.arg("--layer").arg(lower);
    }
    command.arg(root);
    command
}

fn same(what: &str, found: u64, expected: u64) -> Result<()> {
    if found == expected {
        Ok(())
    } else {
        Err(Failure::new(format!("{found} {what} instead of {expected}")))
    }
}
