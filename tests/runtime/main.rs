//! Whole runs of a real image: the server, the sandbox, process 1 inside, and what is left behind.
//!
//! Each test runs as root and as an ordinary user with a `/dev/fuse` of its own (mode 0666, in a private mount
//! namespace).

mod exec;
mod exit_codes;
mod kill;
mod signals;
mod support;
mod terminal;
