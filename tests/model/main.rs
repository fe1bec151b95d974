//! The overlay against a reference: random operations on it and on a plain directory that holds the folded layers.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test may fail, and says so by panicking"
)]

mod dump;
mod native;
mod ops;
mod ours;
mod random;
mod regressions;
mod scale;
mod tree;
