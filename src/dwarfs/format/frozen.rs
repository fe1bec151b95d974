//! Frozen values read in place: bits, positions, lists.
//!
//! A frozen value is a struct of bit fields; lists and strings lie behind it and are found by a distance:
//!
//! ```text
//! root struct (size bytes) | list A: item 0 item 1 ... | string bytes | list B ...
//!   field: n bits at bit b    items packed by bits (or, where the layout has a size, by bytes)
//!   list:  distance, count    distance counts from the byte where the struct that holds the list starts;
//!                             items packed by bits all "start" where their list starts
//! ```
//!
//! Bits are counted from the least significant one of the first byte; a field of 0 bits, or one that the schema does
//! not name, is 0. Everything is resolved against the schema once ([`Frozen`]), after which reading a number is one
//! unaligned load ([`Column::get`]). Extents of lists and places of fields are checked while resolving.

use std::{collections::BTreeMap, ops::Range};

use super::{
    bytes::array_at,
    metadata::{list, optional},
    schema::{Layout, Schema},
};
use crate::dwarfs::Error;

/// Bits of a byte.
const BYTE: u64 = 8;

/// A bit field: where it is in its struct, and how wide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bits {
    offset: u64,
    width: u32,
}

impl Bits {
    /// Whether the field takes room at all; one that does not is always 0.
    #[must_use]
    pub const fn is_stored(self) -> bool {
        self.width > 0
    }
}

/// Returns `width` (at most 64) bits that begin at bit `at`, or nothing where they are not all there.
#[must_use]
pub fn load_bits(data: &[u8], at: u64, width: u32) -> Option<u64> {
    if width == 0 {
        return Some(0);
    }
    let first = usize::try_from(at / BYTE).ok()?;
    let shift = at % BYTE;
    let mask = u64::MAX >> (u64::BITS - width);
    if let Some(word) = array_at(data, first) {
        let low = u64::from_le_bytes(word) >> shift;
        let have = u64::BITS - u32::try_from(shift).ok()?;
        if width <= have {
            return Some(low & mask);
        }
        let rest = u64::from(*data.get(first + size_of::<u64>())?);
        return Some((low | rest << have) & mask);
    }
    load_tail(data, first, shift, width).map(|value| value & mask)
}

/// The same for the last bytes, which no whole word begins at.
#[cold]
fn load_tail(data: &[u8], first: usize, shift: u64, width: u32) -> Option<u64> {
    let tail = data.get(first..)?;
    if shift + u64::from(width) > tail.len() as u64 * BYTE {
        return None;
    }
    Some(tail.iter().rev().fold(0, |word, byte| word << BYTE | u64::from(*byte)) >> shift)
}

/// The items of a list: where they begin, how far apart they are, how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// First byte.
    start: usize,
    /// Distance of two items in bits.
    stride: u64,
    /// How many.
    count: u32,
    /// Whether items begin at bytes of their own (and distances inside of them count from there).
    sized: bool,
}

/// One field of all items of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Column {
    rows: Rows,
    bits: Bits,
}

impl Column {
    /// How many items there are.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.rows.count
    }

    /// Whether there is no item.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows.count == 0
    }

    /// Whether the field takes room; if not, it is 0 in all items.
    #[must_use]
    pub const fn is_stored(&self) -> bool {
        self.bits.is_stored()
    }

    /// Whether an item takes no room at all, so that nothing but other tables bounds their number.
    #[must_use]
    pub const fn is_free(&self) -> bool {
        self.rows.stride == 0
    }

    /// The first number that the field is too narrow for; `None` where it is as wide as its type.
    #[must_use]
    pub const fn bound(&self) -> Option<u64> {
        1_u64.checked_shl(self.bits.width)
    }

    /// Returns the field of item `index`, or nothing behind the last one.
    #[must_use]
    pub fn get(&self, data: &[u8], index: u32) -> Option<u64> {
        if index >= self.rows.count {
            return None;
        }
        // Cannot overflow: the list as a whole lies within the data.
        let at = self.rows.start as u64 * BYTE + u64::from(index) * self.rows.stride + self.bits.offset;
        load_bits(data, at, self.bits.width)
    }

    /// As [`get`](Self::get), with an error that names the table as `what`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] where there is no such item.
    pub fn at(&self, data: &[u8], index: u32, what: &'static str) -> Result<u64, Error> {
        let out = || Error::OutOfRange { what, found: u64::from(index), bound: u64::from(self.rows.count) };
        self.get(data, index).ok_or_else(out)
    }

    /// As [`at`](Self::at), for fields that were resolved with at most 32 bits.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] where there is no such item.
    pub fn at32(&self, data: &[u8], index: u32, what: &'static str) -> Result<u32, Error> {
        let value = self.at(data, index, what)?;
        u32::try_from(value).map_err(|_| Error::OutOfRange { what, found: value, bound: 1 << 32 })
    }
}

