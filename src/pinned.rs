//! Reference-counted slices of memory that somebody else owns: a cached block, a mapping, a buffer.
//!
//! Reading returns [`Data`], a short list of [`Slice`]s that keep their owners alive, so that file contents travel
//! from the block cache to the kernel without a copy and without an allocation of their own.

use std::{
    borrow::Cow,
    fmt,
    ops::Range,
    sync::{Arc, OnceLock},
};

use smallvec::SmallVec;

/// An owner of bytes that stay where they are, and stay the same, as long as it lives.
pub trait Pinned: Send + Sync {
    /// Returns the bytes of `range`, which lies within what the owner promised when the slice was made.
    ///
    /// An owner that is filled little by little promises only what is filled.
    fn bytes(&self, range: Range<usize>) -> &[u8];
}

impl Pinned for Vec<u8> {
    fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.get(range).unwrap_or_default()
    }
}

/// A range of bytes of a [`Pinned`] owner. Cloning counts a reference, nothing else.
#[derive(Clone)]
pub struct Slice {
    owner: Arc<dyn Pinned>,
    range: Range<usize>,
}

/// Length of the shared buffer of zeros that stands in for holes, in bytes: the largest FUSE read.
const ZEROS_LEN: usize = 1 << 20;

impl Slice {
    /// Makes a slice of `owner`; `range` must lie within what `owner` holds.
    #[must_use]
    pub fn new(owner: Arc<dyn Pinned>, range: Range<usize>) -> Self {
        Self { owner, range }
    }

    /// Takes over a buffer as a whole.
    #[must_use]
    pub fn from_vec(buffer: Vec<u8>) -> Self {
        let range = 0..buffer.len();
        Self { owner: Arc::new(buffer), range }
    }

    /// Returns up to `len` zeros (at most 1 MiB a slice; [`Data::push_zeros`] repeats as needed).
    fn zeros(len: usize) -> Self {
        static ZEROS: OnceLock<Arc<Vec<u8>>> = OnceLock::new();
        let owner: Arc<Vec<u8>> = Arc::clone(ZEROS.get_or_init(|| Arc::new(vec![0; ZEROS_LEN])));
        Self { owner, range: 0..len.min(ZEROS_LEN) }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.owner.bytes(self.range.clone())
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether the slice holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.len())
    }
}

/// What a read returns: slices in file order. Shorter than asked only at the end of the file.
#[derive(Clone, Debug, Default)]
pub struct Data {
    slices: SmallVec<[Slice; 2]>,
}

impl Data {
    /// No bytes: a read at or behind the end.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Appends a slice; an empty one is dropped.
    pub fn push(&mut self, slice: Slice) {
        if !slice.is_empty() {
            self.slices.push(slice);
        }
    }

    /// Appends `len` zeros (a hole).
    pub fn push_zeros(&mut self, mut len: usize) {
        while len > 0 {
            let slice = Slice::zeros(len);
            len -= slice.len();
            self.slices.push(slice);
        }
    }

    /// Length in bytes over all slices.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slices.iter().map(Slice::len).sum()
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// The slices in file order.
    pub fn slices(&self) -> impl Iterator<Item = &Slice> {
        self.slices.iter()
    }

    /// The bytes in one piece: borrowed when there is at most one slice, copied together otherwise.
    #[must_use]
    pub fn contiguous(&self) -> Cow<'_, [u8]> {
        match self.slices.as_slice() {
            [] => Cow::Borrowed(&[]),
            [one] => Cow::Borrowed(one.as_bytes()),
            many => {
                let mut all = Vec::with_capacity(self.len());
                for slice in many {
                    all.extend_from_slice(slice.as_bytes());
                }
                Cow::Owned(all)
            }
        }
    }
}

impl From<Vec<u8>> for Data {
    fn from(buffer: Vec<u8>) -> Self {
        let mut data = Self::default();
        data.push(Slice::from_vec(buffer));
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slice_is_borrowed_and_many_are_joined() {
        let mut data = Data::from(vec![1, 2, 3]);
        assert!(matches!(data.contiguous(), Cow::Borrowed([1, 2, 3])));
        data.push_zeros(2);
        assert_eq!(data.contiguous().as_ref(), [1, 2, 3, 0, 0]);
        assert_eq!(data.len(), 5);
    }

    #[test]
    fn long_holes_share_one_buffer() {
        let mut data = Data::empty();
        data.push_zeros(ZEROS_LEN * 2 + 7);
        assert_eq!(data.slices().count(), 3);
        assert_eq!(data.len(), ZEROS_LEN * 2 + 7);
        assert!(data.contiguous().iter().all(|byte| *byte == 0));
    }
}
