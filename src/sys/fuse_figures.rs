//! Asking the server of a FUSE mount of ours for its figures: an ioctl(2) on any file or directory of the mount.
//!
//! The kernel passes it on with room for the answer, whose length is part of the request's number (`_IOR` of ioctl(2)).
//! Another file system says `ENOTTY`.
#![expect(unsafe_code, reason = "ioctl(2) writes into memory that its number describes")]

use std::{io, os::fd::BorrowedFd};

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl};

/// Room for the answer in bytes; the number of a request has 14 bits for it.
pub const LENGTH: usize = 12 << 10;

/// The request: `_IOR('F', 0x53, [u8; LENGTH])`.
pub const REQUEST: u32 = 2 << 30 | 12 << 26 | (b'F' as u32) << 8 | 0x53;

const _: () = assert!((REQUEST >> 16 & 0x3fff) as usize == LENGTH);

/// The answer, as far as the server filled it.
struct Ask {
    answer: Box<[u8; LENGTH]>,
}

// SAFETY: the trait asks that `OPCODE` and `as_ptr` describe what the kernel may write: it writes at most the length in
// the number of the request, which is that of `answer` (asserted above), and `answer` is owned by this value, which
// rustix keeps alive and unmoved during the call.
unsafe impl Ioctl for Ask {
    type Output = Vec<u8>;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        Opcode::from(REQUEST)
    }

    fn as_ptr(&mut self) -> *mut core::ffi::c_void {
        self.answer.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(
        _: IoctlOutput,
        pointer: *mut core::ffi::c_void,
    ) -> rustix::io::Result<Self::Output> {
        // SAFETY: `pointer` is the one that `as_ptr` gave, to `LENGTH` bytes that were zeros before the call.
        let answer = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), LENGTH) };
        let end = answer.iter().position(|byte| *byte == 0).unwrap_or(LENGTH);
        Ok(answer.get(..end).unwrap_or_default().to_vec())
    }
}

/// Asks the server of the mount in which `place` lies.
///
/// # Errors
///
/// `ENOTTY` where it is no mount of ours.
pub fn ask(place: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let request = Ask { answer: Box::new([0; LENGTH]) };
    // SAFETY: `Ask` upholds what its trait asks for, and the request changes nothing but its answer.
    Ok(unsafe { ioctl(place, request) }?)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd as _};

    use super::*;

    #[test]
    fn other_file_systems_have_no_figures() {
        let error = ask(File::open("/proc").unwrap().as_fd()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
    }
}
