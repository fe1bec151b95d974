//! Files of PCM audio: where their samples lie, and how these are written.
//!
//! ```text
//! WAV    "RIFF" size "WAVE"  chunks: id, size (LE); "fmt " says how, "data" holds the samples
//! AIFF   "FORM" size "AIFF"  chunks: id, size (BE); "COMM" says how, "SSND" holds the samples 8 bytes in
//! ```
//!
//! Everything that a head says is only believed as far as the file reaches, and a head that is longer than
//! [`MOST_HEAD`] is none. Whatever is wrong with a file, it is packed as any other then; nothing of it is lost.

use std::ops::Range;

use crate::dwarfs::write::codec::{Padding, Pcm};

/// Longest head that is looked at, in bytes: chunks of notes and pictures are behind the samples as a rule.
pub(in crate::dwarfs::write) const MOST_HEAD: usize = 4 << 10;

/// The samples of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dwarfs::write) struct Waveform {
    /// How they are written.
    pub(in crate::dwarfs::write) pcm: Pcm,
    /// Where they are: whole frames.
    pub(in crate::dwarfs::write) data: Range<u64>,
}

/// How the samples of a file with this beginning are written, if it has any.
pub(super) fn find(head: &[u8]) -> Option<Pcm> {
    Some(parse(head, u64::MAX)?.pcm)
}

/// Where the samples are in a file of `len` bytes with this beginning.
pub(in crate::dwarfs::write) fn parse(head: &[u8], len: u64) -> Option<Waveform> {
    let head = head.get(..MOST_HEAD).unwrap_or(head);
    let (form, kind) = (head.get(..4)?, head.get(8..12)?);
    let found = match (form, kind) {
        (b"RIFF", b"WAVE") => wav(head),
        (b"FORM", b"AIFF") => aiff(head),
        _ => None,
    }?;
    let Waveform { pcm, data } = found;
    if !pcm.is_possible() {
        return None;
    }
    let frame = pcm.frame() as u64;
    let whole = data.end.min(len).checked_sub(data.start)? / frame * frame;
    (whole > 0).then(|| Waveform { pcm, data: data.start..data.start + whole })
}

/// What an archive says of blocks of such samples, in upstream's words.
pub(super) fn describe(pcm: Pcm) -> String {
    let Pcm { channels, bits, bytes, .. } = pcm;
    let order = if pcm.big_endian { "big" } else { "little" };
    let sign = if pcm.signed { "signed" } else { "unsigned" };
    let padding = if pcm.padding == Padding::Low { "lsb" } else { "msb" };
    format!(
        "{{\"bits_per_sample\":{bits},\"bytes_per_sample\":{bytes},\"endianness\":\"{order}\",\
         \"number_of_channels\":{channels},\"padding\":\"{padding}\",\"signedness\":\"{sign}\"}}"
    )
}

/// Samples as they are.
const WAV_PCM: u16 = 1;
/// The same, with more said of them.
const WAV_EXTENSIBLE: u16 = 0xfffe;

fn wav(head: &[u8]) -> Option<Waveform> {
    let mut pcm = None;
    for chunk in Chunks::new(head, u32::from_le_bytes) {
        match chunk.id {
            b"fmt " => pcm = Some(wav_format(chunk.bytes)?),
            b"data" => return Some(Waveform { pcm: pcm?, data: chunk.range }),
            _ => {}
        }
    }
    None
}

fn wav_format(bytes: &[u8]) -> Option<Pcm> {
    let number = |at: usize| Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let (format, channels, block, container) = (number(0)?, number(2)?, number(12)?, number(14)?);
    let bits = match format {
        WAV_PCM => container,
        // The kind of samples stands in the first two bytes of a longer number.
        WAV_EXTENSIBLE if number(24)? == WAV_PCM => match number(18)? {
            0 => container,
            valid => valid,
        },
        _ => return None,
    };
    let bytes = block.checked_div(channels).filter(|bytes| bytes.checked_mul(channels) == Some(block))?;
    let [channels, bits, bytes] = small([channels, bits, bytes])?;
    // One byte holds numbers from 0 on; what a sample leaves unused of more is below it.
    Some(Pcm { channels, bits, bytes, big_endian: false, signed: bytes > 1, padding: Padding::Low })
}

/// Bytes of an SSND chunk before its samples.
const SSND_HEAD: u64 = 8;

fn aiff(head: &[u8]) -> Option<Waveform> {
    let mut pcm = None;
    for chunk in Chunks::new(head, u32::from_be_bytes) {
        match chunk.id {
            b"COMM" => {
                let number = |at: usize| Some(u16::from_be_bytes(*chunk.bytes.get(at..)?.first_chunk()?));
                let [channels, bits] = small([number(0)?, number(6)?])?;
                let bytes = bits.div_ceil(8);
                let padding = Padding::Low;
                pcm = Some(Pcm { channels, bits, bytes, big_endian: true, signed: true, padding });
            }
            b"SSND" => {
                let skipped = u64::from(u32::from_be_bytes(*chunk.bytes.first_chunk()?));
                let start = chunk.range.start.checked_add(SSND_HEAD)?.checked_add(skipped)?;
                return Some(Waveform { pcm: pcm?, data: start..chunk.range.end });
            }
            _ => {}
        }
    }
    None
}

