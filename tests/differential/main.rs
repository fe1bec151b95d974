//! Archives of the upstream tools, read by ours: the trees must be equal.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod bad;
mod compat;
mod made;
mod support;
