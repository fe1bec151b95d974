//! Extended attributes of anything that a descriptor names, `O_PATH` descriptors of symlinks and devices included.
//!
//! The calls on descriptors refuse `O_PATH`; the way through `/proc/self/fd` does not, and stops at the object.

use std::os::fd::BorrowedFd;

use rustix::{buffer::spare_capacity, fs::XattrFlags, io};

use super::{
    beneath::{ProcPath, errno},
    errno::Errno,
};

/// First size of the buffer for values and lists, in bytes: larger than nearly all of them.
const FIRST_LEN: usize = 256;

/// Largest value and largest list that Linux allows, in bytes.
const MAX_LEN: usize = 64 * 1024;

/// The value of the attribute `name`, `None` where it is not set or the file system has no attributes.
///
/// # Errors
///
/// What getxattr(2) said.
pub fn get(fd: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let path = ProcPath::new(fd);
    match grow(|buffer| rustix::fs::getxattr(path.as_c_str(), name, spare_capacity(buffer))) {
        Ok(value) => Ok(Some(value)),
        Err(io::Errno::NODATA | io::Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(errno(error)),
    }
}

/// Whether the file system knows attributes of this name, set or not.
#[must_use]
pub fn is_known(fd: BorrowedFd<'_>, name: &[u8]) -> bool {
    let path = ProcPath::new(fd);
    let asked = rustix::fs::getxattr(path.as_c_str(), name, &mut [0_u8; 1]);
    asked != Err(io::Errno::OPNOTSUPP)
}

/// The names of all attributes, each followed by a NUL.
///
/// # Errors
///
/// What listxattr(2) said.
pub fn list(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let path = ProcPath::new(fd);
    match grow(|buffer| rustix::fs::listxattr(path.as_c_str(), spare_capacity(buffer))) {
        Ok(names) => Ok(names),
        Err(io::Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(error) => Err(errno(error)),
    }
}

/// Sets an attribute; `flags` are those of setxattr(2).
///
/// # Errors
///
/// What setxattr(2) said.
pub fn set(fd: BorrowedFd<'_>, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
    let flags = XattrFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    rustix::fs::setxattr(ProcPath::new(fd).as_c_str(), name, value, flags).map_err(errno)
}

/// Removes an attribute.
///
/// # Errors
///
/// What removexattr(2) said.
pub fn remove(fd: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    rustix::fs::removexattr(ProcPath::new(fd).as_c_str(), name).map_err(errno)
}

/// Calls with a small buffer first and the largest one afterwards.
fn grow(mut call: impl FnMut(&mut Vec<u8>) -> io::Result<usize>) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::with_capacity(FIRST_LEN);
    match call(&mut buffer) {
        Err(io::Errno::RANGE) => {}
        other => return other.map(|_| buffer),
    }
    let mut buffer = Vec::with_capacity(MAX_LEN);
    call(&mut buffer)?;
    buffer.shrink_to_fit();
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::{super::beneath, *};

    #[test]
    fn attributes_are_reached_through_path_descriptors() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = beneath::open_directory(scratch.path()).unwrap();
        drop(beneath::create(dir.as_fd(), b"file", 0o600).unwrap());
        let fd = beneath::open(dir.as_fd(), b"file", beneath::OpenFor::Path).unwrap();
        let long = vec![7; 1000];
        set(fd.as_fd(), b"user.a", &long, 0).unwrap();
        assert_eq!(get(fd.as_fd(), b"user.a").unwrap(), Some(long));
        assert_eq!(get(fd.as_fd(), b"user.b").unwrap(), None);
        assert_eq!(list(fd.as_fd()).unwrap(), b"user.a\0");
        assert_eq!(set(fd.as_fd(), b"user.a", b"", 1).unwrap_err(), Errno::EEXIST);
        remove(fd.as_fd(), b"user.a").unwrap();
        assert_eq!(list(fd.as_fd()).unwrap(), b"");
    }
}
