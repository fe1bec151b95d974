//! Steps through a tar file, member by member, with everything that extended headers say of each.

use std::{fs::File, ops::Range, os::unix::fs::FileExt as _};

use tar::Header;

use super::{
    pax::Pax,
    sparse::{self, MAX_RANGES},
};
use crate::dwarfs::{
    limits,
    write::{
        error::{TarProblem, WriteError},
        object::{Content, Device, FileContent, Object, Timestamp},
        xattrs,
    },
};

/// Unit of a tar file in bytes.
const BLOCK: u64 = BLOCK_LEN as u64;
const BLOCK_LEN: usize = 512;

/// Length of an extended header: room for attributes of 64 KiB by the dozen.
const MAX_EXTENSION_LEN: u64 = 1 << 23;

/// A member of a tar file.
#[derive(Debug)]
pub(super) struct Member {
    /// Where its header is.
    pub(super) offset: u64,
    /// Its path as it is written.
    pub(super) path: Vec<u8>,
    pub(super) what: What,
}

/// What a member makes.
#[derive(Debug)]
pub(super) enum What {
    /// An object.
    Object(Box<Object>, Vec<(Vec<u8>, Vec<u8>)>),
    /// One more name of what is at this path.
    Link(Vec<u8>),
}

/// Reads a tar file from its beginning.
pub(super) struct Members<'a> {
    file: &'a File,
    at: u64,
    global: Pax,
}

