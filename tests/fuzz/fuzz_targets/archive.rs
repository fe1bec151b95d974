//! Whole archives: opened, walked and read. Checksums are made right first, or no changed byte would be looked at.

#![no_main]

use fim::dwarfs::read::Place;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    fim_fuzz::reseal(&mut bytes);
    fim_fuzz::read_all(bytes, Place::At { offset: 0, len: None });
});
