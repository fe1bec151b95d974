//! Ours and upstream's against each other: archives of the upstream tools read by ours, archives of ours before
//! upstream's tools.
//!
//! The tools are looked for in `$FIM_JUDGES`, then on `PATH`. Where one is missing the test says so and passes,
//! unless `FIM_JUDGES` is set: no package has them, so the test command cannot install them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says on stderr what it saw"
)]

mod bad;
mod check;
mod compat;
mod drawn;
mod formats;
mod made;
mod recompress;
mod seen;
mod squash;
mod support;
mod tool;
mod tree_facts;
mod upstream;
mod walk;
#[cfg(feature = "libdwarfs")]
mod walk_oracle;
mod walk_sides;
mod written;
