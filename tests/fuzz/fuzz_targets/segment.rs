//! Files that hold parts of each other: what is put together again equals what went in.
#![no_main]

use fim::dwarfs::write::{Segmentation, WriteOptions};
use fim_fuzz::pack::{Bytes, Made, options, pack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes(data);
    let options = options(&mut input);
    let [window, lookback] = [input.byte(), input.byte()];
    let segmentation = Segmentation {
        window_bits: 6 + window % 5,
        step_shift: (window >> 4) % 5,
        lookback: 1 + lookback % 4,
    };
    let options = WriteOptions { segmentation: Some(segmentation), ..options };
    pack(&Made::files(&mut input), &options);
});
