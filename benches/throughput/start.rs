//! From a command to its answer: mounts with everything warm, writable stacks, and programs in an image.
//!
//! The column `dwarfs` stands for the chain that ours replaces: dwarfs, fuse-overlayfs over it, bubblewrap over that.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{
    args::Args,
    cleanup::{self, Guard, Undo},
    command,
    failure::{Failure, Result, cannot},
    host::Host,
    mounts::{Stack, overlay_options},
    reading::{Kinds, Served, Server},
    report::{Kind, Report, Row},
    tree::Census,
    work,
    writing::fim_command,
};

const MOUNT: Row = Row::seconds("mount to first stat, warm", "≤ 10 ms, ≤ .2× dwarfs");
const STACK: Row = Row::seconds("writable stack to first stat, warm", "");
const STACK_COLD: Row = Row::seconds("writable stack to first stat, cold", "");
const EXEC: Row = Row::seconds("fim-exec true, first, warm", "bwrap + 25 ms");
const EXEC_COLD: Row = Row::seconds("fim-exec true, first, cold", "≤ .3× dwarfs chain");
const EXEC_SECOND: Row = Row::seconds("fim-exec true, second instance", "bwrap + 5 ms");

const LIMIT: Duration = Duration::from_secs(60);

/// What the part works on.
pub struct Plan<'a> {
    /// The machine.
    pub host: &'a Host,
    /// The command line.
    pub args: &'a Args,
    /// Shows that a mount answers.
    pub census: &'a Census,
    /// Where mounts go.
    pub run: &'a Path,
}

/// Measures all kinds in turn.
pub fn measure(plan: &Plan<'_>, kinds: Kinds) -> Report {
    let (mut columns, mut served, mut missing) = (Vec::new(), Vec::new(), kinds.missing);
    for (column, server) in kinds.columns.into_iter().zip(kinds.served) {
        if let Some(server) = server {
            columns.push(column);
            served.push(server);
        }
    }
    let bwrap = plan.host.tool("bwrap");
    match &bwrap {
        Some(_) => {
            let about = "bubblewrap alone over the image's root, unpacked".to_owned();
            columns.push(Kind { name: "bwrap", about, ours: false });
        }
        None => missing.push("bwrap: not installed".to_owned()),
    }
    if plan.args.image.is_none() {
        missing.push("fim-exec: no --image given".to_owned());
    }
    let unpacked = plan.run.join("unpacked");
    if let (Some(image), Some(_)) = (&plan.args.image, &bwrap)
        && let Err(failure) = unpack(image, &unpacked)
    {
        missing.push(format!("bwrap over the image's root: {failure}"));
    }
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    let mut report = Report::new("Start-up", columns, missing);
    for repetition in 0..plan.args.repetitions().max(if plan.args.quick { 3 } else { 10 }) {
        eprintln!("start {}", repetition + 1);
        for (at, server) in served.iter().enumerate() {
            mounts(plan, server, at, &mut report);
        }
        let Some(image) = &plan.args.image else { continue };
        // A name alone would be looked for in PATH.
        let image = &image.canonicalize().unwrap_or_else(|_| image.clone());
        let programs = Programs { plan, image, bwrap: bwrap.as_deref() };
        if let Some(at) = names.iter().position(|name| name.starts_with("fim")) {
            programs.ours(at, &mut report);
        }
        if let (Some(at), Some(server)) = (names.iter().position(|name| *name == "dwarfs"), bwrap.as_deref())
        {
            programs.chain(server, at, &mut report);
        }
        if let (Some(at), Some(bwrap)) = (names.iter().position(|name| *name == "bwrap"), bwrap.as_deref()) {
            programs.bare(bwrap, &unpacked, at, &mut report);
        }
    }
    if let Err(failure) = cleanup::remove_tree(&unpacked) {
        report.fail(0, &failure.to_string());
    }
    report
}

/// The root of an image as a directory.
fn unpack(image: &Path, to: &Path) -> Result<()> {
    cleanup::folder(to)?;
    // A name alone would be looked for in PATH.
    let image = image.canonicalize().map_err(cannot("find", image))?;
    let mut copy = Command::new(image);
    command::run(copy.args(["fim-cp", "-r", "/"]).arg(to), LIMIT).map(drop)
}

