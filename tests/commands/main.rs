//! Every command as its users meet it: the tree of commands and its help, a success and a misuse of each ([`table`]), and
//! whole stories of those that reach further.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    clippy::print_stdout,
    reason = "tests"
)]
// What other suites use of the shared places.
#![allow(dead_code, reason = "shared with tests/runtime")]

mod completions;
mod desktop;
mod doctor;
mod flatimage;
#[path = "../runtime/place.rs"]
mod place;
mod recipe;
mod rewrite;
mod settings;
mod stats;
#[path = "../runtime/support.rs"]
mod support;
mod table;
mod tree;
