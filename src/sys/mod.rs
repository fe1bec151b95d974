//! Safe, fd-typed wrappers of system calls: the only place for `unsafe`.

pub mod beneath;
pub mod data;
pub mod errno;
pub mod limit;
pub mod xattr;
