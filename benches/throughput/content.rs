//! What files are filled with: prose that compresses, records as in object files, noise that does not compress.

use crate::rng::Rng;

/// The words of the prose; a few of them make most of it, as in a language.
#[derive(Debug)]
pub struct Vocabulary {
    words: Vec<Vec<u8>>,
}

impl Default for Vocabulary {
    fn default() -> Self {
        let mut rng = Rng::new(7);
        let word = |_| (0..2 + rng.below(9)).map(|_| letter(&mut rng)).collect();
        Self { words: (0..4096).map(word).collect() }
    }
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Words and lines.
    Prose,
    /// Small numbers in fixed places.
    Records,
    /// Bits without any order.
    Noise,
}

impl Kind {
    /// Chooses: most files are prose, some records, a few noise.
    pub fn choose(rng: &mut Rng) -> Self {
        match rng.below(20) {
            0..=12 => Self::Prose,
            13..=16 => Self::Records,
            _ => Self::Noise,
        }
    }
}

impl Vocabulary {
    /// Makes `size` bytes.
    pub fn bytes(&self, kind: Kind, size: usize, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 64);
        while bytes.len() < size {
            match kind {
                Kind::Prose => {
                    bytes.extend(self.words.get(skewed(rng, self.words.len())).into_iter().flatten());
                    bytes.push(if rng.below(12) == 0 { b'\n' } else { b' ' });
                }
                Kind::Records => {
                    bytes.extend(rng.bits().to_le_bytes().into_iter().take(2));
                    bytes.extend_from_slice(&[0, 0, 0x48, 0x89, b'A', 0]);
                }
                Kind::Noise => bytes.extend_from_slice(&rng.bits().to_le_bytes()),
            }
        }
        bytes.truncate(size);
        bytes
    }
}

/// The letters by how often they occur.
fn letter(rng: &mut Rng) -> u8 {
    let letters = b"etaoinshrdlucmfwypvbgkqjxz";
    letters.get(skewed(rng, letters.len())).copied().unwrap_or(b'e')
}

/// A number below `limit`, small ones much more often.
fn skewed(rng: &mut Rng, limit: usize) -> usize {
    let first = rng.below(limit);
    rng.below(first + 1)
}
