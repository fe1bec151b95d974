//! Extended headers of POSIX: records that override or add to what a member's own header says.
//!
//! A record is `length SP key = value LF`, its length in decimal counting all of itself; values are any bytes.

use crate::dwarfs::write::{error::TarProblem, object::Timestamp};

/// What extended headers say of the next member, or (a global one) of all that follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) atime: Option<Timestamp>,
    pub(super) ctime: Option<Timestamp>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: SparseRecords,
}

/// What GNU tar says of a sparse file: versions 0.0 and 0.1 list its ranges here, 1.0 before its data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SparseRecords {
    pub(super) major: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Offsets and lengths, by turns.
    pub(super) map: Vec<u64>,
}

/// How GNU tar and others store extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

impl Pax {
    /// Applies the records of one extended header.
    pub(super) fn apply(&mut self, mut records: &[u8]) -> Result<(), TarProblem> {
        while !records.is_empty() {
            let (key, value, rest) = split_record(records).ok_or(TarProblem::Field("extended header"))?;
            self.set(key, value)?;
            records = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarProblem> {
        // An empty value takes back what a global header said.
        let text = || Some(value.to_vec()).filter(|value| !value.is_empty());
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = number(value)?,
            b"uid" => self.uid = number(value)?,
            b"gid" => self.gid = number(value)?,
            b"mtime" => self.mtime = time(value)?,
            b"atime" => self.atime = time(value)?,
            b"ctime" => self.ctime = time(value)?,
            b"GNU.sparse.major" => self.sparse.major = number(value)?,
            b"GNU.sparse.name" => self.sparse.name = text(),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = number(value)?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.map.extend(number(value)?),
            b"GNU.sparse.map" => {
                let numbers = value.split(|byte| *byte == b',').map(number);
                self.sparse.map = numbers.filter_map(Result::transpose).collect::<Result<_, _>>()?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Splits off the first record: key, value, and what follows.
fn split_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(MAX_DIGITS).position(|byte| *byte == b' ')?;
    let len: usize = std::str::from_utf8(records.get(..space)?).ok()?.parse().ok()?;
    let record = records.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((record.get(..equals)?, record.get(equals + 1..)?, records.get(len..)?))
}

/// A length has no more digits than this.
const MAX_DIGITS: usize = 20;

fn number(value: &[u8]) -> Result<Option<u64>, TarProblem> {
    if value.is_empty() {
        return Ok(None);
    }
    let parsed = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    parsed.map(Some).ok_or(TarProblem::Field("number in an extended header"))
}

/// Parses seconds with any number of decimals, negative before 1970.
fn time(value: &[u8]) -> Result<Option<Timestamp>, TarProblem> {
    if value.is_empty() {
        return Ok(None);
    }
    parse_time(value).map(Some).ok_or(TarProblem::Field("time in an extended header"))
}

fn parse_time(value: &[u8]) -> Option<Timestamp> {
    const NANO_DIGITS: usize = 9;
    const NANOS: u32 = 1_000_000_000;
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(NANO_DIGITS);
    let nanos = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    let seconds: i64 = whole.parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        // The fraction leads away from 1970; ours lead forward.
        return Some(Timestamp { seconds: seconds.checked_sub(1)?, nanos: NANOS - nanos });
    }
    Some(Timestamp { seconds, nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_by_their_length() {
        let mut pax = Pax::default();
        pax.apply(b"12 path=a\nb\n26 SCHILY.xattr.user.x=\n\0\n9 size=5\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(pax.size, Some(5));
        assert_eq!(pax.xattrs, [(b"user.x".to_vec(), b"\n\0".to_vec())]);
        for bad in
            [&b"12 path=ab\n"[..], b"x path=a\n", b"10 path=ab", b"99 path=a\n", b"6 path\n", b"9 size=x\n"]
        {
            assert!(Pax::default().apply(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn times_lead_forward_from_whole_seconds() {
        let at = |seconds, nanos| Some(Timestamp { seconds, nanos });
        assert_eq!(parse_time(b"12.5"), at(12, 500_000_000));
        assert_eq!(parse_time(b"-1.25"), at(-2, 750_000_000));
        assert_eq!(parse_time(b"-0.25"), at(-1, 750_000_000));
        assert_eq!(parse_time(b"7.1234567891"), at(7, 123_456_789));
        assert_eq!(parse_time(b"1.x"), None);
        assert_eq!(parse_time(b"-9223372036854775808.1"), None);
    }
}
