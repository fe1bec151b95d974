//! Sparse members: which ranges of a file are stored.

use std::ops::Range;

use crate::dwarfs::write::error::TarProblem;

/// Ranges of one file: a sparse file of 4 GiB with data in every other page has half as many.
pub(super) const MAX_RANGES: usize = 1 << 20;

/// Checks offsets and lengths (by turns) of a file of `size` bytes of which `stored` are stored, and returns the
/// ranges that hold data.
pub(super) fn ranges(map: &[u64], size: u64, stored: u64) -> Result<Box<[Range<u64>]>, TarProblem> {
    if map.len() / 2 > MAX_RANGES {
        let (what, found, limit) = ("number of ranges", map.len() as u64 / 2, MAX_RANGES as u64);
        return Err(TarProblem::Limit { what, found, limit });
    }
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let (mut end, mut left) = (0, stored);
    let (pairs, rest) = map.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(BAD_MAP);
    }
    for [offset, len] in pairs {
        let stop = offset.checked_add(*len).filter(|stop| *stop <= size).ok_or(BAD_MAP)?;
        if *offset < end {
            return Err(BAD_MAP);
        }
        left = left.checked_sub(*len).ok_or(BAD_MAP)?;
        end = stop;
        match ranges.last_mut() {
            _ if *len == 0 => {}
            Some(last) if last.end == *offset => last.end = stop,
            _ => ranges.push(*offset..stop),
        }
    }
    Ok(ranges.into())
}

const BAD_MAP: TarProblem = TarProblem::Field("map of a sparse file");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_ascend_within_the_file_and_are_all_stored() {
        assert_eq!(ranges(&[0, 4, 4, 2, 8, 1, 10, 0], 10, 512).unwrap().as_ref(), [0..6, 8..9]);
        assert_eq!(ranges(&[2, 3, 8, 1], 10, 4).unwrap().as_ref(), [2..5, 8..9]);
        let bad: [&[u64]; 5] = [&[0], &[4, 2, 3, 1], &[8, 3], &[u64::MAX, 2], &[0, 5]];
        for map in bad {
            assert!(ranges(map, 10, 4).is_err(), "{map:?}");
        }
    }
}