fn small<const N: usize>(numbers: [u16; N]) -> Option<[u8; N]> {
    let mut small = [0; N];
    for (to, from) in small.iter_mut().zip(numbers) {
        *to = u8::try_from(from).ok()?;
    }
    Some(small)
}

/// The chunks of a file as far as its head reaches.
struct Chunks<'a> {
    head: &'a [u8],
    at: u64,
    number: fn([u8; 4]) -> u32,
}

struct Chunk<'a> {
    id: &'a [u8; 4],
    /// Where its contents are in the file.
    range: Range<u64>,
    /// As much of them as the head has.
    bytes: &'a [u8],
}

impl<'a> Chunks<'a> {
    /// The chunks behind the first twelve bytes; `number` reads a length.
    fn new(head: &'a [u8], number: fn([u8; 4]) -> u32) -> Self {
        Self { head, at: 12, number }
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let rest = self.head.get(usize::try_from(self.at).ok()?..)?;
        let (id, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let len = u64::from((self.number)(*len));
        let start = self.at + 8;
        // Chunks begin at even places. No overflow: heads are short, and lengths have 32 bits.
        self.at = start + len + len % 2;
        let bytes = usize::try_from(len).ok().and_then(|len| rest.get(..len)).unwrap_or(rest);
        Some(Chunk { id, range: start..start + len, bytes })
    }
}

#[cfg(test)]
pub(in crate::dwarfs::write) mod tests {
    use super::*;

    /// The head of a WAV file with so many bytes of samples.
    pub(in crate::dwarfs::write) fn wav_head(channels: u16, bits: u16, extra: &[u8], len: u32) -> Vec<u8> {
        let block = channels * bits.div_ceil(8);
        let mut head = b"RIFF\0\0\0\0WAVE".to_vec();
        if !extra.is_empty() {
            head.extend(b"LIST");
            head.extend(u32::try_from(extra.len()).unwrap().to_le_bytes());
            head.extend(extra);
            head.extend(vec![0; extra.len() % 2]);
        }
        head.extend(b"fmt \x10\0\0\0\x01\0");
        head.extend(channels.to_le_bytes());
        head.extend(48_000_u32.to_le_bytes());
        head.extend((48_000 * u32::from(block)).to_le_bytes());
        head.extend(block.to_le_bytes());
        head.extend(bits.to_le_bytes());
        head.extend(b"data");
        head.extend(len.to_le_bytes());
        head
    }

    fn pcm(channels: u8, bits: u8) -> Pcm {
        let bytes = bits.div_ceil(8);
        Pcm { channels, bits, bytes, big_endian: false, signed: bytes > 1, padding: Padding::Low }
    }

    #[test]
    fn samples_are_found_behind_the_head() {
        let found = parse(&wav_head(2, 16, b"", 4_000), 44 + 4_000).unwrap();
        assert_eq!(found, Waveform { pcm: pcm(2, 16), data: 44..4_044 });
        // Another chunk before it, of odd length; samples to the end of the file, whole frames only.
        let head = wav_head(1, 24, b"abc", u32::MAX);
        let found = parse(&head, head.len() as u64 + 100).unwrap();
        assert_eq!(found, Waveform { pcm: pcm(1, 24), data: 56..56 + 99 });
        assert_eq!(find(&wav_head(1, 8, b"", 10)), Some(pcm(1, 8)));
        let aiff = b"FORM\0\0\0\0AIFFCOMM\0\0\0\x12\0\x02\0\0\0\x10\0\x10\x40\x0e\xbb\x80\0\0\0\0\0\0SSND\0\0\0\x48\0\0\0\0\0\0\0\0";
        let found = parse(aiff, 1_000).unwrap();
        assert_eq!(found, Waveform { pcm: Pcm { big_endian: true, ..pcm(2, 16) }, data: 54..54 + 64 });
    }

    #[test]
    fn whatever_else_is_none() {
        let head = wav_head(2, 16, b"", 4_000);
        for len in 0..head.len() {
            assert_eq!(find(&head[..len]), None, "{len}");
        }
        assert_eq!(parse(&head, 47), None, "not a single frame");
        assert_eq!(find(&wav_head(0, 16, b"", 100)), None, "no channels");
        assert_eq!(find(&wav_head(9, 16, b"", 100)), None, "too many channels");
        assert_eq!(find(&wav_head(2, 40, b"", 100)), None, "too many bits");
        assert_eq!(find(&wav_head(2, 16, &[0; MOST_HEAD], 100)), None, "too far behind");
        let mut float = head.clone();
        float[20] = 3;
        assert_eq!(find(&float), None, "no integers");
        // Any one byte may be anything.
        for at in 0..head.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut other = head.clone();
                other[at] = byte;
                if let Some(found) = parse(&other, 500) {
                    assert!(found.data.end <= 500 && found.data.start < found.data.end, "{at} {byte}");
                }
            }
        }
    }
}
