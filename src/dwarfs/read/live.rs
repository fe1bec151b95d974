//! Whether the file still holds the archive that was opened.
//!
//! Somebody may truncate, overwrite or replace the file under an open archive. What is read anew is checked against
//! its checksum, and a checksum that was found right counts as long as the file's stamp (length, times of change)
//! stays. When it changes, blocks are checked again, and the header of the metadata must still be the one that was
//! opened: the blocks of another archive have right checksums too.
//!
//! ```text
//! read bytes -> confirm -> same generation as when the block was checked?  yes: good
//!                                                                          no: check the block, read once more
//! ```
//!
//! A file that is only appended to, as images are, stays the same archive. So does one that was cut off before its
//! metadata: what is left of it can be read, unless the shorter file is a whole archive itself.

use super::{
    index::{Index, Place},
    read_at::{ReadAt, len_of, read_array, stamp_of},
};
use crate::{
    dwarfs::{
        Error,
        format::section::{FIRST_MINOR_WITH_CHECKSUMS, HEADER_LEN, SectionKind},
    },
    sync::RwLock,
};

/// Counts the states of the file that were seen; 0 is none.
pub(super) type Generation = u32;

type Seal = (u64, [u8; HEADER_LEN]);

/// What is known of the file's state.
#[derive(Debug)]
pub(super) struct Live {
    /// Headers of the first section and of the metadata, which carry their checksums, and where they are. None in
    /// formats without.
    seals: Vec<Seal>,
    /// The last state that was confirmed, and its number.
    seen: RwLock<(u64, Generation)>,
}

impl Live {
    /// Remembers the file as it is.
    pub(super) fn new(source: &dyn ReadAt, index: &Index) -> Result<Self, Error> {
        let stamp = stamp_of(source)?;
        let sections =
            index.sections().first().copied().into_iter().chain(index.first(SectionKind::Metadata));
        let sealed = sections.filter(|_| index.minor() >= FIRST_MINOR_WITH_CHECKSUMS);
        let seals = sealed.map(|section| Ok((section.offset, read_array(source, section.offset)?)));
        Ok(Self { seals: seals.collect::<Result<_, Error>>()?, seen: RwLock::new((stamp, 1)) })
    }

    /// Returns the generation of the file as it is now. What was read before is of this generation or an older one.
    ///
    /// # Errors
    ///
    /// [`Error::Replaced`] where it is another archive now, or one without checksums has changed.
    pub(super) fn confirm(&self, source: &dyn ReadAt) -> Result<Generation, Error> {
        let stamp = stamp_of(source)?;
        let (seen, generation) = *self.seen.read();
        if stamp == seen {
            return Ok(generation);
        }
        self.compare(source)?;
        let mut seen = self.seen.write();
        if seen.0 != stamp {
            *seen = (stamp, seen.1.wrapping_add(1).max(1));
        }
        Ok(seen.1)
    }

    /// Checks that the archive is the one that was opened, as far as it is there.
    fn compare(&self, source: &dyn ReadAt) -> Result<(), Error> {
        let [(first, _), ..] = &*self.seals else { return Err(Error::Replaced { offset: 0 }) };
        let len = len_of(source)?;
        for (offset, header) in &self.seals {
            let is_there = offset.checked_add(HEADER_LEN as u64).is_some_and(|end| end <= len);
            if is_there && read_array::<HEADER_LEN>(source, *offset)? != *header {
                return Err(Error::Replaced { offset: *offset });
            }
            if !is_there && is_archive(source, *first) {
                return Err(Error::Replaced { offset: *first });
            }
        }
        Ok(())
    }
}

/// Whether a whole archive begins at an offset.
fn is_archive(source: &dyn ReadAt, offset: u64) -> bool {
    let index = Index::open(source, Place::At { offset, len: None });
    index.is_ok_and(|index| index.first(SectionKind::Metadata).is_some())
}
