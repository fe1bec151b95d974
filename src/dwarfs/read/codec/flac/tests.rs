//! Frames written by hand: what upstream's encoder never writes, and what nobody should.

use super::*;
use crate::dwarfs::format::section::Compression;

/// Writes bits from the highest on.
#[derive(Clone, Default)]
struct Writer {
    bytes: Vec<u8>,
    used: u32,
}

impl Writer {
    fn put(mut self, count: u32, value: u64) -> Self {
        for bit in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.last_mut().unwrap();
            *last |= u8::from(value.checked_shr(bit).unwrap_or(0) & 1 != 0) << (7 - self.used % 8);
            self.used += 1;
        }
        self
    }

    fn signed(self, count: u32, value: i64) -> Self {
        self.put(count, value.cast_unsigned())
    }

    fn rice(self, low_bits: u32, value: i64) -> Self {
        let folded = (value << 1 ^ value >> 63).cast_unsigned();
        let zeros = u32::try_from(folded >> low_bits).unwrap();
        self.put(zeros, 0).put(1, 1).put(low_bits, folded)
    }

    /// The head of a frame; `channels` as its code.
    fn frame(self, len: u64, channels: u64) -> Self {
        // Block size in 16 bits, width from the description, number 0.
        self.put(15, 0x3ffe << 1)
            .put(1, 0)
            .put(4, 7)
            .put(4, 0)
            .put(4, channels)
            .put(4, 0)
            .put(8, 0)
            .put(16, len - 1)
            .put(8, 0)
    }

    fn head(self, kind: u64) -> Self {
        self.put(1, 0).put(6, kind).put(1, 0)
    }

    fn end(mut self) -> Vec<u8> {
        self.used = self.used.next_multiple_of(8);
        self.put(16, 0).bytes
    }
}

