//! The pure parts of the benchmark: a benchmark without a harness has no tests of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot set the scene fails")]
#![expect(unreachable_pub, reason = "the modules are those of a program, where `pub` marks the face")]

#[path = "../../benches/throughput/facts.rs"]
mod facts;
#[path = "../../benches/throughput/figures.rs"]
mod figures;
#[path = "../../benches/throughput/rng.rs"]
mod rng;
#[path = "../../benches/throughput/table.rs"]
mod table;

mod blocks;
mod numbers;
mod setting;
