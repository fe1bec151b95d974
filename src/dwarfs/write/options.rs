//! How an archive is to be made.

use std::num::NonZeroUsize;

use super::{error::WriteError, object::Timestamp, segment::LEAST_BITS};
use crate::{dwarfs::profile::Profile, sync::Arc};

/// How sections are compressed. What does not get smaller is stored in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None,
    /// zstd at a level from 1 to 22.
    Zstd {
        /// The level.
        level: i32,
    },
}

/// Which times of an object are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// The last change of content only; the others read as the same.
    #[default]
    Modified,
    /// Last change of content, last access and last change of attributes.
    All,
}

/// In which order files are put into blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By path: what lies together in the tree lies together in the archive.
    #[default]
    Path,
    /// First the files of this profile in its order, then the others by path: what is read together lies together.
    Profile(Arc<Profile>),
}

/// How contents are found again that a recent block has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// Length of the shortest match for sure, as a power of two, 6 to 24.
    pub window_bits: u8,
    /// A window is remembered at every 2^(`window_bits` - `step_shift`)th byte: the more, the more memory, and the
    /// more matches that are hardly longer than a window.
    pub step_shift: u8,
    /// So many blocks are looked at, the one that is being filled among them.
    pub lookback: u8,
}

impl Segmentation {
    /// Length of a window in bytes.
    pub(super) const fn window(self) -> usize {
        1 << self.window_bits
    }

    /// Bytes between two windows that are remembered, as a power of two.
    pub(super) const fn step_bits(self) -> u8 {
        self.window_bits.saturating_sub(self.step_shift)
    }

    /// Bytes between two windows that are remembered.
    pub(super) const fn step(self) -> usize {
        1 << self.step_bits()
    }
}

/// Which tables of the metadata are stored as differences. That makes uncompressed metadata smaller and costs every
/// reader time and memory when it opens the archive, so nothing is packed unless asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    /// The table of each file's first chunk.
    pub chunk_table: bool,
    /// The directories.
    pub directories: bool,
    /// The table of shared files.
    pub shared_files: bool,
    /// The indexes of names and symlink targets.
    pub string_index: bool,
    /// Names and symlink targets as lists of strings instead of one buffer each.
    pub plain_strings: bool,
}

/// Who made the archive, and how: one entry of its history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The command line.
    pub arguments: Vec<String>,
}

/// How an archive is to be made. The same source and options give the same bytes, whatever the number of threads.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Block size as a power of two, 10 to 30: the unit of compression, and of memory.
    pub block_size_bits: u8,
    /// How contents are found again; `None`, or windows longer than a block: whole files only.
    pub segmentation: Option<Segmentation>,
    /// Codec of file data.
    pub data: Codec,
    /// Codec of the metadata. Stored metadata is read in place, compressed metadata takes less room.
    pub metadata: Codec,
    /// Which times are kept.
    pub times: Times,
    /// In which order files are put into blocks.
    pub order: Order,
    /// Which tables of the metadata are packed.
    pub packing: Packing,
    /// Threads that compress.
    pub threads: NonZeroUsize,
    /// When the archive was made, in seconds since the epoch. `None` leaves it out.
    pub created: Option<u64>,
    /// Times after this one are stored as this one: how `SOURCE_DATE_EPOCH` is honoured.
    pub latest_time: Option<Timestamp>,
    /// The entry in the archive's history. `None` leaves it out.
    pub history: Option<History>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self::at_level(Level::default())
    }
}

/// How hard to compress: 0 (not at all) to 9 (as small as can be), with the meaning that mkdwarfs gives to its levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(u8);

/// What a level stands for.
struct Meaning {
    block_size_bits: u8,
    /// Level of zstd for file data; 0: not compressed.
    data: i32,
    /// The same for the metadata.
    metadata: i32,
    /// How often windows of 4 KiB are remembered; 0: contents are not looked for.
    step_shift: u8,
}

const fn meaning(block_size_bits: u8, data: i32, metadata: i32, step_shift: u8) -> Meaning {
    Meaning { block_size_bits, data, metadata, step_shift }
}

/// Length of a window at every level that has one, as a power of two.
const WINDOW_BITS: u8 = 12;