/// A list of strings that are not compact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StringRows {
    distance: Column,
    count: Column,
}

impl StringRows {
    /// How many strings there are.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.distance.len()
    }

    /// Whether there is no string.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.distance.is_empty()
    }

    /// Returns string `index`, or nothing where it is not within the data.
    #[must_use]
    pub fn get<'a>(&self, data: &'a [u8], index: u32) -> Option<&'a [u8]> {
        let rows = self.distance.rows;
        let own = if rows.sized { u64::from(index) * rows.stride / BYTE } else { 0 };
        let from = (rows.start as u64).checked_add(own)?.checked_add(self.distance.get(data, index)?)?;
        let to = from.checked_add(self.count.get(data, index)?)?;
        data.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
    }
}

/// A place in frozen data with the layout of what is there.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    layout: &'a Layout,
    start: usize,
    bit: u64,
}

/// Frozen data with its schema; resolves places. An absent value is `None` and resolves to 0, empty or unset.
#[derive(Clone, Copy, Debug)]
pub struct Frozen<'a> {
    schema: &'a Schema,
    data: &'a [u8],
}

impl<'a> Frozen<'a> {
    /// Pairs data with its schema.
    #[must_use]
    pub const fn new(schema: &'a Schema, data: &'a [u8]) -> Self {
        Self { schema, data }
    }

