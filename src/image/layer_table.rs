//! Which archives an image holds, in the order of the stack, lowest first.

use serde::{Deserialize, Serialize};

use super::reserved::{ALIGNMENT, align_up};

/// Length of a layer's message in bytes.
const MESSAGE_LIMIT: usize = 1024;

/// What an archive is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArchiveKind {
    /// The root that the image was made from.
    Base,
    /// Changes on top.
    Layer,
    /// Programs for the engine's own use, never part of the merged root.
    Tools,
    /// Something of a later version: kept, and no part of the merged root.
    #[serde(untagged)]
    Other(String),
}

impl ArchiveKind {
    /// Whether the archive is a layer of the merged root.
    #[must_use]
    pub fn is_in_stack(&self) -> bool {
        matches!(self, Self::Base | Self::Layer)
    }
}

/// One archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerEntry {
    /// What it is for.
    pub kind: ArchiveKind,
    /// Where it begins in the image.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// What it holds, see `image::digest`.
    pub content: String,
    /// When it was made, in seconds since the epoch.
    pub created: u64,
    /// What its maker said about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Fields of later versions: kept as they are.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

impl LayerEntry {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// The archives of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerTable {
    archives: Vec<LayerEntry>,
    #[serde(flatten)]
    unknown: serde_json::Map<String, serde_json::Value>,
}

