//! Decoder of FSST, by which names and symlink targets are compressed one by one. (The encoder: `fsst_encoder`.)
//!
//! Each byte of a compressed string stands for a symbol of 1 to 8 bytes; 0xff stands for the byte that follows it.
//! The symbol table:
//!
//! ```text
//! 0  8  01, number of symbols, 2 bytes of the encoder, 0a 14 34 01 (version 20190218)
//! 8  1  bit 0: symbol 0 is a NUL that is not stored
//! 9  8  how many symbols have 1, 2, ... 8 bytes
//! 17    the symbols of 2 bytes, of 3, ... of 8, of 1; numbered in this order
//! ```

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::{
    bytes::{array_at, u32_at},
    strings::too_long,
};
use crate::dwarfs::Error;

/// A decoded string; names fit without an allocation.
pub type Text = SmallVec<[u8; 256]>;

pub(super) const VERSION: u32 = 20_190_218;
const VERSION_AT: usize = 4;
const FLAGS_AT: usize = 8;
const HISTOGRAM_AT: usize = 9;
pub(super) const SYMBOLS_AT: usize = 17;

/// The code that announces a byte as it is.
pub(super) const ESCAPE: u8 = 255;
/// Longest symbol in bytes.
pub(super) const MAX_SYMBOL_LEN: usize = 8;
/// Most symbols that codes can name.
pub(super) const MAX_SYMBOLS: usize = 255;

/// A symbol table.
#[derive(Clone, Debug)]
pub struct Symbols {
    /// Length and bytes of each symbol, by code.
    symbols: Vec<(u8, [u8; MAX_SYMBOL_LEN])>,
}

impl Symbols {
    /// Reads a symbol table.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] where the version is another, or the symbols do not fill the bytes exactly.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = |at| Error::Malformed { what: "symbol table of names", at };
        if u32_at(bytes, VERSION_AT) != Some(VERSION) {
            return Err(malformed(VERSION_AT));
        }
        let with_nul = bytes.get(FLAGS_AT).ok_or_else(|| malformed(FLAGS_AT))? & 1 == 1;
        let mut histogram: [u8; MAX_SYMBOL_LEN] =
            array_at(bytes, HISTOGRAM_AT).ok_or_else(|| malformed(HISTOGRAM_AT))?;
        let mut symbols = Vec::with_capacity(MAX_SYMBOLS);
        if with_nul {
            symbols.push((1, [0; MAX_SYMBOL_LEN]));
            let [ones, ..] = &mut histogram;
            *ones = ones.checked_sub(1).ok_or_else(|| malformed(HISTOGRAM_AT))?;
        }
        let mut at = SYMBOLS_AT;
        let [ones, longer @ ..] = histogram;
        for (len, count) in (2_u8..).zip(longer).chain([(1, ones)]) {
            for _ in 0..count {
                let end = at + usize::from(len);
                let stored = bytes.get(at..end).ok_or_else(|| malformed(at))?;
                let mut symbol = [0; MAX_SYMBOL_LEN];
                symbol.iter_mut().zip(stored).for_each(|(to, from)| *to = *from);
                symbols.push((len, symbol));
                at = end;
            }
        }
        if at != bytes.len() || symbols.len() > MAX_SYMBOLS {
            return Err(malformed(at));
        }
        Ok(Self { symbols })
    }

    /// Decodes a string into `text`, which it replaces.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] for a code without a symbol or an escape without its byte, [`Error::Limit`] where the
    /// string is longer than `max_len`.
    pub fn decode(&self, codes: &[u8], max_len: usize, text: &mut Text) -> Result<(), Error> {
        text.clear();
        let mut pieces = Pieces { symbols: &self.symbols, codes, at: 0 };
        while let Some(piece) = pieces.next()? {
            text.extend_from_slice(piece);
            if text.len() > max_len {
                return Err(too_long(text.len(), max_len));
            }
        }
        Ok(())
    }

    /// Length of a string when decoded.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode).
    pub fn decoded_len(&self, codes: &[u8], max_len: usize) -> Result<usize, Error> {
        let mut pieces = Pieces { symbols: &self.symbols, codes, at: 0 };
        let mut len = 0;
        while let Some(piece) = pieces.next()? {
            len += piece.len();
            if len > max_len {
                return Err(too_long(len, max_len));
            }
        }
        Ok(len)
    }

    /// Compares a string with `other`, decoding no further than they agree.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode), for the part that was decoded.
    pub fn compare(&self, codes: &[u8], mut other: &[u8]) -> Result<Ordering, Error> {
        let mut pieces = Pieces { symbols: &self.symbols, codes, at: 0 };
        while let Some(piece) = pieces.next()? {
            match other.split_at_checked(piece.len()) {
                Some((head, rest)) if head == piece => other = rest,
                _ => return Ok(piece.cmp(other)),
            }
        }
        Ok(if other.is_empty() { Ordering::Equal } else { Ordering::Less })
    }
}

