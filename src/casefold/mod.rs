//! Which names are one name: the key under which spellings of a name meet.
//!
//! ```text
//!   unicode   NFD(fold(NFD(name))): canonical caseless matching of the Unicode standard (3.13, D145) with the full
//!             foldings C and F, as the kernel's casefold of ext4, f2fs and tmpfs; ß is ss, é is e and an accent
//!   windows   each UTF-16 unit by itself in upper case, as the table of NTFS: ß is ß, é is not e and an accent
//!   ascii     A to Z alone, in whatever bytes
//! ```
//!
//! A name that is not UTF-8 is its own key for `unicode` and `windows`, as in a directory of the kernel without strict
//! encoding: no valid name has the same one.

use caseless::Caseless as _;
use smallvec::SmallVec;
use unicode_normalization::UnicodeNormalization as _;

#[cfg(test)]
mod tests;

/// Which names are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Full folding over NFD.
    #[default]
    Unicode,
    /// One-to-one, as NTFS.
    Windows,
    /// The letters A to Z.
    Ascii,
}

/// Bytes of a key that need no allocation: most names are shorter.
const INLINE: usize = 40;

/// What all spellings of a name have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(SmallVec<[u8; INLINE]>);

impl Key {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The key of `name`.
#[must_use]
pub fn fold(name: &[u8], mode: Mode) -> Key {
    match mode {
        Mode::Windows if name.is_ascii() => Key(name.iter().map(u8::to_ascii_uppercase).collect()),
        Mode::Ascii | Mode::Unicode if mode == Mode::Ascii || name.is_ascii() => {
            Key(name.iter().map(u8::to_ascii_lowercase).collect())
        }
        _ => match std::str::from_utf8(name) {
            Ok(text) if mode == Mode::Windows => Key(encode(text.chars().map(ntfs_upper))),
            Ok(text) => Key(encode(text.chars().nfd().default_case_fold().nfd())),
            Err(_) => Key(SmallVec::from_slice(name)),
        },
    }
}

fn encode(chars: impl Iterator<Item = char>) -> SmallVec<[u8; INLINE]> {
    let mut bytes = SmallVec::new();
    for char in chars {
        bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
    }
    bytes
}

/// The upper case of one UTF-16 unit, as the table of NTFS has it: the simple mapping of Unicode, without those that
/// would turn a letter beyond ASCII into one of it (ı, ſ) and without the micro sign. Halves of surrogates stay.
fn ntfs_upper(char: char) -> char {
    if char.is_ascii() {
        return char.to_ascii_uppercase();
    }
    let code = u32::from(char);
    if code > 0xffff || char == 'µ' {
        return char;
    }
    let simple = match code {
        // Greek with an iota, for which the standard library has the full mapping to two letters alone.
        0x1f80..=0x1f87 | 0x1f90..=0x1f97 | 0x1fa0..=0x1fa7 => char::from_u32(code + 8),
        0x1fb3 | 0x1fc3 | 0x1ff3 => char::from_u32(code + 9),
        _ => {
            let mut upper = char.to_uppercase();
            upper.next().filter(|_| upper.next().is_none())
        }
    };
    simple.filter(|upper| !upper.is_ascii() && u32::from(*upper) <= 0xffff).unwrap_or(char)
}
