//! Makes archives of whole trees beside mkdwarfs, mksquashfs and mkfs.erofs: sizes, times and memory.
//!
//! ```text
//! cargo bench --bench making -- --tree DIR [--tree DIR]… [--levels 1,3,5,7,9] [--repeat N] [--scratch DIR]
//!                               [--fim PATH] [--json FILE] [--no-peers]
//! ```
//!
//! One table a tree. For each level `fim` and `mkdwarfs` make an archive in turns, with as many threads as there are
//! cores; then the makers of the kernel's file systems, for the order of magnitude. Each line has the size, seconds
//! from start to end, CPU seconds, and the most memory that was resident; medians of the repetitions (1). Ratios are
//! ours ÷ mkdwarfs; behind them stands whether the goal is met: **size ≤ 1.02, wall ≤ 1.00, peak memory ≤ 1.00**.
//! CPU seconds say more than wall seconds where other work runs beside. Trees should be in the page cache: each is
//! read once before.
//!
//! Makers are looked for in `$FIM_JUDGES`, PATH and `/usr/sbin`; one that is missing is named. `dwarfsck`, where it is
//! found, checks every archive of ours.

#![expect(clippy::print_stdout, reason = "the figures are the answer of the program")]

use std::{
    env, error, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::wait::{Id, WaitPidFlag, WaitStatus, waitid},
    unistd::{Pid, SysconfVar, sysconf},
};
use serde_json::json;

type Failure = Box<dyn error::Error>;

/// Goals for size, wall time and peak memory, as ours ÷ mkdwarfs.
const GOALS: [f64; 3] = [1.02, 1.00, 1.00];
/// Between two looks at a maker's memory.
const LOOK: Duration = Duration::from_millis(5);

/// What making an archive cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    size: u64,
    wall: f64,
    cpu: f64,
    /// Bytes.
    peak: u64,
}

/// What is asked for on the command line.
struct Args {
    trees: Vec<PathBuf>,
    levels: Vec<u8>,
    repeat: usize,
    scratch: PathBuf,
    fim: PathBuf,
    json: Option<PathBuf>,
    peers: bool,
}

fn main() -> Result<(), Failure> {
    let Some(args) = Args::read()? else {
        println!("nothing measured: run it by `cargo bench --bench making -- --tree DIR`");
        return Ok(());
    };
    fs::create_dir_all(&args.scratch)?;
    let mut all = Vec::new();
    for tree in &args.trees {
        all.push(table(&args, tree)?);
    }
    if let Some(path) = &args.json {
        fs::write(path, serde_json::to_vec_pretty(&all)?)?;
    }
    Ok(())
}

impl Args {
    fn read() -> Result<Option<Self>, Failure> {
        let fim = env::var_os("FIM").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_fim")), PathBuf::from);
        let mut args = Self {
            trees: Vec::new(),
            levels: vec![1, 3, 5, 7, 9],
            repeat: 1,
            scratch: env::temp_dir(),
            fim,
            json: None,
            peers: true,
        };
        let mut words = env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--tree" => args.trees.push(value()?.into()),
                "--levels" => args.levels = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
                "--repeat" => args.repeat = value()?.parse()?,
                "--scratch" => args.scratch = value()?.into(),
                "--fim" => args.fim = value()?.into(),
                "--json" => args.json = Some(value()?.into()),
                "--no-peers" => args.peers = false,
                // What cargo adds.
                "--bench" => {}
                other => return Err(format!("unknown option {other}").into()),
            }
        }
        Ok((!args.trees.is_empty()).then_some(args))
    }
}

/// Measures one tree and prints its table.
fn table(args: &Args, tree: &Path) -> Result<serde_json::Value, Failure> {
    let (files, bytes) = read_once(tree)?;
    println!("\n{}: {files} files, {:.1} MiB; load {}", tree.display(), mib(bytes), load());
    println!("{:<22}{:>12}{:>10}{:>10}{:>12}", "", "MiB", "wall s", "CPU s", "peak MiB");
    let mut rows = Vec::new();
    for level in &args.levels {
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for _ in 0..args.repeat.max(1) {
            ours.push(fim(args, tree, *level)?);
            theirs.extend(mkdwarfs(args, tree, *level)?);
        }
        let ours = median(&ours).ok_or("no figure")?;
        line(&format!("fim -l{level}"), ours);
        rows.push(row(&format!("fim -l{level}"), ours));
        let Some(theirs) = median(&theirs) else { continue };
        line(&format!("mkdwarfs -l{level}"), theirs);
        rows.push(row(&format!("mkdwarfs -l{level}"), theirs));
        ratios(ours, theirs);
    }
    if args.peers {
        for (name, cost) in peers(args, tree)? {
            line(&name, cost);
            rows.push(row(&name, cost));
        }
    }
    Ok(json!({ "tree": tree, "files": files, "bytes": bytes, "rows": rows }))
}

fn row(name: &str, cost: Cost) -> serde_json::Value {
    json!({ "maker": name, "size": cost.size, "wall": cost.wall, "cpu": cost.cpu, "peak": cost.peak })
}

fn line(name: &str, cost: Cost) {
    let Cost { size, wall, cpu, peak } = cost;
    println!("{name:<22}{:>12.2}{wall:>10.2}{cpu:>10.2}{:>12.1}", mib(size), mib(peak));
}

/// Prints ratios, and whether they are within the goals.
fn ratios(ours: Cost, theirs: Cost) {
    let of = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
    let size = of(mib(ours.size), mib(theirs.size));
    let (wall, cpu, peak) =
        (of(ours.wall, theirs.wall), of(ours.cpu, theirs.cpu), of(mib(ours.peak), mib(theirs.peak)));
    let mark = |found: f64, goal: f64| if found <= goal { ' ' } else { '!' };
    let [size_goal, wall_goal, peak_goal] = GOALS;
    println!(
        "{:<22}{size:>11.3}{}{wall:>9.2}{}{cpu:>9.2} {peak:>11.2}{}",
        "  ours ÷ mkdwarfs",
        mark(size, size_goal),
        mark(wall, wall_goal),
        mark(peak, peak_goal),
    );
}

