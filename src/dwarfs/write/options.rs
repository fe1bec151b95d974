//! How an archive is to be made.

use std::num::{NonZeroU32, NonZeroUsize};

use super::{
    category::{Categorizer, Category},
    codec::{Bcj, Codec, Lzma},
    compress::Codecs,
    error::WriteError,
    faults::Unreadable,
    memory,
    object::Timestamp,
    segment::LEAST_BITS,
};
use crate::{
    dwarfs::{format::history::HistoryEntry, profile::Profile},
    sync::Arc,
};

/// Which times of an object are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// The last change of content only; the others read as the same.
    #[default]
    Modified,
    /// Last change of content, last access and last change of attributes; and when an object was made, where that is
    /// known of all.
    All,
}

/// How finely times are kept. What lies between is rounded down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// In units of so many nanoseconds, less than a second.
    Nanoseconds(NonZeroU32),
    /// In units of so many seconds.
    Seconds(NonZeroU32),
}

impl Default for Resolution {
    /// As finely as times are known.
    fn default() -> Self {
        Self::Nanoseconds(NonZeroU32::MIN)
    }
}

/// What objects are said to be, whatever they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The owner of everything.
    pub uid: Option<u32>,
    /// The group of everything.
    pub gid: Option<u32>,
    /// All times of everything.
    pub time: Option<Timestamp>,
}

/// In which order files are put into blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// As the source was walked, breadth first.
    None,
    /// By path: what lies together in the tree lies together in the archive.
    Path,
    /// By path, compared from its last name on: files of the same name lie together.
    ReversePath,
    /// Files that are alike follow each other, wherever they are in the tree: the smallest archive.
    Similarity,
    /// First the files with these paths (names with `/` between them) in their order, then the others by path.
    List(Arc<[Box<[u8]>]>),
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
/// reader time and memory when it opens the archive, so nothing is packed unless asked for but the strings, which
/// are read in place all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Names and symlink targets by symbols (FSST), each where that is smaller; in stored metadata only. (Of 11,000
    /// files, a Debian root with gcc, it takes 393 KB down to 339; of what zstd and lzma make of it, no more than 1 %.)
    pub symbols: bool,
}

impl Default for Packing {
    fn default() -> Self {
        Self {
            chunk_table: false,
            directories: false,
            shared_files: false,
            string_index: false,
            plain_strings: false,
            symbols: true,
        }
    }
}

/// Who made the archive, and how: an entry of its history behind those of what it is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The command line.
    pub arguments: Vec<String>,
    /// The history of what it is made from, oldest first.
    pub before: Vec<HistoryEntry>,
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
    /// Codec of what describes the metadata, and of the history.
    pub schema: Codec,
    /// Which times are kept.
    pub times: Times,
    /// How finely they are kept.
    pub resolution: Resolution,
    /// Owners and times that replace those of the source.
    pub overrides: Overrides,
    /// In which order files are put into blocks.
    pub order: Order,
    /// What finds data for which there is a better way; of two that know a file the first counts.
    pub categorizers: Vec<Categorizer>,
    /// Which tables of the metadata are packed.
    pub packing: Packing,
    /// What becomes of it if something cannot be read.
    pub unreadable: Unreadable,
    /// Threads that compress, if the memory suffices.
    pub threads: NonZeroUsize,
    /// Bytes of memory that the blocks under way, and what compresses them, may take up; `None`: as many as there are
    /// threads for. At least what one thread needs.
    pub memory_limit: Option<u64>,
    /// When the archive was made, in seconds since the epoch. `None` leaves it out.
    pub created: Option<u64>,
    /// Times after this one are stored as this one: how `SOURCE_DATE_EPOCH` is honoured.
    pub latest_time: Option<Timestamp>,
    /// The entry in the archive's history. `None` leaves it out.
    pub history: Option<History>,
}

/// Smallest and largest block size as a power of two; upstream's writer has the same.
const BLOCK_SIZE_BITS: std::ops::RangeInclusive<u8> = 10..=30;
/// Lengths of a window as a power of two.
const WINDOWS: std::ops::RangeInclusive<u8> = LEAST_BITS..=24;
/// Windows that are remembered of a block, as a power of two: what finds them takes some 10 bytes each.
const MOST_WINDOWS_BITS: u8 = 22;

/// Nanoseconds of a second.
const NANOSECONDS: u32 = 1_000_000_000;

/// Level of FLAC for samples: higher ones take longer for next to nothing.
const FLAC_LEVEL: u8 = 5;

impl WriteOptions {
    /// Block size in bytes.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        1_u32.checked_shl(u32::from(self.block_size_bits)).unwrap_or(0)
    }

    /// How the blocks of a category are compressed, and how if that does not do for one of them.
    pub(super) const fn codecs(&self, category: Category) -> Codecs {
        match (category, self.data) {
            (
                Category::Binary(machine),
                Codec::Lzma(Lzma { filter: Bcj::None, level, extreme, dictionary_bits }),
            ) => {
                let filter = Bcj::For(machine);
                (Codec::Lzma(Lzma { filter, level, extreme, dictionary_bits }), None)
            }
            (Category::Default | Category::Binary(_) | Category::AudioMetadata, data) => (data, None),
            (Category::Waveform(pcm), data) => (Codec::Flac { level: FLAC_LEVEL, pcm }, Some(data)),
            (Category::Incompressible, _) => (Codec::None, None),
        }
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
        memory::threads(self)?;
        self.data.check()?;
        self.metadata.check()?;
        self.schema.check()?;
        if let Resolution::Nanoseconds(unit) = self.resolution
            && !NANOSECONDS.is_multiple_of(unit.get())
        {
            let (least, most) = (1, i64::from(NANOSECONDS) - 1);
            let found = i64::from(unit.get());
            return Err(WriteError::Option {
                option: "time resolution (ns, a part of a second)",
                found,
                least,
                most,
            });
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
