//! Which entries of a listing carry their attributes.
//!
//! READDIRPLUS hands over attributes with the names, so that whoever looks at them afterwards asks for nothing; but
//! the kernel then makes an inode for each entry, and whoever only walks pays for what he does not use. What is left
//! *bare* costs nothing, until somebody wants it: then it costs a LOOKUP. Directories are never left bare, since every
//! walker opens them.
//!
//! Nothing tells one walker from the other beforehand: those who use the attributes that they got send no message. So
//! now and then one entry of a directory is left bare, as a question:
//!
//! ```text
//!          a bare name is asked for                       8 questions, and nobody asked
//!   Full <-------------------------- Asking ------------------------------------------> Bare
//!     |  ------------------------------^                                                 |
//!     |   after 16, 32, 64 … directories                                                 |
//!     ^----------------------------------------------------------------------------------+
//!                                 a bare name is asked for
//! ```
//!
//! The kernel keeps listings. When as many bare names have been asked for as directories were listed bare, those
//! listings are taken back, so that the next walker gets attributes with them; what the wrong guess costs is so bounded
//! by what it would have cost to list these directories again.

use hashbrown::HashSet;

use crate::vfs::Ino;

/// Questions without an answer after which nobody seems to want attributes: a walker may go down some directories
/// before it looks at the files of the first one.
const PATIENCE: u32 = 8;

/// Directories between two times of asking, at first and at most; each answer doubles them.
const PAUSES: (u32, u32) = (16, 4096);

/// Directories listed bare that are remembered; who walks more of them gets attributes from there on.
const REMEMBERED: usize = 1 << 16;

/// What to do with the entries of a directory that are not directories themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// All carry attributes.
    All,
    /// All but the first one.
    AllButOne,
    /// None does.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// So many questions are open.
    Asking(u32),
    /// Attributes for so many more directories.
    Full(u32),
    Bare,
}

/// What is known of those who list.
#[derive(Debug)]
pub(super) struct Habit {
    mood: Mood,
    pause: u32,
    /// Directories with one bare entry.
    asked: HashSet<Ino>,
    /// Directories listed bare.
    bare: HashSet<Ino>,
    /// How often something in these was asked for.
    wanted: usize,
}

impl Default for Habit {
    fn default() -> Self {
        let (asked, bare) = (HashSet::new(), HashSet::new());
        Self { mood: Mood::Asking(0), pause: PAUSES.0, asked, bare, wanted: 0 }
    }
}

impl Habit {
    /// A directory is listed, from `offset` on: what shall its entries carry?
    pub(super) fn offer(&mut self, offset: u64) -> Offer {
        if offset > 0 {
            return if self.is_bare() { Offer::None } else { Offer::All };
        }
        match self.mood {
            Mood::Asking(PATIENCE..) => {
                self.mood = Mood::Bare;
                self.asked.clear();
            }
            Mood::Full(0) => self.mood = Mood::Asking(0),
            Mood::Full(left) => self.mood = Mood::Full(left - 1),
            Mood::Asking(_) | Mood::Bare => {}
        }
        match self.mood {
            Mood::Asking(_) => Offer::AllButOne,
            Mood::Bare if self.is_bare() => Offer::None,
            Mood::Bare | Mood::Full(_) => Offer::All,
        }
    }

    /// The directory was listed with or without bare entries.
    pub(super) fn listed(&mut self, dir: Ino, offer: Offer, has_bare: bool) {
        match (offer, has_bare) {
            (Offer::AllButOne, true) => {
                if let Mood::Asking(open) = &mut self.mood {
                    *open += 1;
                    self.asked.insert(dir);
                }
            }
            (Offer::None, true) => {
                self.bare.insert(dir);
            }
            (Offer::All | Offer::AllButOne | Offer::None, _) => {}
        }
    }

