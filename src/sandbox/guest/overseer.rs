//! Root with one user: what it asks for that such a root cannot have.
//!
//! A user namespace of an ordinary user has one id, so that the kernel refuses to give a file to anybody, and package
//! managers fail. Here the kernel hands such calls over to a process of ours inside: it answers them, and has the merged
//! root record what was asked for, by an attribute that only this root knows. A commit makes real owners of that.
//!
//! ```text
//! process 1 ──fork── overseer   takes the calls of the program and of all that it starts
//!     └──────fork── program     installs the filter, sends its other end to the overseer, executes
//! ```
//!
//! The overseer has the namespaces and the user of those whom it serves, and the right to look at their memory, which
//! they have not. It acts on what it has read once, and changes nothing but owners: who cheats it cheats himself.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::SystemTime,
};

use super::{
    filter::{Asked, Form, Object, asked, filter},
    minds::Minds,
};
use crate::sys::{
    beneath::{self, Statx},
    capabilities,
    errno::Errno,
    foreign::{Ground, Task},
    inherit,
    process::{self, Forked},
    ready::{self, Interest},
    scm::Channel,
    seccomp::{self, Answer, Call, Correction, Listener},
    xattr,
};

/// What the merged root knows owners by, as `UID:GID`, with `-` for an id that stays, and `:c:MAJOR:MINOR` or
/// `:b:MAJOR:MINOR` for a file that stands for a device.
const OWNER: &[u8] = b"system.fim.owner";

/// Most owners that are remembered.
const REMEMBERED: usize = 1 << 16;

/// An object has kept its owner where it has kept its change time, unless that is so young that another change may
/// have the same.
const SETTLED_SECONDS: i64 = 2;

/// The way to an overseer that waits for a program.
#[derive(Debug)]
pub(super) struct Overseer(Channel);

impl Overseer {
    /// Starts one where the program is a root with one user; process 1 has the right to trace then.
    ///
    /// # Errors
    ///
    /// What making a process says.
    pub(super) fn start() -> io::Result<Option<Self>> {
        if !capabilities::can_trace() {
            return Ok(None);
        }
        let (ours, theirs) = Channel::pair(1)?;
        match process::fork()? {
            Forked::Parent(_) => Ok(Some(Self(ours))),
            Forked::Child => {
                drop(ours);
                process::end(u8::from(oversee(theirs).is_err()))
            }
        }
    }

    /// Puts the calling process, which is about to become a program, under oversight. Without the kernel's help it goes
    /// on as it is, and cannot give files away.
    ///
    /// # Errors
    ///
    /// What giving up capabilities, and sending, say.
    pub(super) fn submit(self) -> io::Result<()> {
        capabilities::give_up_tracing()?;
        match seccomp::install_supervised(&filter()) {
            Ok(listener) => self.0.send(b"", &[listener.as_fd()]),
            Err(_) => Ok(()),
        }
    }
}

/// Lives as the overseer, until nobody is left to oversee.
fn oversee(mut channel: Channel) -> io::Result<()> {
    inherit::silence()?;
    inherit::close_others(&[channel.as_fd()])?;
    let Some(listener) = channel.receive_waiting()?.and_then(|mut frame| frame.fds.pop()) else {
        return Ok(());
    };
    drop(channel);
    let listener = Listener::from_fd(listener);
    listener.take_turns();
    let mut desk = Desk { ground: Ground::here()?, minds: Minds::default(), known: HashMap::new() };
    loop {
        let ready = ready::wait(&[(listener.as_fd(), Interest::Read)], None)?;
        if ready.first().is_none_or(|ready| ready.hung_up) {
            return Ok(());
        }
        if let Some(call) = listener.next()? {
            let answer = desk.answer(&listener, &call);
            listener.answer(&call, answer)?;
        }
    }
}

/// When an object was changed last.
type Changed = (i64, u32);

struct Desk {
    ground: Ground,
    minds: Minds,
    /// Owners of objects of the merged root, by inode number.
    known: HashMap<u64, (Changed, Owner)>,
}

/// Whom an object belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Owner {
    uid: u32,
    gid: u32,
    /// Kind (`S_IFMT` bits) and number of the device that it stands for.
    device: Option<(u32, u32, u32)>,
}

