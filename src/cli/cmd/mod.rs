//! The verbs.

pub mod archive;
pub mod bind;
pub mod boot;
pub mod check;
pub mod create;
pub mod env;
pub mod exec;
pub mod help;
pub mod layer;
mod making;
pub mod mount;
pub mod perms;
pub mod root;
pub mod run;
mod settings;
pub mod umount;
pub mod unshare;
pub mod version;
mod words;
