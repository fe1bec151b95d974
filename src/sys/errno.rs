//! Error numbers of the host.

pub use nix::errno::Errno;
