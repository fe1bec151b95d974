//! Plans a run and carries it out.

pub mod browse;
pub mod check;
pub mod commit;
pub mod create;
pub mod diff;
pub mod export;
pub mod facts;
pub mod host;
pub mod instances;
pub mod layer;
pub mod list;
pub mod mount;
pub mod plan;
pub mod policy;
pub mod portal;
pub mod profile;
pub mod run;
pub mod server;
pub mod site;
pub mod stack;
pub mod tools;
pub mod unmount;
