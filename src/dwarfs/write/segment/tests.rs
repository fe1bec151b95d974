use std::io;

use super::{
    super::{compress::BlockSink, source::Contents},
    *,
};
use crate::sync::Mutex;

/// Keeps the blocks.
#[derive(Default)]
struct Kept(Mutex<Vec<Vec<u8>>>);

impl BlockSink for Kept {
    fn buffer(&self, len: usize) -> Option<Vec<u8>> {
        Some(vec![0xee; len])
    }

    fn block(&self, number: u32, mut buffer: Vec<u8>, len: usize, _category: Category) {
        let mut blocks = self.0.lock();
        assert_eq!(number as usize, blocks.len());
        buffer.truncate(len);
        blocks.push(buffer);
    }
}

/// A file that gives few bytes at a time.
struct Dribbling<'a>(&'a [u8], usize);

impl Contents for Dribbling<'_> {
    fn is_unchanged(&self, _known: &Object) -> io::Result<bool> {
        Ok(true)
    }

    fn refresh(&self, known: &Object) -> io::Result<Object> {
        Ok(known.clone())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.0.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let len = rest.len().min(buffer.len()).min(self.1);
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

struct Outcome {
    blocks: Vec<Vec<u8>>,
    matched: u64,
    pieces: usize,
}

/// Puts files into blocks of `block_size` and checks that they come out again.
fn run(files: &[Vec<u8>], block_size: u32, segmentation: Option<Segmentation>, dribble: usize) -> Outcome {
    let kept = Kept::default();
    let turns = Turns::new(1);
    let cut = Cut { block_size, segmentation };
    let mut stream = Stream::new(Category::Default, cut, turns.seat(0, &kept), &());
    let mut ends = Vec::new();
    for file in files {
        assert!(stream.add_data(&Dribbling(file, dribble), 0..file.len() as u64).unwrap());
        ends.push(stream.pieces());
    }
    let segmented = stream.finish().unwrap();
    let blocks = std::mem::take(&mut *kept.0.lock());
    assert!(blocks.iter().rev().skip(1).all(|block| block.len() == block_size as usize));
    let mut first = 0;
    for (file, end) in files.iter().zip(ends) {
        let mut again = Vec::new();
        for piece in &segmented.pieces[first..end] {
            let Piece::Data { block, offset, size } = *piece else { panic!("no holes here") };
            again.extend_from_slice(&blocks[block as usize][offset as usize..][..size as usize]);
        }
        assert!(again == *file, "a file of {} bytes", file.len());
        first = end;
    }
    Outcome { blocks, matched: segmented.matched, pieces: segmented.pieces.len() }
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed * 2 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).unwrap()
    };
    (0..len).map(|_| next()).collect()
}

const SMALL: Segmentation = Segmentation { window_bits: 8, step_shift: 3, lookback: 1 };

#[test]
fn contents_are_found_again_wherever_they_stand() {
    let first = noise(100_000, 1);
    let second = [&noise(777, 2)[..], &first[3_333..90_001], &noise(55, 3)[..]].concat();
    for dribble in [usize::MAX, 1_000, 7] {
        let out = run(&[first.clone(), second.clone()], 1 << 20, Some(SMALL), dribble);
        assert_eq!(out.matched, 90_001 - 3_333, "every byte, read {dribble} at a time");
        assert_eq!((out.pieces, out.blocks[0].len()), (4, 100_000 + 777 + 55));
    }
    assert_eq!(run(&[first.clone(), second], 1 << 20, None, usize::MAX).matched, 0);
    // Half the file again within itself.
    let twice = [&first[..50_000], &first[..50_000]].concat();
    assert_eq!(run(&[twice], 1 << 20, Some(SMALL), usize::MAX).matched, 50_000);
}

#[test]
fn only_the_blocks_behind_are_looked_at() {
    let [file, other] = [noise(60_000, 4), noise(200_000, 5)];
    let all = [file.clone(), other, file];
    assert_eq!(run(&all, 1 << 16, Some(SMALL), usize::MAX).matched, 0);
    let wide = Segmentation { lookback: 6, ..SMALL };
    let out = run(&all, 1 << 16, Some(wide), usize::MAX);
    assert_eq!((out.matched, out.pieces), (60_000, 1 + 4 + 1));
}

#[test]
fn zeros_and_periods_cost_one_window() {
    let zeros = run(&[vec![0; 1_000_000]], 1 << 16, Some(SMALL), usize::MAX);
    assert!(zeros.matched > 950_000, "{}", zeros.matched);
    let period: Vec<u8> = (0..300_000_u32).map(|at| u8::try_from(at % 100).unwrap()).collect();
    let periodic = run(&[period], 1 << 20, Some(SMALL), 4_096);
    assert!(periodic.matched > 290_000, "{}", periodic.matched);
}

#[test]
fn whatever_is_put_in_comes_out() {
    let mut state = 99_u64;
    let mut below = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    for round in 0..60 {
        let mut files: Vec<Vec<u8>> = Vec::new();
        for number in 0..12 {
            let mut file = noise(usize::try_from(below(3_000)).unwrap(), round * 100 + number);
            for _ in 0..below(4) {
                let Some(from) = files.get(usize::try_from(below(12)).unwrap()) else { continue };
                let start = usize::try_from(below(from.len() as u64 + 1)).unwrap();
                file.extend_from_slice(&from[start..]);
                file.extend(std::iter::repeat_n(7, usize::try_from(below(600)).unwrap()));
            }
            files.push(file);
        }
        let lookback = u8::try_from(1 + below(4)).unwrap();
        let shift = u8::try_from(below(5)).unwrap();
        let segmentation = Segmentation {
            window_bits: LEAST_BITS + u8::try_from(below(3)).unwrap(),
            step_shift: shift,
            lookback,
        };
        let dribble = usize::try_from(1 + below(5_000)).unwrap();
        run(&files, 1 << (10 + below(4)), Some(segmentation), dribble);
    }
}
