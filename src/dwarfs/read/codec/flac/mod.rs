//! FLAC: samples of audio files, with what is needed to give back their bytes.
//!
//! ```text
//! varint uncompressed length
//! thrift 1 i16 channels   2 byte bits a sample   3 byte flags: 0x03 bytes a sample - 1   0x20 padding in the low bits
//!                                                              0x40 signed               0x80 big endian
//! FLAC   "fLaC", metadata blocks (STREAMINFO first), frames      as in RFC 9639
//! ```
//!
//! The decoder is ours because what there is does not do: one knows no 32-bit samples, one panics on frames shorter
//! than their partitions, the others are written in C or carry a media framework. The format has not changed since
//! 2001 but for 32 bits. Neither checksums of frames nor the MD5 of the samples are looked at: the section's own
//! checksum covers all of it.
//!
//! - [`bits`]: bits from the highest of each byte on, Rice codes.
//! - [`frame`]: one frame, and the subframes of its channels.
//! - [`predict`]: from residuals to samples.
//! - [`pcm`]: from samples to the bytes of the file.

mod bits;
mod frame;
mod pcm;
mod predict;
#[cfg(test)]
mod tests;

use std::ops::Range;

use self::{
    bits::Bits,
    frame::Frame,
    pcm::{Layout, Padding},
};
use super::{Job, Stream};
use crate::dwarfs::{
    Error,
    format::thrift::{Kind, Reader},
};

const MAGIC: [u8; 4] = *b"fLaC";
/// Metadata block that tells the bits of a sample where frames do not.
const STREAM_INFO: u32 = 0;
const STREAM_INFO_LEN: u32 = 34;
const MAX_CHANNELS: usize = 8;
/// A frame of 8 constant channels takes at least 22 bytes, and stands for up to 2^16 samples of 4 bytes in each.
const MOST_FROM_A_BYTE: u64 = ((8 * 4_u64) << 16).div_ceil(22);

/// Opens a payload.
pub(super) fn open(job: Job, payload: Vec<u8>) -> Result<Box<dyn Stream>, Error> {
    let mut reader = Reader::new(&payload, "flac frame");
    let len = job.claimed(&mut reader)?;
    let header = Header::decode(&mut reader).map_err(|error| job.failed(&error))?;
    let layout = header.layout().map_err(|reason| job.failed(&reason))?;
    let at = reader.position();
    job.plausible(payload.get(at..).unwrap_or_default(), len, MOST_FROM_A_BYTE)?;
    let channels = usize::from(header.channels);
    if len % (channels * layout.bytes) as u64 != 0 {
        return Err(job.failed(&format_args!("{len} bytes are not whole samples of {channels} channels")));
    }
    let at = read_metadata(&payload, at, header).map_err(|reason| job.failed(reason))?;
    let frame = Frame::new(channels, layout.bits);
    Ok(Box::new(Flac { job, payload, at, layout, frame, len, left: len, pcm: Vec::new(), ready: 0..0 }))
}

/// The header as it is written.
#[derive(Clone, Copy, Debug, Default)]
struct Header {
    channels: u16,
    bits: u8,
    flags: u8,
}

impl Header {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let mut header = Self::default();
        let mut last = 0;
        while let Some(head) = reader.field(&mut last)? {
            match (head.id, head.kind) {
                (1, Kind::I16) => header.channels = reader.i16()?.cast_unsigned(),
                (2, Kind::Byte) => header.bits = reader.byte()?,
                (3, Kind::Byte) => header.flags = reader.byte()?,
                (_, kind) => reader.skip(kind)?,
            }
        }
        Ok(header)
    }

    fn layout(self) -> Result<Layout, String> {
        let bytes = usize::from(self.flags & 0x03) + 1;
        let bits = u32::from(self.bits);
        if !(1..=MAX_CHANNELS).contains(&usize::from(self.channels)) {
            return Err(format!("{} channels are not possible", self.channels));
        }
        if bits < frame::MIN_BITS || bits > u32::from(self.flags & 0x03) * u8::BITS + u8::BITS {
            return Err(format!("{bits} bits in {bytes} bytes a sample are not possible"));
        }
        Ok(Layout {
            bytes,
            bits,
            big_endian: self.flags & 0x80 != 0,
            signed: self.flags & 0x40 != 0,
            padding: if self.flags & 0x20 != 0 { Padding::Low } else { Padding::High },
        })
    }
}

/// Reads over the metadata blocks, and returns where the frames begin.
fn read_metadata(payload: &[u8], at: usize, header: Header) -> Result<usize, &'static str> {
    const TOO_SHORT: &str = "the metadata blocks end too early";
    let mut bits = Bits::new(payload, at);
    if bits.take(u32::BITS) != Some(u32::from_be_bytes(MAGIC)) {
        return Err("no FLAC stream");
    }
    let mut is_first = true;
    loop {
        let is_last = bits.take(1).ok_or(TOO_SHORT)? != 0;
        let kind = bits.take(7).ok_or(TOO_SHORT)?;
        let len = bits.take(24).ok_or(TOO_SHORT)?;
        if is_first {
            if kind != STREAM_INFO || len != STREAM_INFO_LEN {
                return Err("the stream does not begin with its description");
            }
            // Block sizes, frame sizes, sample rate: not needed. Then channels and bits, length and MD5.
            bits.skip_bytes(10);
            bits.take(20).ok_or(TOO_SHORT)?;
            let channels = bits.take(3).ok_or(TOO_SHORT)? + 1;
            let sample_bits = bits.take(5).ok_or(TOO_SHORT)? + 1;
            if channels != u32::from(header.channels) || sample_bits != u32::from(header.bits) {
                return Err("the stream contradicts its header");
            }
            bits.take(4).ok_or(TOO_SHORT)?;
            bits.skip_bytes(20);
        } else {
            bits.skip_bytes(usize::try_from(len).unwrap_or(usize::MAX));
        }
        if is_last {
            return bits.position().ok_or(TOO_SHORT);
        }
        is_first = false;
    }
}

struct Flac {
    job: Job,
    payload: Vec<u8>,
    /// Where the next frame begins.
    at: usize,
    layout: Layout,
    frame: Frame,
    len: u64,
    /// Bytes that are not decoded yet.
    left: u64,
    /// The last frame as bytes of the file.
    pcm: Vec<u8>,
    /// The part of them that has not been given out.
    ready: Range<usize>,
}

impl Flac {
    /// Decodes the next frame.
    fn decode_frame(&mut self) -> Result<(), Error> {
        self.at = self.frame.decode(&self.payload, self.at).map_err(|reason| self.job.failed(reason))?;
        let len = self.frame.len() * self.frame.channels() * self.layout.bytes;
        let left = self.left.checked_sub(len as u64);
        self.left = left.ok_or_else(|| self.job.failed("there are more samples than the length says"))?;
        self.pcm.resize(len, 0);
        self.layout.pack(&self.frame, &mut self.pcm);
        self.ready = 0..len;
        Ok(())
    }
}

impl Stream for Flac {
    fn len(&self) -> Option<u64> {
        Some(self.len)
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        if self.ready.is_empty() && self.left > 0 && !out.is_empty() {
            self.decode_frame()?;
        }
        let from = self.pcm.get(self.ready.clone()).unwrap_or_default();
        let len = from.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..len), from.get(..len)) {
            to.copy_from_slice(from);
        }
        self.ready.start += len;
        Ok(len)
    }
}
