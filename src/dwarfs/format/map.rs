//! Sorted maps from number to number, searched in place.

use std::cmp::Ordering;

use super::{
    frozen::{Column, Frozen, View},
    metadata::pair,
};
use crate::dwarfs::Error;

/// A map from 32 bits to numbers.
#[derive(Clone, Copy, Debug)]
pub struct Map {
    keys: Column,
    values: Column,
}

impl Map {
    /// Resolves a map whose values have at most `max_width` bits.
    ///
    /// # Errors
    ///
    /// What [`Frozen::column`] says.
    pub fn resolve<'a>(frozen: &Frozen<'a>, view: Option<View<'a>>, max_width: u32) -> Result<Self, Error> {
        Ok(Self {
            keys: frozen.column(view, pair::FIRST, u32::BITS)?,
            values: frozen.column(view, pair::SECOND, max_width)?,
        })
    }

    /// The value of a key.
    #[must_use]
    pub fn find(&self, data: &[u8], key: u32) -> Option<u64> {
        let (mut low, mut high) = (0, self.keys.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.keys.get(data, middle)?.cmp(&u64::from(key)) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return self.values.get(data, middle),
                Ordering::Greater => high = middle,
            }
        }
        None
    }
}
