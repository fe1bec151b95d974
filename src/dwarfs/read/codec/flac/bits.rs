//! Bits from the highest of each byte on.

use crate::dwarfs::format::bytes::array_at;

/// Reads bits. Where they end, every method says so by `None`.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte.
    at: usize,
    /// Bits that were read from bytes, the next one highest; those below the first `count` are zero.
    held: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    /// Reads from byte `at` on.
    pub(super) const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, held: 0, count: 0 }
    }

    /// The next `count` bits as a number, at most 32.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        if self.count < count {
            self.refill();
        }
        let value = self.held.checked_shr(u64::BITS - count).unwrap_or(0);
        self.skip(count)?;
        u32::try_from(value).ok()
    }

    /// The next `count` bits as a number in two's complement, at most 33.
    pub(super) fn take_signed(&mut self, count: u32) -> Option<i64> {
        if self.count < count {
            self.refill();
        }
        let value = self.held.cast_signed().checked_shr(u64::BITS - count).unwrap_or(0);
        self.skip(count)?;
        Some(value)
    }

    /// How many 0 come before the next 1; both are read.
    pub(super) fn zeros(&mut self) -> Option<u32> {
        let mut sum = 0_u32;
        loop {
            if self.count <= u32::BITS {
                self.refill();
            }
            let zeros = self.held.leading_zeros().min(self.count);
            sum = sum.saturating_add(zeros);
            if zeros < self.count {
                self.skip(zeros + 1)?;
                return Some(sum);
            }
            if zeros == 0 {
                return None;
            }
            self.skip(zeros)?;
        }
    }

    /// Rice codes with `low_bits` (below 31) for all of `out`: of each number, folded (0, -1, 1, -2, ...), the part
    /// above the low bits as so many 0 and a 1, then the low bits.
    pub(super) fn rice(&mut self, low_bits: u32, out: &mut [i32]) -> Option<()> {
        for to in out {
            if self.count <= u32::BITS {
                self.refill();
            }
            let zeros = self.held.leading_zeros();
            let (high, low) = if zeros + 1 + low_bits <= self.count {
                // The usual case: the whole code is held. No shift reaches 64, for 63 bits are held at most.
                let low = (self.held << (zeros + 1)) >> 1 >> (u64::BITS - 1 - low_bits);
                self.held <<= zeros + 1 + low_bits;
                self.count -= zeros + 1 + low_bits;
                (zeros, u32::try_from(low).ok()?)
            } else {
                (self.zeros()?, self.take(low_bits)?)
            };
            let folded = high << low_bits | low;
            *to = (folded >> 1 ^ (folded & 1).wrapping_neg()).cast_signed();
        }
        Some(())
    }

    /// Goes on behind `len` bytes; at a byte's start.
    pub(super) fn skip_bytes(&mut self, len: usize) {
        // Held bytes are given back: what is left of them begins at a byte.
        let held = usize::try_from(self.count / u8::BITS).unwrap_or_default();
        self.at = (self.at - held).saturating_add(len);
        (self.held, self.count) = (0, 0);
    }

    /// Drops the bits up to the next byte.
    pub(super) fn align(&mut self) {
        let _ = self.skip(self.count % u8::BITS);
    }

    /// The next byte, where the bits before it have all been read; `None` where it lies behind the end.
    pub(super) fn position(&self) -> Option<usize> {
        let at = self.at.checked_sub(usize::try_from(self.count / u8::BITS).ok()?)?;
        (at <= self.bytes.len()).then_some(at)
    }

    /// Holds at least 56 bits, or all that are left. Called with at most 32 of them held.
    fn refill(&mut self) {
        if let Some(word) = array_at(self.bytes, self.at).map(u64::from_be_bytes) {
            let bytes = (u64::BITS - 1 - self.count) / u8::BITS;
            self.count += bytes * u8::BITS;
            self.held |= word >> (self.count - bytes * u8::BITS);
            self.held &= !(u64::MAX >> self.count);
            self.at += usize::try_from(bytes).unwrap_or_default();
            return;
        }
        while self.count < u64::BITS - u8::BITS {
            let Some(byte) = self.bytes.get(self.at) else { return };
            self.held |= u64::from(*byte) << (u64::BITS - u8::BITS - self.count);
            self.at += 1;
            self.count += u8::BITS;
        }
    }

    fn skip(&mut self, count: u32) -> Option<()> {
        self.count = self.count.checked_sub(count)?;
        self.held = self.held.checked_shl(count).unwrap_or(0);
        Some(())
    }
}
