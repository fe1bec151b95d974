//! File contents by descriptor: read, write, holes, space, syncing, locking.

use std::os::fd::BorrowedFd;

use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom};

use super::{beneath::errno, errno::Errno};

pub use rustix::fs::StatVfs;

/// Reads up to `len` bytes at `offset`, fewer only at the end of the file.
///
/// # Errors
///
/// What pread(2) said.
pub fn read_at(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
    let mut buffer = Vec::with_capacity(len.max(1));
    while buffer.len() < len {
        let at = offset + buffer.len() as u64;
        match rustix::io::pread(fd, rustix::buffer::spare_capacity(&mut buffer), at) {
            Ok(0) => break,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(errno(error)),
        }
    }
    buffer.truncate(len);
    Ok(buffer)
}

/// Writes all of `data` at `offset`.
///
/// # Errors
///
/// What pwrite(2) said; a part may have been written.
pub fn write_at(fd: BorrowedFd<'_>, mut offset: u64, mut data: &[u8]) -> Result<(), Errno> {
    while !data.is_empty() {
        match rustix::io::pwrite(fd, data, offset) {
            Ok(0) => return Err(Errno::EIO),
            Ok(written) => {
                data = data.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(errno(error)),
        }
    }
    Ok(())
}

/// Sets the length.
///
/// # Errors
///
/// What ftruncate(2) said.
pub fn set_len(fd: BorrowedFd<'_>, len: u64) -> Result<(), Errno> {
    rustix::fs::ftruncate(fd, len).map_err(errno)
}

/// fallocate(2) with the raw `mode` bits.
///
/// # Errors
///
/// What fallocate(2) said; `EOPNOTSUPP` for unknown modes.
pub fn allocate(fd: BorrowedFd<'_>, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
    let mode = FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
    rustix::fs::fallocate(fd, mode, offset, len).map_err(errno)
}

/// Finds the next data at or behind `offset`.
///
/// # Errors
///
/// `ENXIO` where none follows.
pub fn seek_data(fd: BorrowedFd<'_>, offset: u64) -> Result<u64, Errno> {
    rustix::fs::seek(fd, SeekFrom::Data(offset)).map_err(errno)
}

/// Finds the next hole at or behind `offset`; the end of the file is one.
///
/// # Errors
///
/// `ENXIO` behind the end.
pub fn seek_hole(fd: BorrowedFd<'_>, offset: u64) -> Result<u64, Errno> {
    rustix::fs::seek(fd, SeekFrom::Hole(offset)).map_err(errno)
}

/// Copies up to `len` bytes inside the kernel; returns how many.
///
/// # Errors
///
/// What `copy_file_range(2)` said.
pub fn copy_range(
    from: (BorrowedFd<'_>, u64),
    to: (BorrowedFd<'_>, u64),
    len: usize,
) -> Result<usize, Errno> {
    let (mut from_offset, mut to_offset) = (from.1, to.1);
    rustix::fs::copy_file_range(from.0, Some(&mut from_offset), to.0, Some(&mut to_offset), len)
        .map_err(errno)
}

/// Brings contents and, unless `data_only`, attributes to stable storage.
///
/// # Errors
///
/// What fsync(2) said.
pub fn sync(fd: BorrowedFd<'_>, data_only: bool) -> Result<(), Errno> {
    if data_only { rustix::fs::fdatasync(fd) } else { rustix::fs::fsync(fd) }.map_err(errno)
}

/// Brings the whole file system of `fd` to stable storage.
///
/// # Errors
///
/// What syncfs(2) said.
pub fn sync_file_system(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::syncfs(fd).map_err(errno)
}

/// Figures of the file system of `fd`, which may be `O_PATH`.
///
/// # Errors
///
/// What fstatvfs(3) said.
pub fn stat_fs(fd: BorrowedFd<'_>) -> Result<StatVfs, Errno> {
    rustix::fs::fstatvfs(fd).map_err(errno)
}

/// Takes an exclusive flock(2) without waiting.
///
/// # Errors
///
/// `EWOULDBLOCK` where somebody else holds one.
pub fn lock_exclusive(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive).map_err(errno)
}
