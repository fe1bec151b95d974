//! Plans a run and carries it out.

pub mod create;
pub mod layer;
pub mod tools;