    /// The root struct.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] where the data is shorter than that.
    pub fn root(&self) -> Result<View<'a>, Error> {
        let layout = self.layout(self.schema.root)?;
        let size = u64::try_from(layout.size).unwrap_or(u64::MAX);
        if size > self.data.len() as u64 {
            let bound = self.data.len() as u64 + 1;
            return Err(Error::OutOfRange { what: "size of the root struct", found: size, bound });
        }
        Ok(View { layout, start: 0, bit: 0 })
    }

    /// Field `id` of a struct; `None` where the schema does not have it.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] where the schema is wrong.
    pub fn field(&self, view: Option<View<'a>>, id: i16) -> Result<Option<View<'a>>, Error> {
        let Some(view) = view else { return Ok(None) };
        let Some(field) = view.layout.fields.get(&id) else { return Ok(None) };
        let layout = self.layout(field.layout)?;
        let offset = usize::from(field.offset.unsigned_abs());
        Ok(Some(if field.offset < 0 {
            View { layout, bit: view.bit + offset as u64, ..view }
        } else {
            View { layout, start: view.start.saturating_add(offset), ..view }
        }))
    }

    /// The value of an optional; `None` where it is not set.
    ///
    /// # Errors
    ///
    /// As [`field`](Self::field) and [`int`](Self::int).
    pub fn optional(&self, view: Option<View<'a>>) -> Result<Option<View<'a>>, Error> {
        if self.int(self.field(view, optional::IS_SET)?)? == 0 {
            return Ok(None);
        }
        // A value that is zero takes no bits, so that the schema does not name it; it is there all the same.
        static ZERO: Layout = Layout { size: 0, bits: 0, fields: BTreeMap::new() };
        let zero = View { layout: &ZERO, start: 0, bit: 0 };
        Ok(Some(self.field(view, optional::VALUE)?.unwrap_or(zero)))
    }

    /// An integer or boolean.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] where it is wider than 64 bits, [`Error::OutOfRange`] where it is not within the data.
    pub fn int(&self, view: Option<View<'a>>) -> Result<u64, Error> {
        let Some(view) = view else { return Ok(0) };
        let width = width(view.layout, u64::BITS)?;
        let at = (view.start as u64).saturating_mul(BYTE).saturating_add(view.bit);
        load_bits(self.data, at, width).ok_or_else(|| self.outside("field", at / BYTE))
    }

    /// A list of integers of at most `max_width` bits.
    ///
    /// # Errors
    ///
    /// As [`column`](Self::column).
    pub fn ints(&self, view: Option<View<'a>>, max_width: u32) -> Result<Column, Error> {
        let (rows, item) = self.rows(view)?;
        let Some(item) = item else { return Ok(Column { rows, bits: Bits::default() }) };
        Ok(Column { rows, bits: Bits { offset: 0, width: width(item, max_width)? } })
    }

    /// The field `id` of a list of structs, an integer of at most `max_width` bits.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] where it is wider, [`Error::OutOfRange`] where the list is not within the data or the field
    /// not within its struct.
    pub fn column(&self, view: Option<View<'a>>, id: i16, max_width: u32) -> Result<Column, Error> {
        let (rows, item) = self.rows(view)?;
        let item = item.map(|layout| View { layout, start: 0, bit: 0 });
        let Some(field) = self.field(item, id)? else { return Ok(Column { rows, bits: Bits::default() }) };
        let bits =
            Bits { offset: field.start as u64 * BYTE + field.bit, width: width(field.layout, max_width)? };
        let end = bits.offset + u64::from(bits.width);
        if end > rows.stride && rows.count > 0 {
            return Err(Error::OutOfRange { what: "end of a field", found: end, bound: rows.stride + 1 });
        }
        Ok(Column { rows, bits })
    }

    /// A list or set of strings.
    ///
    /// # Errors
    ///
    /// As [`column`](Self::column); where the strings themselves are is checked on use.
    pub fn strings(&self, view: Option<View<'a>>) -> Result<StringRows, Error> {
        Ok(StringRows {
            distance: self.column(view, list::DISTANCE, u64::BITS)?,
            count: self.column(view, list::COUNT, u64::BITS)?,
        })
    }

    /// Where the bytes of a string are.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] where they are not within the data.
    pub fn string(&self, view: Option<View<'a>>) -> Result<Range<usize>, Error> {
        let Some(place) = view else { return Ok(0..0) };
        let distance = self.int(self.field(view, list::DISTANCE)?)?;
        let count = self.int(self.field(view, list::COUNT)?)?;
        self.extent(place.start, distance, count)
    }

    /// The items of a list, and their layout.
    fn rows(&self, view: Option<View<'a>>) -> Result<(Rows, Option<&'a Layout>), Error> {
        let Some(place) = view else { return Ok((Rows::default(), None)) };
        let count = self.int(self.field(view, list::COUNT)?)?;
        let item = match place.layout.fields.get(&list::ITEM) {
            Some(field) => Some(self.layout(field.layout)?),
            None => None,
        };
        if count == 0 {
            return Ok((Rows::default(), item));
        }
        let count32 = u32::try_from(count).map_err(|_| Error::OutOfRange {
            what: "list length",
            found: count,
            bound: 1 << 32,
        })?;
        let size = item.map_or(0, |layout| u64::try_from(layout.size).unwrap_or(0));
        let bits = item.map_or(0, |layout| u64::try_from(layout.bits).unwrap_or(0));
        let stride = if size > 0 { size * BYTE } else { bits };
        let whole = stride.checked_mul(count).map_or(u64::MAX, |bits| bits.div_ceil(BYTE));
        let distance = self.int(self.field(view, list::DISTANCE)?)?;
        let range = self.extent(place.start, distance, whole)?;
        Ok((Rows { start: range.start, stride, count: count32, sized: size > 0 }, item))
    }

    /// Checks that `len` bytes at `distance` from `start` are within the data.
    fn extent(&self, start: usize, distance: u64, len: u64) -> Result<Range<usize>, Error> {
        let from = (start as u64).checked_add(distance);
        let to = from.and_then(|from| from.checked_add(len));
        match (from, to) {
            (Some(from), Some(to)) if to <= self.data.len() as u64 => {
                let outside = |_| self.outside("list", from);
                Ok(usize::try_from(from).map_err(outside)?..usize::try_from(to).map_err(outside)?)
            }
            _ => Err(self.outside("end of a list or string", to.unwrap_or(u64::MAX))),
        }
    }

    fn layout(&self, number: i16) -> Result<&'a Layout, Error> {
        let unknown = || Error::OutOfRange {
            what: "layout",
            found: u64::try_from(number).unwrap_or(u64::MAX),
            bound: self.schema.layouts.len() as u64,
        };
        self.schema.layouts.get(&number).ok_or_else(unknown)
    }

    const fn outside(&self, what: &'static str, found: u64) -> Error {
        Error::OutOfRange { what, found, bound: self.data.len() as u64 + 1 }
    }
}