    /// Something in a directory that is none itself was asked for by its name. Returns the directories whose listings
    /// the kernel shall forget.
    pub(super) fn wanted(&mut self, dir: Ino) -> Vec<Ino> {
        let in_bare = self.bare.contains(&dir);
        if !in_bare && !self.asked.contains(&dir) {
            return Vec::new();
        }
        self.wanted += usize::from(in_bare);
        if !matches!(self.mood, Mood::Full(_)) {
            self.mood = Mood::Full(self.pause);
            self.pause = self.pause.saturating_mul(2).min(PAUSES.1);
            self.asked.clear();
        }
        if self.wanted < self.bare.len() {
            return Vec::new();
        }
        self.wanted = 0;
        // The one that is being walked has been read; to forget it changes nothing for its reader.
        self.bare.drain().collect()
    }

    fn is_bare(&self) -> bool {
        self.mood == Mood::Bare && self.bare.len() < REMEMBERED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists a directory with files; returns what they carried.
    fn list(habit: &mut Habit, dir: u64) -> Offer {
        let offer = habit.offer(0);
        habit.listed(Ino::new(dir), offer, offer != Offer::All);
        offer
    }

    #[test]
    fn who_only_lists_gets_names() {
        let mut habit = Habit::default();
        for dir in 0..8 {
            assert_eq!(list(&mut habit, dir), Offer::AllButOne);
            assert_eq!(habit.offer(5), Offer::All);
        }
        for dir in 8..1_000 {
            assert_eq!(list(&mut habit, dir), Offer::None);
            assert_eq!(habit.offer(5), Offer::None);
        }
    }

    #[test]
    fn directories_of_directories_ask_nothing() {
        let mut habit = Habit::default();
        for dir in 0..100 {
            let offer = habit.offer(0);
            assert_eq!(offer, Offer::AllButOne);
            habit.listed(Ino::new(dir), offer, false);
        }
    }

    #[test]
    fn who_looks_at_everything_is_asked_seldom() {
        let mut habit = Habit::default();
        let mut questions = 0;
        for dir in 0..10_000 {
            match list(&mut habit, dir) {
                Offer::All => {}
                Offer::AllButOne => {
                    questions += 1;
                    assert_eq!(habit.wanted(Ino::new(dir)), []);
                }
                Offer::None => panic!("attributes are wanted"),
            }
        }
        assert!(questions <= 12, "{questions}");
    }

    #[test]
    fn an_answer_may_come_late() {
        let mut habit = Habit::default();
        for dir in 0..5 {
            assert_eq!(list(&mut habit, dir), Offer::AllButOne);
        }
        assert_eq!(habit.wanted(Ino::new(2)), []);
        for dir in 5..21 {
            assert_eq!(list(&mut habit, dir), Offer::All);
        }
        assert_eq!(list(&mut habit, 21), Offer::AllButOne);
        assert_eq!(habit.wanted(Ino::new(2)), [], "not that old");
        assert_eq!(list(&mut habit, 22), Offer::AllButOne);
    }

    #[test]
    fn listings_are_taken_back_when_their_names_are_wanted() {
        let mut habit = Habit::default();
        for dir in 0..28 {
            list(&mut habit, dir);
        }
        assert_eq!(habit.wanted(Ino::new(100)), [], "not listed here");
        for look_up in 0..19 {
            assert_eq!(habit.wanted(Ino::new(9)), []);
            if look_up < PAUSES.0 {
                assert_eq!(habit.offer(0), Offer::All, "attributes at once");
            }
        }
        let mut back = habit.wanted(Ino::new(10));
        back.sort_unstable();
        assert_eq!(back, (8..28).map(Ino::new).collect::<Vec<_>>());
        assert_eq!(habit.wanted(Ino::new(10)), [], "once");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut habit = Habit::default();
        for dir in 0..2 * REMEMBERED as u64 {
            list(&mut habit, dir);
        }
        assert_eq!(habit.bare.len(), REMEMBERED);
        assert_eq!(list(&mut habit, 0), Offer::All);
    }
}
