//! Brings files that are alike together, so that a block's codec finds in one what the other has.
//!
//! A [`Sketch`] is made of a sample of each file while it is read for other reasons anyway ([`inspect`]); [`chain`]
//! then makes neighbours of near sketches. 32 bytes a file are held.
//!
//! [`inspect`]: super::inspect

mod chain;
mod sketch;

pub(super) use sketch::Sketch;

use super::dedup::Group;

/// Orders groups by what their sketches, one for each, say of them.
pub(super) fn arrange(groups: Vec<Group>, sketches: &[Sketch]) -> Vec<Group> {
    let mut left: Vec<Option<Group>> = groups.into_iter().map(Some).collect();
    chain::chain(sketches).into_iter().filter_map(|place| left.get_mut(place)?.take()).collect()
}
