//! Tables of strings: names, and targets of symlinks.

use super::differences;
use crate::dwarfs::{
    format::{
        freeze::{List, Value},
        fsst_encoder,
        metadata::string_table,
    },
    write::{error::WriteError, options::Packing},
};

/// Strings one after the other, with where each begins and the last one ends, or with their lengths.
pub(super) struct StringTable {
    buffer: Vec<u8>,
    /// By which the strings are compressed, if they are.
    symbols: Option<Vec<u8>>,
    index: Vec<u32>,
    is_packed: bool,
}

impl StringTable {
    pub(super) fn new(strings: &[Vec<u8>], packing: Packing) -> Result<Self, WriteError> {
        let mut table = Self::plain(strings)?;
        if packing.symbols
            && let Some(compressed) = Self::compressed(strings)
            && compressed.len() < table.len()
        {
            table = compressed;
        }
        if packing.string_index {
            table.is_packed = true;
            differences(table.index.iter_mut());
            table.index.remove(0);
        }
        Ok(table)
    }

    fn plain(strings: &[Vec<u8>]) -> Result<Self, WriteError> {
        let too_many = |_| WriteError::TooMany { what: "bytes of names" };
        let mut table = Self { buffer: strings.concat(), symbols: None, index: vec![0], is_packed: false };
        let mut end = 0;
        for string in strings {
            end += string.len();
            table.index.push(u32::try_from(end).map_err(too_many)?);
        }
        Ok(table)
    }

    fn compressed(strings: &[Vec<u8>]) -> Option<Self> {
        let fsst_encoder::Compressed { symbols, buffer, offsets } = fsst_encoder::compress(strings)?;
        Some(Self { buffer, symbols: Some(symbols), index: offsets, is_packed: false })
    }

    /// Bytes that it takes, the index with as many bits as its last and largest number needs.
    fn len(&self) -> usize {
        let bits = self.index.last().and_then(|last| last.checked_ilog2()).map_or(0, |log| log as usize + 1);
        self.buffer.len() + self.symbols.as_ref().map_or(0, Vec::len) + (self.index.len() * bits).div_ceil(8)
    }

    pub(super) fn value(&self) -> Value<'_> {
        let mut fields = vec![
            (string_table::BUFFER, Value::Bytes(&self.buffer)),
            (string_table::INDEX, Value::List(List::U32(&self.index))),
            (string_table::PACKED_INDEX, Value::Bool(self.is_packed)),
        ];
        if let Some(symbols) = &self.symbols {
            fields.push((string_table::SYMTAB, Value::Bytes(symbols).some()));
        }
        Value::Struct(fields)
    }
}
