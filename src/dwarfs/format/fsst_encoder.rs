//! Encoder of FSST: finds symbols that shorten many strings, and writes strings by them.
//!
//! The symbols are grown. Each round writes a sample of the strings with what there is, counts which symbols were
//! used and which followed each other, and keeps those that cover the most, symbols that followed each other
//! joined among them:
//!
//! ```text
//! round 1   l i b r a y ...           lib  ra  ry       round 3   libra  ry
//!           counts: l-i, i-b, ...  ->  counts: lib-ra       ->    ...
//! ```
//!
//! In the end strings are written with the fewest codes that are possible, which is found from their last byte to
//! their first. Nothing depends on anything but the strings, so that equal strings give equal bytes.

use std::collections::HashMap;

use super::fsst::{ESCAPE, MAX_SYMBOL_LEN, MAX_SYMBOLS, SYMBOLS_AT, VERSION};

/// Strings that were compressed.
#[derive(Debug)]
pub struct Compressed {
    /// The symbol table.
    pub symbols: Vec<u8>,
    /// The strings, one after the other.
    pub buffer: Vec<u8>,
    /// Where each string begins, and where the last one ends.
    pub offsets: Vec<u32>,
}

/// Rounds in which symbols grow: from 1 to 8 bytes it takes three, and two more to settle.
const ROUNDS: usize = 5;
/// Bytes of strings that are looked at to find symbols.
const SAMPLE: usize = 1 << 16;

/// Compresses strings. `None` where they have no byte, or more than 32 bits can count.
#[must_use]
pub fn compress(strings: &[Vec<u8>]) -> Option<Compressed> {
    let sample = sample(strings);
    if sample.is_empty() {
        return None;
    }
    let mut table = Table::default();
    for round in 0..ROUNDS {
        table = table.grown(&sample, round + 1 < ROUNDS);
    }
    table.number();
    let mut compressed = Compressed {
        symbols: table.encode(),
        buffer: Vec::new(),
        offsets: Vec::with_capacity(strings.len()),
    };
    compressed.offsets.push(0);
    let mut plan = Vec::new();
    for string in strings {
        table.write(string, &mut plan, &mut compressed.buffer);
        compressed.offsets.push(u32::try_from(compressed.buffer.len()).ok()?);
    }
    Some(compressed)
}

/// Every so-many-th string, so that there are no more bytes than needed.
fn sample(strings: &[Vec<u8>]) -> Vec<&[u8]> {
    let total: usize = strings.iter().map(Vec::len).sum();
    let step = total.div_ceil(SAMPLE).max(1);
    strings.iter().step_by(step).map(Vec::as_slice).filter(|string| !string.is_empty()).collect()
}

/// A symbol: up to eight bytes, the first one lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Symbol {
    bytes: u64,
    len: usize,
}

impl Symbol {
    const fn of_byte(byte: u8) -> Self {
        Self { bytes: byte as u64, len: 1 }
    }

    /// The two joined, as far as there is room.
    fn joined(self, next: Self) -> Self {
        let len = (self.len + next.len).min(MAX_SYMBOL_LEN);
        Self { bytes: (self.bytes | shifted(next.bytes, self.len)) & mask(len), len }
    }

    /// Whether the text begins with it.
    const fn begins(self, text: Head) -> bool {
        self.len <= text.len && (self.bytes ^ text.bytes) & mask(self.len) == 0
    }

    fn first(self) -> u8 {
        self.bytes.to_le_bytes()[0]
    }

    fn stored(self) -> impl Iterator<Item = u8> {
        self.bytes.to_le_bytes().into_iter().take(self.len)
    }
}

/// The low `len` bytes of a word.
const fn mask(len: usize) -> u64 {
    if len < MAX_SYMBOL_LEN { (1 << (len * 8)) - 1 } else { u64::MAX }
}

/// A word moved up by `len` bytes.
const fn shifted(bytes: u64, len: usize) -> u64 {
    if len < MAX_SYMBOL_LEN { bytes << (len * 8) } else { 0 }
}

/// The first eight bytes of a text, or what there is of it.
#[derive(Clone, Copy)]
struct Head {
    bytes: u64,
    len: usize,
}

impl Head {
    fn of(text: &[u8]) -> Self {
        let mut bytes = [0; MAX_SYMBOL_LEN];
        bytes.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
        Self { bytes: u64::from_le_bytes(bytes), len: text.len().min(MAX_SYMBOL_LEN) }
    }
}

