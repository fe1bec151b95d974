//! Process 1 inside a sandbox, and what it and the front say to each other.
//!
//! It is the engine's own program, mounted read-only under the name `fim_init`. It mounts nothing: it opens the
//! terminal, starts the program in a process group of its own, passes signals on, reaps, and reports how the program
//! ended. A program that is root where there is one user only it puts under an overseer ([`overseer`]).
//!
//! Further programs are started by sessions, children that it forks at the request of somebody outside (`fim-instance
//! exec`): process 1 itself reads who asks.

mod credentials;
mod filter;
mod init;
mod line;
mod message;
mod minds;
mod overseer;
mod program;
mod session;
mod user;

pub use init::{run, serve_again};
pub use message::{Enter, FromGuest, GUEST_LIMIT, HOST_LIMIT, Start, ToGuest};
pub use session::serve;
