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
    /// A regular file; with `metacopy` its data are further down.
    File { metacopy: bool },
    /// Anything else.
    Other,
}

impl Seen {
    /// What an object with `attr` and `marks` is for merging.
    pub(super) fn new(attr: &Attr, marks: &Marks) -> Self {
        match attr.kind {
            _ if attr.is_whiteout() => Self::Whiteout,
            FileKind::Directory => Self::Directory { opaque: marks.opaque },
            FileKind::Regular => Self::File { metacopy: marks.metacopy },
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

/// What a walk from the top downwards has come by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Walk {
    /// Nothing yet.
    #[default]
    Nothing,
    /// A directory, which goes on further down.
    Directory,
    /// A file without its data.
    Attributes,
    /// All there is.
    Complete,
}

impl Walk {
    /// Judges the next thing that was seen.
    pub(super) fn step(&mut self, seen: Seen) -> Step {
        let (state, take, stop) = match (*self, seen) {
            (Self::Nothing | Self::Directory, Seen::Directory { opaque }) => (Self::Directory, true, opaque),
            (Self::Nothing | Self::Attributes, Seen::File { metacopy: true }) => {
                (Self::Attributes, true, false)
            }
            (Self::Nothing | Self::Attributes, Seen::File { metacopy: false }) => {
                (Self::Complete, true, true)
            }
            (Self::Nothing, Seen::Other) => (Self::Complete, true, true),
            (state, _) => (state, false, true),
        };
        *self = state;
        Step { take, stop }
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
    fn directories_merge_and_files_get_data_until_something_else() {
        const DIR: Seen = Seen::Directory { opaque: false };
        const OPAQUE: Seen = Seen::Directory { opaque: true };
        const META: Seen = Seen::File { metacopy: true };
        const FILE: Seen = Seen::File { metacopy: false };
        let cases: [(&[Seen], &[usize]); 15] = [
            (&[FILE, FILE], &[0]),
            (&[META, META, FILE, FILE], &[0, 1, 2]),
            (&[META, DIR, FILE], &[0]),
            (&[META, Seen::Other], &[0]),
            (&[META, Seen::Whiteout, FILE], &[0]),
            (&[DIR, META, DIR], &[0]),
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
