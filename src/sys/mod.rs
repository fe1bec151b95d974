//! Safe, fd-typed wrappers of system calls: the only place for `unsafe`.

pub mod errno;
pub mod in_root;
pub mod join;
pub mod process;
pub mod pty;
pub mod ready;
pub mod scm;
pub mod signal;
pub mod tree;
pub mod users;
