//! Lays out and encodes frozen metadata: the writing side of the schema-driven views.
//!
//! A [`Value`] says what is to be stored; [`freeze`] finds for every field the fewest bits that hold all its values
//! and returns the schema that says so with the bytes:
//!
//! ```text
//!  +------------------+----------+----------+-- ... --+---------+
//!  | root, bit-packed | array 1  | array 2  |         | padding |
//!  +------------------+----------+----------+-- ... --+---------+
//!  0                  size       each at a byte         8 bytes, because readers load whole words
//! ```
//!
//! The root and the structs inside it are one run of bits, lowest bit first. Whatever has a length lies behind it
//! and is found by a distance from the start of the root; the strings of a list of strings lie behind the list's
//! items and are found by a distance from the list's first item. A field of no bits is left out of the schema, and
//! reads as zero.

use std::collections::BTreeMap;

use super::{
    metadata::{list, optional},
    schema::{Field, Layout, Schema},
};

/// A value to be frozen.
#[derive(Debug)]
pub enum Value<'a> {
    /// A boolean; `false` takes no bit.
    Bool(bool),
    /// An unsigned number of any width.
    Int(u64),
    /// A byte string.
    Bytes(&'a [u8]),
    /// A list, set or map.
    List(List<'a>),
    /// An optional value that is there. One that is not is left out of its struct.
    Some(Box<Value<'a>>),
    /// A struct: ids and values.
    Struct(Vec<(i16, Value<'a>)>),
}

impl Value<'_> {
    /// Wraps a value as an optional one that is there.
    #[must_use]
    pub fn some(self) -> Self {
        Self::Some(Box::new(self))
    }
}

/// A list, set or map to be frozen; the items of sets and the keys of maps ascend.
#[derive(Clone, Copy)]
pub enum List<'a> {
    /// 32-bit numbers.
    U32(&'a [u32]),
    /// 64-bit numbers.
    U64(&'a [u64]),
    /// Byte strings.
    Strings(&'a [Vec<u8>]),
    /// Structs of numbers; a map is one of fields 1 (key) and 2 (value).
    Rows(&'a dyn Rows),
}

impl std::fmt::Debug for List<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "List({} items)", self.len())
    }
}

/// A list of structs whose fields are all numbers, as its owner stores it.
pub trait Rows {
    /// Number of structs.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Ids of the fields: the columns.
    fn fields(&self) -> &[i16];
    /// The number in one row and column.
    fn value(&self, row: usize, column: usize) -> u64;
}

impl List<'_> {
    fn len(&self) -> usize {
        match self {
            Self::U32(items) => items.len(),
            Self::U64(items) => items.len(),
            Self::Strings(items) => items.len(),
            Self::Rows(rows) => rows.len(),
        }
    }
}

/// Frozen metadata: what the schema and metadata sections hold.
#[derive(Debug)]
pub struct Frozen {
    /// The layouts.
    pub schema: Schema,
    /// The bytes that they describe.
    pub metadata: Vec<u8>,
}

/// What cannot be frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FreezeError {
    /// The schema stores positions in 16 bits.
    #[error("a metadata layout needs {bits} bits, more than a schema can express")]
    TooWide {
        /// Bits needed.
        bits: u64,
    },
    /// The schema numbers its layouts with 16 bits.
    #[error("the metadata needs more layouts than a schema can number")]
    TooManyLayouts,
}

/// Readers load the last item of an array by whole words of this many bytes.
const PADDING: usize = 8;

/// Lays out `root` and encodes it.
///
/// # Errors
/// Fails if the layout exceeds what a schema can express, which no value with a bounded number of fields does.
pub fn freeze(root: &Value<'_>) -> Result<Frozen, FreezeError> {
    let mut arrays = Vec::new();
    plan_arrays(root, &mut arrays);

    // The distances depend on the size of the root, and that on the widths of the distances. Both only grow.
    let mut size = 0;
    let (pass, root_layout) = loop {
        let mut pass = Pass::new(&arrays, size);
        let layout = pass.place(root)?;
        let needed = (pass.bits.len() / 8 + u64::from(!pass.bits.len().is_multiple_of(8))).max(1);
        if needed <= size {
            break (pass, layout);
        }
        size = needed;
    };

    let Pass { layouts, bits, .. } = pass;
    let mut metadata = bits.finish();
    metadata.resize(to_usize(size), 0);
    for array in &arrays {
        array.encode(&mut metadata);
    }
    metadata.resize(metadata.len() + PADDING, 0);

    let mut layouts: BTreeMap<i16, Layout> = (0..).zip(layouts).collect();
    if let Some(layout) = layouts.get_mut(&root_layout) {
        // The root is the one layout that begins and ends at whole bytes.
        layout.size = i32::try_from(size).map_err(|_| FreezeError::TooWide { bits: size * 8 })?;
        layout.bits = 0;
    }
    Ok(Frozen { schema: Schema { relax_type_checks: true, layouts, root: root_layout }, metadata })
}

/// Bits that hold `value`.
fn width(value: u64) -> u8 {
    // At most 64.
    value.checked_ilog2().map_or(0, |log| log.to_le_bytes()[0] + 1)
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn layout_id(index: usize) -> Result<i16, FreezeError> {
    i16::try_from(index).map_err(|_| FreezeError::TooManyLayouts)
}

/// A run of bits, lowest first.
#[derive(Debug, Default)]
struct Bits {
    out: Vec<u8>,
    word: u64,
    used: u8,
}

impl Bits {
    /// Bits written so far.
    fn len(&self) -> u64 {
        self.out.len() as u64 * 8 + u64::from(self.used)
    }

    fn push(&mut self, value: u64, bits: u8) {
        self.word |= value << self.used;
        if self.used + bits < 64 {
            self.used += bits;
            return;
        }
        self.out.extend_from_slice(&self.word.to_le_bytes());
        self.word = value.checked_shr(u32::from(64 - self.used)).unwrap_or(0);
        self.used = self.used + bits - 64;
    }

    fn finish(mut self) -> Vec<u8> {
        let bytes = usize::from(self.used.div_ceil(8));
        self.out.extend_from_slice(self.word.to_le_bytes().get(..bytes).unwrap_or_default());
        self.out
    }
}

/// An array that lies behind the root, with the widths of its items' columns.
#[derive(Debug)]
enum Array<'a> {
    Bytes(&'a [u8]),
    Items { list: List<'a>, widths: Vec<u8> },
}

fn plan_arrays<'a>(value: &Value<'a>, arrays: &mut Vec<Array<'a>>) {
    match value {
        Value::Bool(_) | Value::Int(_) => {}
        Value::Bytes(bytes) => arrays.push(Array::Bytes(bytes)),
        Value::List(list) => arrays.push(Array::plan(*list)),
        Value::Some(inner) => plan_arrays(inner, arrays),
        Value::Struct(fields) => fields.iter().for_each(|(_, field)| plan_arrays(field, arrays)),
    }
}

impl<'a> Array<'a> {
    fn plan(list: List<'a>) -> Self {
        // The widest value of a column has the highest bit of all values or-ed together.
        let widths = match list {
            List::U32(items) => vec![width(u64::from(items.iter().fold(0, |all, item| all | item)))],
            List::U64(items) => vec![width(items.iter().fold(0, |all, item| all | item))],
            List::Rows(rows) => (0..rows.fields().len())
                .map(|column| width((0..rows.len()).fold(0, |all, row| all | rows.value(row, column))))
                .collect(),
            List::Strings(items) => string_widths(items).into(),
        };
        Self::Items { list, widths }
    }

    fn count(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Items { list, .. } => list.len(),
        }
    }

    /// Length in bytes, with the strings that the items refer to.
    fn byte_len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Items { list, widths } => {
                let strings = match list {
                    List::Strings(items) => items.iter().map(|item| item.len() as u64).sum(),
                    _ => 0,
                };
                packed_len(list.len(), widths) + strings
            }
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let (list, widths) = match self {
            Self::Bytes(bytes) => return out.extend_from_slice(bytes),
            Self::Items { list, widths } => (list, widths.as_slice()),
        };
        let mut bits = Bits { out: std::mem::take(out), ..Bits::default() };
        match (list, widths) {
            (List::U32(items), [width]) => items.iter().for_each(|item| bits.push(u64::from(*item), *width)),
            (List::U64(items), [width]) => items.iter().for_each(|item| bits.push(*item, *width)),
            (List::Rows(rows), widths) => {
                for row in 0..rows.len() {
                    for (column, width) in widths.iter().enumerate() {
                        bits.push(rows.value(row, column), *width);
                    }
                }
            }
            (List::Strings(items), [distance_width, count_width]) => {
                let mut distance = packed_len(items.len(), widths);
                for item in *items {
                    bits.push(distance, *distance_width);
                    bits.push(item.len() as u64, *count_width);
                    distance += item.len() as u64;
                }
            }
            _ => {}
        }
        *out = bits.finish();
        if let List::Strings(items) = list {
            items.iter().for_each(|item| out.extend_from_slice(item));
        }
    }
}

