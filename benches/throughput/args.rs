//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures fim with real mounts beside what the distribution ships.
#[derive(Debug, Parser)]
#[command(name = "throughput", bin_name = "cargo bench --bench throughput --")]
pub struct Args {
    /// A small tree, few operations, one repetition: does everything work, and roughly how fast
    #[arg(long)]
    pub quick: bool,
    /// Measures only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Part>,
    /// Measures only these kinds (names as in the table's head); ours stays the first column
    #[arg(long, value_delimiter = ',')]
    pub kinds: Vec<String>,
    /// The tree to pack and read [default: one made by this program]; given again, one more table of reading
    #[arg(long, value_name = "DIR")]
    pub tree: Vec<PathBuf>,
    /// Looks at the memory of servers again after so long without work; 0 leaves that out
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub idle: u64,
    /// The fim binary [default: $FIM, else the release binary built with this benchmark]
    #[arg(long, value_name = "PATH")]
    pub fim: Option<PathBuf>,
    /// An image for `fim-exec` in the start-up part
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// The median of N runs is shown [default: 5; with --quick 1]
    #[arg(long, value_name = "N")]
    pub repeat: Option<usize>,
    /// Level of the DwarFS archives; up to 2 the others use lz4, above it zstd where they can
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub level: u8,
    /// What lies below the writable stack: host directories (table A), archives (table B)
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Lower::Dir, Lower::Archive])]
    pub lower: Vec<Lower>,
    /// Keeps trees and archives here for the next run [default: a directory that is removed at the end]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Works in the directory's own file system, not on an ext4 disk of its own in it
    #[arg(long)]
    pub no_disk: bool,
    /// Writes every sample to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Ends a measure that takes longer by killing the server under it
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub limit: u64,
    /// Set by `cargo bench`; without it (`cargo test --benches`) nothing is measured
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Read-only mounts of archives.
    Reading,
    /// The writable stack.
    Writing,
    /// From a command to its answer.
    Start,
    /// A program that reads many files, with and without an access profile.
    Profile,
    /// A large change becomes a layer.
    Commit,
}

/// What lies below the writable stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lower {
    /// Host directories.
    Dir,
    /// Archives, each kind in its own format.
    Archive,
}

impl Args {
    /// Tells whether a part is asked for.
    pub fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// Tells whether a kind is asked for.
    pub fn wants_kind(&self, name: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == name)
    }

    /// How often everything is measured.
    pub fn repetitions(&self) -> usize {
        self.repeat.unwrap_or(if self.quick { 1 } else { 5 }).max(1)
    }

    /// The class of compression that goes with the level.
    pub fn class(&self) -> Class {
        if self.level <= 2 { Class::Lz4 } else { Class::Zstd }
    }
}

/// The class of compression in which archives are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Fast to read, large.
    Lz4,
    /// Slower to read, small.
    Zstd,
}
