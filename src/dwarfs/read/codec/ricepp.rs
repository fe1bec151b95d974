//! RICEPP: Rice codes of the differences between 16-bit pixels, upstream's own codec for astronomical images.
//!
//! ```text
//! varint uncompressed length
//! thrift 1 i32 block size (pixels of a component)   2 i16 components   3 byte bytes a sample (2)
//!        4 byte unused low bits of a pixel          5 bool big endian  6 i16 version (1)
//! bits, from the lowest of each byte on:
//!        16 bits first value of each component, then blocks: of each component in turn up to `block size` pixels
//! block  4 bits: 0        all pixels equal the last one
//!                1..=14   k = that - 1; of each pixel the difference to the last one, folded (0, -1, 1, -2, ...):
//!                         its part above k bits as so many 0 and a 1, then its k low bits
//!                15       16 bits a pixel, the bytes as they are in the file
//! ```
//!
//! A pixel stands in the file in its byte order and shifted left by the unused bits.

use super::{Job, Stream};
use crate::dwarfs::{
    Error,
    format::{
        bytes::u64_at,
        thrift::{Kind, Reader},
    },
};

/// Bits of a pixel.
const PIXEL_BITS: u32 = u16::BITS;
const PIXEL_LEN: usize = size_of::<u16>();
/// Bits that tell how a block is written.
const SPLIT_BITS: u32 = 4;
/// What they say of a block that is not compressed.
const PLAIN: u32 = 15;
/// Largest number of pixels in a block of one component, as upstream has it.
const MAX_BLOCK_LEN: u32 = 512;
const MAX_COMPONENTS: usize = 2;
/// The newest version of the codec.
const VERSION: u16 = 1;
/// Four bits can stand for a whole block.
const MOST_FROM_A_BYTE: u64 = MAX_BLOCK_LEN as u64 * PIXEL_LEN as u64 * (u8::BITS / SPLIT_BITS) as u64;

/// Opens a payload.
pub(super) fn open(job: Job, payload: Vec<u8>) -> Result<Box<dyn Stream>, Error> {
    let mut reader = Reader::new(&payload, "ricepp frame");
    let len = job.claimed(&mut reader)?;
    let header = Header::decode(&mut reader).map_err(|error| job.failed(&error))?;
    let config = header.check().map_err(|reason| job.failed(&reason))?;
    let at = reader.position();
    job.plausible(payload.get(at..).unwrap_or_default(), len, MOST_FROM_A_BYTE)?;
    if len % (config.components * PIXEL_LEN) as u64 != 0 {
        return Err(job.failed(&format_args!("{len} bytes are not whole pixels")));
    }
    let mut bits = Bits { bytes: payload, at, held: 0, count: 0 };
    let mut last = [0; MAX_COMPONENTS];
    for value in last.iter_mut().take(if len > 0 { config.components } else { 0 }) {
        *value = bits.take(PIXEL_BITS).ok_or_else(|| job.failed(TOO_SHORT))?;
    }
    let chunk = vec![0; config.block_len * config.components * PIXEL_LEN];
    Ok(Box::new(Ricepp { job, config, bits, last, len, left: len, chunk, ready: 0..0 }))
}

const TOO_SHORT: &str = "the bits end too early";

/// The header as it is written.
#[derive(Clone, Copy, Debug, Default)]
struct Header {
    block_len: u32,
    components: u16,
    bytes_per_sample: u8,
    unused_bits: u8,
    big_endian: bool,
    version: u16,
}

/// What a header says, in range.
#[derive(Clone, Copy, Debug)]
struct Config {
    /// Pixels of a component in a block.
    block_len: usize,
    components: usize,
    unused_bits: u32,
    big_endian: bool,
}

impl Header {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let mut header = Self::default();
        let mut last = 0;
        while let Some(head) = reader.field(&mut last)? {
            match (head.id, head.kind) {
                (1, Kind::I32) => header.block_len = reader.i32()?.cast_unsigned(),
                (2, Kind::I16) => header.components = reader.i16()?.cast_unsigned(),
                (3, Kind::Byte) => header.bytes_per_sample = reader.byte()?,
                (4, Kind::Byte) => header.unused_bits = reader.byte()?,
                (5, Kind::True) => header.big_endian = true,
                (6, Kind::I16) => header.version = reader.i16()?.cast_unsigned(),
                (_, kind) => reader.skip(kind)?,
            }
        }
        Ok(header)
    }

    fn check(self) -> Result<Config, String> {
        let components = usize::from(self.components);
        let block_len = usize::try_from(self.block_len).unwrap_or(usize::MAX);
        match () {
            () if self.version > VERSION => Err(format!("version {} is not supported", self.version)),
            () if usize::from(self.bytes_per_sample) != PIXEL_LEN => {
                Err(format!("{} bytes a sample are not supported", self.bytes_per_sample))
            }
            () if !(1..=MAX_BLOCK_LEN).contains(&self.block_len) => {
                Err(format!("a block of {} pixels is not possible", self.block_len))
            }
            () if !(1..=MAX_COMPONENTS).contains(&components) => {
                Err(format!("{components} components are not possible"))
            }
            () if u32::from(self.unused_bits) >= PIXEL_BITS => {
                Err(format!("{} unused bits are not possible", self.unused_bits))
            }
            () => Ok(Config {
                block_len,
                components,
                unused_bits: u32::from(self.unused_bits),
                big_endian: self.big_endian,
            }),
        }
    }
}

