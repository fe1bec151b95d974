//! Who is at the other end of a Unix socket.
#![expect(
    unsafe_code,
    reason = "getsockopt(2) with SO_PEERCRED has no safe form that takes a process id of 0"
)]

use std::{
    io, mem,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// User and process id of the other end, as the kernel saw them when it was connected. The process id is 0 where the
/// process lies outside the caller's pid namespace.
///
/// # Errors
///
/// What getsockopt(2) says.
pub fn of(socket: BorrowedFd<'_>) -> io::Result<(u32, i32)> {
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = libc::socklen_t::try_from(mem::size_of::<libc::ucred>()).map_err(io::Error::other)?;
    // SAFETY: getsockopt(2) writes at most `length` bytes to the place it is given: `found` is a live ucred of just that
    // size, in which every pattern of bytes is a value; the descriptor is open as long as it is borrowed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok((found.uid, found.pid)) } else { Err(io::Error::last_os_error()) }
}
