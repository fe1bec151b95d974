//! Orders sketches so that near ones follow each other, in n log n steps.
//!
//! ```text
//! all -- split --> [ a-like ] [ b-like ] -- split --> ... --> leaves, each a chain from neighbour to neighbour
//! ```
//!
//! A set is split around two far sketches until its parts are small; of two parts the one that is nearer to what
//! stands last comes first. In a small part the nearest of what is left always comes next. Nothing depends on
//! chance or on the number of threads.

use super::sketch::Sketch;

/// Most members of a part that is not split further: what a chain costs grows with its square.
const LEAF: usize = 1 << 10;
/// So many members stand for a part where its middle is looked for.
const WITNESSES: usize = 1 << 10;
/// How often the middles of two parts are moved.
const ROUNDS: u32 = 3;

/// Returns the places of `sketches` in an order in which near ones follow each other. What is equally near keeps its
/// order.
pub(super) fn chain(sketches: &[Sketch]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..sketches.len()).collect();
    // Twice as deep as even parts need; who is deeper is cut in the middle.
    let depth = 2 * (sketches.len() / LEAF + 1).ilog2() + 8;
    let mut parts = vec![(0..sketches.len(), depth)];
    let mut last: Option<usize> = None;
    while let Some((range, depth)) = parts.pop() {
        let Some(part) = places.get_mut(range.clone()) else { continue };
        if part.len() <= LEAF {
            last = link(sketches, part, last).or(last);
            continue;
        }
        let from = last.and_then(|place| sketches.get(place));
        let middle = range.start + split(sketches, part, from, depth);
        let deeper = depth.saturating_sub(1);
        parts.push((middle..range.end, deeper));
        parts.push((range.start..middle, deeper));
    }
    places
}

/// Splits a part in two, that which is nearer to `from` first, and returns the length of the first.
fn split(sketches: &[Sketch], part: &mut [usize], from: Option<&Sketch>, depth: u32) -> usize {
    let half = part.len() / 2;
    if depth == 0 {
        return half;
    }
    let of = |place: &usize| sketches.get(*place).copied().unwrap_or_default();
    let stride = part.len().div_ceil(WITNESSES);
    let witnesses: Vec<Sketch> = part.iter().step_by(stride).map(of).collect();
    let farthest = |from: &Sketch| {
        // The first of the farthest.
        let far = witnesses.iter().rev().max_by_key(|witness| from.distance(witness));
        far.copied().unwrap_or_default()
    };
    let mut first = farthest(&Sketch::majority(witnesses.iter()));
    let mut second = farthest(&first);
    for _ in 0..ROUNDS {
        let is_first = |witness: &&Sketch| first.distance(witness) <= second.distance(witness);
        let (ours, theirs): (Vec<_>, Vec<_>) = witnesses.iter().partition(is_first);
        (first, second) = (Sketch::majority(ours.into_iter()), Sketch::majority(theirs.into_iter()));
    }
    if from.is_some_and(|from| from.distance(&second) < from.distance(&first)) {
        std::mem::swap(&mut first, &mut second);
    }
    let is_first = |place: &usize| first.distance(&of(place)) <= second.distance(&of(place));
    let (ours, theirs): (Vec<usize>, Vec<usize>) = part.iter().copied().partition(is_first);
    if ours.is_empty() || theirs.is_empty() {
        return half;
    }
    part.iter_mut().zip(ours.iter().chain(&theirs)).for_each(|(slot, place)| *slot = *place);
    ours.len()
}

/// Orders a part: from `last` on, always the nearest next. Returns which is last now.
fn link(sketches: &[Sketch], part: &mut [usize], last: Option<usize>) -> Option<usize> {
    let mut left: Vec<(Sketch, usize)> =
        part.iter().filter_map(|place| Some((*sketches.get(*place)?, *place))).collect();
    let mut at =
        last.and_then(|place| Some((*sketches.get(place)?, place))).or_else(|| left.first().copied())?;
    for slot in part {
        let by_distance = |(_, (sketch, place)): &(usize, &(Sketch, usize))| {
            (at.0.distance(sketch), place.abs_diff(at.1), *place)
        };
        let (index, _) = left.iter().enumerate().min_by_key(by_distance)?;
        at = left.swap_remove(index);
        *slot = at.1;
    }
    Some(at.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of `kinds` kinds that take turns.
    fn mixed(count: usize, kinds: usize) -> Vec<Sketch> {
        let words = |number: usize| format!("{:x} ", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let of_kind = |kind: usize| (0..400).map(|word| words(kind * 1_000 + word % 40)).collect();
        let kind: Vec<String> = (0..kinds).map(of_kind).collect();
        (0..count)
            .map(|file| Sketch::of(format!("{}{}", kind[file % kinds], words(file)).as_bytes()))
            .collect()
    }

    fn changes(order: &[usize], kinds: usize) -> usize {
        order.windows(2).filter(|pair| pair[0] % kinds != pair[1] % kinds).count()
    }

    #[test]
    fn files_of_a_kind_follow_each_other() {
        for (count, kinds) in [(300, 3), (5_000, 7)] {
            let order = chain(&mixed(count, kinds));
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..count).collect::<Vec<_>>());
            // A kind may be in two parts.
            let changes = changes(&order, kinds);
            assert!(changes < 2 * kinds, "{changes} changes in {count} files of {kinds} kinds");
        }
    }

    #[test]
    fn equal_ones_keep_their_order() {
        for count in [0, 1, 2, LEAF, 3 * LEAF + 1] {
            assert_eq!(chain(&vec![Sketch::default(); count]), (0..count).collect::<Vec<_>>());
        }
    }
}
