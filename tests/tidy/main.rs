//! The house rules as tests: who may import whom, where `unsafe` may stand, no forgotten file.

mod files;
mod imports;
mod source;
mod unsafety;
