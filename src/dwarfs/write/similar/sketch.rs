//! What a file's bytes are like, in 256 bits.
//!
//! Three of any four bytes that follow each other are a feature, in three ways, so that one byte that differs leaves
//! some of them as they are:
//!
//! ```text
//! a b c d  ->  a b c -    a b - d    a - c d   ->  each counted in one of 256 counters
//! ```
//!
//! A bit of the sketch says whether its counter is above the median. Files of one kind, and still more near copies,
//! have the same counters high and low, whatever their lengths: they differ in few bits.

/// Bits of a sketch.
const BITS: usize = 256;
const WORDS: usize = BITS / 64;

/// Which of four bytes make up a feature.
const FEATURES: [u32; 3] = [0x00ff_ffff, 0xff00_ffff, 0xffff_00ff];

/// A file's likeness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Sketch([u64; WORDS]);

impl Sketch {
    /// The sketch of some bytes; that of fewer than four has no bits.
    pub(in super::super) fn of(bytes: &[u8]) -> Self {
        let mut counters = [0_u32; BITS];
        for four in bytes.windows(size_of::<u32>()) {
            let four = four.try_into().map_or(0, u32::from_le_bytes);
            for mask in FEATURES {
                // The upper bits of a product depend on all bits of the factor.
                let [.., counter] = (four & mask).wrapping_mul(0x9e37_79b1).to_le_bytes();
                if let Some(count) = counters.get_mut(usize::from(counter)) {
                    *count = count.saturating_add(1);
                }
            }
        }
        let mut sorted = counters;
        let (_, median, _) = sorted.select_nth_unstable(BITS / 2);
        Self::new(counters.map(|count| count > *median))
    }

    /// Number of bits in which two differ.
    #[inline]
    pub(super) fn distance(&self, other: &Self) -> u32 {
        self.0.iter().zip(&other.0).map(|(a, b)| (a ^ b).count_ones()).sum()
    }

    /// The bits that more than half of the sketches have.
    pub(super) fn majority<'a>(sketches: impl Iterator<Item = &'a Self>) -> Self {
        let mut votes = [0_u32; BITS];
        let mut all = 0;
        for sketch in sketches {
            all += 1;
            for (votes, word) in votes.chunks_mut(64).zip(sketch.0) {
                votes
                    .iter_mut()
                    .enumerate()
                    .for_each(|(bit, votes)| *votes += u32::from(word >> bit & 1 == 1));
            }
        }
        Self::new(votes.map(|votes| votes > all / 2))
    }

    fn new(bits: [bool; BITS]) -> Self {
        let mut sketch = Self::default();
        for (word, bits) in sketch.0.iter_mut().zip(bits.chunks(64)) {
            *word = bits.iter().rev().fold(0, |word, bit| word << 1 | u64::from(*bit));
        }
        sketch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(words: impl Iterator<Item = u32>) -> Vec<u8> {
        let word = |word: u32| format!("word{} ", word.wrapping_mul(2_654_435_761) >> 12);
        words.map(word).collect::<String>().into_bytes()
    }

    #[test]
    fn what_is_alike_is_near() {
        let one = text(0..2_000);
        let near = text((0..1_000).chain(1_100..2_000));
        let far: Vec<u8> =
            (0..10_000_u32).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let [one, again, near, far] = [&one, &one, &near, &far].map(|bytes| Sketch::of(bytes));
        assert_eq!(one, again);
        assert!(one.distance(&near) < 40, "{}", one.distance(&near));
        assert!(one.distance(&far) > 70, "{}", one.distance(&far));
    }

    #[test]
    fn few_bytes_have_a_sketch_too() {
        assert_eq!(Sketch::of(b""), Sketch::default());
        assert_eq!(Sketch::of(b"abc"), Sketch::default());
        assert_ne!(Sketch::of(b"abcd"), Sketch::default());
    }

    #[test]
    fn the_majority_has_the_bits_of_most() {
        let [one, two] = [Sketch([1, 2, 4, u64::MAX]), Sketch([1, 0, 1 << 63, 0])];
        assert_eq!(Sketch::majority([one, two, one].iter()), one);
        assert_eq!(Sketch::majority([one, two].iter()), Sketch([1, 0, 0, 0]));
        assert_eq!(Sketch::majority([].iter()), Sketch::default());
    }
}
