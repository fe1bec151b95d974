//! A hash of the last so many bytes, brought forward byte by byte.
//!
//! A cyclic polynomial: each byte stands for a random number, and moves on by one bit with every byte that follows.
//! Windows are a multiple of 64 bytes long, so that a byte that leaves has come round to where it began, and taking
//! it out is one more exclusive or.

/// Least length of a window, as a power of two: the width of the hash in bits.
pub(in crate::dwarfs::write) const LEAST_BITS: u8 = 6;

/// The random number for each byte.
const NUMBERS: [u64; 256] = numbers();

/// Numbers by `SplitMix64`, the same in every build, so that archives are reproducible.
#[expect(clippy::indexing_slicing, reason = "a constant: out of bounds does not compile")]
const fn numbers() -> [u64; 256] {
    let mut numbers = [0; 256];
    let (mut at, mut state) = (0, 0_u64);
    while at < numbers.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        numbers[at] = mixed ^ (mixed >> 31);
        at += 1;
    }
    numbers
}

/// The hash of a window. Equal windows have equal hashes, wherever they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rolling(u64);

impl Rolling {
    /// The hash of a whole window.
    pub(super) fn of(window: &[u8]) -> Self {
        window.iter().fold(Self::default(), |hash, byte| Self(hash.0.rotate_left(1) ^ number(*byte)))
    }

    /// Moves on: `new` comes, `old`, a whole window before it, goes.
    #[inline]
    pub(super) fn roll(&mut self, old: u8, new: u8) {
        self.0 = self.0.rotate_left(1) ^ (number(old) ^ number(new));
    }

    pub(super) const fn value(self) -> u64 {
        self.0
    }
}

#[inline]
fn number(byte: u8) -> u64 {
    NUMBERS.get(usize::from(byte)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolling_on_equals_hashing_anew() {
        let bytes: Vec<u8> = (0..1_000_u32).map(|at| u8::try_from(at * at / 7 % 251).unwrap()).collect();
        for bits in [LEAST_BITS, 7, 8] {
            let len = 1 << bits;
            let mut hash = Rolling::of(&bytes[..len]);
            for start in 1..bytes.len() - len {
                hash.roll(bytes[start - 1], bytes[start + len - 1]);
                assert_eq!(hash, Rolling::of(&bytes[start..start + len]), "{len} at {start}");
            }
        }
    }
}
