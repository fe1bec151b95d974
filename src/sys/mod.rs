//! Safe, fd-typed wrappers of system calls: the only place for `unsafe`.

pub mod errno;
pub mod scan;
