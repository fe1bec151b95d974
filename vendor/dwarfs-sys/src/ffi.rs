//! The declarations of `shim/shim.h`, as bindgen wrote them.

#![allow(
    dead_code,
    missing_docs,
    missing_debug_implementations,
    non_camel_case_types,
    non_upper_case_globals,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::indexing_slicing,
    clippy::allow_attributes_without_reason,
    reason = "written by bindgen"
)]

include!(concat!(env!("OUT_DIR"), "/shim.rs"));