/// What each level stands for. Block sizes and what is compressed at all are those of mkdwarfs; where that has other
/// codecs there is a zstd of about their speed.
const LEVELS: [Meaning; 10] = [
    meaning(20, 0, 0, 0),
    meaning(20, 1, 0, 0),
    meaning(20, 3, 0, 0),
    meaning(21, 5, 0, 1),
    meaning(22, 7, 0, 2),
    meaning(23, 9, 0, 2),
    meaning(24, 12, 0, 3),
    meaning(24, 17, 17, 3),
    meaning(24, 19, 19, 4),
    meaning(26, 22, 22, 4),
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
    /// The last one before more time stops paying. A minimal Debian root (156 MiB) on two busy cores: level 1 makes 57 MiB
    /// in 1.3 s, 3 48 MiB in 2.3 s, 5 43 MiB in 3.3 s, 6 42 MiB in 7.8 s, 7 39 MiB in 32 s, 8 38 MiB in 62 s.
    fn default() -> Self {
        Self(5)
    }
}

/// Smallest and largest block size as a power of two; upstream's writer has the same.
const BLOCK_SIZE_BITS: std::ops::RangeInclusive<u8> = 10..=30;
/// Lengths of a window as a power of two.
const WINDOWS: std::ops::RangeInclusive<u8> = LEAST_BITS..=24;
/// Windows that are remembered of a block, as a power of two: what finds them takes some 10 bytes each.
const MOST_WINDOWS_BITS: u8 = 22;
/// Levels of zstd.
const ZSTD_LEVELS: std::ops::RangeInclusive<i32> = 1..=22;

impl WriteOptions {
    /// The options that a level stands for.
    #[must_use]
    pub fn at_level(level: Level) -> Self {
        let codec = |level| if level == 0 { Codec::None } else { Codec::Zstd { level } };
        let meaning = level.meaning();
        Self {
            block_size_bits: meaning.block_size_bits,
            segmentation: (meaning.step_shift > 0).then_some(Segmentation {
                window_bits: WINDOW_BITS,
                step_shift: meaning.step_shift,
                lookback: 1,
            }),
            data: codec(meaning.data),
            metadata: codec(meaning.metadata),
            times: Times::default(),
            order: Order::default(),
            packing: Packing::default(),
            threads: crate::sync::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            created: None,
            latest_time: None,
            history: Some(History::default()),
        }
    }

    /// Block size in bytes.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        1_u32.checked_shl(u32::from(self.block_size_bits)).unwrap_or(0)
    }

    /// How contents are found again, where a block can hold a window.
    pub(super) fn segmentation(&self) -> Option<Segmentation> {
        self.segmentation.filter(|segmentation| segmentation.window_bits <= self.block_size_bits)
    }

    /// Checks that every option is in its range.
    ///
    /// # Errors
    /// Names the first one that is not.
    pub fn check(&self) -> Result<(), WriteError> {
        let (least, most) = (*BLOCK_SIZE_BITS.start(), *BLOCK_SIZE_BITS.end());
        in_range("block size (bits)", self.block_size_bits, least, most)?;
        if let Some(segmentation) = self.segmentation() {
            let (least, most) = (*WINDOWS.start(), *WINDOWS.end());
            in_range("window size (bits)", segmentation.window_bits, least, most)?;
            let finest = (MOST_WINDOWS_BITS + segmentation.window_bits).saturating_sub(self.block_size_bits);
            in_range("window step", segmentation.step_shift, 0, finest.min(segmentation.window_bits))?;
            in_range("lookback", segmentation.lookback, 1, u8::MAX)?;
        }
        for codec in [self.data, self.metadata] {
            if let Codec::Zstd { level } = codec
                && !ZSTD_LEVELS.contains(&level)
            {
                let (least, most) = (i64::from(*ZSTD_LEVELS.start()), i64::from(*ZSTD_LEVELS.end()));
                let found = i64::from(level);
                return Err(WriteError::Option { option: "zstd level", found, least, most });
            }
        }
        Ok(())
    }
}

fn in_range(option: &'static str, found: u8, least: u8, most: u8) -> Result<(), WriteError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    let (found, least, most) = (i64::from(found), i64::from(least), i64::from(most));
    Err(WriteError::Option { option, found, least, most })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_stand_for_block_sizes_and_codecs() {
        let mib = [1, 1, 1, 2, 4, 8, 16, 16, 16, 64];
        let data = [0, 1, 3, 5, 7, 9, 12, 17, 19, 22];
        for (number, (mib, level)) in (0..).zip(mib.into_iter().zip(data)) {
            let options = WriteOptions::at_level(Level::new(number).unwrap());
            options.check().unwrap();
            assert_eq!(options.block_size(), mib << 20, "level {number}");
            let codec = if level == 0 { Codec::None } else { Codec::Zstd { level } };
            assert_eq!(options.data, codec, "level {number}");
            let metadata = if number < 7 { Codec::None } else { codec };
            assert_eq!(options.metadata, metadata, "level {number}");
        }
        assert_eq!(Level::new(10), None);
    }
}
