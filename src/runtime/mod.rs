//! Plans a run and carries it out.

pub mod host;
pub mod mount;
pub mod plan;
pub mod run;
pub mod server;
pub mod stack;
pub mod unmount;
