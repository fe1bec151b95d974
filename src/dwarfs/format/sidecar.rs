//! The side car: extended attributes of an archive's objects, for which DwarFS has no place.
//!
//! It is the file `.fim.sidecar` at the root of an archive, which upstream's tools carry along like any other file.
//! Integers are little endian; records stand in ascending order of their paths, attributes in that of their names:
//!
//! ```text
//! "FIMSIDE1"  record*
//! record      u32 length of the path, path (relative, '/' between names, empty for the root),
//!             u16 number of attributes, attribute*
//! attribute   u16 length of the name, name, u32 length of the value, value
//! ```

use std::collections::BTreeMap;

use super::bytes::{array_at, u16_at, u32_at};
use crate::dwarfs::{Error, limits};

/// Name of the file in the root of an archive.
pub const FILE_NAME: &[u8] = b".fim.sidecar";

const MAGIC: [u8; 8] = *b"FIMSIDE1";

/// Extended attributes of one object, by name.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Extended attributes of all objects that have some, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sidecar {
    /// From the path (relative, `/` between names, empty for the root) to the attributes.
    pub records: BTreeMap<Vec<u8>, Xattrs>,
}

impl Sidecar {
    /// Decodes a side car.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] where the bytes do not follow the grammar above.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut cursor = Cursor { bytes, at: 0 };
        if array_at(cursor.take(MAGIC.len())?, 0) != Some(MAGIC) {
            return Err(Error::Malformed { what: "side car", at: 0 });
        }
        let mut records = BTreeMap::new();
        let mut items = 0_usize;
        while cursor.at < bytes.len() {
            let path_len = cursor.len32()?;
            let path = cursor.take(path_len)?.to_vec();
            let mut xattrs = Xattrs::new();
            let count = cursor.len16()?;
            items += 1 + count;
            if items > limits::MAX_SIDECAR_ITEMS {
                let (found, limit) = (items as u64, limits::MAX_SIDECAR_ITEMS as u64);
                return Err(Error::Limit {
                    what: "number of objects and attributes in a side car",
                    found,
                    limit,
                });
            }
            for _ in 0..count {
                let name_len = cursor.len16()?;
                let name = cursor.take(name_len)?.to_vec();
                let value_len = cursor.len32()?;
                xattrs.insert(name, cursor.take(value_len)?.to_vec());
            }
            records.insert(path, xattrs);
        }
        Ok(Self { records })
    }

    /// The side car as it is written.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] where a path, a name, a value or their number is too large for its length field.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = MAGIC.to_vec();
        for (path, xattrs) in &self.records {
            put32(&mut bytes, path)?;
            bytes.extend_from_slice(&narrow16(xattrs.len(), "number of extended attributes")?.to_le_bytes());
            for (name, value) in xattrs {
                bytes
                    .extend_from_slice(&narrow16(name.len(), "length of an attribute's name")?.to_le_bytes());
                bytes.extend_from_slice(name);
                put32(&mut bytes, value)?;
            }
        }
        Ok(bytes)
    }
}

fn put32(bytes: &mut Vec<u8>, field: &[u8]) -> Result<(), Error> {
    let too_long = |_| Error::Limit {
        what: "length of a side-car field",
        found: field.len() as u64,
        limit: u64::from(u32::MAX),
    };
    bytes.extend_from_slice(&u32::try_from(field.len()).map_err(too_long)?.to_le_bytes());
    bytes.extend_from_slice(field);
    Ok(())
}

fn narrow16(len: usize, what: &'static str) -> Result<u16, Error> {
    u16::try_from(len).map_err(|_| Error::Limit { what, found: len as u64, limit: u64::from(u16::MAX) })
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let end = self.at.checked_add(len).ok_or_else(|| self.malformed())?;
        let bytes = self.bytes.get(self.at..end).ok_or_else(|| self.malformed())?;
        self.at = end;
        Ok(bytes)
    }

    fn len16(&mut self) -> Result<usize, Error> {
        let value = u16_at(self.take(2)?, 0).ok_or_else(|| self.malformed())?;
        Ok(usize::from(value))
    }

    fn len32(&mut self) -> Result<usize, Error> {
        let value = u32_at(self.take(4)?, 0).ok_or_else(|| self.malformed())?;
        usize::try_from(value).map_err(|_| self.malformed())
    }

    const fn malformed(&self) -> Error {
        Error::Malformed { what: "side car", at: self.at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Sidecar {
        let xattr = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
        let root = [xattr("user.overlay.opaque", b"y")].into();
        let file = [xattr("user.a", b""), xattr("security.capability", b"\0\xff")].into();
        Sidecar { records: [(Vec::new(), root), (b"usr/bin/ping".to_vec(), file)].into() }
    }

    #[test]
    fn a_side_car_reads_back() {
        assert_eq!(Sidecar::decode(&example().encode().unwrap()).unwrap(), example());
        assert_eq!(Sidecar::decode(b"FIMSIDE1").unwrap(), Sidecar::default());
    }

    #[test]
    fn the_bytes_are_as_drawn() {
        let xattrs = [(b"n".to_vec(), b"val".to_vec())].into();
        let side_car = Sidecar { records: [(b"p".to_vec(), xattrs)].into() };
        assert_eq!(side_car.encode().unwrap(), b"FIMSIDE1\x01\0\0\0p\x01\0\x01\0n\x03\0\0\0val");
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let whole = example().encode().unwrap();
        let cut = (0..whole.len()).filter(|end| Sidecar::decode(&whole[..*end]).is_ok()).count();
        assert_eq!(cut, 2, "only cuts between records leave a side car");
        assert!(Sidecar::decode(b"FIMSIDE2").is_err());
        let many = [&b"FIMSIDE1"[..], &[0; 6 * (limits::MAX_SIDECAR_ITEMS + 1)]].concat();
        assert!(matches!(Sidecar::decode(&many), Err(Error::Limit { .. })));
        assert!(Sidecar::decode(b"FIMSIDE1\xff\xff\xff\xff").is_err());
        assert!(matches!(
            Sidecar { records: [(Vec::new(), [(vec![b'n'; 70_000], Vec::new())].into())].into() }.encode(),
            Err(Error::Limit { found: 70_000, .. })
        ));
    }
}
