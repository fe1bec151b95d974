//! Filters of system calls, and answering in the kernel's place (seccomp_unotify(2)).
//!
//! A process installs a filter and gets a descriptor; another one, the supervisor, takes the calls that the filter
//! hands over from it, and answers each. The caller sleeps meanwhile. Whatever the supervisor finds under the caller's number
//! is the caller's only while [`Listener::is_waiting`] says so afterwards: a killed caller's number may be another's.
#![expect(unsafe_code, reason = "seccomp(2) and its ioctls have no wrapper, nor has stat(2) into bytes")]

use std::{
    ffi::CStr,
    io,
    mem::{self, MaybeUninit},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use nix::sys::prctl;

/// One instruction of a filter: opcode, the two offsets of a jump, operand (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Opcode.
    pub code: u16,
    /// Instructions to skip where a comparison holds.
    pub if_so: u8,
    /// Where it does not.
    pub if_not: u8,
    /// Operand.
    pub value: u32,
}

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    id: u64,
    /// Thread id of the caller, in the pid namespace of the supervisor.
    pub pid: u32,
    /// Number of the call.
    pub number: i32,
    /// Architecture by which the number is meant (`AUDIT_ARCH_*`).
    pub architecture: u32,
    /// Arguments.
    pub arguments: [u64; 6],
}

/// What a caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The call has returned this.
    Returned(u32),
    /// The call has failed with this errno.
    Failed(i32),
    /// The kernel is to carry it out after all. Never the answer of a check: the caller can change what its pointers
    /// point to in between.
    Proceed,
}

