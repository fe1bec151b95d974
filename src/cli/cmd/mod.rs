//! The verbs.

pub mod mount;
pub mod umount;
