//! The verbs.

pub mod archive;
pub mod bind;
pub mod boot;
pub mod create;
pub mod env;
pub mod help;
pub mod layer;
mod making;
pub mod perms;
mod settings;
pub mod unshare;
pub mod version;
mod words;

pub use making::Plain;