/// Symbols by their codes.
#[derive(Default)]
struct Table {
    symbols: Vec<Symbol>,
    /// Codes of the symbols that begin with a byte, the longest symbol first.
    by_first: HashMap<u8, Vec<u8>>,
}

impl Table {
    fn new(symbols: Vec<Symbol>) -> Self {
        let mut table = Self { symbols, by_first: HashMap::new() };
        table.index();
        table
    }

    fn index(&mut self) {
        self.by_first.clear();
        for (code, symbol) in (0..=u8::MAX).zip(&self.symbols) {
            self.by_first.entry(symbol.first()).or_default().push(code);
        }
        let len = |code: &u8| self.symbols.get(usize::from(*code)).map_or(0, |symbol| symbol.len);
        self.by_first.values_mut().for_each(|codes| codes.sort_by_key(|code| std::cmp::Reverse(len(code))));
    }

    /// The symbols that a text begins with, the longest first.
    fn at<'a>(&'a self, text: &[u8]) -> impl Iterator<Item = (u8, Symbol)> + use<'a> {
        let head = Head::of(text);
        let codes = text.first().and_then(|first| self.by_first.get(first));
        let symbol = |code: &u8| Some((*code, *self.symbols.get(usize::from(*code))?));
        codes.into_iter().flatten().filter_map(symbol).filter(move |(_, symbol)| symbol.begins(head))
    }

    /// The symbols that cover the most of a sample that was written with these.
    fn grown(&self, sample: &[&[u8]], may_join: bool) -> Self {
        let mut worths: HashMap<Symbol, u64> = HashMap::new();
        let mut pairs: HashMap<(Symbol, Symbol), u64> = HashMap::new();
        for string in sample {
            let (mut at, mut before) = (0, None);
            while let Some(text) = string.get(at..).filter(|text| !text.is_empty()) {
                let Some(first) = text.first().copied().map(Symbol::of_byte) else { break };
                let found = self.at(text).next().map_or(first, |(_, symbol)| symbol);
                *worths.entry(found).or_default() += found.worth();
                // A byte on its own stays in the game, and so does a symbol that grows by one.
                if found.len > 1 {
                    *worths.entry(first).or_default() += first.worth();
                }
                if let Some(before) = before.filter(|_| may_join) {
                    *pairs.entry((before, found)).or_default() += 1;
                    if found.len > 1 {
                        *pairs.entry((before, first)).or_default() += 1;
                    }
                }
                before = Some(found);
                at += found.len;
            }
        }
        for ((first, second), count) in pairs {
            let joined = first.joined(second);
            *worths.entry(joined).or_default() += count * joined.worth();
        }
        let mut best: Vec<(u64, Symbol)> =
            worths.into_iter().map(|(symbol, worth)| (worth, symbol)).collect();
        best.sort_unstable_by(|a, b| b.cmp(a));
        best.truncate(MAX_SYMBOLS);
        Self::new(best.into_iter().map(|(_, symbol)| symbol).collect())
    }

    /// Numbers the symbols as they are stored: by length from 2 to 8, then those of 1.
    fn number(&mut self) {
        let rank = |symbol: &Symbol| (symbol.len == 1, symbol.len, symbol.bytes.to_le_bytes());
        self.symbols.sort_unstable_by_key(rank);
        self.index();
    }

    /// The table as it is stored.
    fn encode(&self) -> Vec<u8> {
        let mut histogram = [0_u8; MAX_SYMBOL_LEN];
        for symbol in &self.symbols {
            if let Some(count) = histogram.get_mut(symbol.len - 1) {
                *count += 1;
            }
        }
        // At most 255.
        let count = u8::try_from(self.symbols.len()).unwrap_or(u8::MAX);
        let mut bytes = Vec::with_capacity(SYMBOLS_AT + self.symbols.len() * MAX_SYMBOL_LEN);
        bytes.extend_from_slice(&[1, count, 0, 0]);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&histogram);
        bytes.extend(self.symbols.iter().copied().flat_map(Symbol::stored));
        bytes
    }

    /// Appends a string in as few codes as there can be. `plan` is room to work in.
    fn write(&self, string: &[u8], plan: &mut Vec<Step>, out: &mut Vec<u8>) {
        plan.clear();
        plan.resize(string.len() + 1, Step::default());
        for at in (0..string.len()).rev() {
            let text = string.get(at..).unwrap_or_default();
            let cost = |len: usize| plan.get(at + len).map_or(u32::MAX, |step: &Step| step.cost);
            let mut best = Step { cost: cost(1).saturating_add(2), code: ESCAPE, len: 1 };
            for (code, symbol) in self.at(text) {
                let cost = cost(symbol.len).saturating_add(1);
                if cost < best.cost {
                    best = Step { cost, code, len: symbol.len };
                }
            }
            if let Some(step) = plan.get_mut(at) {
                *step = best;
            }
        }
        let mut at = 0;
        while let (Some(step), Some(byte)) = (plan.get(at), string.get(at)) {
            out.push(step.code);
            if step.code == ESCAPE {
                out.push(*byte);
            }
            at += step.len;
        }
    }
}

