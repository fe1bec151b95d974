//! Archives of the upstream tools, read by ours: the trees must be equal.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says on stderr what it saw"
)]

mod bad;
mod compat;
mod made;
mod support;
