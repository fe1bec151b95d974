//! Categories: what the writer took the data of each block for, and what it told its codec about it.
//!
//! ```text
//! block_categories[block]              -> category_names[..]             "pcmaudio/waveform"
//! block_category_metadata {block: ..}  -> category_metadata_json[..]     {"bits_per_sample":16, ...}
//! ```
//!
//! Nobody needs them to read files. Damage here keeps no archive from being opened; it shows where they are asked for.

use super::{
    frozen::{Column, Frozen, StringRows, View},
    map::Map,
    metadata::root,
};
use crate::dwarfs::Error;

/// The categories of blocks.
#[derive(Clone, Copy, Debug)]
pub struct Categories {
    names: StringRows,
    name_of_block: Column,
    descriptions: StringRows,
    description_of_block: Map,
}

impl Categories {
    /// Resolves the tables of the root struct `top`.
    ///
    /// # Errors
    ///
    /// What [`Frozen`] says of lists and fields.
    pub fn resolve<'a>(frozen: &Frozen<'a>, top: View<'a>) -> Result<Self, Error> {
        let set = |id| frozen.optional(frozen.field(Some(top), id)?);
        Ok(Self {
            names: frozen.strings(set(root::CATEGORY_NAMES)?)?,
            name_of_block: frozen.ints(set(root::BLOCK_CATEGORIES)?, u32::BITS)?,
            descriptions: frozen.strings(set(root::CATEGORY_METADATA_JSON)?)?,
            description_of_block: Map::resolve(frozen, set(root::BLOCK_CATEGORY_METADATA)?, u32::BITS)?,
        })
    }

    /// The category of a block; `None` where the archive has no categories.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] for blocks and names that are not there.
    pub fn name<'a>(&self, data: &'a [u8], block: u32) -> Result<Option<&'a [u8]>, Error> {
        if self.names.is_empty() {
            return Ok(None);
        }
        let number = self.name_of_block.at(data, block, "block with a category")?;
        string(&self.names, data, number, "category").map(Some)
    }

    /// What the writer said about a block, as JSON; `None` for most blocks.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] for descriptions that are not there.
    pub fn description<'a>(&self, data: &'a [u8], block: u32) -> Result<Option<&'a [u8]>, Error> {
        let Some(number) = self.description_of_block.find(data, block) else { return Ok(None) };
        string(&self.descriptions, data, number, "description of a category").map(Some)
    }
}

fn string<'a>(rows: &StringRows, data: &'a [u8], number: u64, what: &'static str) -> Result<&'a [u8], Error> {
    let bytes = u32::try_from(number).ok().and_then(|number| rows.get(data, number));
    bytes.ok_or(Error::OutOfRange { what, found: number, bound: u64::from(rows.len()) })
}
