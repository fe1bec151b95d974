//! What kinds of data there are, for which there are better ways than the usual one.
//!
//! A file has one category, told from a sample of it by the first categorizer that knows it. The files of each
//! category are packed apart, as a stream of their own: a block has data of one category only, is compressed as
//! befits that, and says in the metadata of which category it is.
//!
//! ```text
//! <default>            whatever else there is
//! binary/MACHINE       programs and libraries: a filter for the machine's code before lzma
//! pcmaudio/waveform    samples of audio: FLAC, one category for each layout
//! pcmaudio/metadata    what else stands in such files: their heads, and what is behind the samples
//! incompressible       what no codec makes smaller: it is stored
//! ```
//!
//! One more category is a variant here with its name, its codec in [`WriteOptions::codec`], and a categorizer.
//!
//! [`WriteOptions::codec`]: super::WriteOptions

pub(super) mod audio;
mod machine;

use std::collections::BTreeMap;

use super::{
    codec::{Machine, Pcm},
    dedup::Group,
    error::WriteError,
};

/// A kind of data. They are packed in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Category {
    /// Anything else.
    #[default]
    Default,
    /// Machine code.
    Binary(Machine),
    /// Samples of audio.
    Waveform(Pcm),
    /// What stands beside samples of audio. No file as a whole is of this category.
    AudioMetadata,
    /// Data that no codec makes smaller.
    Incompressible,
}

impl Category {
    /// Its name in an archive; where upstream's tools have the same, theirs.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Default => "<default>",
            Self::Binary(machine) => machine::category(machine),
            Self::Waveform(_) => "pcmaudio/waveform",
            Self::AudioMetadata => "pcmaudio/metadata",
            Self::Incompressible => "incompressible",
        }
    }

    /// The category of a name in an archive, as far as the name alone tells it.
    pub(super) fn of_name(name: &[u8]) -> Option<Self> {
        let machines = machine::ALL.into_iter().map(Self::Binary);
        let mut known =
            [Self::Default, Self::AudioMetadata, Self::Incompressible].into_iter().chain(machines);
        known.find(|category| category.name().as_bytes() == name)
    }

    /// What an archive says of its blocks besides, as JSON.
    pub(super) fn description(self) -> Option<String> {
        match self {
            Self::Waveform(pcm) => Some(audio::describe(pcm)),
            _ => None,
        }
    }
}

/// Tells the category of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Categorizer {
    /// Finds files of PCM audio (WAV, AIFF). Their samples are compressed by FLAC.
    Audio,
    /// Finds programs and libraries (ELF, PE), by machine. With lzma their code goes through a filter.
    Binary,
    /// Finds what a fast codec does not make smaller: media, archives, ciphertext. It is stored.
    Incompressible,
}

impl Categorizer {
    /// All of them, in the order in which they are best asked.
    pub const ALL: [Self; 3] = [Self::Audio, Self::Binary, Self::Incompressible];

    /// The word for it on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Audio => "pcmaudio",
            Self::Binary => "binary",
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
        for number in 0..self.categorizers.len() {
            let found = match self.categorizers.get(number) {
                Some(Categorizer::Audio) => audio::find(sample).map(Category::Waveform),
                Some(Categorizer::Binary) => machine::find(sample).map(Category::Binary),
                Some(Categorizer::Incompressible) => {
                    self.is_incompressible(sample)?.then_some(Category::Incompressible)
                }
                None => None,
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
    let mut streams: BTreeMap<Category, Vec<Group>> = BTreeMap::new();
    for group in groups {
        streams.entry(group.category).or_default().push(group);
    }
    streams.into_iter().collect()
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
