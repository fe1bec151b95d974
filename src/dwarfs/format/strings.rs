//! String tables: names and symlink targets in their five forms.
//!
//! ```text
//! plain     list<string>
//! compact   buffer, index with n + 1 offsets                  in place
//!           ... or, packed, n lengths                         summed up on first use
//!           ... either with symbols: each string compressed   decoded or compared on use
//! ```

use std::{cmp::Ordering, ops::Range};

use super::{
    frozen::{Column, Frozen, StringRows, View},
    fsst::{Symbols, Text},
    metadata::string_table,
};
use crate::{dwarfs::Error, sync::OnceLock};

/// A string table.
#[derive(Debug)]
pub enum Strings {
    /// Each string at its own place.
    Plain(StringRows),
    /// All strings one after the other.
    Compact(Compact),
}

/// A compact string table.
#[derive(Debug)]
pub struct Compact {
    buffer: Range<usize>,
    index: Column,
    /// Sums of a packed index, one more than strings; made on first use.
    sums: Option<OnceLock<Vec<u32>>>,
    symbols: Option<Symbols>,
}

impl Strings {
    /// Resolves the table `compact`, or where that is not set, the list `plain`.
    ///
    /// # Errors
    ///
    /// What [`Frozen`] says, and [`Error::Malformed`] for damaged symbols.
    pub fn resolve<'a>(
        frozen: &Frozen<'a>,
        data: &[u8],
        plain: Option<View<'a>>,
        compact: Option<View<'a>>,
    ) -> Result<Self, Error> {
        if compact.is_none() {
            return Ok(Self::Plain(frozen.strings(plain)?));
        }
        let buffer = frozen.string(frozen.field(compact, string_table::BUFFER)?)?;
        let index = frozen.ints(frozen.field(compact, string_table::INDEX)?, u32::BITS)?;
        let packed = frozen.int(frozen.field(compact, string_table::PACKED_INDEX)?)? != 0;
        let symbols = match frozen.optional(frozen.field(compact, string_table::SYMTAB)?)? {
            Some(view) => {
                let range = frozen.string(Some(view))?;
                Some(Symbols::parse(data.get(range).unwrap_or_default())?)
            }
            None => None,
        };
        Ok(Self::Compact(Compact { buffer, index, sums: packed.then(OnceLock::new), symbols }))
    }

    /// How many strings there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        match self {
            Self::Plain(rows) => rows.len(),
            Self::Compact(Compact { index, sums: Some(_), .. }) => index.len(),
            Self::Compact(Compact { index, sums: None, .. }) => index.len().saturating_sub(1),
        }
    }

    /// Whether there is no string.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the number of strings is not bounded by the size of the data.
    #[must_use]
    pub const fn is_free(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Compact(compact) => compact.index.is_free(),
        }
    }

    /// Reads string `number` into `text`, which it replaces.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] where there is no such string, [`Error::Limit`] where it is longer than `max_len`,
    /// [`Error::Malformed`] where it is.
    pub fn read(&self, data: &[u8], number: u32, max_len: usize, text: &mut Text) -> Result<(), Error> {
        let stored = self.stored(data, number)?;
        if let Some(symbols) = self.symbols() {
            return symbols.decode(stored, max_len, text);
        }
        if stored.len() > max_len {
            let (found, limit) = (stored.len() as u64, max_len as u64);
            return Err(Error::Limit { what: "length of a name or link target", found, limit });
        }
        text.clear();
        text.extend_from_slice(stored);
        Ok(())
    }

    /// Length of string `number`.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn len_of(&self, data: &[u8], number: u32) -> Result<usize, Error> {
        let stored = self.stored(data, number)?;
        self.symbols().map_or(Ok(stored.len()), |symbols| symbols.decoded_len(stored))
    }

    /// Compares string `number` with `other`, without copying or decoding more than needed.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn compare(&self, data: &[u8], number: u32, other: &[u8]) -> Result<Ordering, Error> {
        let stored = self.stored(data, number)?;
        self.symbols().map_or_else(|| Ok(stored.cmp(other)), |symbols| symbols.compare(stored, other))
    }

    const fn symbols(&self) -> Option<&Symbols> {
        match self {
            Self::Plain(_) => None,
            Self::Compact(compact) => compact.symbols.as_ref(),
        }
    }

    /// String `number` as it is stored.
    fn stored<'a>(&self, data: &'a [u8], number: u32) -> Result<&'a [u8], Error> {
        let bytes = match self {
            Self::Plain(rows) => rows.get(data, number),
            Self::Compact(compact) => compact.stored(data, number),
        };
        let bound = u64::from(self.len());
        bytes.ok_or(Error::OutOfRange { what: "string", found: u64::from(number), bound })
    }
}

impl Compact {
    fn stored<'a>(&self, data: &'a [u8], number: u32) -> Option<&'a [u8]> {
        let next = number.checked_add(1)?;
        let (from, to) = match &self.sums {
            Some(sums) => {
                let sums = sums.get_or_init(|| self.sum(data));
                (*sums.get(usize::try_from(number).ok()?)?, *sums.get(usize::try_from(next).ok()?)?)
            }
            None => {
                let offset = |at| self.index.get(data, at).and_then(|offset| u32::try_from(offset).ok());
                (offset(number)?, offset(next)?)
            }
        };
        let buffer = data.get(self.buffer.clone())?;
        buffer.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
    }

    /// Offsets from lengths. Where a damaged index overflows, its strings end up outside of the buffer.
    fn sum(&self, data: &[u8]) -> Vec<u32> {
        let mut sum = 0_u32;
        let lengths = (0..self.index.len()).map(|number| {
            let len = self.index.get(data, number).and_then(|len| u32::try_from(len).ok());
            sum = sum.saturating_add(len.unwrap_or(u32::MAX));
            sum
        });
        std::iter::once(0).chain(lengths).collect()
    }
}
