//! `fim` packs a Linux root file system into one executable file and runs it anywhere.
//!
//! The modules stand in the order of their storeys, ground first: a module imports only what stands above it in
//! this list, and only what its row in `src/ARCHITECTURE.md` permits. `tests/tidy` checks both.

pub mod causes;
pub mod pinned;
pub mod sync;
pub mod sys;

pub mod config;
pub mod dwarfs;

pub mod casefold;
pub mod vfs;

pub mod layer;
pub mod overlay;

pub mod fuse;

pub mod desktop;
pub mod instance;
pub mod portal;

pub mod image;
pub mod sandbox;

pub mod runtime;

pub mod cli;
