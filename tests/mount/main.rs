//! Real mounts: the FUSE front by itself, and what programs see of a mounted stack.
//!
//! They need root (for private mount namespaces and other users) and `/dev/fuse`; the tests of other users bring
//! their own device node.

mod memory;
mod session;
mod support;
