//! Safe, fd-typed wrappers of system calls: the only place for `unsafe`.

pub mod errno;
pub mod own_dir;
pub mod program;
pub mod scan;
pub mod transfer;
