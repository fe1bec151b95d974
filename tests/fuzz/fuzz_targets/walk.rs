//! Whole archives of which something was changed: checked, opened, walked, read. What a check calls whole must read.

#![no_main]

use fim::dwarfs::read::Place;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some(bytes) = fim_fuzz::mutate::archive(input) else { return };
    fim_fuzz::read_all(bytes, Place::At { offset: 0, len: None });
});
