//! Frames: up to 65535 samples of each channel.
//!
//! ```text
//! frame     14 bits 0x3ffe, 0, 1 bit: blocks of any size   4 block size   4 sample rate
//!           4 channels   3 bits a sample   0   number, as UTF-8 writes it   [block size]   [rate]   8 CRC
//!           subframe of each channel, up to the next byte   16 CRC
//! subframe  0   6 kind: 0 constant, 1 verbatim, 8 + order fixed, 31 + order linear
//!           1 bit: low bits are left out; then in unary how many, less one
//! linear    samples of the order   4 precision - 1   5 shift   coefficients   residual
//! residual  2 method: 0 or 1   4 order: 2^order partitions of equal length
//! partition 4 bits (method 0) or 5 (method 1) low bits of a Rice code; all ones: 5 bits, width of plain numbers
//! ```
//!
//! Two channels may be written as one of them and the difference, or as mean and difference: it takes a bit more.

use super::{
    bits::Bits,
    predict::{Predictor, Sample, fixed},
};

/// The least number of bits of a sample.
pub(super) const MIN_BITS: u32 = 4;
/// The highest order of a linear predictor.
const MAX_ORDER: usize = 32;
/// Bits that `i32` holds; a difference of two such samples needs one more.
const MAX_NARROW_BITS: u32 = i32::BITS;

const TOO_SHORT: &str = "a frame ends too early";
const RESERVED: &str = "a frame uses a reserved value";

/// How two channels are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pair {
    Independent,
    LeftSide,
    SideRight,
    MidSide,
}

/// The last frame that was decoded. Its memory is used again for the next one.
#[derive(Debug)]
pub(super) struct Frame {
    bits: u32,
    len: usize,
    channels: Vec<Vec<i32>>,
    /// A difference of samples of 32 bits.
    side: Vec<i64>,
    /// Residuals of it.
    residual: Vec<i32>,
}

impl Frame {
    /// Room for frames of a stream.
    pub(super) fn new(channels: usize, bits: u32) -> Self {
        let channels = vec![Vec::new(); channels];
        Self { bits, len: 0, channels, side: Vec::new(), residual: Vec::new() }
    }

    /// Samples of each channel.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Number of channels.
    pub(super) const fn channels(&self) -> usize {
        self.channels.len()
    }

    /// The samples, by channel.
    pub(super) fn samples(&self) -> impl Iterator<Item = &[i32]> {
        self.channels.iter().map(Vec::as_slice)
    }

    /// Decodes the frame at `at`, and returns where it ends.
    pub(super) fn decode(&mut self, payload: &[u8], at: usize) -> Result<usize, &'static str> {
        let mut bits = Bits::new(payload, at);
        let (len, pair) = self.read_header(&mut bits)?;
        self.len = len;
        self.channels.iter_mut().for_each(|channel| channel.resize(len, 0));
        self.read_subframes(&mut bits, pair)?;
        bits.align();
        bits.skip_bytes(size_of::<u16>());
        bits.position().ok_or(TOO_SHORT)
    }

    fn read_header(&self, bits: &mut Bits<'_>) -> Result<(usize, Pair), &'static str> {
        const SYNC: u32 = 0x3ffe;
        if bits.take(15).ok_or(TOO_SHORT)? != SYNC << 1 {
            return Err("no frame where one should begin");
        }
        bits.take(1).ok_or(TOO_SHORT)?;
        let size = bits.take(4).ok_or(TOO_SHORT)?;
        let rate = bits.take(4).ok_or(TOO_SHORT)?;
        let channels = bits.take(4).ok_or(TOO_SHORT)?;
        let width = bits.take(3).ok_or(TOO_SHORT)?;
        let reserved = bits.take(1).ok_or(TOO_SHORT)?;
        let pair = self.pair(channels)?;
        if reserved != 0 || !self.is_width(width) {
            return Err(RESERVED);
        }
        skip_number(bits)?;
        let len = match size {
            0 => return Err(RESERVED),
            1 => 192,
            2..=5 => 576 << (size - 2),
            6 => bits.take(8).ok_or(TOO_SHORT)? + 1,
            7 => bits.take(16).ok_or(TOO_SHORT)? + 1,
            _ => 256 << (size - 8),
        };
        match rate {
            12 => drop(bits.take(8)),
            13 | 14 => drop(bits.take(16)),
            15 => return Err(RESERVED),
            _ => {}
        }
        bits.take(8).ok_or(TOO_SHORT)?;
        Ok((usize::try_from(len).unwrap_or_default(), pair))
    }

    /// How the channels are written, if it is as many as the stream has.
    fn pair(&self, code: u32) -> Result<Pair, &'static str> {
        let (channels, pair) = match code {
            0..=7 => (usize::try_from(code).unwrap_or_default() + 1, Pair::Independent),
            8 => (2, Pair::LeftSide),
            9 => (2, Pair::SideRight),
            10 => (2, Pair::MidSide),
            _ => return Err(RESERVED),
        };
        if channels == self.channels.len() { Ok(pair) } else { Err("a frame has another number of channels") }
    }

    /// Whether a code for the bits of a sample means those of the stream.
    const fn is_width(&self, code: u32) -> bool {
        let bits = match code {
            0 => self.bits,
            1 => 8,
            2 => 12,
            4 => 16,
            5 => 20,
            6 => 24,
            7 => 32,
            _ => 0,
        };
        bits == self.bits
    }

    fn read_subframes(&mut self, bits: &mut Bits<'_>, pair: Pair) -> Result<(), &'static str> {
        let width = self.bits;
        if pair == Pair::Independent {
            let mut channels = self.channels.iter_mut();
            return channels.try_for_each(|channel| read_subframe(bits, width, channel));
        }
        let [first, second] = self.channels.as_mut_slice() else { return Err(RESERVED) };
        if width < MAX_NARROW_BITS {
            let side_first = u32::from(pair == Pair::SideRight);
            read_subframe(bits, width + side_first, first)?;
            read_subframe(bits, width + 1 - side_first, second)?;
            join(pair, first, second);
            return Ok(());
        }
        self.side.resize(self.len, 0);
        self.residual.resize(self.len, 0);
        if pair == Pair::SideRight {
            read_wide_subframe(bits, width + 1, &mut self.side, &mut self.residual)?;
            read_subframe(bits, width, second)?;
        } else {
            read_subframe(bits, width, first)?;
            read_wide_subframe(bits, width + 1, &mut self.side, &mut self.residual)?;
        }
        join_wide(pair, first, second, &self.side);
        Ok(())
    }
}

