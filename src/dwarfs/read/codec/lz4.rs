//! lz4 blocks behind their length. A block is decoded in one go: it takes less time than a step of other codecs.

use super::Job;
use crate::dwarfs::{Error, format::bytes::u32_at};

/// A sequence adds at most 255 bytes for each of its own.
const MOST_FROM_A_BYTE: u64 = 255;

/// The uncompressed length, once it is within the limit and plausible.
pub(super) fn claimed(job: Job, payload: &[u8]) -> Result<u64, Error> {
    let claimed = u64::from(u32_at(payload, 0).ok_or_else(|| job.failed("no length"))?);
    job.check(claimed)?;
    job.plausible(block(payload), claimed, MOST_FROM_A_BYTE)?;
    Ok(claimed)
}

/// Decodes into `out`, which is as long as the claimed length.
pub(super) fn decompress_into(job: Job, payload: &[u8], out: &mut [u8]) -> Result<(), Error> {
    let len = lz4_flex::block::decompress_into(block(payload), out).map_err(|error| job.failed(&error))?;
    if len != out.len() {
        return Err(job.failed(&format_args!("{len} bytes came out instead of {}", out.len())));
    }
    Ok(())
}

/// Decodes a payload as a whole.
pub(super) fn decompress(job: Job, payload: &[u8]) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; job.to_usize(claimed(job, payload)?)?];
    decompress_into(job, payload, &mut bytes)?;
    Ok(bytes)
}

fn block(payload: &[u8]) -> &[u8] {
    payload.get(size_of::<u32>()..).unwrap_or_default()
}