impl<'a> Members<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        Self { file, at: 0, global: Pax::default() }
    }

    /// Returns the next member, or nothing at the end mark.
    pub(super) fn next_member(&mut self) -> Result<Option<Member>, WriteError> {
        let start = self.at;
        self.read_member().map_err(|failure| match failure {
            Failure::Problem(problem) => WriteError::Tar { offset: start, problem },
            Failure::Io(source) => WriteError::Source { action: "read", path: b"".as_slice().into(), source },
        })
    }

    fn read_member(&mut self) -> Result<Option<Member>, Failure> {
        let mut local = self.global.clone();
        let (mut long_path, mut long_link) = (None, None);
        loop {
            let offset = self.at;
            let Some(header) = self.read_header()? else { return Ok(None) };
            let size = field(header.entry_size(), "size")?;
            match header.entry_type().as_byte() {
                b'x' => local.apply(&self.read_extension(size)?)?,
                b'g' => {
                    let records = self.read_extension(size)?;
                    self.global.apply(&records)?;
                    local.apply(&records)?;
                }
                b'L' => long_path = Some(until_nul(self.read_extension(size)?)),
                b'K' => long_link = Some(until_nul(self.read_extension(size)?)),
                // The label of a volume.
                b'V' => _ = self.skip(size)?,
                _ => {
                    local.path = local.path.or(long_path);
                    local.link = local.link.or(long_link);
                    return Ok(Some(self.finish_member(offset, &header, local)?));
                }
            }
        }
    }

    fn finish_member(&mut self, offset: u64, header: &Header, pax: Pax) -> Result<Member, Failure> {
        let path = pax.sparse.name.clone().or_else(|| pax.path.clone());
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let kind = header.entry_type().as_byte();
        let size = match pax.size {
            Some(size) => size,
            None => field(header.entry_size(), "size")?,
        };
        let link = |pax: &Pax| match &pax.link {
            Some(link) => link.clone(),
            None => header.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default(),
        };
        let content = match kind {
            b'1' => {
                self.skip(size)?;
                return Ok(Member { offset, path, what: What::Link(link(&pax)) });
            }
            b'0' | 0 if path.ends_with(b"/") => Content::Directory,
            b'0' | b'7' | 0 | b'S' => Content::File(self.file_content(header, &pax, size)?),
            b'2' => Content::Symlink(check_target(link(&pax))?),
            b'3' => Content::CharDevice(device(header)?),
            b'4' => Content::BlockDevice(device(header)?),
            b'5' | b'D' => Content::Directory,
            b'6' => Content::Fifo,
            _ => return Err(TarProblem::Kind { path: path.into(), kind }.into()),
        };
        if !matches!(content, Content::File(_)) {
            self.skip(size)?;
        }
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => seconds(field(header.mtime(), "time")?),
        };
        let object = Object {
            content,
            perm: u16::try_from(field(header.mode(), "mode")? & 0o7777).unwrap_or_default(),
            uid: owner(pax.uid, header.uid())?,
            gid: owner(pax.gid, header.gid())?,
            mtime,
            atime: pax.atime.unwrap_or(mtime),
            ctime: pax.ctime.unwrap_or(mtime),
            btime: None,
        };
        let wanted = pax.xattrs.into_iter().filter(|(name, _)| xattrs::is_wanted(name)).collect();
        Ok(Member { offset, path, what: What::Object(Box::new(object), wanted) })
    }

    /// Finds where a file's data is, and steps over it.
    fn file_content(&mut self, header: &Header, pax: &Pax, size: u64) -> Result<FileContent, Failure> {
        let mut map = pax.sparse.map.clone();
        let mut real_size = pax.sparse.real_size;
        if header.entry_type().as_byte() == b'S' {
            let gnu = header.as_gnu().ok_or(TarProblem::Field("sparse header"))?;
            real_size = Some(field(gnu.real_size(), "size of a sparse file")?);
            map = self.read_old_map(gnu)?;
        }
        let start = self.at;
        let end = self.skip(size)?;
        let mut locator = start;
        if pax.sparse.major == Some(1) {
            let len;
            (map, len) = self.read_map(start..end)?;
            locator += len;
        }
        let extents = match real_size {
            None => None,
            Some(real) => Some(sparse::ranges(&map, real, size - (locator - start))?),
        };
        let size = real_size.unwrap_or(size);
        // A file without holes is no sparse file, whatever tar made of it.
        let extents = extents.filter(|extents| !matches!(extents.as_ref(), [all] if *all == (0..size)));
        let extents = extents.filter(|_| size > 0);
        Ok(FileContent { size, extents, locator })
    }

    /// Reads the map of GNU tar's own format: four ranges in the header, and 21 in each block that follows.
    fn read_old_map(&mut self, gnu: &tar::GnuHeader) -> Result<Vec<u64>, Failure> {
        let mut map = Vec::new();
        let mut push = |ranges: &[tar::GnuSparseHeader]| -> Result<(), Failure> {
            for range in ranges.iter().take_while(|range| !range.is_empty()) {
                map.push(field(range.offset(), "map of a sparse file")?);
                map.push(field(range.length(), "map of a sparse file")?);
            }
            if map.len() / 2 > MAX_RANGES { Err(TOO_MANY_RANGES.into()) } else { Ok(()) }
        };
        push(&gnu.sparse)?;
        let mut is_extended = gnu.is_extended();
        while is_extended {
            let mut block = tar::GnuExtSparseHeader::new();
            self.read_exact(block.as_mut_bytes(), self.at)?;
            self.at += BLOCK;
            push(block.sparse())?;
            is_extended = block.is_extended();
        }
        Ok(map)
    }

    /// Reads the map of version 1.0: decimal numbers in lines before the data, padded to whole blocks. Returns its
    /// length as well.
    fn read_map(&self, data: Range<u64>) -> Result<(Vec<u64>, u64), Failure> {
        let mut lines =
            Lines { members: self, at: data.start, end: data.end, block: [0; BLOCK_LEN], used: BLOCK_LEN };
        let count = lines.number()?;
        let count =
            usize::try_from(count).ok().filter(|count| *count <= MAX_RANGES).ok_or(TOO_MANY_RANGES)?;
        let map = (0..count * 2).map(|_| lines.number()).collect::<Result<_, _>>()?;
        Ok((map, lines.at - data.start))
    }

    /// Reads a header; nothing at the mark of the end, a block of zeros.
    fn read_header(&mut self) -> Result<Option<Header>, Failure> {
        let mut header = Header::new_old();
        self.read_exact(header.as_mut_bytes(), self.at)?;
        self.at += BLOCK;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        check_header(&header)?;
        Ok(Some(header))
    }

    fn read_extension(&mut self, size: u64) -> Result<Vec<u8>, Failure> {
        if size > MAX_EXTENSION_LEN {
            let what = "length of an extended header";
            return Err(TarProblem::Limit { what, found: size, limit: MAX_EXTENSION_LEN }.into());
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        self.read_exact(&mut bytes, self.at)?;
        self.skip(size)?;
        Ok(bytes)
    }

    /// Steps over data, which is padded to whole blocks, and returns where it ends.
    fn skip(&mut self, size: u64) -> Result<u64, Failure> {
        let end = self.at.checked_add(size).ok_or(TarProblem::Truncated)?;
        if end > self.file.metadata()?.len() {
            return Err(TarProblem::Truncated.into());
        }
        self.at = end.next_multiple_of(BLOCK);
        Ok(end)
    }

    fn read_exact(&self, buffer: &mut [u8], at: u64) -> Result<(), Failure> {
        self.file.read_exact_at(buffer, at).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => TarProblem::Truncated.into(),
            _ => Failure::Io(error),
        })
    }
}