/// Reads over the number of a frame or sample.
fn skip_number(bits: &mut Bits<'_>) -> Result<(), &'static str> {
    let first = u8::try_from(bits.take(8).ok_or(TOO_SHORT)?).unwrap_or_default();
    match first.leading_ones() {
        0 => {}
        ones @ 2..=7 => bits.skip_bytes(usize::try_from(ones - 1).unwrap_or_default()),
        _ => return Err(RESERVED),
    }
    Ok(())
}

/// Makes two channels of what was written instead of them.
fn join(pair: Pair, first: &mut [i32], second: &mut [i32]) {
    let both = first.iter_mut().zip(second);
    match pair {
        Pair::Independent => {}
        Pair::LeftSide => both.for_each(|(left, side)| *side = left.wrapping_sub(*side)),
        Pair::SideRight => both.for_each(|(side, right)| *side = side.wrapping_add(*right)),
        Pair::MidSide => both.for_each(|(mid, side)| {
            let sum = *mid << 1 | *side & 1;
            (*mid, *side) = (sum.wrapping_add(*side) >> 1, sum.wrapping_sub(*side) >> 1);
        }),
    }
}

/// The same with differences of 33 bits.
fn join_wide(pair: Pair, first: &mut [i32], second: &mut [i32], side: &[i64]) {
    for ((first, second), side) in first.iter_mut().zip(second).zip(side) {
        match pair {
            Pair::Independent => {}
            Pair::LeftSide => *second = i32::from_wide(i64::from(*first).wrapping_sub(*side)),
            Pair::SideRight => *first = i32::from_wide(side.wrapping_add(i64::from(*second))),
            Pair::MidSide => {
                let sum = i64::from(*first) << 1 | *side & 1;
                *first = i32::from_wide(sum.wrapping_add(*side) >> 1);
                *second = i32::from_wide(sum.wrapping_sub(*side) >> 1);
            }
        }
    }
}

/// What a subframe's head says.
struct Head {
    kind: u32,
    /// Low bits that are left out.
    shift: u32,
    /// Bits of the samples as they are written.
    width: u32,
}

fn read_head(bits: &mut Bits<'_>, width: u32) -> Result<Head, &'static str> {
    if bits.take(1).ok_or(TOO_SHORT)? != 0 {
        return Err(RESERVED);
    }
    let kind = bits.take(6).ok_or(TOO_SHORT)?;
    let shift = match bits.take(1).ok_or(TOO_SHORT)? {
        0 => 0,
        _ => bits.zeros().ok_or(TOO_SHORT)?.saturating_add(1),
    };
    let rest = width.checked_sub(shift).filter(|width| *width > 0);
    Ok(Head { kind, shift, width: rest.ok_or("a subframe leaves out all bits")? })
}

/// Reads a channel of samples of up to 32 bits.
fn read_subframe(bits: &mut Bits<'_>, width: u32, out: &mut [i32]) -> Result<(), &'static str> {
    let head = read_head(bits, width)?;
    if let Some(order) = read_samples(bits, &head, out)? {
        let start = out.get_mut(order..).ok_or("a predictor needs more samples than a frame has")?;
        let coefficients = Coefficients::read(bits, &head, order)?;
        read_residual(bits, order, start)?;
        coefficients.predict(out);
    }
    if head.shift > 0 {
        out.iter_mut().for_each(|sample| *sample <<= head.shift);
    }
    Ok(())
}

/// Reads a channel of samples of 33 bits; their residuals have 32.
fn read_wide_subframe(
    bits: &mut Bits<'_>,
    width: u32,
    out: &mut [i64],
    residual: &mut [i32],
) -> Result<(), &'static str> {
    let head = read_head(bits, width)?;
    if let Some(order) = read_samples(bits, &head, out)? {
        let (Some(start), Some(residual)) = (out.get_mut(order..), residual.get_mut(order..)) else {
            return Err("a predictor needs more samples than a frame has");
        };
        let coefficients = Coefficients::read(bits, &head, order)?;
        read_residual(bits, order, residual)?;
        start.iter_mut().zip(residual).for_each(|(to, from)| *to = i64::from(*from));
        coefficients.predict(out);
    }
    if head.shift > 0 {
        out.iter_mut().for_each(|sample| *sample <<= head.shift);
    }
    Ok(())
}

/// Reads the samples that are written as they are: all, or as many as the order of the predictor, which is returned.
fn read_samples<S: Sample>(
    bits: &mut Bits<'_>,
    head: &Head,
    out: &mut [S],
) -> Result<Option<usize>, &'static str> {
    let mut sample = || bits.take_signed(head.width).map(S::from_wide).ok_or(TOO_SHORT);
    let order = match head.kind {
        0 => {
            out.fill(sample()?);
            return Ok(None);
        }
        1 => {
            out.iter_mut().try_for_each(|to| sample().map(|value| *to = value))?;
            return Ok(None);
        }
        8..=12 => head.kind - 8,
        32..=63 => head.kind - 31,
        _ => return Err(RESERVED),
    };
    let order = usize::try_from(order).unwrap_or_default();
    out.iter_mut().take(order).try_for_each(|to| sample().map(|value| *to = value))?;
    Ok(Some(order))
}

/// How samples are guessed.
enum Coefficients {
    Fixed(usize),
    Linear { values: [i32; MAX_ORDER], order: usize, shift: u32, is_narrow: bool },
}

impl Coefficients {
    fn read(bits: &mut Bits<'_>, head: &Head, order: usize) -> Result<Self, &'static str> {
        if head.kind < 32 {
            return Ok(Self::Fixed(order));
        }
        let precision = bits.take(4).ok_or(TOO_SHORT)? + 1;
        let shift = bits.take_signed(5).ok_or(TOO_SHORT)?;
        let shift = u32::try_from(shift).map_err(|_| "a predictor shifts to the left")?;
        if precision > 15 {
            return Err(RESERVED);
        }
        let mut values = [0; MAX_ORDER];
        for value in values.iter_mut().take(order) {
            *value = bits.take_signed(precision).map(i32::from_wide).ok_or(TOO_SHORT)?;
        }
        let is_narrow = head.width + precision + order.ilog2() <= MAX_NARROW_BITS;
        Ok(Self::Linear { values, order, shift, is_narrow })
    }

    fn predict<S: Sample>(&self, samples: &mut [S]) {
        match self {
            Self::Fixed(order) => fixed(samples, *order),
            Self::Linear { values, order, shift, is_narrow } => {
                let coefficients = values.get(..*order).unwrap_or_default();
                S::predict(samples, Predictor { coefficients, shift: *shift, is_narrow: *is_narrow });
            }
        }
    }
}

/// Reads the residuals behind the first `order` samples of a frame.
fn read_residual(bits: &mut Bits<'_>, order: usize, out: &mut [i32]) -> Result<(), &'static str> {
    let param_bits = match bits.take(2).ok_or(TOO_SHORT)? {
        0 => 4,
        1 => 5,
        _ => return Err(RESERVED),
    };
    let escape = (1 << param_bits) - 1;
    let partitions = 1_usize << bits.take(4).ok_or(TOO_SHORT)?;
    let samples = order + out.len();
    let len = samples / partitions;
    let first = len.checked_sub(order).filter(|_| samples.is_multiple_of(partitions));
    let first = first.ok_or("partitions do not fit their frame")?;
    let mut rest = out;
    for number in 0..partitions {
        let Some((partition, behind)) = rest.split_at_mut_checked(if number == 0 { first } else { len })
        else {
            return Err("partitions do not fit their frame");
        };
        rest = behind;
        let low_bits = bits.take(param_bits).ok_or(TOO_SHORT)?;
        if low_bits < escape {
            bits.rice(low_bits, partition).ok_or(TOO_SHORT)?;
            continue;
        }
        let width = bits.take(5).ok_or(TOO_SHORT)?;
        for to in partition {
            *to = bits.take_signed(width).map(i32::from_wide).ok_or(TOO_SHORT)?;
        }
    }
    Ok(())
}
