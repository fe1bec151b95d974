//! Process 1 inside a sandbox, and what it and the front say to each other.
//!
//! It is the engine's own program, mounted read-only under the name `fim_init`. It mounts nothing: it opens the
//! terminal, starts the program in a process group of its own, passes signals on, reaps, and reports how the program
//! ended.

mod init;
mod message;
mod program;

pub use init::run;
pub use message::{FromGuest, GUEST_LIMIT, HOST_LIMIT, Start, ToGuest};
