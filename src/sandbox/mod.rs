//! bubblewrap: plan, prepare, render, spawn, attend.
//!
//! ```text
//!  Plan ──prepare──> mount points in the merged root ──render──> arguments ──spawn──> bwrap
//!                                                                                       │ process 1 inside
//!  attend  <────────────── channel: start, signals, terminal, end ──────────────>  guest init ──> program
//! ```
//!
//! - [`Plan`]: what will be inside, and why; pure.
//! - [`render()`]: the plan as arguments; pure.
//! - [`spawn()`]: joins the server's namespaces, makes the mount points and becomes bubblewrap.
//! - [`attend()`]: stands between the caller and the program until it ends.
//! - [`guest`]: process 1 inside.

mod attend;
pub mod bwrap;
mod error;
mod expand;
pub mod guest;
mod plan;
mod prepare;
mod relay;
mod render;
mod spawn;

pub use attend::{Slot, Stdio, Verdict, attend};
pub use bwrap::Bwrap;
pub use error::SandboxError;
pub use expand::expand;
pub use plan::{
    Access, Capabilities, Cause, Engine, Identity, Inputs, Missing, Mount, Network, Plan, Program, Role, What,
};
pub use render::render;
pub use spawn::{Sandbox, Stage, spawn};
