//! The frames of every codec: the first byte chooses the codec, the rest is the payload of an archive's only block.

#![no_main]

use std::sync::Arc;

use fim::dwarfs::{
    format::section::{Compression, SectionHeader, SectionKind},
    read::{Archive, Place},
};
use libfuzzer_sys::fuzz_target;

/// The longest block, and the length of the archive's only file.
const LIMIT: u32 = 256 << 10;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, payload)) = bytes.split_first() else { return };
    let codec = fim_fuzz::CODECS[usize::from(*first) % fim_fuzz::CODECS.len()];
    let (schema, metadata) = fim_fuzz::one_file(LIMIT);
    let parts = [
        (SectionKind::Block, codec, payload),
        (SectionKind::Schema, Compression::None, &*schema),
        (SectionKind::Metadata, Compression::None, &*metadata),
    ];
    let mut archive = Vec::new();
    for (number, (kind, codec, payload)) in (0..).zip(parts) {
        archive.extend_from_slice(&SectionHeader::seal(number, kind, codec, payload).encode());
        archive.extend_from_slice(payload);
    }
    let archive = Archive::open(Arc::new(archive), Place::At { offset: 0, len: None }, fim_fuzz::cache());
    let archive = archive.expect("only the block is damaged");
    let file = archive.find(b"f").expect("it is there").expect("it is there");
    if let Ok(data) = archive.read(file, 0, LIMIT as usize) {
        assert_eq!(data.len(), LIMIT as usize, "the block has the length of the file");
    }
    // What comes before the damage may be there.
    let _ = archive.read(file, 0, 1);
});
