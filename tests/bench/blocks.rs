//! What an archive tells about its blocks.

use std::io::Write as _;

use crate::facts::blocks;

/// A section with a header of version 2.5; checksums do not matter here.
fn section(kind: u16, codec: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"DWARFS\x02\x05".to_vec();
    bytes.extend([0; 40]);
    bytes.extend([0; 4]);
    bytes.extend(kind.to_le_bytes());
    bytes.extend(codec.to_le_bytes());
    bytes.extend(u64::try_from(payload.len()).unwrap().to_le_bytes());
    bytes.extend(payload);
    bytes
}

fn told(sections: &[Vec<u8>]) -> Option<String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&sections.concat()).unwrap();
    blocks(file.path())
}

#[test]
fn codecs_and_the_largest_block_are_named() {
    let zstd = zstd::bulk::compress(&vec![7; 2 << 20], 1).unwrap();
    let mut lz4 = (1_u32 << 20).to_le_bytes().to_vec();
    lz4.extend([0; 9]);
    let sections = [section(0, 2, &zstd), section(0, 3, &lz4), section(7, 0, b"schema of no matter")];
    assert_eq!(told(&sections).as_deref(), Some("2 blocks of 2 MiB (zstd, lz4)"));
    assert_eq!(told(&[section(0, 0, &[1; 5000])]).as_deref(), Some("1 block of 5 KiB (stored)"));
    assert_eq!(told(&[section(0, 1, &[1; 30])]).as_deref(), Some("1 block (lzma)"));
}

#[test]
fn what_is_no_archive_tells_nothing() {
    assert_eq!(
        told(&[b"hsqs and then something that is at least as long as a section's header".to_vec()]),
        None
    );
    assert_eq!(told(&[section(0, 0, b"whole"), b"half a header".to_vec()]), None);
}
