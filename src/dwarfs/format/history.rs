//! History sections: who made an archive, with what, when. For people only; nothing else depends on it.
//!
//! ```text
//! history  1 list<entry>
//! entry    1 version   2 string system   3 string compiler   4 list<string> arguments
//!          5 i64 seconds since the epoch   6 set<string> library versions
//! version  1 i16 major   2 i16 minor   3 i16 patch   4 bool is release   5..7 string git revision, branch, description
//! ```

use super::thrift::{Kind, Reader, Writer};
use crate::dwarfs::{Error, limits};

/// One entry for each time that the archive was written or rewritten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Oldest first.
    pub entries: Vec<HistoryEntry>,
}

/// One writing of the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Version of the writer.
    pub version: WriterVersion,
    /// Operating system and processor.
    pub system_id: Vec<u8>,
    /// Compiler of the writer.
    pub compiler_id: Vec<u8>,
    /// Its command line.
    pub arguments: Option<Vec<Vec<u8>>>,
    /// When, in seconds since the epoch.
    pub timestamp: Option<u64>,
    /// Libraries that took part.
    pub library_versions: Option<Vec<Vec<u8>>>,
}

/// Version of a writer. Numbers are unsigned, though thrift carries them as signed ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriterVersion {
    /// Major version.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
    /// Patch level.
    pub patch: u16,
    /// Whether it is a release and not something between two of them.
    pub is_release: bool,
    /// Revision it was built from.
    pub git_rev: Option<Vec<u8>>,
    /// Branch it was built from.
    pub git_branch: Option<Vec<u8>>,
    /// Description of the revision.
    pub git_desc: Option<Vec<u8>>,
}

impl History {
    /// Decodes the payload of a history section.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] where it is.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes, "history");
        let mut history = Self::default();
        let mut last = 0;
        while let Some(head) = reader.field(&mut last)? {
            match (head.id, head.kind) {
                (1, Kind::List) => history.entries = decode_entries(&mut reader)?,
                (_, kind) => reader.skip(kind)?,
            }
        }
        Ok(history)
    }

    /// The payload as it is written.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        let mut last = 0;
        writer.field(&mut last, 1, Kind::List);
        writer.list(Kind::Struct, self.entries.len());
        self.entries.iter().for_each(|entry| entry.encode(&mut writer));
        writer.stop();
        writer.into_bytes()
    }
}

impl HistoryEntry {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let mut entry = Self::default();
        let mut last = 0;
        while let Some(head) = reader.field(&mut last)? {
            match (head.id, head.kind) {
                (1, Kind::Struct) => entry.version = WriterVersion::decode(reader)?,
                (2, Kind::Binary) => entry.system_id = reader.binary()?.to_vec(),
                (3, Kind::Binary) => entry.compiler_id = reader.binary()?.to_vec(),
                (4, Kind::List) => entry.arguments = Some(decode_strings(reader)?),
                (5, Kind::I64) => entry.timestamp = Some(reader.i64()?.cast_unsigned()),
                (6, Kind::Set) => entry.library_versions = Some(decode_strings(reader)?),
                (_, kind) => reader.skip(kind)?,
            }
        }
        Ok(entry)
    }

    fn encode(&self, writer: &mut Writer) {
        let mut last = 0;
        writer.field(&mut last, 1, Kind::Struct);
        self.version.encode(writer);
        writer.field(&mut last, 2, Kind::Binary);
        writer.binary(&self.system_id);
        writer.field(&mut last, 3, Kind::Binary);
        writer.binary(&self.compiler_id);
        if let Some(arguments) = &self.arguments {
            writer.field(&mut last, 4, Kind::List);
            encode_strings(writer, arguments);
        }
        if let Some(timestamp) = self.timestamp {
            writer.field(&mut last, 5, Kind::I64);
            writer.int(timestamp.cast_signed());
        }
        if let Some(libraries) = &self.library_versions {
            writer.field(&mut last, 6, Kind::Set);
            encode_strings(writer, libraries);
        }
        writer.stop();
    }
}

