//! lzma: .xz streams, one or several behind each other.

use liblzma::stream::{Action, CONCATENATED, Status, Stream as Xz};

use super::{Job, Stream};
use crate::dwarfs::{Error, limits};

/// What the decoder may use: a dictionary as long as the longest block, and its own needs.
const MEMORY: u64 = limits::MAX_BLOCK_LEN + (64 << 20);

struct Lzma {
    job: Job,
    stream: Xz,
    payload: Vec<u8>,
    ended: bool,
}

/// Opens a payload. How much comes out shows only at the end.
pub(super) fn open(job: Job, payload: Vec<u8>) -> Result<Box<dyn Stream>, Error> {
    let stream = Xz::new_stream_decoder(MEMORY, CONCATENATED).map_err(|error| job.failed(&error))?;
    Ok(Box::new(Lzma { job, stream, payload, ended: false }))
}

impl Stream for Lzma {
    fn len(&self) -> Option<u64> {
        None
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        if self.ended {
            return Ok(0);
        }
        let (read, before) = (self.stream.total_in(), self.stream.total_out());
        let rest = usize::try_from(read).ok().and_then(|read| self.payload.get(read..)).unwrap_or_default();
        let status =
            self.stream.process(rest, out, Action::Finish).map_err(|error| self.job.failed(&error))?;
        let written = self.stream.total_out() - before;
        self.ended = status == Status::StreamEnd;
        if !self.ended && written == 0 && !out.is_empty() {
            return Err(self.job.failed("the stream ends too early"));
        }
        self.job.to_usize(written)
    }
}
