//! How much memory the blocks under way take up, and how many threads that leaves room for.
//!
//! ```text
//! streams:   for each that is worked on, blocks that are looked back at, and their windows
//! buffers:   those of the threads, one that waits, one or two that each stream fills
//! a thread:  what it compresses into, what the codec needs
//! results:   a compressed copy of each buffer that waits for its turn
//! ```
//!
//! Names, attributes and sketches of files come on top, some hundred bytes for each file.

use super::{
    category::Categorizer, codec::Codec, error::WriteError, options::WriteOptions, segment::MOST_SEATS,
};

/// Returns how many buffers go round with so many threads that compress: one more waits, and each stream fills one;
/// one of audio a second one.
pub(super) fn buffers(options: &WriteOptions, threads: usize) -> usize {
    let of_stream = if options.categorizers.contains(&Categorizer::Audio) { 2 } else { 1 };
    threads + 1 + streams(options) * of_stream
}

/// Streams that are worked on at a time, at most.
fn streams(options: &WriteOptions) -> usize {
    if options.categorizers.is_empty() { 1 } else { MOST_SEATS }
}

/// Bytes of a window that is remembered: two places, and two bytes of the filter.
const WINDOW: u64 = 10;
/// Bytes that a codec needs for its tables, whatever it compresses.
const TABLES: u64 = 4 << 20;
/// Bytes that lzma needs for short matches and for prices, and brotli for its commands.
const LZMA_TABLES: u64 = 8 << 20;
const BROTLI_TABLES: u64 = 32 << 20;

/// Returns how many threads may compress at a time.
pub(super) fn threads(options: &WriteOptions) -> Result<usize, WriteError> {
    let wanted = options.threads.get();
    let Some(limit) = options.memory_limit else { return Ok(wanted) };
    let room = limit.saturating_sub(fixed(options)) / of_thread(options);
    match usize::try_from(room).unwrap_or(usize::MAX).min(wanted) {
        0 => {
            let mib = |bytes: u64| i64::try_from(bytes.div_ceil(1 << 20)).unwrap_or(i64::MAX);
            let (found, least, most) = (mib(limit), mib(least(options)), i64::MAX);
            Err(WriteError::Option { option: "memory limit (MiB)", found, least, most })
        }
        threads => Ok(threads),
    }
}

/// Returns the least memory limit in bytes: what one thread needs.
#[must_use]
pub fn least(options: &WriteOptions) -> u64 {
    fixed(options) + of_thread(options)
}

fn fixed(options: &WriteOptions) -> u64 {
    let block = u64::from(options.block_size());
    let segmenter = options.segmentation().map_or(0, |segmentation| {
        let windows = (block >> segmentation.step_bits()).next_power_of_two();
        let past = u64::from(segmentation.lookback.saturating_sub(1));
        past * block + (past + 1) * windows * WINDOW
    });
    streams(options) as u64 * segmenter + buffers(options, 0) as u64 * 2 * block
}

fn of_thread(options: &WriteOptions) -> u64 {
    let block = u64::from(options.block_size());
    // A buffer, its compressed copy, and the room that is compressed into: that of a second codec for categories.
    let rooms = if options.categorizers.is_empty() { 3 } else { 4 };
    rooms * block + codec(options.data, block)
}

/// What a codec needs for blocks of a length.
fn codec(codec: Codec, block: u64) -> u64 {
    match codec {
        Codec::None => 0,
        Codec::Lz4 | Codec::Lz4Hc { .. } | Codec::Flac { .. } => TABLES,
        // Tables for hashes and chains of places, four bytes each, as long as the window or twice that; windows of
        // the lower levels end somewhere.
        Codec::Zstd { level: ..=5 } => (12 * block).min(16 << 20) + TABLES,
        Codec::Zstd { level: 6..=12 } => (12 * block).min(64 << 20) + TABLES,
        Codec::Zstd { level: 13..=17 } => (16 * block).min(160 << 20) + TABLES,
        Codec::Zstd { .. } => 18 * block + TABLES,
        // The same, and twice the window for what is farther away.
        Codec::ZstdLong { .. } => 20 * block + TABLES,
        // Its dictionary, once more for the hashes, and eight times for the trees of matches; a filter works on a copy.
        Codec::Lzma(lzma) => 12 * block.min(u64::from(lzma.dictionary())) + LZMA_TABLES,
        Codec::Brotli { window_bits, .. } => 12 * block.min(1 << window_bits.min(62)) + BROTLI_TABLES,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::{super::Level, *};

    #[test]
    fn codecs_need_no_more_than_is_thought() {
        let mut wrong = Vec::new();
        for level in [1, 3, 5, 6, 9, 12, 13, 17, 18, 22] {
            for bits in [10, 16, 20, 24] {
                let block = vec![7_u8; 1 << bits];
                let mut compressor = zstd::bulk::Compressor::new(level).unwrap();
                compressor.compress(&block).unwrap();
                let needed = compressor.context_mut().sizeof() as u64;
                let thought = codec(Codec::Zstd { level }, 1 << bits);
                wrong.extend((needed > thought).then_some((level, bits, needed, thought)));
            }
        }
        assert_eq!(wrong, []);
    }

    #[test]
    fn a_limit_takes_threads_away_but_not_the_last() {
        let mut options = WriteOptions::at_level(Level::new(7).unwrap());
        options.threads = NonZeroUsize::new(8).unwrap();
        assert_eq!(threads(&options).unwrap(), 8);
        options.memory_limit = Some(least(&options));
        assert_eq!(threads(&options).unwrap(), 1);
        options.memory_limit = Some(least(&options) + of_thread(&options));
        assert_eq!(threads(&options).unwrap(), 2);
        options.memory_limit = Some(least(&options) - 1);
        let error = threads(&options).unwrap_err().to_string();
        assert!(error.starts_with("memory limit (MiB) is "), "{error}");
        options.memory_limit = Some(u64::MAX);
        assert_eq!(threads(&options).unwrap(), 8);
    }
}
