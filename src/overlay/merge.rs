//! Which objects make up a name: the rules of merging, without any input or output.

use super::{
    marks::Marks,
    node::{LowerRef, Lowers},
};
use crate::vfs::{Attr, FileKind};

/// What one place on the way down has under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A deleted name.
    Whiteout,
    /// A directory; `opaque` ends the way.
    Directory { opaque: bool },
    /// Anything else.
    Other,
}

impl Seen {
    /// What an object with `attr` and `marks` is for merging.
    pub(super) fn new(attr: &Attr, marks: &Marks) -> Self {
        match attr.kind {
            _ if attr.is_whiteout() => Self::Whiteout,
            FileKind::Directory => Self::Directory { opaque: marks.opaque },
            _ => Self::Other,
        }
    }
}

/// What to do with what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// It is part of the merged object.
    pub(super) take: bool,
    /// Nothing further down matters.
    pub(super) stop: bool,
}

/// The state of a walk from the top downwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Walk {
    has_directory: bool,
}

impl Walk {
    /// Judges the next thing that was seen.
    pub(super) fn step(&mut self, seen: Seen) -> Step {
        match seen {
            Seen::Whiteout => Step { take: false, stop: true },
            Seen::Directory { opaque } => {
                self.has_directory = true;
                Step { take: true, stop: opaque }
            }
            Seen::Other => Step { take: !self.has_directory, stop: true },
        }
    }
}

/// Packs the lowers of an object, the highest first.
pub(super) fn pack(lowers: &[LowerRef]) -> Lowers {
    match lowers {
        [] => Lowers::None,
        [one] => Lowers::One(*one),
        many => Lowers::Many(many.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a walk over what is seen from the top; returns the indexes that are taken.
    fn merged(seen: &[Seen]) -> Vec<usize> {
        let mut walk = Walk::default();
        let mut taken = Vec::new();
        for (index, seen) in seen.iter().enumerate() {
            let step = walk.step(*seen);
            if step.take {
                taken.push(index);
            }
            if step.stop {
                break;
            }
        }
        taken
    }

    #[test]
    fn directories_merge_until_something_else() {
        const DIR: Seen = Seen::Directory { opaque: false };
        const OPAQUE: Seen = Seen::Directory { opaque: true };
        let cases: [(&[Seen], &[usize]); 9] = [
            (&[], &[]),
            (&[Seen::Whiteout, DIR], &[]),
            (&[Seen::Other, Seen::Other], &[0]),
            (&[Seen::Other, DIR], &[0]),
            (&[DIR, DIR, DIR], &[0, 1, 2]),
            (&[DIR, OPAQUE, DIR], &[0, 1]),
            (&[OPAQUE, DIR], &[0]),
            (&[DIR, Seen::Other, DIR], &[0]),
            (&[DIR, Seen::Whiteout, DIR], &[0]),
        ];
        for (seen, expected) in cases {
            assert_eq!(merged(seen), expected, "{seen:?}");
        }
    }
}
