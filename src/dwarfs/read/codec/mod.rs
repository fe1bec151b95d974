//! Decompression of sections.
//!
//! Every decoder is told how much may come out at most, and asks for no memory that the compressed length could not
//! justify. One decoder for each codec; a codec that is not here is refused by name.

mod brotli;
mod flac;
#[cfg(test)]
mod real;
mod ricepp;

use std::cell::RefCell;

use liblzma::stream::{Action, CONCATENATED, Status, Stream as XzStream};

use crate::dwarfs::{
    Error,
    format::{bytes::u32_at, section::Compression, thrift::Reader},
    limits,
};

/// A payload on its way to being uncompressed.
pub(super) trait Stream: Send {
    /// How many bytes come out in all, where the payload says so.
    fn len(&self) -> Option<u64>;

    /// Puts the next bytes into `out`, which may be of any size, and says how many; 0 means the end.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Error>;
}

/// What of a section's codec goes into errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    /// The section's place in the archive.
    pub(super) section: u32,
    /// Its codec.
    pub(super) codec: Compression,
    /// How many bytes may come out at most.
    pub(super) limit: u64,
}

impl Job {
    /// Decompresses a payload.
    pub(super) fn decompress(self, payload: Vec<u8>) -> Result<Vec<u8>, Error> {
        match self.codec {
            Compression::None => {
                self.check(payload.len() as u64)?;
                Ok(payload)
            }
            Compression::Zstd => self.zstd(&payload),
            Compression::Lz4 | Compression::Lz4Hc => self.lz4(&payload),
            Compression::Lzma => self.lzma(&payload),
            Compression::Brotli => self.collect(&mut *brotli::open(self, payload)?),
            Compression::Flac => self.collect(&mut *flac::open(self, payload)?),
            Compression::Ricepp => self.collect(&mut *ricepp::open(self, payload)?),
            Compression::Unknown(_) => {
                Err(Error::UnsupportedCodec { section: self.section, codec: self.codec })
            }
        }
    }

    fn zstd(self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        thread_local! {
            static DECODER: RefCell<zstd_safe::DCtx<'static>> = RefCell::new(zstd_safe::DCtx::create());
        }
        // A zstd block is at most 128 KiB and takes at least 4 bytes.
        const MOST_FROM_A_BYTE: u64 = (128 << 10) / 4;
        let claimed = zstd_safe::get_frame_content_size(payload)
            .map_err(|error| self.failed(&error))?
            .ok_or_else(|| self.failed("the frame does not tell its length"))?;
        self.check(claimed)?;
        self.plausible(payload, claimed, MOST_FROM_A_BYTE)?;
        let mut bytes = Vec::with_capacity(self.to_usize(claimed)?);
        DECODER
            .with_borrow_mut(|decoder| decoder.decompress(&mut bytes, payload))
            .map_err(|code| self.failed(zstd_safe::get_error_name(code)))?;
        self.complete(bytes, claimed)
    }

    fn lz4(self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        const MOST_FROM_A_BYTE: u64 = 255;
        let claimed = u64::from(u32_at(payload, 0).ok_or_else(|| self.failed("no length"))?);
        self.check(claimed)?;
        let block = payload.get(size_of::<u32>()..).unwrap_or_default();
        self.plausible(block, claimed, MOST_FROM_A_BYTE)?;
        let mut bytes = vec![0; self.to_usize(claimed)?];
        let len = lz4_flex::block::decompress_into(block, &mut bytes).map_err(|error| self.failed(&error))?;
        bytes.truncate(len);
        self.complete(bytes, claimed)
    }

    fn lzma(self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        /// The first buffer, and the least by which it grows.
        const STEP: usize = 64 << 10;
        /// What the decoder may use: a dictionary as long as the longest block, and its own needs.
        const MEMORY: u64 = limits::MAX_BLOCK_LEN + (64 << 20);
        let mut stream =
            XzStream::new_stream_decoder(MEMORY, CONCATENATED).map_err(|error| self.failed(&error))?;
        let mut bytes = Vec::with_capacity(STEP);
        loop {
            let read = usize::try_from(stream.total_in()).unwrap_or(usize::MAX);
            let rest = payload.get(read..).unwrap_or_default();
            let written = bytes.len();
            let status =
                stream.process_vec(rest, &mut bytes, Action::Finish).map_err(|error| self.failed(&error))?;
            self.check(bytes.len() as u64)?;
            match status {
                Status::StreamEnd => return Ok(bytes),
                _ if bytes.len() == bytes.capacity() => bytes.reserve(bytes.len().max(STEP)),
                _ if bytes.len() == written => return Err(self.failed("the stream ends too early")),
                _ => {}
            }
        }
    }

