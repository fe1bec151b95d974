//! What kinds of data there are, for which there are better ways than the usual one.
//!
//! A file has one category, told from a sample of it by the first categorizer that knows it. The files of each
//! category are packed apart, one category after the other: a block has data of one category only, is compressed as
//! befits that, and says in the metadata of which category it is.
//!
//! One more category is a variant here with its name, its codec in [`WriteOptions::codec`], and a categorizer.
//!
//! [`WriteOptions::codec`]: super::WriteOptions

use super::{dedup::Group, error::WriteError};

/// A kind of data. They are packed in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Category {
    /// Anything else.
    #[default]
    Default,
    /// Data that no codec makes smaller.
    Incompressible,
}

impl Category {
    /// All of them, in the order in which they are packed.
    pub(super) const ALL: [Self; 2] = [Self::Default, Self::Incompressible];

    /// Its name in an archive, the one by which upstream's tools call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Default => "<default>",
            Self::Incompressible => "incompressible",
        }
    }
}

/// Tells the category of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Categorizer {
    /// Finds what a fast codec does not make smaller: media, archives, ciphertext. It is stored.
    Incompressible,
}

impl Categorizer {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Incompressible];

    /// The word for it on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Incompressible => "incompressible",
        }
    }
}

/// Shorter files are not worth being asked about.
pub(super) const LEAST_LEN: u64 = 256;

/// A codec that is fast, to see whether data can become smaller at all.
const PROBE_LEVEL: i32 = 1;
/// What does not lose this share of its length (one in so many bytes) is incompressible.
const WORTHWHILE: usize = 64;

/// Puts files into categories; one for each thread.
pub(super) struct Sorter {
    categorizers: Vec<Categorizer>,
    probe: zstd::bulk::Compressor<'static>,
    out: Vec<u8>,
}

impl Sorter {
    pub(super) fn new(categorizers: &[Categorizer]) -> Result<Self, WriteError> {
        let probe = zstd::bulk::Compressor::new(PROBE_LEVEL).map_err(|error| failed(&error))?;
        Ok(Self { categorizers: categorizers.to_vec(), probe, out: Vec::new() })
    }

    /// The category of a file, by a sample of it.
    pub(super) fn category(&mut self, sample: &[u8]) -> Result<Category, WriteError> {
        for categorizer in self.categorizers.clone() {
            let found = match categorizer {
                Categorizer::Incompressible => {
                    self.is_incompressible(sample)?.then_some(Category::Incompressible)
                }
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Ok(Category::Default)
    }

    fn is_incompressible(&mut self, sample: &[u8]) -> Result<bool, WriteError> {
        self.out.clear();
        self.out.reserve(zstd::zstd_safe::compress_bound(sample.len()));
        self.probe.compress_to_buffer(sample, &mut self.out).map_err(|error| failed(&error))?;
        Ok(self.out.len() + sample.len() / WORTHWHILE >= sample.len())
    }
}

fn failed(error: &std::io::Error) -> WriteError {
    WriteError::Compress { section: 0, reason: error.to_string() }
}

/// Sets the groups of each category apart; those of one keep their order.
pub(super) fn apart(groups: Vec<Group>) -> Vec<(Category, Vec<Group>)> {
    let mut streams: Vec<(Category, Vec<Group>)> =
        Category::ALL.iter().map(|category| (*category, Vec::new())).collect();
    for group in groups {
        if let Some((_, stream)) = streams.iter_mut().find(|(category, _)| *category == group.category) {
            stream.push(group);
        }
    }
    streams.retain(|(_, groups)| !groups.is_empty());
    streams
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u8::try_from(state >> 56).unwrap()
        })
        .take(len)
        .collect()
    }

    #[test]
    fn noise_is_incompressible_and_text_is_not() {
        let mut sorter = Sorter::new(&Categorizer::ALL).unwrap();
        assert_eq!(sorter.category(&noise(50_000)).unwrap(), Category::Incompressible);
        assert_eq!(sorter.category(&noise(256)).unwrap(), Category::Incompressible);
        assert_eq!(
            sorter.category("some text, and again ".repeat(50).as_bytes()).unwrap(),
            Category::Default
        );
        let mut half = noise(50_000);
        half.extend(vec![b'x'; 2_000]);
        assert_eq!(sorter.category(&half).unwrap(), Category::Default);
        assert_eq!(Sorter::new(&[]).unwrap().category(&noise(50_000)).unwrap(), Category::Default);
    }
}
