//! Bytes to structs and back: no input or output, no clock.
//!
//! - [`section`]: the 64-byte headers that everything hangs on, and the section index.
//! - [`thrift`]: the compact protocol in which schema and history are written.
//! - [`schema`]: the layouts that say where each bit of the metadata is.
//! - [`metadata`]: the numbers of the metadata's fields.
//! - [`frozen`]: bit fields and lists, read in place.
//! - [`tables`]: the metadata's tables, resolved against their schema; [`strings`] and [`fsst`] serve it;
//!   [`fsst_encoder`] is what writes for them.
//! - [`categories`]: what the writer took the data of each block for; [`map`] serves it.
//! - [`history`]: who made the archive.
//! - [`sidecar`]: our own file of extended attributes at an archive's root.

pub mod bytes;
pub mod categories;
pub mod freeze;
pub mod frozen;
pub mod fsst;
pub mod fsst_encoder;
pub mod history;
pub mod map;
pub mod metadata;
pub mod owner;
pub mod schema;
pub mod section;
pub mod sidecar;
pub mod strings;
pub mod tables;
pub mod thrift;