/// Bytes of `count` items whose columns have these widths.
fn packed_len(count: usize, widths: &[u8]) -> u64 {
    let stride: u64 = widths.iter().map(|width| u64::from(*width)).sum();
    (stride * count as u64).div_ceil(8)
}

/// Widths of distance and count of a list of strings; the distances depend on their own width.
fn string_widths(items: &[Vec<u8>]) -> [u8; 2] {
    let count_width = width(items.iter().fold(0, |all, item| all | item.len() as u64));
    let strings: u64 = items.iter().map(|item| item.len() as u64).sum();
    let mut distance_width = 0;
    loop {
        let needed = width(packed_len(items.len(), &[distance_width, count_width]) + strings);
        if needed <= distance_width {
            return [distance_width, count_width];
        }
        distance_width = needed;
    }
}

type Fields = BTreeMap<i16, Field>;

/// One attempt at the root, on the assumption that it takes a certain number of bytes.
struct Pass<'p, 'a> {
    arrays: std::slice::Iter<'p, Array<'a>>,
    /// Where the next array begins.
    next: u64,
    layouts: Vec<Layout>,
    bits: Bits,
}

impl<'p, 'a> Pass<'p, 'a> {
    fn new(arrays: &'p [Array<'a>], root_size: u64) -> Self {
        Self { arrays: arrays.iter(), next: root_size, layouts: Vec::new(), bits: Bits::default() }
    }

    /// Writes a value at the current bit and returns the number of its layout.
    fn place(&mut self, value: &Value<'_>) -> Result<i16, FreezeError> {
        match value {
            Value::Bool(value) => self.number(u64::from(*value)),
            Value::Int(value) => self.number(*value),
            Value::Bytes(_) | Value::List(_) => self.array(),
            Value::Some(inner) => {
                let start = self.bits.len();
                let mut fields = Fields::new();
                self.field(optional::IS_SET, start, &mut fields, |pass| pass.number(1))?;
                self.field(optional::VALUE, start, &mut fields, |pass| pass.place(inner))?;
                self.layout(start, fields)
            }
            Value::Struct(members) => {
                let start = self.bits.len();
                let mut fields = Fields::new();
                for (id, member) in members {
                    self.field(*id, start, &mut fields, |pass| pass.place(member))?;
                }
                self.layout(start, fields)
            }
        }
    }

    fn number(&mut self, value: u64) -> Result<i16, FreezeError> {
        let start = self.bits.len();
        self.bits.push(value, width(value));
        self.layout(start, Fields::new())
    }

    /// Writes distance and count of the next array.
    fn array(&mut self) -> Result<i16, FreezeError> {
        let start = self.bits.len();
        let Some(array) = self.arrays.next() else { return self.layout(start, Fields::new()) };
        let mut fields = Fields::new();
        let distance = if array.count() == 0 { 0 } else { self.next };
        self.next += array.byte_len();
        self.field(list::DISTANCE, start, &mut fields, |pass| pass.number(distance))?;
        self.field(list::COUNT, start, &mut fields, |pass| pass.number(array.count() as u64))?;
        if let Array::Items { list: items, widths } = array {
            let item = self.item(items, widths)?;
            if self.is_stored(item) {
                fields.insert(list::ITEM, Field { layout: item, offset: 0 });
            }
        }
        self.layout(start, fields)
    }

    /// Returns the layout of a list's items.
    fn item(&mut self, items: &List<'_>, widths: &[u8]) -> Result<i16, FreezeError> {
        let ids = match items {
            List::U32(_) | List::U64(_) => &[],
            List::Strings(_) => &[list::DISTANCE, list::COUNT][..],
            List::Rows(rows) => rows.fields(),
        };
        let mut offset = 0;
        let mut fields = Fields::new();
        for (id, width) in ids.iter().zip(widths) {
            if *width > 0 {
                let layout = self.intern(Layout { bits: i16::from(*width), ..Layout::default() })?;
                fields.insert(*id, Field { layout, offset: -offset });
            }
            offset += i16::from(*width);
        }
        let bits = widths.iter().map(|width| i16::from(*width)).sum();
        self.intern(Layout { size: 0, bits, fields })
    }

    /// Places a field of the struct that began at bit `start`, and notes it unless it takes no bit.
    fn field(
        &mut self,
        id: i16,
        start: u64,
        fields: &mut Fields,
        place: impl FnOnce(&mut Self) -> Result<i16, FreezeError>,
    ) -> Result<(), FreezeError> {
        let offset = narrow(self.bits.len() - start)?;
        let layout = place(self)?;
        if self.is_stored(layout) {
            fields.insert(id, Field { layout, offset: -offset });
        }
        Ok(())
    }

    /// Returns the layout of what was written since bit `start`.
    fn layout(&mut self, start: u64, fields: Fields) -> Result<i16, FreezeError> {
        let bits = narrow(self.bits.len() - start)?;
        self.intern(Layout { size: 0, bits, fields })
    }

    fn is_stored(&self, layout: i16) -> bool {
        self.layouts.get(usize::from(layout.unsigned_abs())).is_some_and(|layout| layout.bits > 0)
    }

    fn intern(&mut self, layout: Layout) -> Result<i16, FreezeError> {
        let index = self.layouts.iter().position(|known| *known == layout).unwrap_or(self.layouts.len());
        if index == self.layouts.len() {
            self.layouts.push(layout);
        }
        layout_id(index)
    }
}

