//! A few pieces of a file that stand for all of it.

use std::{io, ops::Range};

use super::source::Contents;

/// Bytes of a piece.
const PIECE: u64 = 4 << 10;
/// Pieces of a sample, spread evenly, the first and the last bytes among them.
const PIECES: u64 = 16;
/// Longest sample; a file that is no longer is its own.
pub(super) const MOST: u64 = PIECE * PIECES;

/// Reads a sample of a file with these ranges of data; false if the file ended early.
pub(super) fn read(contents: &dyn Contents, data: &[Range<u64>], sample: &mut Vec<u8>) -> io::Result<bool> {
    sample.clear();
    let total = data.iter().map(|range| range.end - range.start).sum();
    for wanted in places(total) {
        // The data as if there were no holes.
        let mut start = 0;
        for range in data {
            let end = start + (range.end - range.start);
            let (from, to) = (wanted.start.max(start), wanted.end.min(end));
            if from < to && !append(contents, range.start + from - start..range.start + to - start, sample)? {
                return Ok(false);
            }
            start = end;
        }
    }
    Ok(true)
}

/// Bytes in the sample of so much data.
pub(super) fn len(data: u64) -> u64 {
    data.min(MOST)
}

fn places(total: u64) -> impl Iterator<Item = Range<u64>> {
    let (count, len) = if total <= MOST { (1, total) } else { (PIECES, PIECE) };
    (0..count).map(move |piece| {
        // Without an overflow, for any file.
        let room = u128::from(total - len) * u128::from(piece) / u128::from((count - 1).max(1));
        let start = u64::try_from(room).unwrap_or_default();
        start..start + len
    })
}

fn append(contents: &dyn Contents, range: Range<u64>, sample: &mut Vec<u8>) -> io::Result<bool> {
    let mut at = sample.len();
    sample.resize(at + usize::try_from(range.end - range.start).unwrap_or_default(), 0);
    let mut from = range.start;
    while from < range.end {
        let read = contents.read_at(sample.get_mut(at..).unwrap_or_default(), from)?;
        if read == 0 {
            return Ok(false);
        }
        (at, from) = (at + read, from + read as u64);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_spread_and_bounded() {
        for total in [0, 1, MOST - 1, MOST] {
            assert!(places(total).eq(std::iter::once(0..total)), "{total}");
        }
        for total in [MOST + 1, 10 * MOST, u64::MAX] {
            let places: Vec<_> = places(total).collect();
            assert_eq!((places.first().unwrap().start, places.last().unwrap().end), (0, total));
            assert!(places.windows(2).all(|pair| pair[0].end <= pair[1].start), "{places:?}");
            assert_eq!(places.iter().map(|place| place.end - place.start).sum::<u64>(), len(total));
        }
    }
}