impl WriterVersion {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let mut version = Self::default();
        let mut last = 0;
        while let Some(head) = reader.field(&mut last)? {
            match (head.id, head.kind) {
                (1, Kind::I16) => version.major = reader.i16()?.cast_unsigned(),
                (2, Kind::I16) => version.minor = reader.i16()?.cast_unsigned(),
                (3, Kind::I16) => version.patch = reader.i16()?.cast_unsigned(),
                (4, Kind::True) => version.is_release = true,
                (5, Kind::Binary) => version.git_rev = Some(reader.binary()?.to_vec()),
                (6, Kind::Binary) => version.git_branch = Some(reader.binary()?.to_vec()),
                (7, Kind::Binary) => version.git_desc = Some(reader.binary()?.to_vec()),
                (_, kind) => reader.skip(kind)?,
            }
        }
        Ok(version)
    }

    fn encode(&self, writer: &mut Writer) {
        let mut last = 0;
        for (id, number) in [(1, self.major), (2, self.minor), (3, self.patch)] {
            writer.field(&mut last, id, Kind::I16);
            writer.int(i64::from(number.cast_signed()));
        }
        writer.field(&mut last, 4, if self.is_release { Kind::True } else { Kind::False });
        for (id, text) in [(5, &self.git_rev), (6, &self.git_branch), (7, &self.git_desc)] {
            if let Some(text) = text {
                writer.field(&mut last, id, Kind::Binary);
                writer.binary(text);
            }
        }
        writer.stop();
    }
}

fn decode_entries(reader: &mut Reader<'_>) -> Result<Vec<HistoryEntry>, Error> {
    let (kind, size) = reader.list()?;
    if kind != Kind::Struct && size > 0 {
        return Err(reader.malformed());
    }
    check_items(size)?;
    (0..size).map(|_| HistoryEntry::decode(reader)).collect()
}

fn decode_strings(reader: &mut Reader<'_>) -> Result<Vec<Vec<u8>>, Error> {
    let (kind, size) = reader.list()?;
    if kind != Kind::Binary && size > 0 {
        return Err(reader.malformed());
    }
    check_items(size)?;
    (0..size).map(|_| Ok(reader.binary()?.to_vec())).collect()
}

fn check_items(size: u32) -> Result<(), Error> {
    let limit = limits::MAX_HISTORY_ITEMS;
    if size > limit {
        let (found, limit) = (u64::from(size), u64::from(limit));
        return Err(Error::Limit { what: "length of a list in a history", found, limit });
    }
    Ok(())
}

fn encode_strings(writer: &mut Writer, strings: &[Vec<u8>]) {
    writer.list(Kind::Binary, strings.len());
    strings.iter().for_each(|string| writer.binary(string));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_of_a_million_empty_entries_is_refused() {
        let mut writer = Writer::new();
        writer.field(&mut 0, 1, Kind::List);
        writer.list(Kind::Struct, 1 << 20);
        let bytes = [writer.into_bytes(), vec![0; (1 << 20) + 1]].concat();
        let error = History::decode(&bytes).unwrap_err();
        assert!(matches!(error, Error::Limit { found: 0x10_0000, .. }), "{error}");
    }

    #[test]
    fn a_history_reads_back() {
        let text = |text: &str| text.as_bytes().to_vec();
        let version = WriterVersion { major: 1, minor: 60_000, is_release: true, ..WriterVersion::default() };
        let full = HistoryEntry {
            version: WriterVersion {
                git_rev: Some(text("abc")),
                git_desc: Some(text("v1")),
                ..version.clone()
            },
            system_id: text("Linux"),
            compiler_id: text("rustc"),
            arguments: Some((0..20).map(|number| text(&number.to_string())).collect()),
            timestamp: Some(u64::MAX),
            library_versions: Some(vec![text("zstd-1.5")]),
        };
        let history = History { entries: vec![HistoryEntry { version, ..HistoryEntry::default() }, full] };
        let bytes = history.encode();
        assert_eq!(History::decode(&bytes).unwrap(), history);
        for end in 0..bytes.len() {
            assert!(History::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
    }
}