/// A table that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Not a table at all.
    #[error("cannot read the layer table")]
    Malformed(#[source] serde_json::Error),
    /// An archive at an impossible place.
    #[error("the layer table places an archive at {offset:#x}..{end:#x}: {why}")]
    Place {
        /// Where it should begin.
        offset: u64,
        /// Where it should end.
        end: u64,
        /// What is wrong with that.
        why: &'static str,
    },
    /// A message that is too long.
    #[error("the message of the layer has {found} bytes: at most {limit} fit")]
    Message {
        /// Its length in bytes.
        found: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl LayerTable {
    /// Decodes and checks a table of archives that begin no earlier than `floor`.
    ///
    /// Archives may end behind the file's end: an image that was cut off still opens, and its whole layers can be
    /// listed.
    ///
    /// # Errors
    ///
    /// The bytes are no table, or an archive overlaps another or the settings area.
    pub fn decode(bytes: &[u8], floor: u64) -> Result<Self, TableError> {
        let table: Self = serde_json::from_slice(bytes).map_err(TableError::Malformed)?;
        table.check(floor)?;
        Ok(table)
    }

    /// Encodes the table.
    ///
    /// # Errors
    ///
    /// Only what the encoder says.
    pub fn encode(&self) -> Result<Vec<u8>, TableError> {
        serde_json::to_vec(self).map_err(TableError::Malformed)
    }

    /// Adds an archive on top.
    ///
    /// # Errors
    ///
    /// Its message is too long.
    pub fn push(&mut self, entry: LayerEntry) -> Result<(), TableError> {
        if entry.message.len() > MESSAGE_LIMIT {
            return Err(TableError::Message { found: entry.message.len(), limit: MESSAGE_LIMIT });
        }
        self.archives.push(entry);
        Ok(())
    }

    /// The same archives at other places: `place` gives each its offset, in the order of the table.
    ///
    /// # Errors
    ///
    /// What `place` says.
    pub fn moved<E>(&self, mut place: impl FnMut(&LayerEntry) -> Result<u64, E>) -> Result<Self, E> {
        let mut moved = self.clone();
        for entry in &mut moved.archives {
            entry.offset = place(entry)?;
        }
        Ok(moved)
    }

    /// Takes away the layer of the merged root with this number, counted from the lowest, and returns it. Its bytes
    /// stay where they are.
    pub fn remove_layer(&mut self, index: usize) -> Option<LayerEntry> {
        let at = self
            .archives
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.kind.is_in_stack())
            .map(|(at, _)| at)
            .nth(index)?;
        Some(self.archives.remove(at))
    }

    /// All archives, those for the engine's own use included, in the order of the table.
    #[must_use]
    pub fn archives(&self) -> &[LayerEntry] {
        &self.archives
    }

    /// The layers of the merged root, lowest first.
    pub fn layers(&self) -> impl Iterator<Item = &LayerEntry> {
        self.archives.iter().filter(|entry| entry.kind.is_in_stack())
    }

    /// The newest tools archive.
    #[must_use]
    pub fn tools(&self) -> Option<&LayerEntry> {
        self.archives.iter().rfind(|entry| entry.kind == ArchiveKind::Tools)
    }

    /// Where the next archive begins: behind all others, whatever lies there.
    #[must_use]
    pub fn next_offset(&self, floor: u64) -> u64 {
        align_up(self.archives.iter().map(LayerEntry::end).max().unwrap_or(0).max(floor))
    }

    fn check(&self, floor: u64) -> Result<(), TableError> {
        let mut places: Vec<&LayerEntry> = self.archives.iter().collect();
        places.sort_unstable_by_key(|entry| entry.offset);
        let mut free_from = floor;
        for entry in places {
            let why = if entry.offset.checked_add(entry.length).is_none_or(|end| end > MAX_END) {
                Some("no file is that long")
            } else if entry.offset % ALIGNMENT != 0 {
                Some("archives begin at multiples of 4096")
            } else if entry.offset < free_from {
                Some("something else lies there")
            } else {
                None
            };
            if let Some(why) = why {
                return Err(TableError::Place { offset: entry.offset, end: entry.end(), why });
            }
            free_from = entry.end();
        }
        Ok(())
    }
}

/// The largest length of a file.
const MAX_END: u64 = i64::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &ArchiveKind, offset: u64, length: u64) -> LayerEntry {
        LayerEntry {
            kind: kind.clone(),
            offset,
            length,
            content: "x".to_owned(),
            created: 1,
            message: String::new(),
            unknown: serde_json::Map::new(),
        }
    }

    fn table(entries: &[(u64, u64)]) -> LayerTable {
        let mut table = LayerTable::default();
        for (offset, length) in entries {
            table.push(entry(&ArchiveKind::Layer, *offset, *length)).unwrap();
        }
        table
    }

    #[test]
    fn the_stack_is_base_and_layers_in_table_order() {
        let mut table = LayerTable::default();
        for (kind, offset) in [
            (ArchiveKind::Tools, 4096),
            (ArchiveKind::Base, 8192),
            (ArchiveKind::Other("future".to_owned()), 16384),
            (ArchiveKind::Layer, 12288),
        ] {
            table.push(entry(&kind, offset, 10)).unwrap();
        }
        let again = LayerTable::decode(&table.encode().unwrap(), 4096).unwrap();
        assert_eq!(again, table);
        assert_eq!(again.layers().map(|layer| layer.offset).collect::<Vec<_>>(), [8192, 12288]);
        assert_eq!(again.tools().unwrap().offset, 4096);
        assert_eq!(again.next_offset(4096), 20480);
        assert_eq!(LayerTable::default().next_offset(4097), 8192);
    }

    #[test]
    fn impossible_places_are_errors() {
        for (entries, why) in [
            (&[(0, 10)][..], "something else"),
            (&[(8192, 5000), (12288, 1)], "something else"),
            (&[(12288, 1), (8192, 5000)], "something else"),
            (&[(8193, 10)], "multiples"),
            (&[(4096, u64::MAX)], "that long"),
            (&[(!4095, 4096)], "that long"),
        ] {
            let bytes = table(entries).encode().unwrap();
            let error = LayerTable::decode(&bytes, 4096).unwrap_err().to_string();
            assert!(error.contains(why), "{entries:?}: {error}");
        }
        assert!(LayerTable::decode(&table(&[(8192, 0), (4096, 4096)]).encode().unwrap(), 4096).is_ok());
    }

    #[test]
    fn fields_of_later_versions_are_kept() {
        let newer = br#"{"archives":[{"kind":"layer","offset":4096,"length":1,"content":"c","created":2,
            "signature":"s"}],"profile":7}"#;
        let again = LayerTable::decode(newer, 4096).unwrap().encode().unwrap();
        let text = String::from_utf8(again).unwrap();
        assert!(text.contains(r#""signature":"s""#) && text.contains(r#""profile":7"#), "{text}");
    }

    #[test]
    fn long_messages_are_refused() {
        let mut long = entry(&ArchiveKind::Layer, 4096, 1);
        long.message = "m".repeat(MESSAGE_LIMIT + 1);
        assert!(matches!(LayerTable::default().push(long), Err(TableError::Message { .. })));
    }
}
