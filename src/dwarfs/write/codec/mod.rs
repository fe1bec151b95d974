//! Compression of sections, the counterpart of the reader's codecs.
//!
//! ```text
//! null     as it is
//! zstd     one frame with its content size; long: matches across the whole block
//! lzma     one .xz stream (CRC64), perhaps through a filter for machine code
//! lz4      u32 length, one block; so does lz4hc, under the same number, as upstream writes it
//! brotli   varint length, one stream
//! flac     varint length, thrift header, FLAC stream: samples of audio only
//! ```
//!
//! - [`text`]: codecs as words, `zstd:level=19`.
//! - [`compressor`]: what compresses payloads with one of them, and stores what does not shrink.
//! - [`lzma`], [`flac`]: the two that need more than a call.

mod compressor;
mod flac;
mod lzma;
#[cfg(test)]
mod tests;
mod text;

use super::error::WriteError;

pub(super) use compressor::Compressor;
pub use flac::{Padding, Pcm};
pub use lzma::{Bcj, Machine};
pub use text::CodecTextError;

/// How sections are compressed. What does not get smaller is stored in any case.
///
/// As text it is a name with settings behind it: `zstd:level=19`, `lzma:level=9:dict_size=24:binary=x86`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not at all.
    None,
    /// zstd.
    Zstd {
        /// The level, -131072 (fastest) to 22; 0 is zstd's own default.
        level: i32,
    },
    /// zstd that looks for matches at any distance within a window: for blocks longer than a level's own window.
    ZstdLong {
        /// The level, as with [`Zstd`](Self::Zstd).
        level: i32,
        /// Length of the window as a power of two, 10 to 27.
        window_bits: u8,
    },
    /// lzma.
    Lzma(Lzma),
    /// lz4, fast.
    Lz4,
    /// lz4 blocks that were searched for better matches.
    Lz4Hc {
        /// The level, 1 to 12.
        level: u8,
    },
    /// brotli.
    Brotli {
        /// The quality, 0 to 11.
        quality: u8,
        /// Length of the window as a power of two, 10 to 30.
        window_bits: u8,
    },
    /// FLAC, for blocks of samples.
    Flac {
        /// The level, 0 to 8.
        level: u8,
        /// How the samples are written. A block that does not keep to it is stored.
        pcm: Pcm,
    },
}

/// Settings of lzma.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lzma {
    /// The level, 0 to 9.
    pub level: u8,
    /// Searches longer for little gain.
    pub extreme: bool,
    /// Length of the dictionary as a power of two, 12 to 30; `None`: what the level says. It is never longer than
    /// a block needs.
    pub dictionary_bits: Option<u8>,
    /// The filter for machine code.
    pub filter: Bcj,
}

/// Levels of zstd: the fast ones below zero, without entropy coding in the end.
const ZSTD_LEVELS: std::ops::RangeInclusive<i32> = -131_072..=22;
/// Windows of zstd as a power of two. Longer ones are refused by readers that do not ask for them: upstream's.
const ZSTD_WINDOWS: std::ops::RangeInclusive<u8> = 10..=27;
const LZMA_LEVELS: std::ops::RangeInclusive<u8> = 0..=9;
/// Dictionaries of lzma as a power of two: the least that liblzma takes, and the longest block.
const DICTIONARIES: std::ops::RangeInclusive<u8> = 12..=30;
const LZ4HC_LEVELS: std::ops::RangeInclusive<u8> = 1..=12;
const BROTLI_QUALITIES: std::ops::RangeInclusive<u8> = 0..=11;
/// Windows of brotli as a power of two; above 24 they are an extension that upstream reads, too.
const BROTLI_WINDOWS: std::ops::RangeInclusive<u8> = 10..=30;
const FLAC_LEVELS: std::ops::RangeInclusive<u8> = 0..=8;

impl Codec {
    /// Checks that every setting is in its range.
    ///
    /// # Errors
    /// Names the first one that is not.
    pub fn check(self) -> Result<(), WriteError> {
        match self {
            Self::None | Self::Lz4 => Ok(()),
            Self::Zstd { level } => in_range("zstd level", level, ZSTD_LEVELS),
            Self::ZstdLong { level, window_bits } => {
                in_range("zstd level", level, ZSTD_LEVELS)?;
                in_range("zstd window (bits)", window_bits, ZSTD_WINDOWS)
            }
            Self::Lzma(lzma) => {
                in_range("lzma level", lzma.level, LZMA_LEVELS)?;
                lzma.dictionary_bits
                    .map_or(Ok(()), |bits| in_range("lzma dictionary (bits)", bits, DICTIONARIES))
            }
            Self::Lz4Hc { level } => in_range("lz4hc level", level, LZ4HC_LEVELS),
            Self::Brotli { quality, window_bits } => {
                in_range("brotli quality", quality, BROTLI_QUALITIES)?;
                in_range("brotli window (bits)", window_bits, BROTLI_WINDOWS)
            }
            Self::Flac { level, pcm } => {
                in_range("flac level", level, FLAC_LEVELS)?;
                pcm.check()
            }
        }
    }
}

fn in_range<T: Into<i64> + PartialOrd + Copy>(
    option: &'static str,
    found: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), WriteError> {
    if range.contains(&found) {
        return Ok(());
    }
    let (least, most) = ((*range.start()).into(), (*range.end()).into());
    Err(WriteError::Option { option, found: found.into(), least, most })
}