impl Config {
    /// A value as the bytes of its pixel. Only the low 16 bits of a value mean something.
    fn pixel(self, value: u32) -> [u8; PIXEL_LEN] {
        let [low, high, ..] = (value << self.unused_bits).to_le_bytes();
        if self.big_endian { [high, low] } else { [low, high] }
    }

    /// The value of a pixel.
    fn value(self, pixel: [u8; PIXEL_LEN]) -> u32 {
        let value = if self.big_endian { u16::from_be_bytes(pixel) } else { u16::from_le_bytes(pixel) };
        u32::from(value) >> self.unused_bits
    }
}

struct Ricepp {
    job: Job,
    config: Config,
    bits: Bits,
    /// The last value of each component.
    last: [u32; MAX_COMPONENTS],
    len: u64,
    /// Bytes that are not decoded yet.
    left: u64,
    /// One block of each component, interleaved.
    chunk: Vec<u8>,
    /// The part of the chunk that has not been given out.
    ready: std::ops::Range<usize>,
}

impl Ricepp {
    /// Decodes the next block of each component.
    fn decode_chunk(&mut self) -> Result<(), Error> {
        let len = usize::try_from(self.left).map_or(self.chunk.len(), |left| left.min(self.chunk.len()));
        let chunk = self.chunk.get_mut(..len).unwrap_or_default();
        for (component, last) in self.last.iter_mut().enumerate().take(self.config.components) {
            let pixels = chunk.as_chunks_mut().0.iter_mut().skip(component).step_by(self.config.components);
            decode_block(self.config, &mut self.bits, last, pixels)
                .ok_or_else(|| self.job.failed(TOO_SHORT))?;
        }
        self.left -= len as u64;
        self.ready = 0..len;
        Ok(())
    }
}

/// Decodes one block of one component; nothing where the bits end.
fn decode_block<'a>(
    config: Config,
    bits: &mut Bits,
    last: &mut u32,
    pixels: impl Iterator<Item = &'a mut [u8; PIXEL_LEN]>,
) -> Option<()> {
    match bits.take(SPLIT_BITS)? {
        0 => {
            let pixel = config.pixel(*last);
            pixels.for_each(|to| *to = pixel);
        }
        PLAIN => {
            for to in pixels {
                let [low, high, ..] = bits.take(PIXEL_BITS)?.to_le_bytes();
                *to = [low, high];
                *last = config.value(*to);
            }
        }
        split => {
            let low_bits = split - 1;
            let mut value = *last;
            for to in pixels {
                let folded = bits.rice(low_bits)?;
                value = value.wrapping_add((folded >> 1) ^ (folded & 1).wrapping_neg());
                *to = config.pixel(value);
            }
            *last = value;
        }
    }
    Some(())
}

impl Stream for Ricepp {
    fn len(&self) -> Option<u64> {
        Some(self.len)
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let mut written = 0;
        while let Some(rest) = out.get_mut(written..).filter(|rest| !rest.is_empty()) {
            if self.ready.is_empty() && self.left > 0 {
                self.decode_chunk()?;
            }
            let from = self.chunk.get(self.ready.clone()).unwrap_or_default();
            let len = from.len().min(rest.len());
            let (Some(to), Some(from)) = (rest.get_mut(..len), from.get(..len)) else { break };
            to.copy_from_slice(from);
            self.ready.start += len;
            written += len;
            if len == 0 {
                break;
            }
        }
        Ok(written)
    }
}

/// Bits from the lowest of each byte on.
struct Bits {
    bytes: Vec<u8>,
    /// The next byte.
    at: usize,
    /// Bits that were read from bytes; those above `count` are zero.
    held: u64,
    count: u32,
}

impl Bits {
    /// Holds at least 56 bits, or all that are left. Called with at most 32 of them held.
    fn refill(&mut self) {
        if let Some(word) = u64_at(&self.bytes, self.at) {
            let bytes = (u64::BITS - 1 - self.count) / u8::BITS;
            self.held |= word << self.count;
            self.at += bytes as usize;
            self.count += bytes * u8::BITS;
            self.held &= (1 << self.count) - 1;
            return;
        }
        while self.count <= u64::BITS - u8::BITS {
            let Some(byte) = self.bytes.get(self.at) else { return };
            self.held |= u64::from(*byte) << self.count;
            self.at += 1;
            self.count += u8::BITS;
        }
    }

    /// The next `count` bits, at most 32.
    fn take(&mut self, count: u32) -> Option<u32> {
        if self.count < count {
            self.refill();
        }
        let [a, b, c, d, ..] = (self.held & ((1 << count) - 1)).to_le_bytes();
        self.skip(count)?;
        Some(u32::from_le_bytes([a, b, c, d]))
    }

    /// The next Rice code.
    fn rice(&mut self, low_bits: u32) -> Option<u32> {
        // Long rows of zeros are rare; most codes lie within what is held.
        let mut high = 0_u32;
        loop {
            if self.count < 32 {
                self.refill();
            }
            let zeros = self.held.trailing_zeros().min(self.count);
            high = high.wrapping_add(zeros);
            if zeros < self.count {
                self.skip(zeros + 1)?;
                break;
            }
            if zeros == 0 {
                return None;
            }
            self.skip(zeros)?;
        }
        Some(high << low_bits | self.take(low_bits)?)
    }

    fn skip(&mut self, count: u32) -> Option<()> {
        self.count = self.count.checked_sub(count)?;
        self.held = self.held.checked_shr(count).unwrap_or(0);
        Some(())
    }
}