/// Sees that the calling thread never gains privileges by executing something, and installs a filter for it and what it
/// starts. Returns the supervisor's end.
///
/// # Errors
///
/// `EINVAL` and `ENOSYS` where the kernel lacks it, `EBUSY` where a filter that was there hands over calls already.
pub fn install_supervised(filter: &[Instruction]) -> io::Result<Listener> {
    let listen = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // Without the second flag (Linux 5.19) a signal interrupts a call that is being answered, which then starts over.
    let number = match set_filter(listen | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, filter) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => set_filter(listen, filter)?,
        other => other?,
    };
    // SAFETY: with NEW_LISTENER a success of seccomp(2) is a new descriptor, which nobody else has.
    Ok(Listener(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Sees that the calling thread never gains privileges by executing something, and installs a filter that needs no
/// supervisor for it and what it starts.
///
/// # Errors
///
/// `EINVAL` and `ENOSYS` where the kernel lacks it.
pub fn install(filter: &[Instruction]) -> io::Result<()> {
    set_filter(0, filter).map(|_| ())
}

fn set_filter(flags: libc::c_ulong, filter: &[Instruction]) -> io::Result<RawFd> {
    prctl::set_no_new_privs()?;
    let mut code: Vec<libc::sock_filter> = filter
        .iter()
        .map(|one| libc::sock_filter { code: one.code, jt: one.if_so, jf: one.if_not, k: one.value })
        .collect();
    let len = u16::try_from(code.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: code.as_mut_ptr() };
    // SAFETY: for SECCOMP_SET_MODE_FILTER the third argument points to a sock_fprog whose `filter` has `len`
    // instructions; `code` has, and lives until the call returns. The kernel checks the instructions.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        RawFd::try_from(result).map_err(io::Error::other)
    }
}

/// The supervisor's end of a filter.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Takes over a descriptor that another process sent.
    #[must_use]
    pub const fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Has the caller and the supervisor take turns on one processor: each waits for the other anyway. Linux 6.6 has it;
    /// elsewhere nothing changes.
    pub fn take_turns(&self) {
        const SYNC_WAKE_UP: libc::c_ulong = 1;
        // SAFETY: this request takes its argument as a number.
        let _ = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
    }

    /// Takes the next call; `None` where it has gone again. Waits where there is none.
    ///
    /// # Errors
    ///
    /// What the ioctl says.
    pub fn next(&self) -> io::Result<Option<Call>> {
        // SAFETY: all fields are integers, for which zero is a value; the kernel wants it zeroed.
        let mut wanted: libc::seccomp_notif = unsafe { mem::zeroed() };
        match self.control(libc::SECCOMP_IOCTL_NOTIF_RECV, &mut wanted) {
            Ok(()) => Ok(Some(Call {
                id: wanted.id,
                pid: wanted.pid,
                number: wanted.data.nr,
                architecture: wanted.data.arch,
                arguments: wanted.data.args,
            })),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the caller still waits: what was opened under its number before is its own then.
    #[must_use]
    pub fn is_waiting(&self, call: &Call) -> bool {
        let mut id = call.id;
        self.control(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &mut id).is_ok()
    }

    /// Answers. A caller that is gone is no error.
    ///
    /// # Errors
    ///
    /// What the ioctl says.
    pub fn answer(&self, call: &Call, answer: Answer) -> io::Result<()> {
        let (val, error, flags) = match answer {
            Answer::Returned(value) => (i64::from(value), 0, 0),
            Answer::Failed(errno) => (0, -errno, 0),
            Answer::Proceed => (0, 0, 1), // SECCOMP_USER_NOTIF_FLAG_CONTINUE
        };
        let mut said = libc::seccomp_notif_resp { id: call.id, val, error, flags };
        match self.control(libc::SECCOMP_IOCTL_NOTIF_SEND, &mut said) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// `T` is what `request` names: `seccomp_notif`, `u64` and `seccomp_notif_resp`.
    fn control<T>(&self, request: libc::Ioctl, with: &mut T) -> io::Result<()> {
        // SAFETY: each of the three requests reads and writes one value of the type that its number carries, which is
        // what the private callers pass; the reference keeps it alive and alone for the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, std::ptr::from_mut(with)) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for Listener {
    /// Readable as long as a call waits; hung up when nobody has the filter any more.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What stat(2) and statx(2) are to say otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Correction {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Kind (`S_IFMT` bits), major and minor number of a device.
    pub device: Option<(u32, u32, u32)>,
}

/// What stat(2) says of an open object, corrected, as it lies in memory.
///
/// # Errors
///
/// What fstatat(2) says.
pub fn stat_bytes(fd: BorrowedFd<'_>, with: &Correction) -> io::Result<Vec<u8>> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    let empty: &CStr = c"";
    // SAFETY: the path is a string with an end, the buffer is one `struct stat`; both live for the call.
    let result =
        unsafe { libc::fstatat(fd.as_raw_fd(), empty.as_ptr(), stat.as_mut_ptr(), libc::AT_EMPTY_PATH) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was zeroed, and all of its fields are integers.
    let mut stat = unsafe { stat.assume_init() };
    (stat.st_uid, stat.st_gid) = (with.uid, with.gid);
    if let Some((kind, major, minor)) = with.device {
        stat.st_mode = (stat.st_mode & !libc::S_IFMT) | kind;
        stat.st_rdev = libc::makedev(major, minor);
        stat.st_size = 0;
    }
    Ok(bytes_of(&stat))
}

/// As [`stat_bytes`], for statx(2) with this mask.
///
/// # Errors
///
/// What statx(2) says.
pub fn statx_bytes(fd: BorrowedFd<'_>, mask: u32, with: &Correction) -> io::Result<Vec<u8>> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    let empty: &CStr = c"";
    // SAFETY: as above, with one `struct statx`.
    let result =
        unsafe { libc::statx(fd.as_raw_fd(), empty.as_ptr(), libc::AT_EMPTY_PATH, mask, stat.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was zeroed, and all of its fields are integers.
    let mut stat = unsafe { stat.assume_init() };
    (stat.stx_uid, stat.stx_gid) = (with.uid, with.gid);
    if let Some((kind, major, minor)) = with.device {
        let kind = u16::try_from(kind).map_err(io::Error::other)?;
        let format = u16::try_from(libc::S_IFMT).map_err(io::Error::other)?;
        stat.stx_mode = (stat.stx_mode & !format) | kind;
        (stat.stx_rdev_major, stat.stx_rdev_minor, stat.stx_size) = (major, minor, 0);
    }
    Ok(bytes_of(&stat))
}

/// `T` is `stat` or `statx`: made of integers, and zeroed before the kernel filled it, so that no byte of it is undefined.
fn bytes_of<T>(value: &T) -> Vec<u8> {
    // SAFETY: the reference covers size_of::<T>() bytes, all of which were written (by zeroing at the latest), and they
    // are only read while it lives.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }.to_vec()
}
