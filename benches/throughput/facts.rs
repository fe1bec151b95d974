//! What an archive is made of, read from its own section headers: the level on a command line does not tell which
//! codec and block size a maker takes for it. For the report only; whatever is unknown is left out.
//!
//! ```text
//! 0x00 magic "DWARFS"   0x34 section type, u16 (0 = block)   0x38 payload length, u64
//! 0x06 version 2.x      0x36 codec, u16                      0x40 payload
//! ```

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

const HEADER: usize = 64;
/// The codecs by their number in the format.
const CODECS: [&str; 8] = ["stored", "lzma", "zstd", "lz4", "lz4hc", "brotli", "flac", "ricepp"];

/// Describes the blocks of a DwarFS archive; `None` where it does not look like one.
pub fn blocks(archive: &Path) -> Option<String> {
    let file = File::open(archive).ok()?;
    let end = file.metadata().ok()?.len();
    let (mut at, mut count, mut largest, mut codecs) = (0, 0_u32, 0, Vec::new());
    while at < end {
        let header: [u8; HEADER] = bytes(&file, at)?;
        let (kind, codec, length) = parse(&header)?;
        let payload = at + u64::try_from(HEADER).ok()?;
        if kind == 0 {
            count += 1;
            largest = largest.max(block_size(&file, payload, codec, length).unwrap_or(0));
            let name = CODECS.get(usize::from(codec)).copied().unwrap_or("unknown");
            if !codecs.contains(&name) {
                codecs.push(name);
            }
        }
        at = payload.checked_add(length)?;
    }
    let size = match largest {
        0 => String::new(),
        size if size < 1 << 20 => format!(" of {} KiB", size.div_ceil(1 << 10)),
        size => format!(" of {} MiB", size.div_ceil(1 << 20)),
    };
    let blocks = if count == 1 { "block" } else { "blocks" };
    Some(format!("{count} {blocks}{size} ({})", codecs.join(", ")))
}

/// Section type, codec, payload length.
fn parse(header: &[u8; HEADER]) -> Option<(u16, u16, u64)> {
    let field = |from: usize, to: usize| header.get(from..to);
    (field(0, 7)? == b"DWARFS\x02").then_some(())?;
    let kind = u16::from_le_bytes(field(0x34, 0x36)?.try_into().ok()?);
    let codec = u16::from_le_bytes(field(0x36, 0x38)?.try_into().ok()?);
    Some((kind, codec, u64::from_le_bytes(field(0x38, 0x40)?.try_into().ok()?)))
}

/// The size of a block's content, where its codec tells it at once.
fn block_size(file: &File, payload: u64, codec: u16, length: u64) -> Option<u64> {
    match codec {
        0 => Some(length),
        2 => zstd_safe::get_frame_content_size(&bytes::<18>(file, payload)?).ok()?,
        3 | 4 => Some(u32::from_le_bytes(bytes(file, payload)?).into()),
        _ => None,
    }
}

fn bytes<const N: usize>(file: &File, at: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}
