//! What a crash leaves: of the machine, of the server, of the device below.
//!
//! A disk of the test's own carries an ext4 that holds the upper: it notes every write and every flush, so that the
//! state after a power failure at any moment can be built again and looked at. The rest kills servers, fills file
//! systems and breaks devices.
//!
//! They need root, `/dev/fuse`, loop devices and mkfs.ext4. `FIM_CRASH_CASES` is the number of power failures for
//! each seed (the default suits every day), `FIM_CRASH_SEEDS` the seeds (`7`, or `1..20`).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it skips"
)]

mod disk;
mod export;
mod faults;
mod history;
mod kill;
mod machine;
#[path = "../shared/needs.rs"]
mod needs;
mod power;
mod rng;
mod workload;