/// One mount of each sort by one kind.
fn mounts(plan: &Plan<'_>, served: &Served, at: usize, report: &mut Report) {
    let place = plan.run.join("start");
    let mount = || {
        work::timed(|| {
            let mut stack = Stack::default();
            served.mount(&mut stack, &place.join("mount"), &plan.census.first)?;
            Ok(stack)
        })
    };
    // The first one brings back whatever the last cold row dropped.
    report.add(MOUNT, at, mount().and_then(|_| mount()));
    for (row, cold) in [(STACK, false), (STACK_COLD, true)] {
        let Some(outcome) = writable(plan, served, &place, cold) else { continue };
        report.add(row, at, outcome);
    }
    if let Err(failure) = cleanup::remove_tree(&place) {
        report.fail(at, &failure.to_string());
    }
}

/// A writable stack over the archive: ours in one mount, dwarfs with fuse-overlayfs, kernel file systems with kernel
/// overlayfs. `None` where a kind has no such stack.
fn writable(plan: &Plan<'_>, served: &Served, place: &Path, cold: bool) -> Option<Result<f64>> {
    let (upper, work, lower, root) =
        (place.join("upper"), place.join("work"), place.join("lower"), place.join("merged"));
    let union = plan.host.tool("fuse-overlayfs");
    let over_fuse = matches!(served.server, Server::Program(_));
    if (over_fuse && union.is_none()) || (cold && !plan.host.root) {
        return None;
    }
    let prepare = || {
        for folder in [&upper, &work] {
            cleanup::folder(folder)?;
        }
        if cold {
            plan.host.drop_caches()?;
            served.warm();
            union.iter().for_each(|program| Host::warm(program));
        }
        Ok(())
    };
    let probe = &plan.census.first;
    let outcome = prepare().and_then(|()| {
        work::timed(|| {
            let mut stack = Stack::default();
            let archive = std::slice::from_ref(&served.archive);
            match (&served.server, &union) {
                (Server::Fim(program), _) => {
                    stack.fuse(&mut fim_command(program, archive, &upper, &root), &root, probe)?;
                }
                (Server::Program(_), Some(union)) => {
                    served.mount(&mut stack, &lower, probe)?;
                    let mut command = Command::new(union);
                    command
                        .arg("-o")
                        .arg(overlay_options(std::slice::from_ref(&lower), &upper, &work))
                        .arg(&root);
                    stack.fuse(&mut command, &root, probe)?;
                }
                _ => {
                    served.mount(&mut stack, &lower, probe)?;
                    stack.overlay(std::slice::from_ref(&lower), &upper, &work, &root)?;
                    fs::symlink_metadata(root.join(probe)).map_err(cannot("stat", &root))?;
                }
            }
            Ok(stack)
        })
    });
    Some(outcome)
}

/// Programs in an image.
struct Programs<'a> {
    plan: &'a Plan<'a>,
    image: &'a Path,
    bwrap: Option<&'a Path>,
}

