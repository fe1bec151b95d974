//! Between the types of the FUSE crate and ours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use crate::vfs::{Attr, Caller, DeviceId, Entry, FileKind, Ino, SetTime, Time};

/// The unit of I/O that stat(2) recommends, in bytes: a page, as on ext4.
pub(super) const BLOCK_SIZE: u32 = 4096;

/// Validity of everything the kernel is told: for ever, as far as a mount lives (68 years).
pub(super) const FOREVER: Duration = Duration::from_secs(0x7fff_ffff);

/// Attributes with their inode number as the kernel takes them.
pub(super) fn attr(ino: Ino, attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino.get()),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: encode_device(attr.rdev),
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// Attributes of an entry.
pub(super) fn entry(entry: &Entry) -> FileAttr {
    attr(entry.ino, &entry.attr)
}

/// The attributes of nothing: with inode number 0 an entry says "no such name" and how long that holds.
pub(super) fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// The number of what has none: no object has it, and 0 would mean that there is no entry.
pub(super) const UNKNOWN: INodeNo = INodeNo(u64::MAX);

/// The attributes of an entry of which only the kind is known. The crate writes the number of a directory entry into
/// the look-up beside it as well, so that this cannot be left out; with an impossible size the kernel drops it (since
/// 5.5; it sends a FORGET for the number, which nothing has) and keeps name and kind.
pub(super) fn unknown(kind: FileKind) -> FileAttr {
    FileAttr { ino: UNKNOWN, kind: file_type(kind), size: u64::MAX, ..absent() }
}

/// What an object is, in the crate's words.
pub(super) const fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
    }
}

/// What an object is, as bits of its mode.
pub(super) const fn file_type_bits(kind: FileKind) -> u32 {
    match kind {
        FileKind::Regular => libc::S_IFREG,
        FileKind::Directory => libc::S_IFDIR,
        FileKind::Symlink => libc::S_IFLNK,
        FileKind::CharDevice => libc::S_IFCHR,
        FileKind::BlockDevice => libc::S_IFBLK,
        FileKind::Fifo => libc::S_IFIFO,
        FileKind::Socket => libc::S_IFSOCK,
    }
}

/// Kind and permission bits.
pub(super) fn mode(attr: &Attr) -> u32 {
    file_type_bits(attr.kind) | u32::from(attr.perm)
}

/// Who sent a request.
pub(super) fn caller(request: &fuser::Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid(), umask: 0 }
}

/// Who asks for a new object.
pub(super) fn creator(request: &fuser::Request, umask: u32) -> Caller {
    Caller { umask: perm(umask), ..caller(request) }
}

/// The permission bits of a mode.
pub(super) fn perm(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

/// The kernel's 32-bit encoding of a device number (`new_encode_dev`): `minor[31:20] major minor[7:0]`.
pub(super) const fn encode_device(device: DeviceId) -> u32 {
    (device.minor & 0xff) | ((device.major & 0xfff) << 8) | ((device.minor & 0xf_ff00) << 12)
}

/// The inverse of [`encode_device`].
pub(super) const fn decode_device(raw: u32) -> DeviceId {
    DeviceId { major: (raw >> 8) & 0xfff, minor: (raw & 0xff) | ((raw >> 12) & 0xf_ff00) }
}

/// A time to set.
pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(received_time(time)),
    }
}

/// A time that came with a request.
///
/// Before the epoch fuser 0.18 subtracts the nanoseconds instead of adding them: -1.2 s, which the kernel sends as
/// (-2 s, +800 ms), arrives as -2.8 s. This undoes it.
pub(super) fn received_time(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => {
            Time { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
        }
        Err(error) => {
            let before = error.duration();
            Time { seconds: 0_i64.saturating_sub_unsigned(before.as_secs()), nanos: before.subsec_nanos() }
        }
    }
}

/// A time to send; one that the platform cannot hold becomes the epoch.
fn system_time(time: Time) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let second = if time.seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    second
        .and_then(|second| second.checked_add(Duration::from_nanos(u64::from(time.nanos))))
        .unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive() {
        for (major, minor, raw) in [(0, 0, 0), (1, 3, 0x103), (8, 17, 0x811), (259, 0x12345, 0x1231_0345)] {
            let device = DeviceId { major, minor };
            assert_eq!(encode_device(device), raw, "{device:?}");
            assert_eq!(decode_device(raw), device);
        }
    }

    #[test]
    fn times_before_the_epoch_are_sent_as_they_are() {
        let before = system_time(Time { seconds: -2, nanos: 800_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(before).ok(), Some(Duration::from_millis(1200)));
        assert_eq!(system_time(Time { seconds: i64::MIN, nanos: 0 }).duration_since(UNIX_EPOCH).ok(), None);
        assert_eq!(system_time(Time { seconds: i64::MAX, nanos: 999_999_999 }).elapsed().ok(), None);
    }

    #[test]
    fn the_crates_slip_with_times_before_the_epoch_is_undone() {
        // What fuser makes of (-2 s, 800 ms): epoch - (2 s + 800 ms).
        let slipped = UNIX_EPOCH - Duration::from_millis(2800);
        assert_eq!(received_time(slipped), Time { seconds: -2, nanos: 800_000_000 });
        let after = UNIX_EPOCH + Duration::from_millis(1200);
        assert_eq!(received_time(after), Time { seconds: 1, nanos: 200_000_000 });
    }
}
