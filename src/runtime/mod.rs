//! Plans a run and carries it out.

pub mod mount;
pub mod server;
pub mod stack;
pub mod unmount;
