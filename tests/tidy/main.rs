//! The house rules as tests: who may import whom, where `unsafe` may stand, no forgotten file.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test may fail, and says so by panicking"
)]

mod files;
mod imports;
mod source;
mod unsafety;
