//! The verbs.

pub mod exec;
pub mod mount;
pub mod root;
pub mod run;
pub mod umount;