impl Desk {
    fn answer(&mut self, listener: &Listener, call: &Call) -> Answer {
        let Some(asked) = asked(call) else { return Answer::Proceed };
        if matches!(asked, Asked::Stat { .. }) {
            self.minds.meet(call.pid);
        }
        let done = match asked {
            Asked::Stat { object, form, address } => {
                // What cannot be answered here the kernel can, and says what is wrong.
                return match self.stat(listener, call, object, form, address) {
                    Ok(answer) => answer,
                    Err(_) => Answer::Proceed,
                };
            }
            Asked::Chown { object, uid, gid } => self.chown(listener, call, object, uid, gid),
            Asked::Device { dir, path, mode, device } => {
                self.device(listener, call, (dir, path), mode, device)
            }
            Asked::Become { .. }
            | Asked::Who { .. }
            | Asked::WhoAll { .. }
            | Asked::Join { .. }
            | Asked::Groups { .. } => return self.minds.answer(listener, call, &asked),
        };
        match done {
            Ok(()) => Answer::Returned(0),
            Err(errno) => Answer::Failed(errno as i32),
        }
    }

    fn chown(
        &mut self,
        listener: &Listener,
        call: &Call,
        object: Object,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<(), Errno> {
        let object = self.open(listener, call, object)?;
        let id = |id: Option<u32>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        self.known.remove(&beneath::stat(object.as_fd(), b"")?.stx_ino);
        match xattr::set(object.as_fd(), OWNER, format!("{}:{}", id(uid), id(gid)).as_bytes(), 0) {
            // Elsewhere nothing is recorded, and whatever is there is gone with the sandbox, or is the host's.
            Err(Errno::EOPNOTSUPP) => Ok(()),
            other => other,
        }
    }

    fn stat(
        &mut self,
        listener: &Listener,
        call: &Call,
        object: Object,
        form: Form,
        address: u64,
    ) -> Result<Answer, Errno> {
        let object = self.open(listener, call, object)?;
        let stat = beneath::stat(object.as_fd(), b"")?;
        if device_of(&stat) != self.ground.device() {
            return Ok(Answer::Proceed);
        }
        let owner = self.owner(&object, &stat)?;
        if owner == Owner::default() {
            return Ok(Answer::Proceed);
        }
        let with = Correction { uid: owner.uid, gid: owner.gid, device: owner.device };
        let bytes = match form {
            Form::Stat => seccomp::stat_bytes(object.as_fd(), &with),
            Form::Statx(mask) => seccomp::statx_bytes(object.as_fd(), mask, &with),
        };
        let bytes = bytes.map_err(|_| Errno::EIO)?;
        let memory = Task::open(call.pid)?.memory()?;
        if !listener.is_waiting(call) {
            return Err(Errno::ESRCH);
        }
        memory.write(address, &bytes).map(|()| Answer::Returned(0))
    }

    /// Makes a file that stands for a device, as a root of the host would make the device.
    fn device(
        &mut self,
        listener: &Listener,
        call: &Call,
        (dir, address): (i32, u64),
        mode: u32,
        device: u64,
    ) -> Result<(), Errno> {
        let task = Task::open(call.pid)?;
        let path = task.memory()?.path(address)?;
        let umask = task.umask()?;
        let slash = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (parent, name) = path.split_at_checked(slash).ok_or(Errno::EINVAL)?;
        if name.is_empty() {
            return Err(if path.is_empty() { Errno::ENOENT } else { Errno::EEXIST });
        }
        let parent = self.resolve(&task, dir, if parent.is_empty() { b"." } else { parent }, true)?;
        if !listener.is_waiting(call) {
            return Err(Errno::ESRCH);
        }
        // As the kernel takes the number apart (new_decode_dev).
        let (major, minor) = ((device & 0xf_ff00) >> 8, (device & 0xff) | ((device >> 12) & 0xf_ff00));
        let letter = if mode & libc::S_IFMT == libc::S_IFBLK { 'b' } else { 'c' };
        if (major, minor) == (0, 0) {
            return Err(Errno::EPERM);
        }
        let perm = u16::try_from(mode & 0o7777).unwrap_or(0) & !umask;
        let made = beneath::create(parent.as_fd(), name, perm)?;
        let value = format!("-:-:{letter}:{major}:{minor}");
        let recorded = xattr::set(made.as_fd(), OWNER, value.as_bytes(), 0);
        recorded.map_err(|_| {
            let _ = beneath::remove(parent.as_fd(), name);
            Errno::EPERM
        })
    }

    /// Whom an object of the merged root belongs to.
    fn owner(&mut self, object: &OwnedFd, stat: &Statx) -> Result<Owner, Errno> {
        let kind = u32::from(stat.stx_mode) & libc::S_IFMT;
        let changed = (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec);
        // A record of another kind of object is in its directory, and does not change its own time.
        let keeps = matches!(kind, libc::S_IFREG | libc::S_IFDIR)
            && now().saturating_sub(changed.0) > SETTLED_SECONDS;
        if keeps
            && let Some((known, owner)) = self.known.get(&stat.stx_ino)
            && *known == changed
        {
            return Ok(*owner);
        }
        let value = xattr::get(object.as_fd(), OWNER)?;
        let owner = value.as_deref().and_then(parse).unwrap_or_default();
        if keeps {
            if self.known.len() >= REMEMBERED {
                self.known.clear();
            }
            self.known.insert(stat.stx_ino, (changed, owner));
        }
        Ok(owner)
    }

    /// Opens what a call names. The caller was waiting when all of it had been opened and read.
    fn open(&self, listener: &Listener, call: &Call, object: Object) -> Result<OwnedFd, Errno> {
        let task = Task::open(call.pid)?;
        let opened = match object {
            Object::Open(number) => task.descriptor(number),
            Object::At { dir, path: 0, may_be_empty: true, .. } => self.base(&task, dir),
            Object::At { dir, path, follow, may_be_empty } => {
                let path = task.memory()?.path(path)?;
                match path.is_empty() {
                    true if may_be_empty => self.base(&task, dir),
                    true => Err(Errno::ENOENT),
                    false => self.resolve(&task, dir, &path, follow),
                }
            }
        };
        if listener.is_waiting(call) { opened } else { Err(Errno::ESRCH) }
    }

    fn resolve(&self, task: &Task, dir: i32, path: &[u8], follow: bool) -> Result<OwnedFd, Errno> {
        if follow && let Some(number) = own_descriptor(path) {
            return task.descriptor(number);
        }
        let root = task.root()?;
        let base = if path.starts_with(b"/") { task.root()? } else { self.base(task, dir)? };
        self.ground.resolve(root.as_fd(), base.as_fd(), path, follow)
    }

    fn base(&self, task: &Task, dir: i32) -> Result<OwnedFd, Errno> {
        if dir == libc::AT_FDCWD { task.directory() } else { task.descriptor(dir) }
    }
}

/// The number in a path by which a process names a descriptor of its own.
fn own_descriptor(path: &[u8]) -> Option<i32> {
    let own = [&b"/proc/self/fd/"[..], b"/proc/thread-self/fd/", b"/dev/fd/"];
    let number = own.iter().find_map(|prefix| path.strip_prefix(*prefix))?;
    std::str::from_utf8(number).ok()?.parse().ok().filter(|number| *number >= 0)
}

fn parse(value: &[u8]) -> Option<Owner> {
    let mut parts = std::str::from_utf8(value).ok()?.split(':');
    let (uid, gid) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let device = match parts.next() {
        None => None,
        Some(letter) => {
            let kind = if letter == "b" { libc::S_IFBLK } else { libc::S_IFCHR };
            Some((kind, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
        }
    };
    Some(Owner { uid, gid, device })
}

/// Seconds since the epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The device as stat(2) has it.
fn device_of(stat: &Statx) -> u64 {
    libc::makedev(stat.stx_dev_major, stat.stx_dev_minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_merged_root_says_is_read() {
        let owner = |uid, gid, device| Some(Owner { uid, gid, device });
        for (value, expected) in [
            ("0:0", owner(0, 0, None)),
            ("101:65534", owner(101, 65_534, None)),
            ("0:5:c:4:7", owner(0, 5, Some((libc::S_IFCHR, 4, 7)))),
            ("0:5:b:8:1", owner(0, 5, Some((libc::S_IFBLK, 8, 1)))),
            ("0", None),
            ("0:x", None),
            ("0:0:c:1", None),
        ] {
            assert_eq!(parse(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn own_descriptors_are_known_by_name() {
        for (path, expected) in [
            ("/proc/self/fd/7", Some(7)),
            ("/dev/fd/0", Some(0)),
            ("/proc/thread-self/fd/12", Some(12)),
            ("/proc/self/fd/7/x", None),
            ("/proc/self/fd/-1", None),
            ("/proc/1/fd/7", None),
            ("fd/7", None),
        ] {
            assert_eq!(own_descriptor(path.as_bytes()), expected, "{path}");
        }
    }
}
