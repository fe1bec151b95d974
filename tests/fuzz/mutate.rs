//! Mutations that know what an archive is made of.
//!
//! An input names one of the project's small archives, whose sections are unpacked first, and changes of it; then all
//! is put together again with right checksums, numbers and index, so that a change is looked at and not its checksum:
//!
//! ```text
//! u8 archive | change*       change: u8 what, u8 section, u16 where, u8 value
//! ```

use std::{fs, path::Path, sync::LazyLock};

use fim::dwarfs::{
    format::section::{Compression, HEADER_LEN, IndexEntry, SectionHeader, SectionKind, encode_index},
    read::{Index, Place},
};

/// Longest archive that is a base: short ones are quick.
const MAX_LEN: usize = 256 << 10;
/// Longest unpacked section.
const MAX_SECTION: usize = 1 << 20;
/// Changes of one input.
const MAX_CHANGES: usize = 32;
const CHANGE_LEN: usize = 5;

/// A section, unpacked where it was zstd.
#[derive(Clone)]
struct Part {
    kind: SectionKind,
    codec: Compression,
    payload: Vec<u8>,
    /// What the header says of its place, less its place.
    number: u32,
    sealed: bool,
}

static BASES: LazyLock<Vec<Vec<Part>>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/dwarfs/made");
    let entries = fs::read_dir(folder).expect("the archives of the project are there");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    paths.sort();
    let archives =
        paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "dwarfs"));
    let bytes = archives.map(|path| fs::read(path).expect("it can be read"));
    let bases: Vec<_> =
        bytes.filter(|bytes| bytes.len() <= MAX_LEN).filter_map(|bytes| parts_of(&bytes)).collect();
    assert!(bases.len() > 20, "only {} small archives", bases.len());
    bases
});

/// How many archives there are to start from.
pub fn bases() -> usize {
    BASES.len()
}

fn parts_of(bytes: &Vec<u8>) -> Option<Vec<Part>> {
    let index = Index::open(bytes, Place::Auto).ok()?;
    if index.minor() < 3 {
        return None;
    }
    let parts = index.sections().iter().filter(|section| section.kind != SectionKind::Index).map(|section| {
        let stored = bytes.get(section.offset as usize..section.end as usize)?;
        let (header, payload) = stored.split_at_checked(HEADER_LEN)?;
        let codec = SectionHeader::parse(header.try_into().ok()?, 0).ok()?.compression;
        let (codec, payload) = match codec {
            Compression::Zstd => (Compression::None, zstd::stream::decode_all(payload).ok()?),
            other => (other, payload.to_vec()),
        };
        (payload.len() <= MAX_SECTION).then_some(Part {
            kind: section.kind,
            codec,
            payload,
            number: 0,
            sealed: true,
        })
    });
    parts.collect()
}

/// The archive that an input describes; `None` for an empty input.
pub fn archive(input: &[u8]) -> Option<Vec<u8>> {
    let (first, changes) = input.split_first()?;
    let mut parts = BASES[usize::from(*first) % BASES.len()].clone();
    let mut with_index = true;
    for change in changes.chunks_exact(CHANGE_LEN).take(MAX_CHANGES) {
        let [what, section, low, high, value] = *change else { break };
        with_index &= apply(&mut parts, what, usize::from(section), u16::from_le_bytes([low, high]), value);
    }
    Some(assemble(&parts, with_index))
}

/// Changes something; returns whether there is still to be an index.
fn apply(parts: &mut Vec<Part>, what: u8, section: usize, place: u16, value: u8) -> bool {
    let count = parts.len();
    if count == 0 {
        return true;
    }
    // Schema and metadata are what most changes are for.
    let chosen = match section {
        0..128 => parts.iter().position(|part| part.kind == SectionKind::Metadata).unwrap_or(0),
        128..192 => parts.iter().position(|part| part.kind == SectionKind::Schema).unwrap_or(0),
        other => other % count,
    };
    let part = &mut parts[chosen];
    let len = part.payload.len();
    let at = usize::from(place) % len.max(1);
    match what % 16 {
        0..=3 => {
            if let Some(byte) = part.payload.get_mut(at) {
                *byte = value;
            }
        }
        4 | 5 => {
            if let Some(byte) = part.payload.get_mut(at) {
                *byte ^= 1 << (value % 8);
            }
        }
        6 => part.payload.iter_mut().skip(at).take(usize::from(value % 9)).for_each(|byte| *byte = 0xff),
        7 => part.payload.insert(at.min(len), value),
        8 => {
            part.payload.drain(at.min(len)..(at + usize::from(value)).min(len));
        }
        9 => part.payload.truncate(at),
        10 => part.payload.resize((len + usize::from(value) * 64).min(2 * MAX_SECTION), value),
        11 => {
            let copy = part.clone();
            if count < 64 {
                parts.insert(usize::from(value) % (count + 1), copy);
            }
        }
        12 => parts.swap(chosen, usize::from(value) % count),
        13 => part.codec = Compression::from_raw(u16::from(value % 9)),
        14 => match value % 4 {
            0 => part.kind = SectionKind::from_raw(u16::from(value / 4)),
            1 => part.number = u32::from(value),
            2 => part.sealed = false,
            _ => {
                parts.remove(chosen);
            }
        },
        _ => return false,
    }
    true
}

fn assemble(parts: &[Part], with_index: bool) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut entries = Vec::new();
    for (number, part) in (0_u32..).zip(parts) {
        entries.push(IndexEntry { kind: part.kind, offset: archive.len() as u64 });
        let number = number.wrapping_add(part.number);
        let mut header = SectionHeader::seal(number, part.kind, part.codec, &part.payload);
        if !part.sealed {
            header.xxh3 ^= 1;
        }
        archive.extend_from_slice(&header.encode());
        archive.extend_from_slice(&part.payload);
    }
    if with_index {
        let (number, kind) = (parts.len() as u32, SectionKind::Index);
        entries.push(IndexEntry { kind, offset: archive.len() as u64 });
        let payload = encode_index(&entries);
        archive.extend_from_slice(&SectionHeader::seal(number, kind, Compression::None, &payload).encode());
        archive.extend_from_slice(&payload);
    }
    archive
}
