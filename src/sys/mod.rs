//! Safe, fd-typed wrappers of system calls: the only place for `unsafe`.

pub mod beneath;
pub mod block_memory;
pub mod data;
pub mod errno;
pub mod fuse_dev;
pub mod fusermount;
pub mod in_root;
pub mod inherit;
pub mod limit;
pub mod memory_file;
pub mod mount;
pub mod namespace;
pub mod own_dir;
pub mod process;
pub mod pty;
pub mod ram;
pub mod ready;
pub mod renaming;
pub mod scan;
pub mod scm;
pub mod signal;
pub mod transfer;
pub mod tree;
pub mod users;
pub mod xattr;
