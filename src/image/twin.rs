//! A value in two checksummed copies, of which the newer valid one counts.
//!
//! ```text
//!  0  8  magic, tells what the copy holds and the version of this layout
//!  8  8  generation, from 1          all integers little endian
//! 16  8  length of the payload
//! 24 16  XXH3-128 of bytes 0..24 and the payload
//! 40 24  zeros
//! 64     payload
//! ```
//!
//! A change is written over the copy that does not count, with the next generation: until all of it is on the disk
//! the other copy counts, afterwards it does. The checksum finds torn writes and decayed bytes; it is not a signature,
//! for whoever can write the file can write a checksum as well.

use std::io;

use xxhash_rust::xxh3::Xxh3;

use super::store::Store;

/// Length of a copy's head in bytes.
const HEAD_LEN: usize = 64;
const SUMMED_LEN: usize = 24;

/// A pair of copies at a fixed place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twin {
    /// What the copies hold, for messages.
    pub what: &'static str,
    /// The first bytes of a copy.
    pub magic: [u8; 8],
    /// Where the first copy begins; the second follows it.
    pub offset: u64,
    /// Length of each copy's place.
    pub room: u32,
}

/// The value that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// Counts the changes.
    pub generation: u64,
    /// The value.
    pub payload: Vec<u8>,
    /// Which copy it is.
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    First,
    Second,
}

/// A twin that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TwinError {
    /// The host refused.
    #[error("cannot read the {what} at offset {offset:#x}")]
    Read {
        /// What the copies hold.
        what: &'static str,
        /// Where the copy begins.
        offset: u64,
        /// What the host says.
        source: io::Error,
    },
    /// The host refused.
    #[error("cannot write the {what} at offset {offset:#x}")]
    Write {
        /// What the copies hold.
        what: &'static str,
        /// Where the copy begins.
        offset: u64,
        /// What the host says.
        source: io::Error,
    },
    /// Neither copy is there.
    #[error("no {what} at offset {offset:#x}")]
    Missing {
        /// What the copies should hold.
        what: &'static str,
        /// Where the first should begin.
        offset: u64,
    },
    /// Neither copy is whole.
    #[error("both copies of the {what} are damaged, at offsets {first:#x} and {second:#x}")]
    Damaged {
        /// What the copies hold.
        what: &'static str,
        /// Where the first begins.
        first: u64,
        /// Where the second begins.
        second: u64,
    },
    /// The value is longer than a copy's place.
    #[error("the {what} have {found} bytes, {limit} fit")]
    TooLong {
        /// What the copies hold.
        what: &'static str,
        /// Length of the value.
        found: usize,
        /// Length that fits.
        limit: usize,
    },
}

/// A copy as found.
enum Found {
    Whole(Current),
    Damaged,
    Absent,
}

impl Twin {
    /// Where the second copy ends.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset_of(Place::Second) + u64::from(self.room)
    }

    /// Length of the longest value.
    #[must_use]
    pub fn limit(&self) -> usize {
        usize::try_from(self.room).unwrap_or(usize::MAX).saturating_sub(HEAD_LEN)
    }

    /// Reads the value that counts.
    ///
    /// # Errors
    ///
    /// Neither copy is whole, or the host refuses.
    pub fn read(&self, store: &impl Store) -> Result<Current, TwinError> {
        let copies = [self.copy(store, Place::First)?, self.copy(store, Place::Second)?];
        let absent = copies.iter().all(|copy| matches!(copy, Found::Absent));
        let whole = copies.into_iter().filter_map(|copy| match copy {
            Found::Whole(current) => Some(current),
            Found::Damaged | Found::Absent => None,
        });
        whole.max_by_key(|current| current.generation).ok_or(if absent {
            TwinError::Missing { what: self.what, offset: self.offset }
        } else {
            TwinError::Damaged { what: self.what, first: self.offset, second: self.offset_of(Place::Second) }
        })
    }

    /// Whether either copy begins with the magic.
    #[must_use]
    pub fn is_present(&self, store: &impl Store) -> bool {
        [Place::First, Place::Second].into_iter().any(|place| {
            let mut magic = [0; 8];
            store.read_exact_at(&mut magic, self.offset_of(place)).is_ok() && magic == self.magic
        })
    }

    /// Writes the next value over the copy that does not count. It counts once the store is synced.
    ///
    /// # Errors
    ///
    /// The value is too long, or the host refuses; `current` then still counts.
    pub fn write(
        &self,
        store: &impl Store,
        current: &Current,
        payload: Vec<u8>,
    ) -> Result<Current, TwinError> {
        let place = match current.place {
            Place::First => Place::Second,
            Place::Second => Place::First,
        };
        let next = Current { generation: current.generation.saturating_add(1), payload, place };
        self.put(store, &next)?;
        Ok(next)
    }

    /// Writes both copies of a first value.
    ///
    /// # Errors
    ///
    /// The value is too long, or the host refuses.
    pub fn create(&self, store: &impl Store, payload: Vec<u8>) -> Result<Current, TwinError> {
        let first = Current { generation: 1, payload: payload.clone(), place: Place::First };
        self.put(store, &first)?;
        self.write(store, &first, payload)
    }

    fn put(&self, store: &impl Store, copy: &Current) -> Result<(), TwinError> {
        if copy.payload.len() > self.limit() {
            let found = copy.payload.len();
            return Err(TwinError::TooLong { what: self.what, found, limit: self.limit() });
        }
        let mut bytes = Vec::with_capacity(HEAD_LEN + copy.payload.len());
        bytes.extend_from_slice(&self.magic);
        bytes.extend_from_slice(&copy.generation.to_le_bytes());
        bytes.extend_from_slice(&(copy.payload.len() as u64).to_le_bytes());
        let sum = checksum(&bytes, &copy.payload);
        bytes.extend_from_slice(&sum);
        bytes.resize(HEAD_LEN, 0);
        bytes.extend_from_slice(&copy.payload);
        let offset = self.offset_of(copy.place);
        store.write_all_at(&bytes, offset).map_err(|source| TwinError::Write {
            what: self.what,
            offset,
            source,
        })
    }

    fn copy(&self, store: &impl Store, place: Place) -> Result<Found, TwinError> {
        let offset = self.offset_of(place);
        let failed = |source| TwinError::Read { what: self.what, offset, source };
        let mut head = [0; HEAD_LEN];
        if store.read_at(&mut head, offset).map_err(failed)? < HEAD_LEN || !head.starts_with(&self.magic) {
            return Ok(Found::Absent);
        }
        let number = |at: usize| {
            let bytes = head.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
            u64::from_le_bytes(bytes)
        };
        let Some(length) = usize::try_from(number(16)).ok().filter(|length| *length <= self.limit()) else {
            return Ok(Found::Damaged);
        };
        let mut payload = vec![0; length];
        let start = offset + HEAD_LEN as u64;
        let got = store.read_at(&mut payload, start).map_err(failed)?;
        let (summed, rest) = head.split_at(SUMMED_LEN);
        if got < length || !rest.starts_with(&checksum(summed, &payload)) {
            return Ok(Found::Damaged);
        }
        Ok(Found::Whole(Current { generation: number(8), payload, place }))
    }

    fn offset_of(&self, place: Place) -> u64 {
        match place {
            Place::First => self.offset,
            Place::Second => self.offset.saturating_add(u64::from(self.room)),
        }
    }
}

fn checksum(head: &[u8], payload: &[u8]) -> [u8; 16] {
    let mut hasher = Xxh3::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.digest128().to_le_bytes()
}
