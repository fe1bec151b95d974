//! Collects samples and prints them: one table a part, ours absolute in the first column, then for every other kind
//! ours ÷ theirs with their own figure behind it.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{
    failure::Result,
    figures::{Unit, figure, median, ratio, spread},
    table,
};

/// Above this spread of its samples a figure is marked: what lies closer together is noise on a shared machine.
const NOISY: f64 = 0.25;

/// A row of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What is measured.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// What ours shall reach.
    pub goal: &'static str,
}

impl Row {
    /// A row of times.
    pub const fn seconds(name: &'static str, goal: &'static str) -> Self {
        Self { name, unit: Unit::Seconds, goal }
    }

    /// A row of memory.
    pub const fn mebibytes(name: &'static str, goal: &'static str) -> Self {
        Self { name, unit: Unit::Mebibytes, goal }
    }

    /// A row of operations a second.
    pub const fn iops(name: &'static str, goal: &'static str) -> Self {
        Self { name, unit: Unit::Iops, goal }
    }
}

/// A column: what was measured and how it is set up.
#[derive(Debug, Clone, Serialize)]
pub struct Kind {
    /// A short name for the head.
    pub name: &'static str,
    /// Program, options, codec, level, block size.
    pub about: String,
    /// Ours are divided by the others, not by each other's peers.
    pub ours: bool,
}

/// One part of the benchmark.
#[derive(Debug, Serialize)]
pub struct Report {
    title: String,
    kinds: Vec<Kind>,
    rows: Vec<Line>,
    missing: Vec<String>,
    failures: Vec<String>,
    /// Kinds that failed outside of a row: their empty cells are failures, not rows that do not concern them.
    #[serde(skip)]
    broken: BTreeSet<usize>,
}

#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    row: Row,
    cells: Vec<Cell>,
}

#[derive(Debug, Clone, Default, Serialize)]
struct Cell {
    samples: Vec<f64>,
    median: Option<f64>,
    failed: bool,
}

impl Report {
    /// Starts a part with its columns; `missing` says which kinds are left out and why.
    pub fn new(title: impl Into<String>, kinds: Vec<Kind>, missing: Vec<String>) -> Self {
        let title = title.into();
        Self { title, kinds, rows: Vec::new(), missing, failures: Vec::new(), broken: BTreeSet::new() }
    }

    /// Adds a sample, or notes why there is none. Rows appear in the order of their first sample.
    pub fn add(&mut self, row: Row, kind: usize, outcome: Result<f64>) {
        let columns = self.kinds.len();
        let at = self.rows.iter().position(|line| line.row == row).unwrap_or_else(|| {
            self.rows.push(Line { row, cells: vec![Cell::default(); columns] });
            self.rows.len() - 1
        });
        let Some(cell) = self.rows.get_mut(at).and_then(|line| line.cells.get_mut(kind)) else { return };
        match outcome {
            Ok(value) => {
                cell.samples.push(value);
                cell.median = median(&cell.samples);
            }
            Err(failure) => {
                cell.failed = true;
                self.note(kind, &format!("{}: {failure}", row.name));
            }
        }
    }

    /// Notes that a kind failed outside of a row.
    pub fn fail(&mut self, kind: usize, why: &str) {
        self.broken.insert(kind);
        self.note(kind, why);
    }

    fn note(&mut self, kind: usize, why: &str) {
        let name = self.kinds.get(kind).map_or("unknown", |kind| kind.name);
        let failure = format!("{name}: {why}");
        eprintln!("failed: {failure}");
        if !self.failures.contains(&failure) {
            self.failures.push(failure);
        }
    }

    /// The table with what must be known to read it.
    pub fn text(&self) -> String {
        let mut text = format!("\n{}\n\n", self.title);
        for kind in &self.kinds {
            text.push_str(&format!("  {:<12} {}\n", kind.name, kind.about));
        }
        for missing in &self.missing {
            text.push_str(&format!("  left out:    {missing}\n"));
        }
        let head: Vec<String> = std::iter::once("")
            .chain(self.kinds.iter().map(|kind| kind.name))
            .chain(std::iter::once("goal"))
            .map(str::to_owned)
            .collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(|line| self.line(line)).collect();
        text.push('\n');
        text.push_str(&table::set(&head, &rows));
        for failure in &self.failures {
            text.push_str(&format!("failed: {failure}\n"));
        }
        text
    }

    fn line(&self, line: &Line) -> Vec<String> {
        let ours = line.cells.first().filter(|_| self.kinds.first().is_some_and(|kind| kind.ours));
        let ours = ours.and_then(|cell| cell.median);
        let mut cells = vec![line.row.name.to_owned()];
        cells.extend(line.cells.iter().enumerate().map(|(at, cell)| {
            let ours = ours.filter(|_| at > 0);
            if cell.median.is_none() && (cell.failed || self.broken.contains(&at)) {
                return "failed".to_owned();
            }
            cell.text(line.row.unit, ours)
        }));
        cells.push(line.row.goal.to_owned());
        cells
    }
}

impl Cell {
    fn text(&self, unit: Unit, ours: Option<f64>) -> String {
        let Some(middle) = self.median else {
            return "-".to_owned();
        };
        let noisy = if spread(&self.samples).is_some_and(|spread| spread > NOISY) { "~" } else { "" };
        let own = format!("{noisy}{}", figure(middle, unit));
        match ours.and_then(|ours| ratio(ours, middle)) {
            Some(ratio) => format!("{ratio} ({own})"),
            None => own,
        }
    }
}
