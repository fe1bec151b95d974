//! The single executable file.
