//! Plans a run and carries it out.

pub mod browse;
pub mod check;
pub mod commit;
pub mod create;
pub mod diff;
pub mod discard;
pub mod doctor;
pub mod export;
pub mod host;
pub mod info;
pub mod layer;
pub mod mount;
pub mod plan;
pub mod profile;
pub mod recipe;
pub mod rewrite;
pub mod run;
pub mod server;
pub mod site;
pub mod stack;
pub mod stats;
pub mod tools;
pub mod unmount;
