//! Mounting: mount(2), umount2(2) and the table of mounts.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags};

use super::errno::Errno;

/// The type under which our mounts appear in the table.
pub const FUSE_TYPE: &str = "fuse.fim";

/// Whether a mount can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nobody can.
    ReadOnly,
    /// The permission bits say who can.
    ReadWrite,
}

/// Who may enter a FUSE mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visitors {
    /// Only the user who mounted it.
    Owner,
    /// Everybody; the permission bits decide.
    All,
}

/// A FUSE mount to be made.
#[derive(Clone, Copy, Debug)]
pub struct FuseMount<'a> {
    /// The directory to mount on.
    pub target: &'a Path,
    /// The source name that the table of mounts shows.
    pub source: &'a OsStr,
    /// Whether it can be written.
    pub access: Access,
    /// Who may enter it.
    pub visitors: Visitors,
    /// Whether device nodes can be opened.
    pub devices: bool,
    /// Whether suid and sgid bits have their effect.
    pub set_id: bool,
}

/// Mounts `device`, a fresh descriptor of `/dev/fuse`, by mount(2); `uid` and `gid` are the mount's owner in the
/// caller's user namespace.
///
/// # Errors
///
/// What mount(2) says: `EPERM` without CAP_SYS_ADMIN over the mount namespace.
pub fn mount_fuse(mount: &FuseMount<'_>, device: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<(), Errno> {
    let fd = device.as_raw_fd();
    let mut data = format!("fd={fd},rootmode=40000,user_id={uid},group_id={gid},default_permissions");
    if mount.visitors == Visitors::All {
        data.push_str(",allow_other");
    }
    let mut flags = MsFlags::empty();
    flags.set(MsFlags::MS_RDONLY, mount.access == Access::ReadOnly);
    flags.set(MsFlags::MS_NODEV, !mount.devices);
    flags.set(MsFlags::MS_NOSUID, !mount.set_id);
    nix::mount::mount(Some(mount.source), mount.target, Some(FUSE_TYPE), flags, Some(data.as_str()))
}

/// Mounts the directory `source` once more at `target`, without what is mounted below it.
///
/// # Errors
///
/// What mount(2) says.
pub fn bind(source: &Path, target: &Path) -> Result<(), Errno> {
    nix::mount::mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
}

/// Keeps mounts that are made from here on below `/` from showing in other namespaces, while theirs still show here.
///
/// # Errors
///
/// What mount(2) says.
pub fn make_root_slave() -> Result<(), Errno> {
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
}

/// Keeps mounts below `/` from showing in other namespaces, and theirs from showing here.
///
/// # Errors
///
/// What mount(2) says.
pub fn make_root_private() -> Result<(), Errno> {
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
}

/// How to unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// Only if nobody uses it (`EBUSY` otherwise).
    Unused,
    /// Out of the tree at once, for good when nobody uses it any more.
    Lazy,
    /// A FUSE connection is aborted first.
    Abort,
}

/// Unmounts what is mounted on top of `target`, never following a symlink in its last part.
///
/// # Errors
///
/// What umount2(2) says.
pub fn unmount(target: &Path, how: Unmount) -> Result<(), Errno> {
    let flags = match how {
        Unmount::Unused => MntFlags::empty(),
        Unmount::Lazy => MntFlags::MNT_DETACH,
        Unmount::Abort => MntFlags::MNT_FORCE | MntFlags::MNT_DETACH,
    };
    nix::mount::umount2(target, flags | MntFlags::UMOUNT_NOFOLLOW)
}

/// Whether a FUSE mount without a server lies on `target`: statfs(2) is what the kernel always asks the server for.
#[must_use]
pub fn is_dead(target: &Path) -> bool {
    matches!(nix::sys::statfs::statfs(target), Err(Errno::ENOTCONN | Errno::ECONNABORTED))
}

/// A line of the table of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Minor number of its device; of a FUSE mount the number of its connection.
    pub minor: u32,
    /// The directory it is mounted on.
    pub target: PathBuf,
    /// Type of its file system.
    pub kind: String,
    /// Its source name.
    pub source: OsString,
    /// Of a FUSE mount: the user who has mounted it.
    pub owner: Option<u32>,
}

/// The mounts of the caller's namespace, a later one lying over an earlier one at the same place.
///
/// # Errors
///
/// What reading `/proc/self/mountinfo` says.
pub fn table() -> io::Result<Vec<MountEntry>> {
    let text = fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse_line).collect())
}

/// Parses `id parent major:minor root target options tags... - type source superoptions` (proc(5)).
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let minor = device.split_once(':')?.1.parse().ok()?;
    let target = unescape(fields.nth(1)?);
    fields.by_ref().find(|field| *field == b"-")?;
    let kind = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = OsString::from_vec(unescape(fields.next()?));
    let mut options = fields.next().unwrap_or_default().split(|byte| *byte == b',');
    let owner = options.find_map(|option| option.strip_prefix(b"user_id="));
    let owner = owner.and_then(|uid| std::str::from_utf8(uid).ok()?.parse().ok());
    Some(MountEntry { minor, target: PathBuf::from(OsString::from_vec(target)), kind, source, owner })
}

/// Undoes the table's `\ooo` for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    bytes
}

/// Escapes commas and backslashes as libfuse's option parser wants them.
#[must_use]
pub fn escape_option(value: &OsStr) -> OsString {
    let mut bytes = Vec::with_capacity(value.len());
    for byte in value.as_bytes() {
        if matches!(byte, b',' | b'\\') {
            bytes.push(b'\\');
        }
        bytes.push(*byte);
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_table_are_read() {
        let line = b"42 29 0:57 / /mnt/a\\040b rw,nosuid shared:1 - fuse.fim my\\134name rw,user_id=0";
        let entry = parse_line(line).expect("a line of the table");
        assert_eq!(entry.minor, 57);
        assert_eq!(entry.target, Path::new("/mnt/a b"));
        assert_eq!(entry.kind, FUSE_TYPE);
        assert_eq!(entry.source, "my\\name");
        assert_eq!(entry.owner, Some(0));
        assert_eq!(parse_line(b""), None);
        assert_eq!(parse_line(b"42 29 0:57 / /mnt"), None);
    }

    #[test]
    fn the_own_table_has_a_root() {
        let table = table().expect("/proc is mounted");
        assert!(table.iter().any(|entry| entry.target == Path::new("/")));
    }

    #[test]
    fn option_values_keep_their_commas() {
        assert_eq!(escape_option(OsStr::new("a,b\\c")), "a\\,b\\\\c");
    }
}
