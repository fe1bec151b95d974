//! What the levels of compression stand for.

use std::num::NonZeroUsize;

use super::{
    codec::{Bcj, Codec, Lzma},
    faults::Unreadable,
    options::{History, Order, Overrides, Packing, Resolution, Segmentation, Times, WriteOptions},
};

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

const fn meaning(block_size_bits: u8, [data, metadata]: [Codec; 2], step_shift: u8, order: Order) -> Meaning {
    Meaning { block_size_bits, data, metadata, step_shift, order }
}

const fn zstd(level: i32) -> Codec {
    Codec::Zstd { level }
}

/// Codec of schema and history from level 1 on.
const SCHEMA: Codec = zstd(16);
const LZ4HC: Codec = Codec::Lz4Hc { level: 9 };
const LZMA: Codec = Codec::Lzma(Lzma { level: 9, extreme: false, dictionary_bits: None, filter: Bcj::None });

/// Length of a window at every level that has one, as a power of two.
const WINDOW_BITS: u8 = 12;

/// What each level stands for: what it does in mkdwarfs. Metadata is stored up to level 6, where it is read in place.
static LEVELS: [Meaning; 10] = [
    meaning(20, [Codec::None, Codec::None], 0, Order::None),
    meaning(20, [Codec::Lz4, Codec::None], 0, Order::Path),
    meaning(20, [LZ4HC, Codec::None], 0, Order::Path),
    meaning(21, [LZ4HC, Codec::None], 1, Order::Similarity),
    meaning(22, [zstd(11), Codec::None], 2, Order::Similarity),
    meaning(23, [zstd(19), Codec::None], 2, Order::Similarity),
    meaning(24, [zstd(22), Codec::None], 3, Order::Similarity),
    meaning(24, [zstd(22), zstd(22)], 3, Order::Similarity),
    meaning(24, [LZMA, LZMA], 4, Order::Similarity),
    meaning(26, [LZMA, LZMA], 4, Order::Similarity),
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
            schema: if meaning.data == Codec::None { Codec::None } else { SCHEMA },
            times: Times::default(),
            resolution: Resolution::default(),
            overrides: Overrides::default(),
            order: meaning.order.clone(),
            categorizers: Vec::new(),
            packing: Packing::default(),
            threads: crate::sync::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            memory_limit: None,
            unreadable: Unreadable::default(),
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
        let data = [
            "null",
            "lz4",
            "lz4hc:level=9",
            "lz4hc:level=9",
            "zstd:level=11",
            "zstd:level=19",
            "zstd:level=22",
            "zstd:level=22",
            "lzma:level=9",
            "lzma:level=9",
        ];
        let steps = [0, 0, 0, 1, 2, 2, 3, 3, 4, 4];
        for number in 0..=Level::MOST {
            let options = WriteOptions::at_level(Level::new(number).unwrap());
            options.check().unwrap();
            let at = usize::from(number);
            assert_eq!(options.block_size(), mib[at] << 20, "level {number}");
            assert_eq!(options.data.to_string(), data[at], "level {number}");
            let metadata = if number < 7 { "null" } else { data[at] };
            assert_eq!(options.metadata.to_string(), metadata, "level {number}");
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
