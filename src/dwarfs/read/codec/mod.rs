//! Decompression of sections.
//!
//! ```text
//! Job::decompress   payload -> bytes, as a whole         schema, metadata, history
//! Job::decoder      payload -> Decoder, step by step     blocks: their first bytes need not wait for the last
//!   zstd            writes where the block lies, refers back to it, a block of 128 KiB a step
//!   lz4             writes where the block lies, in one step
//!   others          a Stream each
//! ```
//!
//! Every decoder is told how much may come out at most, and asks for no memory that the compressed length could not
//! justify. A codec that is not here is refused by name.

mod brotli;
mod flac;
mod lz4;
mod lzma;
#[cfg(test)]
mod real;
mod ricepp;
mod zstd;

use std::fmt;

use crate::{
    dwarfs::{
        Error,
        format::{section::Compression, thrift::Reader},
    },
    sync::Arc,
    sys::block_memory::{Memory, Writer},
};

/// Step of decoders that have none of their own, in bytes: about what zstd writes in one.
const STEP: usize = 128 << 10;

/// No codec that does not tell its length makes more than this out of a byte: lzma comes to about 7,300.
const MOST_FROM_A_BYTE: u64 = 1 << 14;

/// A payload that is decoded from front to back.
pub(super) trait Stream: Send {
    /// The uncompressed length, where the head of the payload tells it; checked against the limit already.
    fn len(&self) -> Option<u64>;

    /// Writes the next bytes to `out`; returns how many, 0 at the end.
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

/// Whether there is more to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    More,
    End,
}

/// A payload that is decoded step by step into the memory of a block.
pub(super) struct Decoder {
    job: Job,
    kind: Kind,
    /// The uncompressed length, where it is known before the end.
    len: Option<u64>,
    /// Length of the payload, as long as a stream holds it.
    payload: usize,
}

enum Kind {
    Zstd(zstd::Frame),
    Lz4(Arc<Memory>),
    Stream(Box<dyn Stream>),
}

/// Frees what decoders keep for the next one.
pub(super) fn shrink() {
    zstd::shrink();
}

impl Job {
    /// Decompresses a payload as a whole.
    pub(super) fn decompress(self, payload: Vec<u8>) -> Result<Vec<u8>, Error> {
        match self.codec {
            Compression::None => {
                self.check(payload.len() as u64)?;
                Ok(payload)
            }
            Compression::Zstd => zstd::decompress(self, &payload),
            Compression::Lz4 | Compression::Lz4Hc => lz4::decompress(self, &payload),
            _ => self.collect(self.stream(payload)?),
        }
    }

    /// Opens a payload to be decompressed step by step, and reserves the memory for what comes out.
    pub(super) fn decoder(self, payload: Arc<Memory>) -> Result<(Decoder, Arc<Memory>, Writer), Error> {
        let bytes = payload.bytes(0..payload.published());
        let payload_len = bytes.len();
        let (kind, len) = match self.codec {
            Compression::Zstd => {
                let (frame, len) = zstd::Frame::open(self, payload)?;
                (Kind::Zstd(frame), Some(len))
            }
            Compression::Lz4 | Compression::Lz4Hc => {
                let len = lz4::claimed(self, bytes)?;
                (Kind::Lz4(payload), Some(len))
            }
            _ => {
                let stream = self.stream(bytes.to_vec())?;
                let len = stream.len();
                (Kind::Stream(stream), len)
            }
        };
        let most = len.unwrap_or_else(|| {
            (payload_len as u64).saturating_mul(MOST_FROM_A_BYTE).saturating_add(STEP as u64)
        });
        let capacity = self.to_usize(most.min(self.limit))?;
        let (memory, writer) = Memory::reserve(capacity).map_err(|_| self.no_room(capacity as u64))?;
        Ok((Decoder { job: self, kind, len, payload: payload_len }, memory, writer))
    }

    /// Opens the stream of a codec that is one.
    fn stream(self, payload: Vec<u8>) -> Result<Box<dyn Stream>, Error> {
        match self.codec {
            Compression::Lzma => lzma::open(self, payload),
            Compression::Brotli => brotli::open(self, payload),
            Compression::Flac => flac::open(self, payload),
            Compression::Ricepp => ricepp::open(self, payload),
            _ => Err(Error::UnsupportedCodec { section: self.section, codec: self.codec }),
        }
    }

    /// Everything that comes out of a stream.
    fn collect(self, mut stream: Box<dyn Stream>) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        loop {
            let from = bytes.len();
            bytes.resize(from + STEP, 0);
            let count = stream.read(bytes.get_mut(from..).unwrap_or_default())?;
            bytes.truncate(from + count);
            self.check(bytes.len() as u64)?;
            match stream.len() {
                _ if count > 0 => {}
                Some(len) => return self.complete(bytes, len),
                None => return Ok(bytes),
            }
        }
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

    /// Memory for this many bytes cannot be had.
    pub(super) fn no_room(self, len: u64) -> Error {
        self.failed(&format_args!("no memory for {len} bytes"))
    }
}