impl Programs<'_> {
    /// `IMAGE fim-exec true`: cold, warm, and beside a running instance.
    fn ours(&self, at: usize, report: &mut Report) {
        if self.plan.host.root {
            let cold = self.plan.host.drop_caches().and_then(|()| run(&mut self.exec(&["true"])));
            report.add(EXEC_COLD, at, cold);
        }
        let warm = run(&mut self.exec(&["true"])).and_then(|_| run(&mut self.exec(&["true"])));
        report.add(EXEC, at, warm);
        let second = self.background().and_then(|(mut first, _guard)| {
            let outcome = run(&mut self.exec(&["true"]));
            // The guard would kill it the hard way; an instance that ends by itself is the normal case.
            let _ = nix::sys::signal::kill(pid(&first), nix::sys::signal::Signal::SIGTERM);
            let _ = first.wait();
            outcome
        });
        report.add(EXEC_SECOND, at, second);
    }

    /// bubblewrap over what the image holds, as a directory.
    fn bare(&self, bwrap: &Path, root: &Path, at: usize, report: &mut Report) {
        if self.plan.host.root {
            report.add(
                EXEC_COLD,
                at,
                self.plan.host.drop_caches().and_then(|()| run(&mut sandbox(bwrap, root))),
            );
        }
        let warm = || run(&mut sandbox(bwrap, root)).and_then(|_| run(&mut sandbox(bwrap, root)));
        report.add(EXEC, at, warm());
        report.add(EXEC_SECOND, at, warm());
    }

    /// dwarfs for each archive in the image, fuse-overlayfs over them, bubblewrap over that.
    fn chain(&self, bwrap: &Path, at: usize, report: &mut Report) {
        let layers = match self.layers() {
            Ok(layers) => layers,
            Err(failure) => return report.fail(at, &failure.to_string()),
        };
        if self.plan.host.root {
            let cold = self.plan.host.drop_caches().and_then(|()| self.chained(bwrap, &layers));
            report.add(EXEC_COLD, at, cold);
        }
        report.add(EXEC, at, self.chained(bwrap, &layers).and_then(|_| self.chained(bwrap, &layers)));
    }

    fn chained(&self, bwrap: &Path, layers: &[(String, PathBuf)]) -> Result<f64> {
        let missing = |name: &str| Failure::new(format!("{name} is not installed"));
        let dwarfs = self.plan.host.tool("dwarfs").ok_or_else(|| missing("dwarfs"))?;
        let union = self.plan.host.tool("fuse-overlayfs").ok_or_else(|| missing("fuse-overlayfs"))?;
        let place = self.plan.run.join("chain");
        let (upper, work, root) = (place.join("upper"), place.join("work"), place.join("merged"));
        for folder in [&upper, &work] {
            cleanup::folder(folder)?;
        }
        let probe = Path::new("usr");
        let outcome = work::timed(|| {
            let (mut stack, mut lowers) = (Stack::default(), Vec::new());
            for (offset, file) in layers {
                let lower = place.join(format!("lower{offset}"));
                let mut command = Command::new(&dwarfs);
                command.arg(file).arg(&lower).arg("-o").arg(format!("offset={offset}"));
                stack.fuse(&mut command, &lower, Path::new("."))?;
                lowers.push(lower);
            }
            let mut command = Command::new(&union);
            command.arg("-o").arg(overlay_options(&lowers, &upper, &work)).arg(&root);
            stack.fuse(&mut command, &root, probe)?;
            run(&mut sandbox(bwrap, &root))?;
            Ok(stack)
        });
        cleanup::remove_tree(&place)?;
        outcome
    }

    /// Offset and file of each archive, lowest first.
    fn layers(&self) -> Result<Vec<(String, PathBuf)>> {
        let mut list = Command::new(self.image);
        let text = command::run(list.args(["fim-layer", "list"]), LIMIT)?.stdout;
        let line = |line: &str| {
            let mut fields = line.splitn(4, ':');
            let (_, offset, _, path) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            Some((offset.to_owned(), PathBuf::from(path)))
        };
        let layers: Option<Vec<_>> = text.lines().map(line).collect();
        layers.ok_or_else(|| Failure::new("fim-layer list does not print index:offset:size:path"))
    }

    fn exec(&self, program: &[&str]) -> Command {
        let mut command = Command::new(self.image);
        command.arg("fim-exec").args(program).env("FIM_DIR_DATA", self.plan.run.join("data"));
        if let Some(bwrap) = self.bwrap {
            // The very program that the bare column runs.
            command.env("FIM_BWRAP", bwrap);
        }
        command
    }

    /// Starts an instance that stays; returns when a program runs in it.
    fn background(&self) -> Result<(Child, Guard)> {
        let mut command = self.exec(&["sh", "-c", "echo ready; exec sleep 600"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let (mut child, guard) = cleanup::make(|| {
            let child = command.spawn().map_err(cannot("start", self.image))?;
            let group = pid(&child).as_raw();
            Ok((child, Undo::Group(group)))
        })?;
        let output = child.stdout.take().ok_or_else(|| Failure::new("the instance has no output"))?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(output).read_line(&mut line);
            // Nobody listens any more when the wait is over.
            let _ = sender.send(read.is_ok() && line == "ready\n");
        });
        match receiver.recv_timeout(LIMIT) {
            Ok(true) => Ok((child, guard)),
            _ => Err(Failure::new("the first instance did not start")),
        }
    }
}

fn sandbox(bwrap: &Path, root: &Path) -> Command {
    let mut command = Command::new(bwrap);
    command.arg("--bind").arg(root).args(["/", "--dev", "/dev", "--proc", "/proc", "--unshare-pid", "true"]);
    command
}

fn run(command: &mut Command) -> Result<f64> {
    command::run(command, LIMIT).map(|output| output.elapsed.as_secs_f64())
}

fn pid(child: &Child) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}
