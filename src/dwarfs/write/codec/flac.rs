//! FLAC: samples of audio files. What stands before the stream tells how to get their bytes back:
//!
//! ```text
//! varint uncompressed length
//! thrift 1 i16 channels   2 byte bits a sample   3 byte flags: 0x03 bytes a sample - 1   0x20 padding in the low bits
//!                                                              0x40 signed               0x80 big endian
//! FLAC   one stream, as in RFC 9639
//! ```
//!
//! Any bytes are samples of some kind: a block that holds a file's head as well only compresses less. It must consist
//! of whole frames, and what a sample leaves unused of its bytes must be as the header says; else it is stored.

use std::io::Cursor;

use flac_codec::encode::{FlacSampleWriter, Options, OptionsError};

use super::in_range;
use crate::dwarfs::{
    format::thrift::{Kind, Writer},
    write::error::WriteError,
};

/// How a file writes samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pcm {
    /// Samples of one moment, 1 to 8.
    pub channels: u8,
    /// Bits of a sample, 8 to 32, and no more than its bytes have.
    pub bits: u8,
    /// Bytes of a sample, 1 to 4.
    pub bytes: u8,
    /// Whether the highest byte comes first.
    pub big_endian: bool,
    /// Whether samples are in two's complement; otherwise they begin at 0.
    pub signed: bool,
    /// Where a sample leaves bits unused.
    pub padding: Padding,
}

/// Where in its bytes a sample leaves bits unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Padding {
    /// Above it: they repeat the sign, or are zero.
    High,
    /// Below it: they are zero.
    Low,
}

impl Pcm {
    /// Bytes of all samples of one moment: where a block of samples may be cut.
    #[must_use]
    pub fn frame(&self) -> usize {
        usize::from(self.channels) * usize::from(self.bytes)
    }

    /// Whether FLAC has such samples.
    pub(in crate::dwarfs::write) fn is_possible(&self) -> bool {
        self.check().is_ok()
    }

    pub(super) fn check(&self) -> Result<(), WriteError> {
        in_range("flac channels", self.channels, 1..=8)?;
        in_range("flac bytes of a sample", self.bytes, 1..=4)?;
        in_range("flac bits of a sample", self.bits, 8..=self.bytes * 8)
    }

    fn flags(&self) -> u8 {
        let low = self.padding == Padding::Low && self.unused() > 0;
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        (self.bytes - 1) | flag(low, 0x20) | flag(self.signed, 0x40) | flag(self.big_endian, 0x80)
    }

    fn unused(&self) -> u32 {
        u32::from(self.bytes) * u8::BITS - u32::from(self.bits)
    }

    /// The sample that these bytes write. `None`: its unused bits are not what the reader will put there.
    fn sample(&self, bytes: &[u8]) -> Option<i32> {
        let mut raw = [0; 4];
        let mut copy = |from: &mut dyn Iterator<Item = &u8>| {
            raw.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        };
        if self.big_endian {
            copy(&mut bytes.iter().rev());
        } else {
            copy(&mut bytes.iter());
        }
        let raw = u32::from_le_bytes(raw);
        let shift = if self.padding == Padding::Low { self.unused() } else { 0 };
        let offset = if self.signed { 0 } else { 1_u32 << (self.bits - 1) };
        // Shifted up and down again, so that the sign fills what is above.
        let above = u32::BITS - u32::from(self.bits);
        let value = ((raw >> shift).wrapping_sub(offset) << above).cast_signed() >> above;
        let back = value.cast_unsigned().wrapping_add(offset) << shift;
        let kept = u32::MAX >> (u32::BITS - u32::from(self.bytes) * u8::BITS);
        (back & kept == raw).then_some(value)
    }
}

/// The rate that the stream's head names, in Hz. Nobody reads it: the files have their own heads.
const SAMPLE_RATE: u32 = 48_000;
/// A stream of fewer samples is none for some readers.
const LEAST_SAMPLES: usize = 16;

/// Compresses into `out`, which is empty; false if these are no samples of that kind.
pub(super) fn encode(level: u8, pcm: Pcm, payload: &[u8], out: &mut Vec<u8>) -> Result<bool, String> {
    let (frame, bytes) = (pcm.frame(), usize::from(pcm.bytes));
    if !payload.len().is_multiple_of(frame) || payload.len() / frame < LEAST_SAMPLES {
        return Ok(false);
    }
    *out = head(pcm, payload.len());
    let options = options(level).map_err(|error| error.to_string())?;
    let mut stream = Cursor::new(Vec::new());
    let (bits, samples) = (u32::from(pcm.bits), (payload.len() / bytes) as u64);
    let mut writer =
        FlacSampleWriter::new(&mut stream, options, SAMPLE_RATE, bits, pcm.channels, Some(samples))
            .map_err(|error| error.to_string())?;
    let mut samples = Vec::new();
    for part in payload.chunks(frame * FRAMES_AT_A_TIME) {
        samples.clear();
        for bytes in part.chunks_exact(bytes) {
            let Some(sample) = pcm.sample(bytes) else { return Ok(false) };
            samples.push(sample);
        }
        writer.write(&samples).map_err(|error| error.to_string())?;
    }
    writer.finalize().map_err(|error| error.to_string())?;
    out.extend_from_slice(stream.get_ref());
    Ok(true)
}

/// So many moments are handed to the encoder at a time.
const FRAMES_AT_A_TIME: usize = 1 << 14;

fn head(pcm: Pcm, len: usize) -> Vec<u8> {
    let mut head = Writer::new();
    head.varint(len as u64);
    let mut last = 0;
    head.field(&mut last, 1, Kind::I16);
    head.int(i64::from(pcm.channels));
    head.field(&mut last, 2, Kind::Byte);
    head.byte(pcm.bits);
    head.field(&mut last, 3, Kind::Byte);
    head.byte(pcm.flags());
    head.stop();
    head.into_bytes()
}

/// What a level stands for, about as in the reference encoder.
fn options(level: u8) -> Result<Options, OptionsError> {
    let (block, order, partitions, mid_side) = match level {
        0 => (1152, None, 3, false),
        1 | 2 => (1152, None, 3, true),
        3 => (4096, Some(6), 4, false),
        4 => (4096, Some(8), 4, true),
        5 => (4096, Some(8), 5, true),
        6 => (4096, Some(8), 6, true),
        7 => (4096, Some(12), 6, true),
        _ => (4096, Some(12), 6, true),
    };
    let options = Options::default().no_padding().no_seektable().mid_side(mid_side);
    options.block_size(block)?.max_lpc_order(order)?.max_partition_order(partitions)
}
