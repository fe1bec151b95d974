//! The verbs.

pub mod archive;
pub mod bind;
pub mod boot;
pub mod casefold;
pub mod cat;
pub mod check;
pub mod cp;
pub mod create;
pub mod env;
pub mod exec;
pub mod help;
pub mod layer;
mod looking;
pub mod ls;
mod making;
pub mod mount;
pub mod perms;
pub mod root;
pub mod run;
mod settings;
pub mod stat;
pub mod tree;
pub mod umount;
pub mod unshare;
pub mod version;
mod words;
