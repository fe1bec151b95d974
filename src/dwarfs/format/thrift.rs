//! The thrift compact protocol, as far as DwarFS uses it: schema, history and codec headers.
//!
//! ```text
//! struct   field* 0x00
//! field    delta << 4 | type          delta 1..15 from the field before, or
//!          type, zigzag varint id     where the delta does not fit
//! bool     is its type: 1 true, 2 false (as an element: one byte)
//! i16..64  zigzag varint              binary  varint length, bytes
//! list     size << 4 | type (size < 15), or 0xf0 | type, varint size;  then the elements; set likewise
//! map      varint size, then key type << 4 | value type unless empty;  then key, value, ...
//! ```

use crate::dwarfs::{Error, limits};

/// The type of a value on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A boolean field that is true; as an element type: any boolean.
    True,
    /// A boolean field that is false.
    False,
    /// 8 bits.
    Byte,
    /// 16 bits, zigzag.
    I16,
    /// 32 bits, zigzag.
    I32,
    /// 64 bits, zigzag.
    I64,
    /// Eight bytes of floating point.
    Double,
    /// Bytes with a length.
    Binary,
    /// A list.
    List,
    /// A set, written as a list.
    Set,
    /// A map.
    Map,
    /// A struct.
    Struct,
    /// Four bytes of floating point.
    Float,
}

impl Kind {
    const fn from_raw(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::True,
            2 => Self::False,
            3 => Self::Byte,
            4 => Self::I16,
            5 => Self::I32,
            6 => Self::I64,
            7 => Self::Double,
            8 => Self::Binary,
            9 => Self::List,
            10 => Self::Set,
            11 => Self::Map,
            12 => Self::Struct,
            13 => Self::Float,
            _ => return None,
        })
    }

    const fn raw(self) -> u8 {
        match self {
            Self::True => 1,
            Self::False => 2,
            Self::Byte => 3,
            Self::I16 => 4,
            Self::I32 => 5,
            Self::I64 => 6,
            Self::Double => 7,
            Self::Binary => 8,
            Self::List => 9,
            Self::Set => 10,
            Self::Map => 11,
            Self::Struct => 12,
            Self::Float => 13,
        }
    }
}

/// The head of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldHead {
    /// The field's number.
    pub id: i16,
    /// Its type.
    pub kind: Kind,
}