impl Decoder {
    /// Decodes one step. At the end exactly what was claimed has come out.
    pub(super) fn advance(&mut self, out: &mut Writer) -> Result<Step, Error> {
        let ended = match &mut self.kind {
            Kind::Zstd(frame) => frame.advance(out)?,
            Kind::Lz4(payload) => {
                let spare = out.spare();
                lz4::decompress_into(self.job, payload.bytes(0..payload.published()), spare)?;
                let len = spare.len();
                out.publish(len);
                true
            }
            Kind::Stream(stream) => read_step(self.job, &mut **stream, out)?,
        };
        if !ended {
            return Ok(Step::More);
        }
        match self.len {
            Some(len) if len != out.published() as u64 => {
                Err(self.job.failed(&format_args!("{} bytes came out instead of {len}", out.published())))
            }
            _ => Ok(Step::End),
        }
    }

    /// Bytes of memory in use beside the output, as far as they can be known.
    pub(super) fn held(&self) -> usize {
        match &self.kind {
            Kind::Zstd(frame) => frame.held(),
            Kind::Lz4(_) | Kind::Stream(_) => self.payload,
        }
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("job", &self.job).field("len", &self.len).finish_non_exhaustive()
    }
}

/// Reads one step of a stream; says whether it has ended.
fn read_step(job: Job, stream: &mut dyn Stream, out: &mut Writer) -> Result<bool, Error> {
    let spare = out.spare();
    if spare.is_empty() {
        // All is there that may be: nothing must follow.
        if stream.read(&mut [0])? == 0 {
            return Ok(true);
        }
        job.check(job.limit.saturating_add(u64::from(stream.len().is_none())))?;
        return Err(job.failed("more comes out than was claimed"));
    }
    let step = spare.len().min(STEP);
    let count = stream.read(spare.get_mut(..step).unwrap_or_default())?;
    out.publish(count);
    Ok(count == 0)
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
            (Compression::Zstd, ::zstd::bulk::compress(&text, 3).unwrap()),
            (Compression::Lz4, lz4.clone()),
            (Compression::Lz4Hc, lz4),
            (Compression::Lzma, xz(&text)),
            (Compression::Lzma, two_streams),
        ]
    }

    fn in_memory(payload: &[u8]) -> Arc<Memory> {
        let (memory, mut writer) = Memory::reserve(payload.len()).unwrap();
        writer.spare().copy_from_slice(payload);
        writer.publish(payload.len());
        memory
    }

    /// All that comes out step by step, and how many steps it took.
    fn in_steps(job: Job, payload: &[u8]) -> Result<(Vec<u8>, usize), Error> {
        let (mut decoder, memory, mut writer) = job.decoder(in_memory(payload))?;
        let mut steps = 1;
        while decoder.advance(&mut writer)? == Step::More {
            steps += 1;
        }
        writer.finish();
        Ok((memory.bytes(0..memory.published()).to_vec(), steps))
    }

    #[test]
    fn blocks_come_out_step_by_step() {
        for (codec, payload) in samples().into_iter().filter(|(codec, _)| *codec != Compression::None) {
            let (bytes, steps) = in_steps(job(codec, TEXT_LEN), &payload).unwrap();
            assert!(bytes == text(), "{codec}");
            let at_once = matches!(codec, Compression::Lz4 | Compression::Lz4Hc);
            assert!(at_once || steps >= 3, "{codec}: {steps}");
        }
    }

    #[test]
    fn what_stands_before_the_damage_comes_out() {
        for (codec, mut payload) in samples() {
            let keep = payload.len() / 4 * 3;
            payload[keep..].fill(0xa5);
            let opened = job(codec, TEXT_LEN).decoder(in_memory(&payload));
            let Ok((mut decoder, memory, mut writer)) = opened else { continue };
            let error = loop {
                match decoder.advance(&mut writer) {
                    Ok(Step::More) => {}
                    Ok(Step::End) => panic!("{codec}: the end is damaged"),
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, Error::Decompress { .. }), "{codec}: {error}");
            assert!(memory.bytes(0..memory.published()) == &text()[..memory.published()], "{codec}");
            assert!(codec != Compression::Zstd || memory.published() >= 128 << 10);
        }
    }

    #[test]
    fn what_follows_the_end_is_refused() {
        let mut zstd = ::zstd::bulk::compress(&text(), 3).unwrap();
        zstd.push(0);
        assert!(in_steps(job(Compression::Zstd, TEXT_LEN), &zstd).is_err());
    }

    /// Says that it is longer or shorter than it is.
    struct Liar {
        claims: Option<u64>,
        left: usize,
    }

    impl Stream for Liar {
        fn len(&self) -> Option<u64> {
            self.claims
        }

        fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
            let count = out.len().min(self.left);
            self.left -= count;
            Ok(count)
        }
    }

    #[test]
    fn streams_that_are_not_as_long_as_they_say_are_refused() {
        let job = job(Compression::Brotli, 1_000);
        for (claims, left) in [(Some(500), 499), (Some(500), 501), (None, 1_001)] {
            let (_, mut writer) = Memory::reserve(usize::try_from(claims.unwrap_or(1_000)).unwrap()).unwrap();
            let kind = Kind::Stream(Box::new(Liar { claims, left }));
            let mut decoder = Decoder { job, kind, len: claims, payload: 0 };
            let ended = loop {
                match decoder.advance(&mut writer) {
                    Ok(Step::More) => {}
                    other => break other,
                }
            };
            assert!(ended.is_err(), "{claims:?} {left}");
            assert!(job.collect(Box::new(Liar { claims, left })).is_err(), "{claims:?} {left}");
        }
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
            if codec != Compression::None {
                assert!(in_steps(job(codec, TEXT_LEN - 1), &payload).is_err(), "{codec}");
            }
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
                let result = in_steps(job(codec, TEXT_LEN), &payload[..end]);
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
