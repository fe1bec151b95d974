//! A name for the contents of an archive.
//!
//! The headers of an archive's sections carry the SHA-512/256 of their payloads (see `dwarfs::format::section`), so the
//! SHA-256 of all headers in order stands for every byte of the archive and costs a few small reads. It is written
//! `sections:` and 64 hexadecimal digits. Archives of the formats 2.0 and 2.1 have no such checksums; what stands for
//! them is the SHA-256 of all their bytes, `bytes:` and the digits.
//!
//! The digest says which archive it is; whether its payloads are whole is for `Archive::verify` to say.

use std::{fmt::Write as _, io};

use sha2::{Digest as _, Sha256};

use super::{elf::u64_at, store::Store};

const HEADER_LEN: usize = 64;
const MINOR_AT: usize = 7;
const LENGTH_AT: usize = 0x38;
/// First minor version whose sections have 64-byte headers with checksums.
const FIRST_MINOR_WITH_CHECKSUMS: u8 = 2;
/// Length of the pieces in which whole archives are read, in bytes.
const PIECE: usize = 256 << 10;

/// Returns the digest of the archive at `offset`, `length` bytes long.
///
/// # Errors
///
/// The store cannot be read, or its sections do not end where the archive does.
pub fn of_archive(store: &impl Store, offset: u64, length: u64) -> io::Result<String> {
    let mut head = [0; HEADER_LEN];
    let got = store.read_at(&mut head, offset)?;
    if got < HEADER_LEN || !head.starts_with(b"DWARFS") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no DwarFS archive there"));
    }
    if head.get(MINOR_AT).is_some_and(|minor| *minor < FIRST_MINOR_WITH_CHECKSUMS) {
        return of_bytes(store, offset, length);
    }
    // magic and version are under no checksum, but they are the same in every section
    let same: [u8; MINOR_AT + 1] = head.first_chunk().copied().unwrap_or_default();
    let mut hasher = Sha256::new();
    let mut at = 0_u64;
    while at < length {
        store.read_exact_at(&mut head, offset.saturating_add(at))?;
        if !head.starts_with(&same) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a section header is damaged"));
        }
        hasher.update(head);
        at = at.saturating_add(HEADER_LEN as u64).saturating_add(u64_at(&head, LENGTH_AT));
    }
    if at != length {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the last section is cut off"));
    }
    Ok(written("sections", &hasher.finalize()))
}

fn of_bytes(store: &impl Store, offset: u64, length: u64) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < length {
        let want = usize::try_from(length - at).unwrap_or(PIECE).min(PIECE);
        let part = piece.get_mut(..want).unwrap_or_default();
        store.read_exact_at(part, offset.saturating_add(at))?;
        hasher.update(&*part);
        at += want as u64;
    }
    Ok(written("bytes", &hasher.finalize()))
}

fn written(kind: &str, digest: &[u8]) -> String {
    let mut text = format!("{kind}:");
    for byte in digest {
        // writing to a string cannot fail
        let _ = write!(text, "{byte:02x}");
    }
    text
}
