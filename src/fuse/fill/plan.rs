//! Which pieces are to be handed over, and who waits for them. Pure.
//!
//! ```text
//! piece:  left ──► begun ──► done
//!          READs may wait for it    READs are answered at once
//! ```

use std::collections::VecDeque;

use super::{PIECE, REGION, Region};

/// Regions that are filled or wait for it.
const MOST: usize = 8;

/// A piece of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) region: Region,
    number: u32,
}

impl Place {
    /// The piece that holds a range that begins in this region; `None` where more than one does.
    pub(super) fn of(region: Region, offset: u64, end: u64) -> Option<Self> {
        let within = offset.checked_sub(region.number.checked_mul(REGION)?)?;
        let number = u32::try_from(within / PIECE).ok()?;
        let place = Self { region, number };
        (end <= place.start().saturating_add(PIECE)).then_some(place)
    }

    /// Where it begins in the file.
    pub(super) fn start(self) -> u64 {
        self.region.number.saturating_mul(REGION).saturating_add(u64::from(self.number) * PIECE)
    }

    const fn bit(self) -> u64 {
        1_u64.rotate_left(self.number)
    }
}

const _: () = assert!(REGION / PIECE == 64, "a bit for each piece");

/// What is to be done; `W` is what waits.
#[derive(Debug)]
pub(super) struct Plan<W> {
    filling: VecDeque<Filling<W>>,
    /// Threads that hand over a piece just now.
    storing: usize,
}

#[derive(Debug)]
struct Filling<W> {
    region: Region,
    /// Pieces that nobody has begun.
    left: u64,
    /// Pieces that somebody is at.
    begun: u64,
    /// In the order in which they came, with the number of the piece. All of these pieces are left.
    waiting: VecDeque<(u32, W)>,
}

impl<W> Default for Plan<W> {
    fn default() -> Self {
        Self { filling: VecDeque::new(), storing: 0 }
    }
}

impl<W> Plan<W> {
    /// Takes a region in; says whether it was new and there was room.
    pub(super) fn begin(&mut self, region: Region) -> bool {
        let begins = self.filling.len() < MOST && self.of(region).is_none();
        if begins {
            self.filling.push_back(Filling { region, left: u64::MAX, begun: 0, waiting: VecDeque::new() });
        }
        begins
    }

    /// Leaves somebody to wait for a piece, if that is going to be handed over soon; else gives him back.
    ///
    /// Soon means that pieces are handed over just now. Where the threads wait for data, which others may have
    /// already, nobody shall wait for the threads.
    pub(super) fn leave(&mut self, place: Place, who: W) -> Result<(), W> {
        if self.storing == 0 {
            return Err(who);
        }
        match self.of(place.region) {
            Some(filling) if filling.left & place.bit() != 0 => {
                filling.waiting.push_back((place.number, who));
                Ok(())
            }
            _ => Err(who),
        }
    }

    /// Begins a piece: one for which somebody waits, or else the next one of the oldest region. All who wait for it
    /// come along.
    pub(super) fn next(&mut self) -> Option<(Place, Vec<W>)> {
        let waited = self.filling.iter().position(|filling| !filling.waiting.is_empty());
        let at = waited.or_else(|| self.filling.iter().position(|filling| filling.left != 0))?;
        let filling = self.filling.get_mut(at)?;
        let number = filling.waiting.front().map_or(filling.left.trailing_zeros(), |(number, _)| *number);
        let place = Place { region: filling.region, number };
        filling.left &= !place.bit();
        filling.begun |= place.bit();
        let (here, others) = filling.waiting.drain(..).partition::<VecDeque<_>, _>(|(of, _)| *of == number);
        filling.waiting = others;
        Some((place, here.into_iter().map(|(_, who)| who).collect()))
    }

    /// A piece is done; `last` if the file ends there. Says whether all of the region is.
    pub(super) fn done(&mut self, place: Place, last: bool) -> bool {
        let Some(filling) = self.of(place.region) else { return false };
        filling.begun &= !place.bit();
        if last {
            // Who waits behind the end is answered all the same.
            let waited =
                filling.waiting.iter().fold(0, |bits, (number, _)| bits | 1_u64.rotate_left(*number));
            filling.left &= waited | place.bit().wrapping_sub(1);
        }
        let is_done = filling.left | filling.begun == 0;
        if is_done {
            self.filling.retain(|filling| filling.region != place.region);
        }
        is_done
    }

