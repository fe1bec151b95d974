//! Frozen metadata: a schema and the data that it describes, in an archive of one block.
//!
//! The input: two bytes, little endian, length of the schema; the schema; the metadata.

#![no_main]

use fim::dwarfs::read::Place;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((len, rest)) = bytes.split_at_checked(2) else { return };
    let len = usize::from(u16::from_le_bytes([len[0], len[1]]));
    let Some((schema, metadata)) = rest.split_at_checked(len) else { return };
    fim_fuzz::read_all(fim_fuzz::assemble(schema, metadata), Place::At { offset: 0, len: None });
});
