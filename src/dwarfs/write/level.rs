//! What the levels of compression stand for.

use std::num::NonZeroUsize;

use super::options::{Codec, History, Order, Packing, Segmentation, Times, WriteOptions};

/// How hard to compress: 0 (not at all) to 9 (as small as can be), with the meaning that mkdwarfs gives to its levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(u8);

/// What a level stands for.
struct Meaning {
    block_size_bits: u8,
    data: Codec,
    metadata: Codec,
    /// How often windows of 4 KiB are remembered; 0: contents are not looked for.
    step_shift: u8,
    order: Order,
}

const fn meaning(block_size_bits: u8, [data, metadata]: [i32; 2], step_shift: u8, order: Order) -> Meaning {
    Meaning { block_size_bits, data: zstd(data), metadata: zstd(metadata), step_shift, order }
}

const fn zstd(level: i32) -> Codec {
    if level == 0 { Codec::None } else { Codec::Zstd { level } }
}

/// Length of a window at every level that has one, as a power of two.
const WINDOW_BITS: u8 = 12;

/// What each level stands for: that of mkdwarfs, but where that has another codec than zstd (1 to 3, 8 and 9) there is
/// a zstd of about its speed, or of about its size.
static LEVELS: [Meaning; 10] = [
    meaning(20, [0, 0], 0, Order::None),
    meaning(20, [1, 0], 0, Order::Path),
    meaning(20, [3, 0], 0, Order::Path),
    meaning(21, [5, 0], 1, Order::Similarity),
    meaning(22, [11, 0], 2, Order::Similarity),
    meaning(23, [19, 0], 2, Order::Similarity),
    meaning(24, [22, 0], 3, Order::Similarity),
    meaning(24, [22, 22], 3, Order::Similarity),
    meaning(24, [22, 22], 4, Order::Similarity),
    meaning(26, [22, 22], 4, Order::Similarity),
];

impl Level {
    /// The highest level.
    pub const MOST: u8 = 9;

    /// A level by its number, `None` above [`MOST`](Self::MOST).
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number <= Self::MOST { Some(Self(number)) } else { None }
    }

    fn meaning(self) -> &'static Meaning {
        let [lowest, ..] = &LEVELS;
        LEVELS.get(usize::from(self.0)).unwrap_or(lowest)
    }
}

impl Default for Level {
    /// That of mkdwarfs: small rather than soon.
    fn default() -> Self {
        Self(7)
    }
}

impl WriteOptions {
    /// The options that a level stands for.
    #[must_use]
    pub fn at_level(level: Level) -> Self {
        let meaning = level.meaning();
        Self {
            block_size_bits: meaning.block_size_bits,
            segmentation: (meaning.step_shift > 0)
                .then_some(Segmentation { step_shift: meaning.step_shift, ..Segmentation::default() }),
            data: meaning.data,
            metadata: meaning.metadata,
            times: Times::default(),
            order: meaning.order.clone(),
            categorizers: Vec::new(),
            packing: Packing::default(),
            threads: crate::sync::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            memory_limit: None,
            created: None,
            latest_time: None,
            history: Some(History::default()),
        }
    }
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self::at_level(Level::default())
    }
}

impl Default for Segmentation {
    /// Windows of 4 KiB in the block that is being filled, each half a window: the least that any level looks for.
    fn default() -> Self {
        Self { window_bits: WINDOW_BITS, step_shift: 1, lookback: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_stand_for_what_they_do_in_mkdwarfs() {
        let mib = [1, 1, 1, 2, 4, 8, 16, 16, 16, 64];
        let data = [0, 1, 3, 5, 11, 19, 22, 22, 22, 22];
        let steps = [0, 0, 0, 1, 2, 2, 3, 3, 4, 4];
        for number in 0..=Level::MOST {
            let options = WriteOptions::at_level(Level::new(number).unwrap());
            options.check().unwrap();
            let at = usize::from(number);
            assert_eq!(options.block_size(), mib[at] << 20, "level {number}");
            assert_eq!(options.data, zstd(data[at]), "level {number}");
            assert_eq!(options.metadata, zstd(if number < 7 { 0 } else { data[at] }), "level {number}");
            let segmentation = options.segmentation.map(|it| (it.window_bits, it.step_shift, it.lookback));
            assert_eq!(segmentation, (steps[at] > 0).then_some((12, steps[at], 1)), "level {number}");
            let order = match number {
                0 => Order::None,
                1 | 2 => Order::Path,
                _ => Order::Similarity,
            };
            assert_eq!(options.order, order, "level {number}");
        }
        assert_eq!(Level::new(10), None);
        assert_eq!(Level::default(), Level(7));
    }
}
