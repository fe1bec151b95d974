//! Throughput of layers with real mounts, beside the peers that are installed. `benches/README.md` tells what is
//! measured and what the goals are.
//!
//! Order of the day: look around, make trees and archives, measure each part with all kinds in turn, print. Whatever
//! is mounted meanwhile is a guard (`cleanup`).

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "a program that prints its findings"
)]
#![expect(unreachable_pub, reason = "`pub` marks the face of a module; nothing is reachable in a program")]

mod archives;
mod args;
mod cleanup;
mod command;
mod commit;
mod content;
mod facts;
mod failure;
mod figures;
mod host;
mod mounts;
mod profile;
mod random;
mod reading;
mod report;
mod rng;
mod rooms;
mod start;
mod table;
mod tree;
mod work;
mod writing;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser as _;

use crate::{
    archives::Source,
    args::{Args, Part},
    failure::{Failure, Result, cannot},
    host::Host,
    report::Report,
    rooms::{Rooms, fit_for_options},
    tree::{Census, Sizes},
    writing::Counted,
};

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.bench {
        println!("nothing measured: run it by `cargo bench --bench throughput`");
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("throughput: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    cleanup::on_signals()?;
    let host = Host::new(args.fim.as_deref(), Duration::from_secs(args.limit));
    introduce(args, &host);
    let rooms = Rooms::make(args, &host)?;
    println!("scratch: {}", rooms.about);
    let sizes = if args.quick { Sizes::QUICK } else { Sizes::FULL };
    let (base, census) = match args.tree.first() {
        Some(tree) => counted(tree)?,
        None => counted(&rooms.tree("base", sizes, tree::make_base)?)?,
    };
    let mut reports = Vec::new();
    let kinds = || {
        let source = Source { name: "base", tree: &base, fingerprint: census.fingerprint };
        reading::kinds(&host, args, &source, &rooms.kept)
    };
    if args.wants(Part::Reading) {
        show(&mut reports, reading::measure(&host, args, &base, &census, kinds(), &rooms.run));
        for (number, tree) in (2..).zip(args.tree.iter().skip(1)) {
            let ((tree, census), name) = (counted(tree)?, format!("tree-{number}"));
            let source = Source { name: &name, tree: &tree, fingerprint: census.fingerprint };
            let kinds = reading::kinds(&host, args, &source, &rooms.kept);
            show(&mut reports, reading::measure(&host, args, &tree, &census, kinds, &rooms.run));
        }
    }
    if args.wants(Part::Writing) {
        let work = rooms.tree("work", sizes, tree::make_work)?;
        let below = tree::census(&work)?;
        write(args, &host, &rooms, sizes, [(&base, &census), (&work, &below)], &mut reports)?;
    }
    if args.wants(Part::Start) {
        let plan = start::Plan { host: &host, args, census: &census, run: &rooms.run };
        show(&mut reports, start::measure(&plan, kinds()));
    }
    if args.wants(Part::Profile) {
        let source = Source { name: "base", tree: &base, fingerprint: census.fingerprint };
        let plan = profile::Plan { host: &host, args, source, census: &census, rooms: &rooms };
        show(&mut reports, profile::measure(&plan)?);
    }
    if args.wants(Part::Commit) {
        show(&mut reports, commit::measure(args, &host, &rooms)?);
    }
    save(args, &reports)
}

/// A tree to be packed and read, and what is in it.
fn counted(tree: &Path) -> Result<(PathBuf, Census)> {
    let tree = fs::canonicalize(tree).map_err(cannot("find", tree))?;
    fit_for_options(&tree)?;
    let census = tree::census(&tree)?;
    if census.files == 0 {
        return Err(Failure::new(format!("{} holds no file", tree.display())));
    }
    Ok((tree, census))
}

fn write(
    args: &Args,
    host: &Host,
    rooms: &Rooms,
    sizes: Sizes,
    [(base, census), (work, below)]: [(&Path, &Census); 2],
    reports: &mut Vec<Report>,
) -> Result<()> {
    let plan = writing::Plan {
        host,
        args,
        base: Counted { path: base, census },
        work: Counted { path: work, census: below },
        sizes,
        kept: &rooms.kept,
        run: &rooms.run,
    };
    for lower in &args.lower {
        show(reports, writing::measure(&plan, *lower)?);
    }
    Ok(())
}

/// Who measures what on which machine.
fn introduce(args: &Args, host: &Host) {
    println!("{}", Host::machine());
    println!(
        "{} runs, the median is shown; ~ marks samples that lie further apart than a quarter of it; other columns are \
         ours ÷ theirs (and theirs)",
        args.repetitions()
    );
    println!("fim: {}", host.fim.display());
    if cfg!(debug_assertions) {
        println!("WARNING: built without optimisation, the figures mean nothing");
    }
    if !host.root {
        println!(
            "NOT ROOT: caches cannot be dropped, so no row is cold; kernel squashfs, erofs and overlayfs are left out. \
             Run it as root for the whole table"
        );
    }
}

fn show(reports: &mut Vec<Report>, report: Report) {
    println!("{}load at the end of this part: {}\n", report.text(), Host::load());
    reports.push(report);
}

fn save(args: &Args, reports: &[Report]) -> Result<()> {
    let Some(path) = &args.json else { return Ok(()) };
    let all = serde_json::json!({
        "machine": Host::machine(),
        "repetitions": args.repetitions(),
        "quick": args.quick,
        "level": args.level,
        "parts": reports,
    });
    fs::write(path, format!("{all:#}\n")).map_err(cannot("write", path))
}