/// Reads values from bytes. Every length is checked against what is left.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`; `what` names the value in errors.
    #[must_use]
    pub const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { bytes, at: 0, what }
    }

    /// How many bytes have been read.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }

    /// Reads the head of the next field; `None` at the end of the struct. `last` is the number of the field before,
    /// 0 at first, and is kept up to date.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] where the bytes end or the type is unknown.
    pub fn field(&mut self, last: &mut i16) -> Result<Option<FieldHead>, Error> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        let kind = Kind::from_raw(byte & 0x0f).ok_or_else(|| self.malformed())?;
        let id = match byte >> 4 {
            0 => self.i16()?,
            delta => last.checked_add(i16::from(delta)).ok_or_else(|| self.malformed())?,
        };
        *last = id;
        Ok(Some(FieldHead { id, kind }))
    }

    /// Reads one byte.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] at the end.
    pub fn byte(&mut self) -> Result<u8, Error> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.malformed())?;
        self.at += 1;
        Ok(byte)
    }

    /// Reads an unsigned LEB128 integer.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] where it does not end or does not fit 64 bits.
    pub fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed())
    }

    /// Reads a 64-bit integer.
    ///
    /// # Errors
    ///
    /// As [`varint`](Self::varint).
    pub fn i64(&mut self) -> Result<i64, Error> {
        let raw = self.varint()?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    /// Reads a 32-bit integer.
    ///
    /// # Errors
    ///
    /// As [`varint`](Self::varint), or where it does not fit.
    pub fn i32(&mut self) -> Result<i32, Error> {
        self.i64()?.try_into().map_err(|_| self.malformed())
    }

    /// Reads a 16-bit integer.
    ///
    /// # Errors
    ///
    /// As [`varint`](Self::varint), or where it does not fit.
    pub fn i16(&mut self) -> Result<i16, Error> {
        self.i64()?.try_into().map_err(|_| self.malformed())
    }

    /// Reads bytes with their length.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] where fewer are left.
    pub fn binary(&mut self) -> Result<&'a [u8], Error> {
        let len = usize::try_from(self.varint()?).map_err(|_| self.malformed())?;
        let end = self.at.checked_add(len).ok_or_else(|| self.malformed())?;
        let bytes = self.bytes.get(self.at..end).ok_or_else(|| self.malformed())?;
        self.at = end;
        Ok(bytes)
    }

    /// Reads the head of a list or set: element type and size. No more elements are announced than bytes are left.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] where the head is.
    pub fn list(&mut self) -> Result<(Kind, u32), Error> {
        let byte = self.byte()?;
        let kind = Kind::from_raw(byte & 0x0f).ok_or_else(|| self.malformed())?;
        let size = match byte >> 4 {
            15 => self.varint()?,
            size => u64::from(size),
        };
        Ok((kind, self.count(size, 1)?))
    }

    /// Reads the head of a map: types of key and value (`None` where it is empty), and size.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] where the head is.
    pub fn map(&mut self) -> Result<Option<(Kind, Kind, u32)>, Error> {
        let size = self.varint()?;
        if size == 0 {
            return Ok(None);
        }
        let kinds = self.byte()?;
        let key = Kind::from_raw(kinds >> 4).ok_or_else(|| self.malformed())?;
        let value = Kind::from_raw(kinds & 0x0f).ok_or_else(|| self.malformed())?;
        Ok(Some((key, value, self.count(size, 2)?)))
    }

    /// Reads over the value of a field.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] where the value is, or nests too deep.
    pub fn skip(&mut self, kind: Kind) -> Result<(), Error> {
        match kind {
            Kind::True | Kind::False => Ok(()),
            other => self.skip_element(other, limits::MAX_THRIFT_DEPTH),
        }
    }

    /// An error at the current place, for values that are well formed but not what is expected.
    #[must_use]
    pub const fn malformed(&self) -> Error {
        Error::Malformed { what: self.what, at: self.at }
    }

    fn skip_element(&mut self, kind: Kind, depth: u32) -> Result<(), Error> {
        let depth = depth.checked_sub(1).ok_or_else(|| self.malformed())?;
        match kind {
            Kind::True | Kind::False | Kind::Byte => self.skip_bytes(1),
            Kind::Float => self.skip_bytes(4),
            Kind::Double => self.skip_bytes(8),
            Kind::I16 | Kind::I32 | Kind::I64 => self.varint().map(|_| ()),
            Kind::Binary => self.binary().map(|_| ()),
            Kind::List | Kind::Set => {
                let (element, size) = self.list()?;
                (0..size).try_for_each(|_| self.skip_element(element, depth))
            }
            Kind::Map => {
                let Some((key, value, size)) = self.map()? else { return Ok(()) };
                (0..size).try_for_each(|_| {
                    self.skip_element(key, depth)?;
                    self.skip_element(value, depth)
                })
            }
            Kind::Struct => {
                let mut last = 0;
                while let Some(field) = self.field(&mut last)? {
                    if !matches!(field.kind, Kind::True | Kind::False) {
                        self.skip_element(field.kind, depth)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn skip_bytes(&mut self, len: usize) -> Result<(), Error> {
        let left = self.bytes.len() - self.at;
        if left < len {
            return Err(self.malformed());
        }
        self.at += len;
        Ok(())
    }

    /// Checks that `size` elements of at least `each` bytes can be there.
    fn count(&self, size: u64, each: u64) -> Result<u32, Error> {
        let left = (self.bytes.len() - self.at) as u64;
        if size.checked_mul(each).is_none_or(|least| least > left) {
            return Err(self.malformed());
        }
        u32::try_from(size).map_err(|_| self.malformed())
    }
}

/// Writes values.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts with nothing written.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What has been written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Writes the head of a field (for a boolean that is all); `last` as in [`Reader::field`].
    pub fn field(&mut self, last: &mut i16, id: i16, kind: Kind) {
        match id.checked_sub(*last).and_then(|delta| u8::try_from(delta).ok()) {
            Some(delta @ 1..=15) => self.bytes.push(delta << 4 | kind.raw()),
            _ => {
                self.bytes.push(kind.raw());
                self.int(i64::from(id));
            }
        }
        *last = id;
    }

    /// Ends a struct.
    pub fn stop(&mut self) {
        self.bytes.push(0);
    }

    /// Writes a byte.
    pub fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Writes an unsigned LEB128 integer.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push((value & 0x7f) as u8);
    }

    /// Writes an integer of 16, 32 or 64 bits.
    pub fn int(&mut self, value: i64) {
        self.varint((value << 1 ^ value >> 63).cast_unsigned());
    }

    /// Writes bytes with their length.
    pub fn binary(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes the head of a list or set.
    pub fn list(&mut self, kind: Kind, size: usize) {
        match u8::try_from(size) {
            Ok(size @ 0..15) => self.bytes.push(size << 4 | kind.raw()),
            _ => {
                self.bytes.push(0xf0 | kind.raw());
                self.varint(size as u64);
            }
        }
    }

    /// Writes the head of a map.
    pub fn map(&mut self, key: Kind, value: Kind, size: usize) {
        self.varint(size as u64);
        if size > 0 {
            self.bytes.push(key.raw() << 4 | value.raw());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_read_back() {
        let values = [0, 1, -1, 63, -64, 64, i64::from(i16::MIN), i64::from(i32::MAX), i64::MAX, i64::MIN];
        let mut writer = Writer::new();
        values.iter().for_each(|value| writer.int(*value));
        let bytes = writer.into_bytes();
        let mut reader = Reader::new(&bytes, "test");
        for value in values {
            assert_eq!(reader.i64().unwrap(), value);
        }
        assert_eq!(reader.position(), bytes.len());
    }

    #[test]
    fn varints_that_overflow_or_do_not_end_are_refused() {
        assert!(Reader::new(&[0xff; 16], "test").varint().is_err());
        assert!(Reader::new(&[0x80], "test").varint().is_err());
        let mut most = [0xff; 10];
        most[9] = 1;
        assert_eq!(Reader::new(&most, "test").varint().unwrap(), u64::MAX);
        most[9] = 2;
        assert!(Reader::new(&most, "test").varint().is_err());
        assert!(Reader::new(&[0x80, 0x80, 0x04], "test").i16().is_err());
    }

    #[test]
    fn structs_read_back_and_unknown_fields_are_skipped() {
        let mut writer = Writer::new();
        let mut last = 0;
        writer.field(&mut last, 4, Kind::I32);
        writer.int(-5);
        writer.field(&mut last, 1, Kind::True);
        writer.field(&mut last, 300, Kind::Map);
        writer.map(Kind::Binary, Kind::Set, 1);
        writer.binary(b"key");
        writer.list(Kind::I16, 20);
        (0..20).for_each(|value| writer.int(value));
        writer.field(&mut last, 301, Kind::Binary);
        writer.binary(b"end");
        writer.stop();
        let bytes = writer.into_bytes();
        let mut reader = Reader::new(&bytes, "test");
        let mut last = 0;
        let mut seen = Vec::new();
        while let Some(head) = reader.field(&mut last).unwrap() {
            seen.push(head.id);
            reader.skip(head.kind).unwrap();
        }
        assert_eq!(seen, [4, 1, 300, 301]);
        assert_eq!(reader.position(), bytes.len());
    }

    #[test]
    fn no_more_elements_are_announced_than_bytes_are_left() {
        assert!(Reader::new(&[0xf8, 0xff, 0xff, 0xff, 0x7f, 0], "test").list().is_err());
        assert!(Reader::new(&[0xff, 0xff, 0x7f, 0x44, 0], "test").map().is_err());
    }

    #[test]
    fn nesting_is_bounded() {
        let bytes = [0x19; 4_096];
        assert!(Reader::new(&bytes, "test").skip(Kind::List).is_err());
    }
}
