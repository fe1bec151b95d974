//! Start of a program that reads 500 small files: with and without an access profile.
//!
//! The profile is recorded by a mount while the program runs once. It is used in two ways, each measured alone and
//! both together: blocks are brought in at start (`--profile`), and the archive is packed in its order (`--order`).

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    archives::{self, Maker, Source},
    args::Args,
    cleanup, command,
    failure::{Failure, Result, cannot},
    host::Host,
    mounts::Stack,
    report::{Kind, Report, Row},
    rng::Rng,
    rooms::Rooms,
    tree::Census,
    work,
};

const READ: Row = Row::seconds("mount and read 500 files, cold", "");
const WORK: Row = Row::seconds("the same, 0.5 ms of work after each", "");

/// What a program does with a file: it parses, links, draws.
const WORK_TIME: Duration = Duration::from_micros(500);
/// Files that the program reads.
const FILES: usize = 500;
/// Longest of them in bytes.
const LONGEST: u64 = 256 << 10;
/// Packing a large tree at a high level takes long on a small machine.
const LIMIT: Duration = Duration::from_secs(2 * 3600);

/// What the part works on.
pub struct Plan<'a> {
    /// The machine.
    pub host: &'a Host,
    /// The command line.
    pub args: &'a Args,
    /// The tree.
    pub source: Source<'a>,
    /// What it holds.
    pub census: &'a Census,
    /// Where archives and mounts go.
    pub rooms: &'a Rooms,
}

/// A column: what is mounted how.
struct Column {
    kind: Kind,
    program: PathBuf,
    words: Vec<PathBuf>,
}

/// Measures all kinds in turn.
pub fn measure(plan: &Plan<'_>) -> Result<Report> {
    let files = files(plan.source.tree)?;
    let mut missing = Vec::new();
    let columns = columns(plan, &files, &mut missing)?;
    let kinds = columns.iter().map(|column| column.kind.clone()).collect();
    let bytes: u64 = files.iter().map(|(_, len)| len).sum();
    let title = format!("Start with an access profile; {} files, {} KiB", files.len(), bytes / 1024);
    let mut report = Report::new(title, kinds, missing);
    for repetition in 0..plan.args.repetitions() {
        eprintln!("profile {}", repetition + 1);
        for (row, pause) in [(READ, Duration::ZERO), (WORK, WORK_TIME)] {
            for (at, column) in columns.iter().enumerate() {
                report.add(row, at, start(plan, column, &files, pause));
            }
        }
    }
    Ok(report)
}

/// From the mount command until the last file has been read.
fn start(plan: &Plan<'_>, column: &Column, files: &[(PathBuf, u64)], pause: Duration) -> Result<f64> {
    let place = plan.rooms.run.join("profile");
    cleanup::folder(&place)?;
    if plan.host.root {
        plan.host.drop_caches()?;
    }
    Host::warm(&column.program);
    work::timed(|| {
        let mut stack = Stack::default();
        let mut command = Command::new(&column.program);
        command.args(&column.words).arg(&place);
        stack.fuse(&mut command, &place, &plan.census.first)?;
        read(&place, files, pause)?;
        Ok(stack)
    })
}

/// The program.
fn read(root: &Path, files: &[(PathBuf, u64)], pause: Duration) -> Result<()> {
    let mut buffer = Vec::new();
    for (path, len) in files {
        let path = root.join(path);
        buffer.clear();
        let mut file = fs::File::open(&path).map_err(cannot("open", &path))?;
        file.read_to_end(&mut buffer).map_err(cannot("read", &path))?;
        if buffer.len() as u64 != *len {
            return Err(Failure::new(format!("{} has another length", path.display())));
        }
        let end = Instant::now() + pause;
        while Instant::now() < end {
            std::hint::spin_loop();
        }
    }
    Ok(())
}

