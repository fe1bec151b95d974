//! The server: one process serves the stack of one image and data directory for all their instances.
//!
//! ```text
//! front 1 ── lock {KEY} ── nobody listens ── fork ──> server: own session, namespaces, mount, socket
//!         <──────────────── Welcome (pidfd, namespaces) ──┤
//! front 2 ── lock {KEY} ── connect ── Hello ──────────────>│
//!         <──────────────── Welcome ───────────────────────┤
//! ```
//!
//! Every front keeps its connection: it is its lease. When a lease closes, in whatever way, the server removes the
//! directory of that instance; with the last one it unmounts, removes its own directory and ends. Starting, joining and
//! ending are serialized by the lock of the directory `{KEY}`, so that there is never a second one.

mod commission;
mod error;
mod join;
mod message;
mod native;
mod place;
mod serve;
mod view;

pub use commission::{Commission, Found, alone, freeze};
pub use error::ServerError;
pub use join::{Lease, join_or_start};
pub use place::{Locked, Place};
pub use serve::{Duty, Merger};
