//! bubblewrap: plan, prepare, render, spawn, attend.
//!
//! ```text
//!  Plan ──prepare──> mount points in the merged root ──render──> arguments ──spawn──> bwrap
//!                                                                                       │ process 1 inside
//!  attend  <────────────── channel: start, signals, terminal, end ──────────────>  guest init ──> program
//! ```
//!
//! - [`Rights`]: what the image asks for, without what the user takes away; pure.
//! - [`Facts`]: what the host has that a permission can give.
//! - [`Plan`]: what will be inside, and why; pure. [`explain()`] tells it.
//! - [`render()`]: the plan as arguments; pure.
//! - [`spawn()`]: joins the server's namespaces, makes the mount points and becomes bubblewrap.
//! - [`attend()`]: stands between the caller and the program until it ends.
//! - [`enter()`]: the same for a program in a running instance.
//! - [`guest`]: process 1 inside, and its sessions.

mod attend;
pub mod bwrap;
mod error;
mod expand;
mod explain;
mod facts;
pub mod guest;
mod plan;
mod prepare;
mod relay;
mod render;
mod rights;
mod spawn;

pub use attend::{Request, Slot, Stdio, Verdict, attend, enter};
pub use bwrap::Bwrap;
pub use error::SandboxError;
pub use expand::expand;
pub use explain::{Row, Subject, explain};
pub use facts::{Drivers, Facts, Hidden, Sockets, bus_path, pulse_path, x11_path};
pub use plan::{
    Access, Capabilities, Cause, Engine, Identity, Inputs, Known, Missing, Mount, Plan, Program, Role, What,
};
pub use render::render;
pub use rights::{Asker, Rights};
pub use spawn::{Sandbox, Stage, spawn};