/// The width of an integer's layout.
fn width(layout: &Layout, max: u32) -> Result<u32, Error> {
    u32::try_from(layout.bits).ok().filter(|bits| *bits <= max).ok_or_else(|| Error::Limit {
        what: "width of an integer in bits",
        found: u64::try_from(layout.bits).unwrap_or(u64::MAX),
        limit: u64::from(max),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dwarfs::format::schema::Field;

    #[test]
    fn bits_load_like_a_shift_of_the_whole() {
        let data: Vec<u8> = (0_u8..24).map(|byte| byte.wrapping_mul(37) ^ 0x5a).collect();
        let bit = |at: u64| u64::from(data[usize::try_from(at / 8).unwrap()] >> (at % 8) & 1);
        for width in 0..=64 {
            for at in 0..=(24 * 8 - u64::from(width)) {
                let expected = (0..u64::from(width)).fold(0, |value, n| value | bit(at + n) << n);
                assert_eq!(load_bits(&data, at, width), Some(expected), "{width} bits at {at}");
            }
            assert_eq!(load_bits(&data, 24 * 8 - u64::from(width) + 1, width), (width == 0).then_some(0));
        }
    }

    /// A root struct of 4 bytes with a list of 5-bit integers as field 1.
    fn example(count: u8, distance: u8) -> (Schema, Vec<u8>) {
        let number = |bits| Layout { bits, ..Layout::default() };
        let field = |layout, offset| Field { layout, offset };
        let list = [(1, field(1, 0)), (2, field(1, -8)), (3, field(0, 0))];
        let list = Layout { bits: 16, fields: list.into(), ..Layout::default() };
        let root = Layout { size: 4, bits: 16, fields: [(1, field(2, 0))].into() };
        let layouts = [(0, number(5)), (1, number(8)), (2, list), (3, root)].into();
        let schema = Schema { relax_type_checks: true, layouts, root: 3 };
        (schema, vec![distance, count, 0, 0, 0b001_00001, 0b00_00010, 0])
    }

    fn list_of(schema: &Schema, data: &[u8]) -> Result<Column, Error> {
        let frozen = Frozen::new(schema, data);
        frozen.ints(frozen.field(Some(frozen.root()?), 1)?, 32)
    }

    #[test]
    fn lists_are_found_and_bounded() {
        let (schema, data) = example(4, 4);
        let column = list_of(&schema, &data).unwrap();
        let values: Vec<_> = (0..5).map(|index| column.get(&data, index)).collect();
        assert_eq!(values, [Some(1), Some(0b10001), Some(0), Some(0), None]);
        for (count, distance) in [(5, 4), (1, 7), (255, 0)] {
            let (schema, data) = example(count, distance);
            assert!(matches!(list_of(&schema, &data), Err(Error::OutOfRange { .. })), "{count} {distance}");
        }
        let (schema, data) = example(0, 255);
        assert!(list_of(&schema, &data).unwrap().is_empty());
    }

    #[test]
    fn absent_values_are_zero_and_empty() {
        let (schema, data) = example(4, 4);
        let frozen = Frozen::new(&schema, &data);
        let absent = frozen.field(Some(frozen.root().unwrap()), 99).unwrap();
        assert_eq!(frozen.int(absent).unwrap(), 0);
        assert!(frozen.optional(absent).unwrap().is_none());
        assert_eq!(frozen.string(absent).unwrap(), 0..0);
        assert!(frozen.column(absent, 1, 32).unwrap().is_empty());
    }

    #[test]
    fn integers_wider_than_their_type_and_short_roots_are_refused() {
        let (mut schema, data) = example(0, 4);
        schema.layouts.get_mut(&0).unwrap().bits = 33;
        assert!(matches!(list_of(&schema, &data), Err(Error::Limit { found: 33, limit: 32, .. })));
        let (schema, _) = example(4, 4);
        assert!(Frozen::new(&schema, &[0; 3]).root().is_err());
    }
}