fn narrow(bits: u64) -> Result<i16, FreezeError> {
    i16::try_from(bits).map_err(|_| FreezeError::TooWide { bits })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::dwarfs::format::frozen;

    struct Pairs(Vec<(u64, u64)>);

    impl Rows for Pairs {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn fields(&self) -> &[i16] {
            &[1, 9]
        }

        fn value(&self, row: usize, column: usize) -> u64 {
            let (first, second) = self.0[row];
            if column == 0 { first } else { second }
        }
    }

    /// A number of any width, wide ones as often as narrow ones.
    fn number() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0..=64_u32).prop_map(|(value, bits)| value.checked_shr(bits).unwrap_or(0))
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        vec(any::<u8>(), 0..20)
    }

    #[test]
    fn bits_are_written_lowest_first() {
        let mut bits = Bits::default();
        bits.push(1, 1);
        bits.push(0, 0);
        bits.push(0b10, 2);
        bits.push(u64::MAX, 64);
        bits.push(0, 3);
        assert_eq!(bits.len(), 70);
        assert_eq!(bits.finish(), [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x07]);
    }

    #[test]
    fn what_is_zero_or_empty_is_left_out_of_the_schema() {
        let none: [u32; 0] = [];
        let value = Value::Struct(vec![
            (1, Value::Int(0)),
            (2, Value::Bool(false)),
            (3, Value::List(List::U32(&none))),
            (4, Value::Bytes(b"")),
            (5, Value::Int(0).some()),
            (6, Value::List(List::U32(&[0, 0]))),
        ]);
        let Frozen { schema, metadata } = freeze(&value).unwrap();
        let root = &schema.layouts[&schema.root];
        assert_eq!(root.fields.keys().copied().collect::<Vec<_>>(), [5, 6]);
        assert_eq!((root.size, root.bits), (1, 0));
        let frozen = frozen::Frozen::new(&schema, &metadata);
        let root = Some(frozen.root().unwrap());
        let set = frozen.optional(frozen.field(root, 5).unwrap()).unwrap();
        assert_eq!(frozen.int(Some(set.unwrap())).unwrap(), 0);
        assert!(frozen.optional(frozen.field(root, 1).unwrap()).unwrap().is_none());
        let zeros = frozen.ints(frozen.field(root, 6).unwrap(), 32).unwrap();
        assert_eq!(
            [zeros.get(&metadata, 0), zeros.get(&metadata, 1), zeros.get(&metadata, 2)],
            [Some(0), Some(0), None]
        );
    }

    #[test]
    fn a_layout_that_no_schema_can_express_is_refused() {
        let fields = (0..600).map(|id| (id, Value::Int(u64::MAX))).collect();
        assert!(matches!(freeze(&Value::Struct(fields)), Err(FreezeError::TooWide { .. })));
    }

    proptest! {
        #[test]
        fn what_is_frozen_reads_back(
            ints in vec(number(), 0..5),
            narrow in vec(any::<u32>(), 0..50),
            wide in vec(number(), 0..50),
            pairs in vec((number(), number()), 0..50),
            strings in vec(bytes(), 0..50),
            text in bytes(),
            flag in any::<bool>(),
        ) {
            let rows = Pairs(pairs);
            let inner = (1..).zip(&ints).map(|(id, value)| (id, Value::Int(*value)));
            let value = Value::Struct(vec![
                (1, Value::Bool(flag)),
                (2, Value::List(List::U32(&narrow)).some()),
                (3, Value::List(List::Rows(&rows))),
                (4, Value::Struct(inner.chain([(90, Value::Bytes(&text))]).collect()).some()),
                (70, Value::List(List::Strings(&strings))),
                (300, Value::List(List::U64(&wide))),
            ]);
            let Frozen { schema, metadata } = freeze(&value).unwrap();
            let schema = Schema::decode(&schema.encode()).unwrap();
            let frozen = frozen::Frozen::new(&schema, &metadata);
            let root = Some(frozen.root().unwrap());
            let field = |view, id| frozen.field(view, id).unwrap();

            prop_assert_eq!(frozen.int(field(root, 1)).unwrap(), u64::from(flag));
            let column = frozen.ints(frozen.optional(field(root, 2)).unwrap(), 32).unwrap();
            let read = (0_u32..).map_while(|index| column.get(&metadata, index));
            prop_assert_eq!(read.collect::<Vec<_>>(), narrow.iter().copied().map(u64::from).collect::<Vec<_>>());
            let columns = [1, 9].map(|id| frozen.column(field(root, 3), id, 64).unwrap());
            for (index, pair) in (0_u32..).zip(&rows.0) {
                let [first, second] = columns.each_ref().map(|column| column.get(&metadata, index).unwrap_or(0));
                prop_assert_eq!((first, second), *pair);
            }
            let inner = frozen.optional(field(root, 4)).unwrap();
            for (id, value) in (1..).zip(&ints) {
                prop_assert_eq!(frozen.int(field(inner, id)).unwrap(), *value);
            }
            prop_assert_eq!(&metadata[frozen.string(field(inner, 90)).unwrap()], &text);
            let rows = frozen.strings(field(root, 70)).unwrap();
            for (index, string) in (0_u32..).zip(&strings) {
                prop_assert_eq!(rows.get(&metadata, index).unwrap(), string);
            }
            let column = frozen.ints(field(root, 300), 64).unwrap();
            let read = (0_u32..).map_while(|index| column.get(&metadata, index));
            prop_assert_eq!(read.collect::<Vec<_>>(), wide);
        }
    }
}
