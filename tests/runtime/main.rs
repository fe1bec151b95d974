//! Images as their users meet them: made, listed, changed, damaged ([`image`], [`tools`]); and whole runs of a real
//! image: the server, the sandbox, process 1 inside, and what is left behind.
//!
//! Each test of a run is made as root and as an ordinary user with a `/dev/fuse` of its own (mode 0666, in a private
//! mount namespace).

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    clippy::print_stdout,
    reason = "tests"
)]

mod browse;
mod commit;
mod commit_load;
mod exec;
mod exit_codes;
mod gc;
mod hostile;
mod image;
mod instances;
mod kill;
mod kill_matrix;
mod layers;
mod locks;
mod making;
mod many;
mod overlay;
mod permissions;
mod place;
mod profile;
mod remaking;
mod rootless;
mod signals;
mod starting;
mod support;
mod terminal;
mod tools;
mod transcripts;
