//! From samples to the bytes of an audio file.

use super::frame::Frame;

/// Where in its bytes a sample leaves bits unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    /// Above it: they repeat the sign, or are zero.
    High,
    /// Below it: they are zero.
    Low,
}

/// How a file writes samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Bytes of a sample, 1 to 4.
    pub(super) bytes: usize,
    /// Bits of a sample, 4 to 32 and no more than the bytes have.
    pub(super) bits: u32,
    pub(super) big_endian: bool,
    /// Whether samples are in two's complement; otherwise they begin at 0.
    pub(super) signed: bool,
    pub(super) padding: Padding,
}

impl Layout {
    /// Writes a frame, sample by sample of all channels; `out` has the length for it.
    pub(super) fn pack(self, frame: &Frame, out: &mut [u8]) {
        match (self.bytes, self.big_endian) {
            (1, _) => self.pack_as(frame, out, |[a, ..]| [a]),
            (2, false) => self.pack_as(frame, out, |[a, b, ..]| [a, b]),
            (2, true) => self.pack_as(frame, out, |[a, b, ..]| [b, a]),
            (3, false) => self.pack_as(frame, out, |[a, b, c, _]| [a, b, c]),
            (3, true) => self.pack_as(frame, out, |[a, b, c, _]| [c, b, a]),
            (_, false) => self.pack_as(frame, out, |bytes| bytes),
            (_, true) => self.pack_as(frame, out, |[a, b, c, d]| [d, c, b, a]),
        }
    }

    /// Writes each sample by `order`, which gets its bytes, the lowest first.
    fn pack_as<const N: usize>(self, frame: &Frame, out: &mut [u8], order: impl Fn([u8; 4]) -> [u8; N]) {
        let offset = if self.signed { 0 } else { 1_u32 << (self.bits - 1) };
        let unused = u32::try_from(self.bytes).unwrap_or_default() * u8::BITS - self.bits;
        let shift = if self.padding == Padding::Low { unused } else { 0 };
        let bytes = |sample: i32| order((sample.cast_unsigned().wrapping_add(offset) << shift).to_le_bytes());
        let (slots, _) = out.as_chunks_mut::<N>();
        for (channel, samples) in frame.samples().enumerate() {
            let slots = slots.iter_mut().skip(channel).step_by(frame.channels());
            slots.zip(samples).for_each(|(slot, sample)| *slot = bytes(*sample));
        }
    }
}