fn fim(args: &Args, tree: &Path, level: u8) -> Result<Cost, Failure> {
    let output = args.scratch.join("making.fim.dwarfs");
    let mut command = Command::new(&args.fim);
    command.args(["archive", "create", "--level", &level.to_string()]).arg(tree).arg(&output);
    let cost = measure(&mut command, &output)?;
    if let Some(dwarfsck) = tool("dwarfsck") {
        let checked = Command::new(dwarfsck).args(["--check-integrity", "-q"]).arg(&output).output()?;
        if !checked.status.success() {
            return Err(format!("dwarfsck refuses the archive of level {level}").into());
        }
    }
    fs::remove_file(&output)?;
    Ok(cost)
}

fn mkdwarfs(args: &Args, tree: &Path, level: u8) -> Result<Option<Cost>, Failure> {
    let Some(maker) = tool("mkdwarfs") else {
        println!("mkdwarfs is not there");
        return Ok(None);
    };
    let output = args.scratch.join("making.up.dwarfs");
    let mut command = Command::new(maker);
    command.arg("-i").arg(tree).arg("-o").arg(&output).args(["-f", "--no-progress", "--with-devices"]);
    command.args(["--with-specials", "-l", &level.to_string()]);
    let cost = measure(&mut command, &output)?;
    fs::remove_file(&output)?;
    Ok(Some(cost))
}

/// The makers of the kernel's file systems.
fn peers(args: &Args, tree: &Path) -> Result<Vec<(String, Cost)>, Failure> {
    let squash = |level: &'static str| {
        (
            format!("mksquashfs zstd {level}"),
            "mksquashfs",
            vec!["-comp", "zstd", "-Xcompression-level", level],
        )
    };
    let erofs = |codec: &'static str| (format!("mkfs.erofs {codec}"), "mkfs.erofs", vec![codec]);
    let mut found = Vec::new();
    for (name, program, words) in [squash("15"), squash("22"), erofs("-zlz4hc,12"), erofs("-zlz4hc,12 big")] {
        let Some(maker) = tool(program) else {
            println!("{program} is not there");
            continue;
        };
        let output = args.scratch.join("making.peer");
        let mut command = Command::new(maker);
        if program == "mksquashfs" {
            command.arg(tree).arg(&output).args(["-noappend", "-no-progress", "-quiet"]).args(words);
        } else {
            // Clusters of 1 MiB instead of one page.
            let big = name.ends_with("big");
            let words = words.iter().filter_map(|word| word.split(' ').next());
            command.args(words).args(big.then_some("-C1048576")).arg(&output).arg(tree);
        }
        match measure(&mut command, &output) {
            Ok(cost) => found.push((name, cost)),
            Err(error) => println!("{name}: {error}"),
        }
        fs::remove_file(&output).ok();
    }
    Ok(found)
}

/// Runs a maker and looks at it meanwhile.
fn measure(command: &mut Command, output: &Path) -> Result<Cost, Failure> {
    fs::remove_file(output).ok();
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let peak = watch(&child)?;
    let wall = started.elapsed().as_secs_f64();
    // It has ended and is still there.
    let cpu = cpu_seconds(&child)?;
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    Ok(Cost { size: fs::metadata(output)?.len(), wall, cpu, peak })
}

/// Waits until a process has ended, without taking it away, and returns its peak memory.
fn watch(child: &Child) -> Result<u64, Failure> {
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let mut peak = 0;
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: Option<u64> = line.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(kib.unwrap_or(0) << 10);
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        if waitid(Id::Pid(pid), flags)? != WaitStatus::StillAlive {
            return Ok(peak);
        }
        thread::sleep(LOOK);
    }
}

/// User and system time of a process that has ended.
fn cpu_seconds(child: &Child) -> Result<f64, Failure> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    let behind_name = stat.rsplit_once(')').ok_or("no name")?.1;
    // utime and stime are the 14th and 15th field, the name the second.
    let ticks: u32 =
        behind_name.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u32>().ok()).sum();
    let a_second = sysconf(SysconfVar::CLK_TCK)?.ok_or("no ticks")?;
    Ok(f64::from(ticks) / f64::from(i32::try_from(a_second)?))
}

fn median(costs: &[Cost]) -> Option<Cost> {
    let mut costs = costs.to_vec();
    costs.sort_by(|a, b| a.wall.total_cmp(&b.wall));
    let mut found = *costs.get(costs.len() / 2)?;
    found.peak = costs.iter().map(|cost| cost.peak).max()?;
    Some(found)
}

/// Reads a whole tree and returns how many files and bytes it has.
fn read_once(tree: &Path) -> Result<(u64, u64), Failure> {
    let (mut files, mut bytes) = (0, 0);
    let mut stack = vec![tree.to_owned()];
    while let Some(directory) = stack.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                stack.push(entry.path());
            } else if kind.is_file() {
                files += 1;
                bytes += std::io::copy(&mut fs::File::open(entry.path())?, &mut std::io::sink())?;
            }
        }
    }
    Ok((files, bytes))
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

fn tool(name: &str) -> Option<PathBuf> {
    let places = env::var_os("FIM_JUDGES").into_iter().chain(env::var_os("PATH")).chain(["/usr/sbin".into()]);
    let mut places = places.flat_map(|places| env::split_paths(&places).collect::<Vec<_>>());
    places.find_map(|place| Some(place.join(name)).filter(|path| path.is_file()))
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
