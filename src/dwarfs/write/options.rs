//! How an archive is to be made.

use std::num::NonZeroUsize;

use super::{error::WriteError, object::Timestamp};

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By path: what lies together in the tree lies together in the archive.
    #[default]
    Path,
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
        Self {
            block_size_bits: 24,
            data: Codec::Zstd { level: 11 },
            metadata: Codec::Zstd { level: 11 },
            times: Times::default(),
            order: Order::default(),
            packing: Packing::default(),
            threads: crate::sync::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            created: None,
            latest_time: None,
            history: Some(History::default()),
        }
    }
}

/// Smallest and largest block size as a power of two; upstream's writer has the same.
const BLOCK_SIZE_BITS: std::ops::RangeInclusive<u8> = 10..=30;
/// Levels of zstd.
const ZSTD_LEVELS: std::ops::RangeInclusive<i32> = 1..=22;

impl WriteOptions {
    /// Block size in bytes.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        1_u32.checked_shl(u32::from(self.block_size_bits)).unwrap_or(0)
    }

    /// Checks that every option is in its range.
    ///
    /// # Errors
    /// Names the first one that is not.
    pub fn check(&self) -> Result<(), WriteError> {
        let (least, most) = (*BLOCK_SIZE_BITS.start(), *BLOCK_SIZE_BITS.end());
        if !BLOCK_SIZE_BITS.contains(&self.block_size_bits) {
            let found = i64::from(self.block_size_bits);
            let (least, most) = (i64::from(least), i64::from(most));
            return Err(WriteError::Option { option: "block size (bits)", found, least, most });
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
