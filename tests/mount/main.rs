//! Real mounts: the FUSE front by itself, and what programs see of a mounted stack.
//!
//! They need root (for private mount namespaces and other users) and `/dev/fuse`; the tests of other users bring
//! their own device node. What runs on a mounted stack runs twice: as root, and as a user without a name or rights.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it skips"
)]

mod acl;
mod archives;
mod attributes;
mod casefold;
mod damage;
mod damaged_entry;
mod directory;
mod exec;
mod lifecycle;
mod limits;
mod mapping;
mod memory;
mod messages;
mod mount_helper;
#[path = "../shared/needs.rs"]
mod needs;
mod profile;
mod read;
mod rename;
mod rights;
mod session;
mod support;
mod unlink;
mod write;
