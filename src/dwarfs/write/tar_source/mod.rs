//! A tar file as a source.
//!
//! A packed tar file, or one that comes through a pipe, is first unpacked into a scratch file without a name, so
//! that contents can be read at any offset and more than once. The tree is built in memory: nothing that a tar file
//! says is ever done to the host.
//!
//! An entry that is there twice counts as it was last. A path that leads out of the root, or through something that
//! is no directory (a symlink above all), is refused. Directories that are not listed are made up.

mod members;
mod pax;
mod sparse;
mod tree_builder;

use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, MetadataExt as _},
    },
    path::Path,
};

use members::Members;
use tree_builder::TreeBuilder;

use super::{
    error::{PathText, TarProblem, WriteError},
    faults::Faults,
    object::Object,
    progress::Progress,
    source::{Contents, Source},
    tree::Tree,
};

/// How much of the host a tar file may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TarLimits {
    /// Length of the unpacked tar file in bytes.
    pub unpacked_len: u64,
}

impl Default for TarLimits {
    fn default() -> Self {
        Self { unpacked_len: 1 << 40 }
    }
}

/// A tar file, plain or packed by gzip, zstd or xz: old, POSIX and GNU format.
#[derive(Debug)]
pub struct TarSource {
    file: File,
    stamp: Stamp,
}

/// State of the file when it was opened.
type Stamp = (u64, i64, i64);

fn stamp(file: &File) -> io::Result<Stamp> {
    let metadata = file.metadata()?;
    Ok((metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

impl TarSource {
    /// Opens a tar file. A plain one is read where it is; else the scratch file is made in `scratch`.
    ///
    /// # Errors
    /// Passes on what the host or the decoder says, and fails if the file is longer than permitted.
    pub fn open(path: &Path, scratch: &Path, limits: TarLimits) -> Result<Self, WriteError> {
        let failed =
            |source| WriteError::Source { action: "open", path: path.as_os_str().as_bytes().into(), source };
        let file = File::open(path).map_err(failed)?;
        let is_file = file.metadata().map_err(failed)?.is_file();
        let mut magic = [0; MAGIC_LEN];
        if is_file {
            let len = file.read_at(&mut magic, 0).map_err(failed)?;
            if Packing::detect(magic.get(..len).unwrap_or_default()) == Packing::None {
                let stamp = stamp(&file).map_err(failed)?;
                return Ok(Self { file, stamp });
            }
        }
        Self::from_reader(file, scratch, limits)
    }

    /// Takes a tar file, plain or packed, from a stream.
    ///
    /// # Errors
    /// Passes on what the host or the decoder says, and fails if the file is longer than permitted.
    pub fn from_reader(mut reader: impl Read, scratch: &Path, limits: TarLimits) -> Result<Self, WriteError> {
        let mut magic = Vec::with_capacity(MAGIC_LEN);
        (&mut reader).take(MAGIC_LEN as u64).read_to_end(&mut magic).map_err(WriteError::Unpack)?;
        let packing = Packing::detect(&magic);
        let stream = BufReader::with_capacity(STREAM_LEN, io::Cursor::new(magic).chain(reader));
        let mut plain: Box<dyn Read + '_> = match packing {
            Packing::None => Box::new(stream),
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
            Packing::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(stream).map_err(WriteError::Unpack)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(WriteError::Unpack)?;
                Box::new(decoder)
            }
            Packing::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(stream)),
        };
        let mut file = tempfile::tempfile_in(scratch).map_err(WriteError::Unpack)?;
        let limit = limits.unpacked_len;
        let len = io::copy(&mut plain.as_mut().take(limit.saturating_add(1)), &mut file)
            .map_err(WriteError::Unpack)?;
        if len > limit {
            let problem = TarProblem::Limit { what: "length of the unpacked tar file", found: len, limit };
            return Err(WriteError::Tar { offset: 0, problem });
        }
        let stamp = stamp(&file).map_err(WriteError::Unpack)?;
        Ok(Self { file, stamp })
    }
}

/// Bytes that are needed to tell how a file is packed.
const MAGIC_LEN: usize = 6;
/// Bytes read from a stream at a time.
const STREAM_LEN: usize = 1 << 17;
/// Largest window of a zstd stream, as a power of two: what `zstd --ultra --long=31` makes.
const ZSTD_WINDOW_LOG: u32 = 31;

/// How a tar file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Zstd,
    Xz,
}

impl Packing {
    fn detect(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

impl Source for TarSource {
    fn scan(&self, _faults: &Faults<'_>, progress: &dyn Progress) -> Result<Tree, WriteError> {
        let mut members = Members::new(&self.file);
        let mut tree = TreeBuilder::new();
        while let Some(member) = members.next_member()? {
            let offset = member.offset;
            tree.add(member).map_err(|problem| WriteError::Tar { offset, problem })?;
            progress.files(1);
        }
        tree.finish()
    }

    fn open(&self, path: &[u8], file: &Object) -> Result<Box<dyn Contents + '_>, WriteError> {
        let Some(content) = file.file() else {
            return Err(WriteError::BadName { path: PathText::from(path) });
        };
        // What is stored of a file are its ranges of data, one after the other.
        let mut at = content.locator;
        let mut ranges = Vec::new();
        for range in content.data() {
            let len = range.end - range.start;
            ranges.push(Placed { start: range.start, end: range.end, at });
            at += len;
        }
        Ok(Box::new(MemberContents { source: self, ranges }))
    }
}

/// A range of a file's data and where in the tar file it begins.
#[derive(Clone, Copy, Debug)]
struct Placed {
    start: u64,
    end: u64,
    at: u64,
}

struct MemberContents<'a> {
    source: &'a TarSource,
    ranges: Vec<Placed>,
}

impl Contents for MemberContents<'_> {
    fn is_unchanged(&self, _known: &Object) -> io::Result<bool> {
        Ok(stamp(&self.source.file)? == self.source.stamp)
    }

    fn refresh(&self, _known: &Object) -> io::Result<Object> {
        Err(io::Error::other("the tar file has changed"))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let after = self.ranges.partition_point(|range| range.start <= offset);
        let range = after.checked_sub(1).and_then(|index| self.ranges.get(index));
        let Some(range) = range.filter(|range| offset < range.end) else { return Ok(0) };
        let want = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..want) else { return Ok(0) };
        self.source.file.read_at(part, range.at + (offset - range.start))
    }
}
