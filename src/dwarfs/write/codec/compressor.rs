//! Compresses payloads with one codec.

use std::io;

use lz4::block::CompressionMode;
use zstd::zstd_safe::CParameter;

use super::{Codec, flac, lzma};
use crate::dwarfs::{
    format::{
        section::{Compression, SectionHeader, SectionKind},
        thrift::Writer,
    },
    write::{archive_writer::Sealed, error::WriteError},
};

/// Compresses payloads, one after the other, with one context.
pub(in crate::dwarfs::write) struct Compressor {
    encoder: Encoder,
    /// What was compressed last.
    pub(in crate::dwarfs::write) out: Vec<u8>,
}

/// A codec with what it keeps from payload to payload.
enum Encoder {
    Zstd(Box<zstd::bulk::Compressor<'static>>),
    /// The others begin anew each time.
    Plain(Codec),
}

impl Compressor {
    pub(in crate::dwarfs::write) fn new(codec: Codec) -> Result<Self, WriteError> {
        let failed = |error: io::Error| WriteError::Compress { section: 0, reason: error.to_string() };
        let encoder = match codec {
            Codec::Zstd { level } => {
                Encoder::Zstd(Box::new(zstd::bulk::Compressor::new(level).map_err(failed)?))
            }
            Codec::ZstdLong { level, window_bits } => {
                let mut zstd = zstd::bulk::Compressor::new(level).map_err(failed)?;
                zstd.long_distance_matching(true).map_err(failed)?;
                zstd.set_parameter(CParameter::WindowLog(u32::from(window_bits))).map_err(failed)?;
                Encoder::Zstd(Box::new(zstd))
            }
            other => Encoder::Plain(other),
        };
        Ok(Self { encoder, out: Vec::new() })
    }

    /// Compresses a payload if that makes it smaller, and puts the header before it.
    pub(in crate::dwarfs::write) fn seal<'a>(
        &'a mut self,
        number: u32,
        kind: SectionKind,
        payload: &'a [u8],
    ) -> Result<Sealed<'a>, WriteError> {
        self.out.clear();
        let compression = self
            .encoder
            .encode(payload, &mut self.out)
            .map_err(|reason| WriteError::Compress { section: number, reason })?;
        let (compression, payload) = match compression {
            Some(compression) if self.out.len() < payload.len() => (compression, self.out.as_slice()),
            _ => (Compression::None, payload),
        };
        Ok(Sealed { header: SectionHeader::seal(number, kind, compression, payload), payload })
    }
}

impl Encoder {
    /// Compresses into `out`, which is empty. `None`: the payload would not get smaller.
    fn encode(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<Option<Compression>, String> {
        match self {
            Self::Zstd(zstd) => {
                out.reserve(zstd::zstd_safe::compress_bound(payload.len()));
                zstd.compress_to_buffer(payload, out).map_err(|error| error.to_string())?;
                Ok(Some(Compression::Zstd))
            }
            Self::Plain(Codec::Lzma(settings)) => {
                let is_smaller = lzma::encode(*settings, payload, out)?;
                Ok(is_smaller.then_some(Compression::Lzma))
            }
            Self::Plain(Codec::Lz4) => Ok(lz4(CompressionMode::DEFAULT, payload, out)),
            Self::Plain(Codec::Lz4Hc { level }) => {
                Ok(lz4(CompressionMode::HIGHCOMPRESSION(i32::from(*level)), payload, out))
            }
            Self::Plain(Codec::Brotli { quality, window_bits }) => {
                brotli(*quality, *window_bits, payload, out)?;
                Ok(Some(Compression::Brotli))
            }
            Self::Plain(Codec::Flac { level, pcm }) => {
                let is_audio = flac::encode(*level, *pcm, payload, out)?;
                Ok(is_audio.then_some(Compression::Flac))
            }
            Self::Plain(Codec::None | Codec::Zstd { .. } | Codec::ZstdLong { .. }) => Ok(None),
        }
    }
}

/// Length of the prefix of lz4 payloads.
const LZ4_PREFIX: usize = size_of::<u32>();

/// Compresses a block of lz4 behind its length. It is given no more room than would make it smaller: all that can
/// go wrong is that this does not do.
fn lz4(mode: CompressionMode, payload: &[u8], out: &mut Vec<u8>) -> Option<Compression> {
    out.resize(payload.len().max(LZ4_PREFIX), 0);
    let len = lz4::block::compress_to_buffer(payload, Some(mode), true, out).ok()?;
    out.truncate(len);
    Some(Compression::Lz4)
}

/// Windows of brotli up to this one need no extension.
const BROTLI_PLAIN_WINDOW: u8 = 24;

fn brotli(quality: u8, window_bits: u8, payload: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let mut head = Writer::new();
    head.varint(payload.len() as u64);
    out.extend_from_slice(&head.into_bytes());
    let params = brotli::enc::BrotliEncoderParams {
        quality: i32::from(quality),
        lgwin: i32::from(window_bits),
        large_window: window_bits > BROTLI_PLAIN_WINDOW,
        size_hint: payload.len(),
        ..Default::default()
    };
    brotli::BrotliCompress(&mut &payload[..], out, &params).map_err(|error| error.to_string())?;
    Ok(())
}
