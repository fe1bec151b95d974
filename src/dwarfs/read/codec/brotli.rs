//! Brotli: a varint with the uncompressed length, then a brotli stream, with windows of up to 2^30 bytes allowed.
//!
//! Nothing bounds what a byte of brotli can become: a few bits repeat 16 MiB. Therefore nothing is allocated for the
//! claimed length; the decoder's window grows with what really comes out.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::{Job, Stream};
use crate::dwarfs::{Error, format::thrift::Reader};

/// The window that a decoder starts with; it grows up to what the stream asks for.
const FIRST_WINDOW: u32 = 64 << 10;

/// Opens a payload.
pub(super) fn open(job: Job, payload: Vec<u8>) -> Result<Box<dyn Stream>, Error> {
    let mut reader = Reader::new(&payload, "brotli frame");
    let len = job.claimed(&mut reader)?;
    let read = reader.position();
    let mut state =
        BrotliState::new(StandardAlloc::default(), StandardAlloc::default(), StandardAlloc::default());
    state.set_initial_ring_buffer_size(FIRST_WINDOW);
    Ok(Box::new(Brotli { job, payload, read, len, written: 0, finished: false, state }))
}

struct Brotli {
    job: Job,
    payload: Vec<u8>,
    /// How much of the payload has been read.
    read: usize,
    len: u64,
    written: u64,
    /// Whether the end of the stream was seen.
    finished: bool,
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
}

impl Brotli {
    /// Lets the decoder write into `out`; it stops at the end of `out` or of the stream.
    fn step(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let mut available_in = self.payload.len() - self.read;
        let (mut available_out, mut written, mut total) = (out.len(), 0, 0);
        let result = BrotliDecompressStream(
            &mut available_in,
            &mut self.read,
            &self.payload,
            &mut available_out,
            &mut written,
            out,
            &mut total,
            &mut self.state,
        );
        match result {
            BrotliResult::ResultSuccess => self.finished = true,
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::NeedsMoreInput => return Err(self.job.failed("the stream ends too early")),
            BrotliResult::ResultFailure => {
                return Err(self.job.failed(&format_args!("{:?}", self.state.error_code)));
            }
        }
        Ok(written)
    }

    /// Checks that what was claimed is all there is.
    fn finish(&mut self) -> Result<(), Error> {
        if !self.finished {
            self.step(&mut [])?;
        }
        if !self.finished || self.written != self.len {
            let (len, written) = (self.len, self.written);
            let reason = format!("the stream ends after {written} bytes or later, not after {len}");
            return Err(self.job.failed(&reason));
        }
        Ok(())
    }
}

impl Stream for Brotli {
    fn len(&self) -> Option<u64> {
        Some(self.len)
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let rest = usize::try_from(self.len - self.written).unwrap_or(usize::MAX);
        let room = rest.min(out.len());
        let written = match out.get_mut(..room) {
            Some(out) if room > 0 && !self.finished => self.step(out)?,
            _ => 0,
        };
        self.written += written as u64;
        if self.finished || self.written == self.len {
            self.finish()?;
        }
        Ok(written)
    }
}
