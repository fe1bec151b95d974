//! The frozen schema: the layouts that say where each bit of the metadata is.
//!
//! It is written in thrift's compact protocol:
//!
//! ```text
//! Schema  1 bool relax type checks   2 map<i16, Layout>      3 i16 root layout   4 i32 file version (1)
//! Layout  1 i32 size in bytes        2 i16 size in bits      3 map<i16, Field>   4 string type name (empty)
//! Field   1 i16 layout               2 i16 offset: bytes where >= 0, bits where negative
//! ```
//!
//! A layout with a size in bytes is stored at byte distances (the root, and strings of bytes); all others are packed
//! bit by bit.

use std::collections::BTreeMap;

use super::thrift::{Kind, Reader, Writer};
use crate::dwarfs::{Error, limits};

/// The version of the schema's own format.
pub const FILE_VERSION: i32 = 1;

/// The layouts of a frozen value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Whether a reader shall not compare type names; always written as true.
    pub relax_type_checks: bool,
    /// The layouts by number.
    pub layouts: BTreeMap<i16, Layout>,
    /// The layout of the whole.
    pub root: i16,
}

/// The layout of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Size in bytes, 0 where it is packed by bits.
    pub size: i32,
    /// Size in bits.
    pub bits: i16,
    /// Its fields by number.
    pub fields: BTreeMap<i16, Field>,
}

/// A field of a layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// The number of its layout.
    pub layout: i16,
    /// Where it begins: in bytes where not negative, else minus the number of bits.
    pub offset: i16,
}

impl Schema {
    /// Decodes and checks a schema.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] where the encoding is, [`Error::Limit`] for too many layouts or fields and
    /// [`Error::OutOfRange`] for layouts that do not exist or have impossible sizes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes, "schema");
        let mut schema = Self { relax_type_checks: false, layouts: BTreeMap::new(), root: 0 };
        let mut version = 0;
        let mut last = 0;
        while let Some(head) = reader.field(&mut last)? {
            match (head.id, head.kind) {
                (1, Kind::True) => schema.relax_type_checks = true,
                (2, Kind::Map) => schema.layouts = decode_layouts(&mut reader)?,
                (3, Kind::I16) => schema.root = reader.i16()?,
                (4, Kind::I32) => version = reader.i32()?,
                (_, kind) => reader.skip(kind)?,
            }
        }
        if version != FILE_VERSION {
            return Err(Error::Malformed { what: "schema (version)", at: reader.position() });
        }
        schema.check()?;
        Ok(schema)
    }

    /// The schema as it is written.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        let mut last = 0;
        writer.field(&mut last, 1, if self.relax_type_checks { Kind::True } else { Kind::False });
        writer.field(&mut last, 2, Kind::Map);
        writer.map(Kind::I16, Kind::Struct, self.layouts.len());
        for (number, layout) in &self.layouts {
            writer.int(i64::from(*number));
            layout.encode(&mut writer);
        }
        writer.field(&mut last, 3, Kind::I16);
        writer.int(i64::from(self.root));
        writer.field(&mut last, 4, Kind::I32);
        writer.int(i64::from(FILE_VERSION));
        writer.stop();
        writer.into_bytes()
    }

    /// Checks that numbers of layouts exist and sizes are possible.
    fn check(&self) -> Result<(), Error> {
        let known = |number: i16| {
            if self.layouts.contains_key(&number) {
                return Ok(());
            }
            let found = u64::try_from(number).unwrap_or(u64::MAX);
            Err(Error::OutOfRange { what: "layout", found, bound: self.layouts.len() as u64 })
        };
        known(self.root)?;
        for layout in self.layouts.values() {
            if layout.size < 0 || layout.bits < 0 {
                return Err(Error::Malformed { what: "schema (negative size)", at: 0 });
            }
            layout.fields.values().try_for_each(|field| known(field.layout))?;
        }
        Ok(())
    }
}