    /// So many threads more, or less, hand over a piece now.
    pub(super) fn storing(&mut self, change: isize) {
        self.storing = self.storing.saturating_add_signed(change);
    }

    /// Whether there is nothing to do and nobody at it.
    pub(super) fn is_empty(&self) -> bool {
        self.filling.is_empty()
    }

    fn of(&mut self, region: Region) -> Option<&mut Filling<W>> {
        self.filling.iter_mut().find(|filling| filling.region == region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::Ino;

    fn region(number: u64) -> Region {
        Region { ino: Ino::new(7), number }
    }

    fn place(number: u64, piece: u32) -> Place {
        Place { region: region(number), number: piece }
    }

    #[test]
    fn a_place_is_one_piece() {
        let in_third = REGION + 2 * PIECE;
        assert_eq!(Place::of(region(1), in_third, in_third + PIECE), Some(place(1, 2)));
        assert_eq!(Place::of(region(1), in_third + 1, in_third + PIECE + 1), None);
        assert_eq!(Place::of(region(1), 2 * REGION - 1, 2 * REGION), Some(place(1, 63)));
        assert_eq!(place(1, 2).start(), in_third);
    }

    #[test]
    fn pieces_go_in_order_unless_somebody_waits() {
        let mut plan: Plan<char> = Plan::default();
        assert!(plan.next().is_none());
        assert!(plan.begin(region(1)) && !plan.begin(region(1)) && plan.begin(region(2)));
        plan.storing(1);
        assert_eq!(plan.next(), Some((place(1, 0), vec![])));
        for (who, number, piece) in [('a', 1, 9), ('b', 2, 5), ('c', 1, 9), ('d', 1, 3)] {
            assert_eq!(plan.leave(place(number, piece), who), Ok(()));
        }
        let next: Vec<_> = std::iter::from_fn(|| plan.next()).take(4).collect();
        let expected = [
            (place(1, 9), vec!['a', 'c']),
            (place(1, 3), vec!['d']),
            (place(2, 5), vec!['b']),
            (place(1, 1), vec![]),
        ];
        assert_eq!(next, expected);
    }

    #[test]
    fn nobody_waits_for_what_is_begun_or_done_or_late() {
        let mut plan = Plan::default();
        assert!(plan.begin(region(1)));
        assert_eq!(plan.leave(place(1, 5), ()), Err(()), "nobody hands over");
        plan.storing(1);
        let (first, _) = plan.next().unwrap();
        assert_eq!(plan.leave(first, ()), Err(()), "begun");
        assert!(!plan.done(first, false));
        assert_eq!(plan.leave(first, ()), Err(()), "done");
        assert_eq!(plan.leave(place(2, 0), ()), Err(()), "another region");
        assert_eq!(plan.leave(place(1, 1), ()), Ok(()));
        plan.storing(-1);
        assert_eq!(plan.leave(place(1, 1), ()), Err(()), "nobody hands over any more");
    }

    #[test]
    fn a_region_ends_with_its_last_piece_or_with_the_file() {
        let mut plan = Plan::default();
        assert!(plan.begin(region(1)));
        plan.storing(1);
        let pieces: Vec<_> = std::iter::from_fn(|| plan.next()).map(|(place, _)| place).collect();
        assert_eq!(pieces.len(), 64);
        for (at, piece) in pieces.into_iter().enumerate() {
            assert_eq!(plan.done(piece, false), at == 63);
        }
        assert!(plan.is_empty());

        assert!(plan.begin(region(1)));
        let (first, _) = plan.next().unwrap();
        let (second, _) = plan.next().unwrap();
        assert_eq!(plan.leave(place(1, 8), 'a'), Ok(()));
        // Who waits is not forgotten.
        assert!(!plan.done(second, true));
        assert_eq!(plan.next(), Some((place(1, 8), vec!['a'])));
        assert!(plan.next().is_none());
        assert!(!plan.done(place(1, 8), true));
        assert!(plan.done(first, false) && plan.is_empty());
    }

    #[test]
    fn regions_are_bounded() {
        let mut plan: Plan<()> = Plan::default();
        assert_eq!((0..100).filter(|number| plan.begin(region(*number))).count(), MOST);
    }
}