/// The columns. Ours with everything comes first.
fn columns(plan: &Plan<'_>, files: &[(PathBuf, u64)], missing: &mut Vec<String>) -> Result<Vec<Column>> {
    let (host, args) = (plan.host, plan.args);
    let make = |maker| archives::make(host, maker, &plan.source, args.level, args.class(), &plan.rooms.kept);
    let fim = Maker::Fim.program(host)?;
    let plain = make(Maker::Fim)?;
    let profile = plan.rooms.run.join("start.profile");
    record(&fim, &plain.path, &profile, plan, files)?;
    let packed = plan.rooms.run.join("packed.dwarfs");
    let mut pack = Command::new(&fim);
    pack.args(["archive", "create", "--level", &args.level.to_string(), "--order"]);
    pack.arg(format!("profile:{}", profile.display())).arg(plan.source.tree).arg(&packed);
    command::run(&mut pack, LIMIT)?;
    let ours = |name, about: &str, archive: &Path, prefetch: bool| {
        let mut words: Vec<PathBuf> = ["mount", "--ro"].map(PathBuf::from).into();
        if prefetch {
            words.extend([PathBuf::from("--profile"), profile.clone()]);
        }
        words.push(archive.to_owned());
        let kind = Kind { name, about: about.to_owned(), ours: true };
        Column { kind, program: fim.clone(), words }
    };
    let mut columns = vec![
        ours("both", "fim mount --profile · packed by --order profile:FILE", &packed, true),
        ours("fim", &format!("fim mount · {}", plain.about), &plain.path, false),
        ours("prefetched", "fim mount --profile · the archive of the column fim", &plain.path, true),
        ours("packed", "fim mount · packed by --order profile:FILE", &packed, false),
    ];
    match (host.tool("dwarfs"), make(Maker::Mkdwarfs)) {
        (Some(program), Ok(archive)) => columns.push(Column {
            kind: Kind { name: "dwarfs", about: format!("dwarfs · {}", archive.about), ours: false },
            program,
            words: vec![archive.path],
        }),
        (None, _) => missing.push("dwarfs: not installed".to_owned()),
        (_, Err(failure)) => missing.push(format!("dwarfs: {failure}")),
    }
    columns.retain(|column| args.wants_kind(column.kind.name));
    Ok(columns)
}

/// Has the program run once while its reads are recorded.
fn record(
    fim: &Path,
    archive: &Path,
    profile: &Path,
    plan: &Plan<'_>,
    files: &[(PathBuf, u64)],
) -> Result<()> {
    let place = plan.rooms.run.join("profile");
    cleanup::folder(&place)?;
    let mut stack = Stack::default();
    let mut command = Command::new(fim);
    command.args(["mount", "--ro", "--record"]).arg(profile).arg(archive).arg(&place);
    stack.fuse(&mut command, &place, &plan.census.first)?;
    read(&place, files, Duration::ZERO)?;
    let mut umount = Command::new(fim);
    command::run(umount.arg("umount").arg(&place), Duration::from_secs(30))?;
    if fs::metadata(profile).map_err(cannot("find", profile))?.len() == 0 {
        return Err(Failure::new("nothing was recorded"));
    }
    Ok(())
}

/// The files that the program reads, and their lengths: some from everywhere in the tree, the same every time.
fn files(tree: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let (mut found, mut pending) = (Vec::new(), vec![tree.to_owned()]);
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).map_err(cannot("list", &folder))? {
            let entry = entry.map_err(cannot("list", &folder))?;
            let data = entry.metadata().map_err(cannot("stat", &entry.path()))?;
            if data.is_dir() {
                pending.push(entry.path());
            } else if data.is_file() && (1..=LONGEST).contains(&data.len()) {
                let path = entry.path();
                found.push((path.strip_prefix(tree).unwrap_or(&path).to_owned(), data.len()));
            }
        }
    }
    found.sort();
    Rng::new(500).shuffle(&mut found);
    found.truncate(FILES);
    Ok(found)
}
