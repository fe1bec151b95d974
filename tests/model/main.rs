//! The overlay against a reference: random operations on it and on a plain directory that holds the folded layers.

mod dump;
mod native;
mod ops;
mod ours;
mod random;
mod regressions;
mod scale;
mod tree;