impl Layout {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let mut layout = Self::default();
        let mut last = 0;
        while let Some(head) = reader.field(&mut last)? {
            match (head.id, head.kind) {
                (1, Kind::I32) => layout.size = reader.i32()?,
                (2, Kind::I16) => layout.bits = reader.i16()?,
                (3, Kind::Map) => layout.fields = decode_fields(reader)?,
                (_, kind) => reader.skip(kind)?,
            }
        }
        Ok(layout)
    }

    fn encode(&self, writer: &mut Writer) {
        let mut last = 0;
        writer.field(&mut last, 1, Kind::I32);
        writer.int(i64::from(self.size));
        writer.field(&mut last, 2, Kind::I16);
        writer.int(i64::from(self.bits));
        writer.field(&mut last, 3, Kind::Map);
        writer.map(Kind::I16, Kind::Struct, self.fields.len());
        for (number, field) in &self.fields {
            writer.int(i64::from(*number));
            field.encode(writer);
        }
        writer.field(&mut last, 4, Kind::Binary);
        writer.binary(b"");
        writer.stop();
    }
}

impl Field {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let mut field = Self::default();
        let mut last = 0;
        while let Some(head) = reader.field(&mut last)? {
            match (head.id, head.kind) {
                (1, Kind::I16) => field.layout = reader.i16()?,
                (2, Kind::I16) => field.offset = reader.i16()?,
                (_, kind) => reader.skip(kind)?,
            }
        }
        Ok(field)
    }

    fn encode(self, writer: &mut Writer) {
        let mut last = 0;
        writer.field(&mut last, 1, Kind::I16);
        writer.int(i64::from(self.layout));
        writer.field(&mut last, 2, Kind::I16);
        writer.int(i64::from(self.offset));
        writer.stop();
    }
}

fn decode_layouts(reader: &mut Reader<'_>) -> Result<BTreeMap<i16, Layout>, Error> {
    decode_map(reader, "number of layouts", limits::MAX_LAYOUTS, Layout::decode)
}

fn decode_fields(reader: &mut Reader<'_>) -> Result<BTreeMap<i16, Field>, Error> {
    decode_map(reader, "number of fields", limits::MAX_FIELDS, Field::decode)
}

/// Decodes a map from i16 to a struct.
fn decode_map<T>(
    reader: &mut Reader<'_>,
    what: &'static str,
    limit: u32,
    decode: impl Fn(&mut Reader<'_>) -> Result<T, Error>,
) -> Result<BTreeMap<i16, T>, Error> {
    let Some((key, value, size)) = reader.map()? else { return Ok(BTreeMap::new()) };
    if (key, value) != (Kind::I16, Kind::Struct) {
        return Err(reader.malformed());
    }
    if size > limit {
        return Err(Error::Limit { what, found: u64::from(size), limit: u64::from(limit) });
    }
    (0..size).map(|_| Ok((reader.i16()?, decode(reader)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Schema {
        let number = Layout { bits: 5, ..Layout::default() };
        let fields = [(1, Field { layout: 0, offset: 0 }), (17, Field { layout: 0, offset: -5 })];
        let root = Layout { size: 2, bits: 10, fields: fields.into() };
        Schema { relax_type_checks: true, layouts: [(0, number), (1, root)].into(), root: 1 }
    }

    #[test]
    fn a_schema_reads_back() {
        assert_eq!(Schema::decode(&example().encode()).unwrap(), example());
    }

    #[test]
    fn the_encoding_is_that_of_upstream() {
        let schema =
            Schema { layouts: [(0, Layout { bits: 6, ..Layout::default() })].into(), root: 0, ..example() };
        let expected = [
            0x11, 0x1b, 0x01, 0x4c, 0x00, 0x15, 0x00, 0x14, 0x0c, 0x1b, 0x00, 0x18, 0x00, 0x00, 0x14, 0x00,
            0x15, 0x02, 0x00,
        ];
        assert_eq!(schema.encode(), expected);
    }

    #[test]
    fn impossible_schemas_are_refused() {
        let change = |change: fn(&mut Schema)| {
            let mut schema = example();
            change(&mut schema);
            Schema::decode(&schema.encode())
        };
        assert!(matches!(change(|schema| schema.root = 2), Err(Error::OutOfRange { found: 2, .. })));
        assert!(change(|schema| schema.root = -1).is_err());
        assert!(change(|schema| schema.layouts.get_mut(&1).unwrap().size = -1).is_err());
        assert!(change(|schema| schema.layouts.get_mut(&0).unwrap().bits = -1).is_err());
        assert!(
            change(|schema| schema.layouts.get_mut(&1).unwrap().fields.get_mut(&1).unwrap().layout = 9)
                .is_err()
        );
        assert!(Schema::decode(&[0]).is_err());
        let whole = example().encode();
        for end in 0..whole.len() {
            assert!(Schema::decode(&whole[..end]).is_err(), "cut at {end}");
        }
    }
}