/// A payload that claims `len` bytes of samples with `bits` of `bytes`, and has these frames.
fn payload(len: u64, channels: u64, bits: u64, bytes: u8, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = Vec::new();
    let mut rest = len;
    while rest >= 0x80 {
        payload.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    payload.push(u8::try_from(rest).unwrap());
    let (zigzag, bits8) = (u8::try_from(channels * 2).unwrap(), u8::try_from(bits).unwrap());
    payload.extend([0x14, zigzag, 0x13, bits8, 0x13, 0x40 | (bytes - 1), 0]);
    payload.extend(MAGIC);
    let info = Writer::default().put(1, 1).put(7, 0).put(24, 34).put(64, 0).put(16, 0).put(20, 48_000);
    let info = info.put(3, channels - 1).put(5, bits - 1).put(36, 0).put(64, 0).put(64, 0);
    payload.extend(info.bytes);
    payload.extend(frames.concat());
    payload
}

fn decode(payload: Vec<u8>) -> Result<Vec<u8>, Error> {
    Job { section: 1, codec: Compression::Flac, limit: 1 << 20 }.decompress(payload)
}

/// 16-bit samples of one channel, out of one frame.
fn samples(len: u64, frame: Writer) -> Result<Vec<i16>, Error> {
    let bytes = decode(payload(len * 2, 1, 16, 2, &[frame.end()]))?;
    Ok(bytes.as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect())
}

#[test]
fn constant_and_verbatim_subframes() {
    assert_eq!(samples(5, Writer::default().frame(5, 0).head(0).signed(16, -7)).unwrap(), [-7; 5]);
    let verbatim = Writer::default().frame(3, 0).head(1).signed(16, -32_768).signed(16, 32_767).signed(16, 1);
    assert_eq!(samples(3, verbatim).unwrap(), [-32_768, 32_767, 1]);
}

#[test]
fn low_bits_that_are_left_out_come_back() {
    let frame =
        Writer::default().frame(2, 0).put(1, 0).put(6, 1).put(1, 1).put(3, 1).signed(13, -3).signed(13, 5);
    assert_eq!(samples(2, frame).unwrap(), [-24, 40]);
}

#[test]
fn plain_partitions_and_empty_ones() {
    // Order 1, method 1, two partitions: 2 plain residuals of 7 bits, then 4 of none.
    let frame = Writer::default().frame(8, 0).head(9).signed(16, 100).put(2, 1).put(4, 1);
    let frame = frame.put(5, 31).put(5, 7).signed(7, -60).signed(7, 60).signed(7, 1).put(5, 31).put(5, 0);
    assert_eq!(samples(8, frame).unwrap(), [100, 40, 100, 101, 101, 101, 101, 101]);
}

#[test]
fn linear_predictors_of_all_orders_equal_their_definition() {
    for order in 1..=32_usize {
        let len = 60;
        let factors: Vec<i64> = (0..order).map(|at| (at as i64 * 37 % 29) - 14).collect();
        let residuals: Vec<i64> = (0..len).map(|at| (at as i64 * 53 % 41) - 20).collect();
        let mut expected: Vec<i64> = residuals[..order].to_vec();
        for at in order..len {
            let sum: i64 =
                factors.iter().zip(expected.iter().rev()).map(|(factor, sample)| factor * sample).sum();
            expected.push(residuals[at] + (sum >> 6));
        }
        for precision in [6, 15] {
            let mut frame = Writer::default().frame(len as u64, 0).head(31 + order as u64);
            for sample in &expected[..order] {
                frame = frame.signed(16, *sample);
            }
            frame = frame.put(4, precision - 1).signed(5, 6);
            for factor in &factors {
                frame = frame.signed(u32::try_from(precision).unwrap(), *factor);
            }
            frame = frame.put(2, 0).put(4, 0).put(4, 3);
            for residual in &residuals[order..] {
                frame = frame.rice(3, *residual);
            }
            let found = samples(len as u64, frame).unwrap();
            assert_eq!(
                found.iter().map(|sample| i64::from(*sample)).collect::<Vec<_>>(),
                expected,
                "{order}"
            );
        }
    }
}

#[test]
fn differences_of_32_bit_channels_need_33() {
    let (left, right) = (i64::from(i32::MIN), i64::from(i32::MAX));
    let frame = |code| Writer::default().frame(1, code);
    let side = left - right;
    let mid = (left + right) >> 1;
    let frames = [
        frame(8).head(1).signed(32, left).head(1).signed(33, side),
        frame(9).head(1).signed(33, side).head(1).signed(32, right),
        frame(10).head(1).signed(32, mid).head(1).signed(33, side),
        frame(10).head(0).signed(32, mid).head(9).signed(33, side).put(2, 0).put(4, 0).put(4, 0),
    ];
    let expected = [i32::MIN.to_le_bytes(), i32::MAX.to_le_bytes()].concat();
    for frame in frames {
        assert_eq!(decode(payload(8, 2, 32, 4, &[frame.end()])).unwrap(), expected);
    }
}

#[test]
fn codes_across_the_words_of_the_reader() {
    let values = [0, -1, 5_000, 3, -9_000, 70, 12_345, -2, 1, 0, 0, -30_000, 8];
    let mut frame = Writer::default().frame(13, 0).head(8).put(2, 0).put(4, 0).put(4, 2);
    for value in values {
        frame = frame.rice(2, value);
    }
    assert_eq!(samples(13, frame).unwrap().iter().map(|value| i64::from(*value)).collect::<Vec<_>>(), values);
}

#[test]
fn impossible_frames_are_errors() {
    let frame = || Writer::default().frame(1, 0);
    let bad = [
        ("no frame", Writer::default().put(64, 0)),
        ("reserved kind", frame().head(2).put(32, 0)),
        ("more order than samples", frame().head(12).put(64, 0)),
        ("more partitions than samples", frame().head(8).put(2, 0).put(4, 15).put(32, 0)),
        ("reserved method", frame().head(8).put(2, 3).put(32, 0)),
        ("negative shift", frame().head(32).put(16, 0).put(4, 3).signed(5, -1).put(32, 0)),
        ("reserved precision", frame().head(32).put(16, 0).put(4, 15).put(32, 0)),
        ("all bits left out", frame().put(1, 0).put(6, 1).put(1, 1).put(15, 0).put(1, 1).put(32, 0)),
        ("another number of channels", Writer::default().frame(1, 1).head(0).put(32, 0)),
        ("reserved channels", Writer::default().frame(1, 11).head(0).put(32, 0)),
        ("end", frame().head(1)),
    ];
    for (name, frame) in bad {
        let result = samples(1, frame);
        assert!(matches!(result, Err(Error::Decompress { .. })), "{name}: {result:?}");
    }
    let long = frame().frame(1, 0).head(0).put(16, 0);
    assert!(samples(1, long).is_err());
    let two = Writer::default().frame(2, 0).head(0).put(16, 0);
    assert!(samples(1, two).unwrap_err().to_string().contains("more samples"));
}

#[test]
fn impossible_headers_are_errors() {
    let frame = || vec![Writer::default().frame(1, 0).head(0).put(16, 0).end()];
    assert!(decode(payload(2, 1, 16, 2, &frame())).is_ok());
    for (len, channels, bits, bytes) in [(3, 1, 16, 2), (2, 1, 17, 2), (2, 1, 3, 2)] {
        let result = decode(payload(len, channels, bits, bytes, &frame()));
        assert!(matches!(result, Err(Error::Decompress { .. })), "{len} {channels} {bits} {bytes}");
    }
    let mut other = payload(2, 1, 16, 2, &frame());
    other[4] = 15;
    assert!(decode(other).unwrap_err().to_string().contains("contradicts"));
}
