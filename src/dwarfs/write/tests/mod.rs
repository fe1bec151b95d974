//! The writer as a whole: faults, files that change, and what is written as the reader sees it.

mod categories;
mod faults;
mod host;
pub(super) mod memory;
mod order;
mod roundtrip;
mod tars;