impl Symbol {
    /// What one use is worth: its bytes. (Tried as well: what it saves against escapes or single codes; singles worth
    /// four or eight times as much. All come within 5 % of each other, this one is the smallest.)
    const fn worth(self) -> u64 {
        self.len as u64
    }
}

/// How the rest of a string begins.
#[derive(Clone, Copy, Default)]
struct Step {
    /// Codes of the whole rest, in bytes.
    cost: u32,
    /// The first one, and the bytes that it stands for.
    code: u8,
    len: usize,
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample};

    use super::{
        super::fsst::{Symbols, Text},
        *,
    };

    fn assert_reads_back(strings: &[Vec<u8>]) -> Option<Compressed> {
        let compressed = compress(strings)?;
        let symbols = Symbols::parse(&compressed.symbols).unwrap();
        let mut text = Text::new();
        assert_eq!(compressed.offsets.len(), strings.len() + 1);
        for (string, range) in strings.iter().zip(compressed.offsets.windows(2)) {
            let codes = &compressed.buffer[range[0] as usize..range[1] as usize];
            symbols.decode(codes, string.len(), &mut text).unwrap();
            assert_eq!(text.as_slice(), string.as_slice());
            assert!(symbols.compare(codes, string).unwrap().is_eq());
        }
        assert_eq!(*compressed.offsets.last().unwrap() as usize, compressed.buffer.len());
        Some(compressed)
    }

    #[test]
    fn names_take_less_than_half() {
        let names: Vec<Vec<u8>> =
            (0..2_000).map(|at| format!("libsomething-{at}.so.{}", at % 7).into_bytes()).collect();
        let whole: usize = names.iter().map(Vec::len).sum();
        let compressed = assert_reads_back(&names).unwrap();
        let len = compressed.symbols.len() + compressed.buffer.len();
        assert!(len * 2 < whole, "{len} of {whole}");
    }

    #[test]
    fn strings_without_bytes_have_no_symbols() {
        assert!(compress(&[]).is_none());
        assert!(compress(&[Vec::new(), Vec::new()]).is_none());
    }

    #[test]
    fn bytes_that_the_sample_does_not_have_are_escaped() {
        let mut strings: Vec<Vec<u8>> = vec![vec![b'a'; 255]; 4 * SAMPLE / 255];
        // No sample takes the second string.
        strings.insert(1, (0..=255).collect());
        assert_reads_back(&strings).unwrap();
    }

    #[test]
    fn every_byte_may_have_its_symbol() {
        let all: Vec<u8> = (0..=255).collect();
        assert_reads_back(&[all.clone(), vec![0; 9], vec![255; 9], all]).unwrap();
    }

    #[test]
    fn equal_strings_give_equal_bytes() {
        let names: Vec<Vec<u8>> = (0..500_u32).map(|at| format!("{:x}", at * 7919).into_bytes()).collect();
        let (first, second) = (compress(&names).unwrap(), compress(&names).unwrap());
        assert_eq!((first.symbols, first.buffer), (second.symbols, second.buffer));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn whatever_is_written_reads_back(
            strings in vec(
                prop_oneof![
                    vec(any::<u8>(), 0..40),
                    vec(sample::select(b"abc\0\xff".to_vec()), 0..300),
                ],
                0..60,
            ),
        ) {
            let has_bytes = strings.iter().any(|string| !string.is_empty());
            prop_assert_eq!(assert_reads_back(&strings).is_some(), has_bytes);
        }
    }
}