    /// Reads a stream to its end. Memory grows with what comes out, not with what is claimed.
    fn collect(self, stream: &mut dyn Stream) -> Result<Vec<u8>, Error> {
        /// The first buffer, and the least by which it grows.
        const STEP: usize = 64 << 10;
        let claimed = stream.len().map_or(usize::MAX, |len| usize::try_from(len).unwrap_or(usize::MAX));
        let mut bytes = Vec::new();
        let mut filled = 0_usize;
        loop {
            if filled == bytes.len() {
                bytes.resize(filled.saturating_mul(2).max(STEP).min(claimed).max(filled + 1), 0);
            }
            match stream.read(bytes.get_mut(filled..).unwrap_or_default())? {
                0 => break,
                len => filled += len,
            }
            self.check(filled as u64)?;
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Reads the uncompressed length at the start of a payload, and checks it against the limit.
    fn claimed(self, reader: &mut Reader<'_>) -> Result<u64, Error> {
        let len = reader.varint().map_err(|error| self.failed(&error))?;
        self.check(len)?;
        Ok(len)
    }

    /// Checks a length against the limit.
    fn check(self, len: u64) -> Result<(), Error> {
        if len > self.limit {
            let (found, limit) = (len, self.limit);
            return Err(Error::Limit { what: "uncompressed length of a section", found, limit });
        }
        Ok(())
    }

    /// Refuses lengths that no payload of this length can have, before memory is asked for.
    fn plausible(self, payload: &[u8], claimed: u64, most_from_a_byte: u64) -> Result<(), Error> {
        if claimed > (payload.len() as u64).saturating_mul(most_from_a_byte) {
            return Err(self.failed(&format_args!("{} bytes cannot become {claimed}", payload.len())));
        }
        Ok(())
    }

    fn complete(self, bytes: Vec<u8>, claimed: u64) -> Result<Vec<u8>, Error> {
        if bytes.len() as u64 != claimed {
            return Err(self.failed(&format_args!("{} bytes came out instead of {claimed}", bytes.len())));
        }
        Ok(bytes)
    }

    fn to_usize(self, len: u64) -> Result<usize, Error> {
        usize::try_from(len).map_err(|error| self.failed(&error))
    }

    fn failed(self, reason: &(impl ToString + ?Sized)) -> Error {
        Error::Decompress { section: self.section, codec: self.codec, reason: reason.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT_LEN: u64 = 300_000;

    fn text() -> Vec<u8> {
        (0..TEXT_LEN).map(|at| b'a' + u8::try_from(at * at % 23).unwrap()).collect()
    }

    fn job(codec: Compression, limit: u64) -> Job {
        Job { section: 9, codec, limit }
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        use std::io::Read as _;
        let mut packed = Vec::new();
        liblzma::read::XzEncoder::new(bytes, 6).read_to_end(&mut packed).unwrap();
        packed
    }

    fn samples() -> Vec<(Compression, Vec<u8>)> {
        let text = text();
        let len = u32::try_from(text.len()).unwrap().to_le_bytes();
        let lz4 = [&len[..], &lz4_flex::block::compress(&text)].concat();
        let two_streams = [xz(&text[..1_000]), xz(&text[1_000..])].concat();
        vec![
            (Compression::None, text.clone()),
            (Compression::Zstd, zstd::bulk::compress(&text, 3).unwrap()),
            (Compression::Lz4, lz4.clone()),
            (Compression::Lz4Hc, lz4),
            (Compression::Lzma, xz(&text)),
            (Compression::Lzma, two_streams),
        ]
    }

    #[test]
    fn codecs_give_back_what_was_compressed() {
        for (codec, payload) in samples() {
            assert_eq!(job(codec, TEXT_LEN).decompress(payload).unwrap(), text(), "{codec}");
        }
    }

    #[test]
    fn more_than_the_limit_is_refused() {
        for (codec, payload) in samples() {
            let result = job(codec, TEXT_LEN - 1).decompress(payload);
            assert!(matches!(result, Err(Error::Limit { limit, .. }) if limit == TEXT_LEN - 1), "{codec}");
        }
    }

    #[test]
    fn cut_payloads_are_refused() {
        for (codec, payload) in samples().into_iter().filter(|(codec, _)| *codec != Compression::None) {
            for end in [0, 1, 3, 4, 5, 12, payload.len() / 2, payload.len() - 1] {
                let result = job(codec, TEXT_LEN).decompress(payload[..end].to_vec());
                assert!(matches!(result, Err(Error::Decompress { section: 9, .. })), "{codec} cut at {end}");
            }
        }
    }

    #[test]
    fn lengths_that_nothing_justifies_are_refused() {
        let lz4 = [&(1_u32 << 30).to_le_bytes()[..], &[0; 100]].concat();
        let result = job(Compression::Lz4, 1 << 30).decompress(lz4);
        assert!(matches!(result, Err(Error::Decompress { .. })), "{result:?}");
    }

    #[test]
    fn codecs_that_are_not_here_are_named() {
        let error = job(Compression::Unknown(77), 10).decompress(Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "section 9 is compressed with codec 77, which is not supported");
    }
}
