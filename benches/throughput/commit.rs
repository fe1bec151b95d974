//! `fim-layer commit` of a large change, beside `mkdwarfs` of the same upper.
//!
//! The change is a tree in the upper of a small image. The commit goes to a file, so that the upper stays for the next
//! turn; it does all that any commit does: it stops changes, archives, compares every checksum and publishes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    args::Args,
    command,
    failure::{Result, cannot},
    host::Host,
    report::{Kind, Report, Row},
    rooms::Rooms,
    tree::{self, Sizes},
    work,
};

const COMMIT: Row = Row::seconds("commit of the change, cold", "≤ 1.0× mkdwarfs");
const WARM: Row = Row::seconds("commit of the change, warm", "≤ 1.0× mkdwarfs");
const SIZE: Row = Row::mebibytes("size of the layer", "≤ 1.02× mkdwarfs");

/// About 1 GiB: 16,000 files of 35 KiB on average, and a large one.
const FULL: Sizes = Sizes { mixed: 16_000, big: 448 << 20, ..Sizes::FULL };
/// Packing it at a high level takes long on a small machine.
const LIMIT: Duration = Duration::from_secs(2 * 3600);

/// The folder of the upper in a data directory.
const UPPER: &str = "root";

/// Who makes a layer of the change.
struct Column {
    kind: Kind,
    program: PathBuf,
    is_ours: bool,
}

/// Measures both in turn.
pub fn measure(args: &Args, host: &Host, rooms: &Rooms) -> Result<Report> {
    let sizes = if args.quick { Sizes::QUICK } else { FULL };
    let data = rooms.tree("change", sizes, |data, sizes| tree::make_base(&data.join(UPPER), sizes))?;
    let census = tree::census(&data.join(UPPER))?;
    let place = rooms.run.join("commit");
    fs::create_dir_all(&place).map_err(cannot("make", &place))?;
    let mut missing = Vec::new();
    let columns = columns(args, host, &mut missing);
    let kinds = columns.iter().map(|column| column.kind.clone()).collect();
    let title = format!("Commit of a change of {} files, {} MiB", census.files, census.bytes >> 20);
    let mut report = Report::new(title, kinds, missing);
    let image = place.join("app");
    if let Some(ours) = columns.iter().find(|column| column.is_ours) {
        make_image(&ours.program, &place, &image)?;
    }
    for repetition in 0..args.repetitions() {
        eprintln!("commit {}", repetition + 1);
        for (at, column) in columns.iter().enumerate() {
            for row in [COMMIT, WARM] {
                if row == COMMIT && !host.root {
                    continue;
                }
                let layer = place.join("layer");
                report.add(row, at, once(args, host, column, row == COMMIT, [&image, &data, &layer]));
                let size = fs::metadata(&layer).map_err(cannot("stat", &layer));
                let mebibytes =
                    |bytes: u64| u32::try_from(bytes >> 10).map_or(f64::INFINITY, f64::from) / 1024.0;
                report.add(SIZE, at, size.map(|data| mebibytes(data.len())));
                fs::remove_file(&layer).map_err(cannot("remove", &layer))?;
            }
        }
    }
    Ok(report)
}

fn columns(args: &Args, host: &Host, missing: &mut Vec<String>) -> Vec<Column> {
    let level = args.level;
    let found = [
        ("fim", host.fim(), format!("fim layer IMAGE commit file --level {level}"), true),
        ("mkdwarfs", host.tool("mkdwarfs"), format!("mkdwarfs -l {level} of the upper"), false),
    ];
    let mut columns = Vec::new();
    for (name, program, about, is_ours) in found {
        match program {
            Some(program) if args.wants_kind(name) => {
                columns.push(Column { kind: Kind { name, about, ours: is_ours }, program, is_ours });
            }
            Some(_) => {}
            None => missing.push(format!("{name} is not installed")),
        }
    }
    columns
}

/// An image of next to nothing: all that is committed is the change.
fn make_image(fim: &Path, place: &Path, image: &Path) -> Result<()> {
    let root = place.join("tiny");
    fs::create_dir_all(root.join("etc")).map_err(cannot("make", &root))?;
    let mut create = Command::new(fim);
    create.args(["create", "--no-tools", "--level", "1", "-o"]).arg(image).arg("--from").arg(&root);
    command::run(&mut create, LIMIT).map(drop)
}

/// One layer of the change.
fn once(
    args: &Args,
    host: &Host,
    column: &Column,
    is_cold: bool,
    [image, data, layer]: [&Path; 3],
) -> Result<f64> {
    let mut make = Command::new(&column.program);
    let level = args.level.to_string();
    if column.is_ours {
        make.env("FIM_DIR_DATA", data).env("FIM_DIR_GLOBAL", image.with_extension("global"));
        make.arg("layer").arg(image).args(["commit", "file"]).arg(layer).args(["--level", &level]);
    } else {
        make.arg("-i").arg(data.join(UPPER)).arg("-o").arg(layer).args(["-l", &level]);
        make.args(["--with-devices", "--with-specials", "--no-progress", "--log-level", "warn"]);
    }
    if is_cold {
        host.drop_caches()?;
    }
    Host::warm(&column.program);
    work::timed(|| command::run(&mut make, LIMIT))
}