/// Reads lines of decimal numbers, block by block.
struct Lines<'m, 'a> {
    members: &'m Members<'a>,
    /// Where the next block is.
    at: u64,
    end: u64,
    block: [u8; BLOCK_LEN],
    used: usize,
}

impl Lines<'_, '_> {
    fn number(&mut self) -> Result<u64, Failure> {
        let mut number: Option<u64> = None;
        loop {
            let digit = match self.byte()? {
                b'\n' => return Ok(number.ok_or(BAD_NUMBER)?),
                digit @ b'0'..=b'9' => u64::from(digit - b'0'),
                _ => return Err(BAD_NUMBER.into()),
            };
            let sum = number.unwrap_or(0).checked_mul(10).and_then(|tens| tens.checked_add(digit));
            number = Some(sum.ok_or(BAD_NUMBER)?);
        }
    }

    fn byte(&mut self) -> Result<u8, Failure> {
        if self.used == self.block.len() {
            if self.end - self.at < BLOCK {
                return Err(TarProblem::Truncated.into());
            }
            self.members.read_exact(&mut self.block, self.at)?;
            self.at += BLOCK;
            self.used = 0;
        }
        let byte = self.block.get(self.used).copied().unwrap_or_default();
        self.used += 1;
        Ok(byte)
    }
}

const BAD_NUMBER: TarProblem = TarProblem::Field("map of a sparse file");
const TOO_MANY_RANGES: TarProblem = TarProblem::Limit {
    what: "number of ranges of a sparse file",
    found: u64::MAX,
    limit: MAX_RANGES as u64,
};

/// Why a member could not be read.
enum Failure {
    Problem(TarProblem),
    Io(std::io::Error),
}

impl From<TarProblem> for Failure {
    fn from(problem: TarProblem) -> Self {
        Self::Problem(problem)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// The checksum is the sum of the header's bytes, those of the checksum itself taken as spaces. Some writers sum
/// them as signed ones.
fn check_header(header: &Header) -> Result<(), TarProblem> {
    const CHECKSUM: Range<usize> = 148..156;
    let bytes = header.as_bytes().iter().enumerate();
    let bytes = bytes.map(|(at, byte)| if CHECKSUM.contains(&at) { b' ' } else { *byte });
    let (unsigned, signed) = bytes.fold((0_i64, 0_i64), |(unsigned, signed), byte| {
        (unsigned + i64::from(byte), signed + i64::from(byte.cast_signed()))
    });
    let claimed = header.cksum().map_err(|_| TarProblem::Checksum)?;
    if [unsigned, signed].contains(&i64::from(claimed)) { Ok(()) } else { Err(TarProblem::Checksum) }
}

fn field<T>(value: std::io::Result<T>, what: &'static str) -> Result<T, TarProblem> {
    value.map_err(|_| TarProblem::Field(what))
}

fn owner(extended: Option<u64>, plain: std::io::Result<u64>) -> Result<u32, TarProblem> {
    let owner = match extended {
        Some(owner) => owner,
        None => field(plain, "owner")?,
    };
    u32::try_from(owner).map_err(|_| TarProblem::Field("owner"))
}

/// A time before 1970 is a negative number in two's complement.
fn seconds(raw: u64) -> Timestamp {
    Timestamp { seconds: raw.cast_signed(), nanos: 0 }
}

fn device(header: &Header) -> Result<Device, TarProblem> {
    let part =
        |part: std::io::Result<Option<u32>>| field(part, "device number").map(Option::unwrap_or_default);
    Ok(Device { major: part(header.device_major())?, minor: part(header.device_minor())? })
}

fn check_target(target: Vec<u8>) -> Result<Box<[u8]>, TarProblem> {
    let limit = limits::MAX_TARGET_LEN as u64;
    match target.len() {
        0 => Err(TarProblem::Field("link target")),
        _ if target.contains(&0) => Err(TarProblem::Field("link target")),
        len if len as u64 > limit => {
            Err(TarProblem::Limit { what: "length of a link target", found: len as u64, limit })
        }
        _ => Ok(target.into_boxed_slice()),
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(len);
    bytes
}