/// The pieces of a string that its codes stand for.
struct Pieces<'a> {
    symbols: &'a [(u8, [u8; MAX_SYMBOL_LEN])],
    codes: &'a [u8],
    at: usize,
}

impl<'a> Pieces<'a> {
    fn next(&mut self) -> Result<Option<&'a [u8]>, Error> {
        let at = self.at;
        let malformed = || Error::Malformed { what: "compressed name", at };
        let Some(code) = self.codes.get(at) else { return Ok(None) };
        if *code == ESCAPE {
            self.at += 2;
            return self.codes.get(at + 1..at + 2).map(Some).ok_or_else(malformed);
        }
        self.at += 1;
        let (len, bytes) = self.symbols.get(usize::from(*code)).ok_or_else(malformed)?;
        Ok(bytes.get(..usize::from(*len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the format's own documentation: FS, war, !, D.
    fn table() -> Vec<u8> {
        let mut bytes = vec![1, 4, 0, 0, 0x0a, 0x14, 0x34, 0x01, 0, 2, 1, 1, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(b"FSwar!D");
        bytes
    }

    #[test]
    fn strings_decode_and_compare() {
        let symbols = Symbols::parse(&table()).unwrap();
        let codes = [3, 1, 0, 2, 255, b'x'];
        let mut text = Text::new();
        symbols.decode(&codes, 255, &mut text).unwrap();
        assert_eq!(text.as_slice(), b"DwarFS!x");
        assert_eq!(symbols.decoded_len(&codes, 8).unwrap(), 8);
        assert!(matches!(symbols.decoded_len(&codes, 7), Err(Error::Limit { found: 8, .. })));
        for other in
            ["", "D", "Dw", "DwarFS!", "DwarFS!x", "DwarFS!xy", "DwarFS!w", "DwarFR", "DwarFT", "E", "C"]
        {
            let expected = b"DwarFS!x".as_slice().cmp(other.as_bytes());
            assert_eq!(symbols.compare(&codes, other.as_bytes()).unwrap(), expected, "{other}");
        }
        assert!(matches!(symbols.decode(&codes, 7, &mut text), Err(Error::Limit { found: 8, .. })));
    }

    #[test]
    fn damaged_strings_are_refused() {
        let symbols = Symbols::parse(&table()).unwrap();
        let mut text = Text::new();
        assert!(symbols.decode(&[4], 255, &mut text).is_err());
        assert!(symbols.decode(&[3, 255], 255, &mut text).is_err());
        assert!(symbols.compare(&[255], b"D").is_err());
    }

    #[test]
    fn damaged_tables_are_refused() {
        let whole = table();
        for end in 0..whole.len() {
            assert!(Symbols::parse(&whole[..end]).is_err(), "cut at {end}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(Symbols::parse(&longer).is_err());
        let mut other_version = whole.clone();
        other_version[4] = 0;
        assert!(Symbols::parse(&other_version).is_err());
        let mut crowded = whole[..17].to_vec();
        crowded[9..17].copy_from_slice(&[128, 128, 0, 0, 0, 0, 0, 0]);
        crowded.resize(17 + 128 * 3, 0);
        assert!(Symbols::parse(&crowded).is_err());
        let mut with_nul = whole;
        with_nul[8] = 1;
        assert!(Symbols::parse(&with_nul).is_err(), "one byte more than symbols");
        with_nul.pop();
        let symbols = Symbols::parse(&with_nul).unwrap();
        let mut text = Text::new();
        symbols.decode(&[0, 1, 2], 255, &mut text).unwrap();
        assert_eq!(text.as_slice(), b"\0FSwar");
    }
}
