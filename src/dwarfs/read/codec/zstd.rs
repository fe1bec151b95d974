//! zstd frames, a block of at most 128 KiB a step, straight into the memory of the cached block.

use zstd_safe::{DCtx, DParameter, InBuffer, ResetDirective};

use super::Job;
use crate::{
    dwarfs::Error,
    sync::{Arc, LazyLock, Mutex},
    sys::block_memory::{Memory, Writer},
};

/// A zstd block is at most 128 KiB and takes at least 4 bytes.
const MOST_FROM_A_BYTE: u64 = (128 << 10) / 4;

/// Longest window: a block may be as long as the format has it, and decoding in place needs no memory for it.
const WINDOW_LOG: u32 = 31;

/// Contexts that wait to be used again. One takes about 350 KiB, mostly tables and room for input.
const MOST_POOLED: usize = 4;

static POOL: LazyLock<Mutex<Vec<DCtx<'static>>>> = LazyLock::new(Mutex::default);

/// Frees the contexts that nobody uses.
pub(super) fn shrink() {
    let idle = std::mem::take(&mut *POOL.lock());
    drop(idle);
}

/// A frame that is being decoded.
pub(super) struct Frame {
    job: Job,
    decoder: Option<DCtx<'static>>,
    payload: Arc<Memory>,
    read: usize,
    /// How much input the decoder wants next: the rest of one block and the header of the one after it.
    wanted: usize,
}

impl Frame {
    /// Looks at the frame's head; returns the frame and its uncompressed length.
    pub(super) fn open(job: Job, payload: Arc<Memory>) -> Result<(Self, u64), Error> {
        let len = claimed(job, payload.bytes(0..payload.published()))?;
        let mut decoder = POOL.lock().pop().unwrap_or_default();
        let prepared = decoder
            .set_parameter(DParameter::StableOutBuffer(true))
            .and_then(|_| decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)));
        prepared.map_err(|code| job.failed(zstd_safe::get_error_name(code)))?;
        Ok((Self { job, decoder: Some(decoder), payload, read: 0, wanted: 1 }, len))
    }

    /// Decodes one step; says whether the frame has ended.
    pub(super) fn advance(&mut self, out: &mut Writer) -> Result<bool, Error> {
        let Some(decoder) = &mut self.decoder else { return Ok(true) };
        let rest = self.payload.bytes(self.read..self.payload.published());
        let step = rest.get(..self.wanted.clamp(1, rest.len().max(1))).unwrap_or_default();
        let mut input = InBuffer::around(step);
        let before = out.published();
        let hint = out.decompress(decoder, &mut input);
        let taken = input.pos();
        self.read += taken;
        match hint.map_err(|code| self.job.failed(zstd_safe::get_error_name(code)))? {
            0 if self.read < self.payload.published() => Err(self.job.failed("something follows the frame")),
            0 => Ok(true),
            // Input is there and the decoder neither takes it nor writes: it has nowhere to write to.
            _ if taken == 0 && out.published() == before => {
                Err(self.job.failed("the frame ends too early or is too long"))
            }
            hint => {
                self.wanted = hint;
                Ok(false)
            }
        }
    }

    /// Bytes of memory in use beside the output.
    pub(super) fn held(&self) -> usize {
        self.payload.resident() + self.decoder.as_ref().map_or(0, DCtx::sizeof)
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // A context that cannot be reset is not used again.
        if let Some(mut decoder) = self.decoder.take()
            && decoder.reset(ResetDirective::SessionOnly).is_ok()
        {
            let mut pool = POOL.lock();
            if pool.len() < MOST_POOLED {
                pool.push(decoder);
            }
        }
    }
}

/// Decodes a frame as a whole.
pub(super) fn decompress(job: Job, payload: &[u8]) -> Result<Vec<u8>, Error> {
    let len = claimed(job, payload)?;
    let mut bytes = Vec::with_capacity(job.to_usize(len)?);
    DCtx::create()
        .decompress(&mut bytes, payload)
        .map_err(|code| job.failed(zstd_safe::get_error_name(code)))?;
    job.complete(bytes, len)
}

/// The length that the head of the frame claims, once it is within the limit and plausible.
fn claimed(job: Job, payload: &[u8]) -> Result<u64, Error> {
    let claimed = zstd_safe::get_frame_content_size(payload)
        .map_err(|error| job.failed(&error))?
        .ok_or_else(|| job.failed("the frame does not tell its length"))?;
    job.check(claimed)?;
    job.plausible(payload, claimed, MOST_FROM_A_BYTE)?;
    Ok(claimed)
}
