//! The overlay against a reference: random operations on it and on a plain directory that holds the folded layers.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail, and says so by panicking"
)]

mod casefold;
mod dump;
mod elsewhere;
mod faults;
mod fixture;
mod kernel;
mod layers_view;
mod links;
mod native;
mod ops;
mod ours;
mod races;
mod random;
mod regressions;
mod respelled;
mod scale;
mod tree;
