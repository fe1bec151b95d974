//! Any tree: names, kinds, sizes, holes, times and links as the input says.
#![no_main]

use fim_fuzz::pack::{Bytes, Made, options, pack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes(data);
    let options = options(&mut input);
    pack(&Made::tree(&mut input), &options);
});
