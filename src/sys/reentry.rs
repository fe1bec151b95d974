//! Going where a process of ours is confined, without its help: its namespaces by setns(2) on its pidfd, and its bounds
//! put on again, since joining takes none over.
#![expect(unsafe_code, reason = "the ioctl for the owner of a namespace has no safe form")]

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, setns};
use rustix::thread::{self, CapabilitySet, CapabilitySets};

use super::{errno::Errno, process::Pidfd};

/// Namespaces that are joined; that of users comes before and behind them.
const KINDS: [(&str, CloneFlags); 6] = [
    ("mnt", CloneFlags::CLONE_NEWNS),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("net", CloneFlags::CLONE_NEWNET),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
];

/// More than there will ever be in a mask of 64 bits.
const CAPABILITIES: u32 = u64::BITS;
/// Lines of `/proc/PID/status` without which nothing can be said.
const BOUNDS: u32 = 8;

/// Process 1 of a sandbox, seen from outside.
#[derive(Debug)]
pub struct Inside {
    pid: i32,
    process: Pidfd,
    bounds: Bounds,
}

/// What a process may do, as `/proc/PID/status` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bounds {
    parent: i32,
    /// Whether it is process 1 of the innermost of several pid namespaces.
    leads_namespace: bool,
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: u64,
    bounding: u64,
    no_new_privileges: bool,
    /// Filters of system calls.
    filters: u32,
}

impl Inside {
    /// Finds process 1 of the sandbox whose front is `front`: a grandchild of it.
    ///
    /// # Errors
    ///
    /// `NotFound` where there is none.
    pub fn find(front: i32) -> io::Result<Self> {
        let processes = all_processes()?;
        let is_child_of_front = |pid: i32| processes.get(&pid).is_some_and(|bounds| bounds.parent == front);
        let wanted = |bounds: &Bounds| bounds.leads_namespace && is_child_of_front(bounds.parent);
        let (&pid, seen) =
            processes.iter().find(|(_, bounds)| wanted(bounds)).ok_or(io::ErrorKind::NotFound)?;
        let process = Pidfd::open(pid)?;
        // Read behind the opening: if this is process 1 now, it was when it was opened.
        let bounds = Bounds::of(pid)?;
        if bounds.parent != seen.parent || !bounds.leads_namespace || Bounds::of(seen.parent)?.parent != front
        {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self { pid, process, bounds })
    }

    /// The environment of the first program that was started inside: of the children of process 1 the oldest that has
    /// `variable`. Empty where it has ended.
    ///
    /// # Errors
    ///
    /// What reading `/proc` says.
    pub fn environment(&self, variable: &str) -> io::Result<BTreeMap<OsString, OsString>> {
        let children = all_processes()?.into_iter().filter(|(_, bounds)| bounds.parent == self.pid);
        let environments = children.filter_map(|(pid, _)| fs::read(format!("/proc/{pid}/environ")).ok());
        let mut pairs = environments.map(|bytes| split(&bytes));
        let found = pairs.find(|pairs| pairs.contains_key(OsStr::new(variable)));
        Ok(found.unwrap_or_default())
    }

    /// The descriptor that must stay open until everything is joined.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// Moves the calling process, which has one thread, into its namespaces; into that of processes only its children
    /// come. The working directory is `/` then.
    ///
    /// # Errors
    ///
    /// What setns(2) says.
    pub fn join(&self) -> io::Result<()> {
        let path = |kind: &str| PathBuf::from(format!("/proc/{}/ns/{kind}", self.pid));
        let others: Vec<(&str, CloneFlags)> =
            KINDS.into_iter().filter(|(kind, _)| !is_own(&path(kind), kind)).collect();
        let user = path("user");
        if !is_own(&user, "user") {
            // What bubblewrap has made belongs to a user namespace above the last one: from there all can be joined.
            let owner = File::from(owner_of(File::open(path("mnt"))?.as_fd())?);
            if !is_same(&owner.metadata()?, "user")? {
                setns(&owner, CloneFlags::CLONE_NEWUSER)?;
            }
        }
        let flags = others.iter().fold(CloneFlags::empty(), |flags, (_, flag)| flags | *flag);
        // Looked at before /proc is that of the sandbox.
        let user = File::open(user)?;
        let is_there = is_same(&user.metadata()?, "user")?;
        if !flags.is_empty() {
            setns(&self.process, flags)?;
        }
        if !is_there {
            setns(&user, CloneFlags::CLONE_NEWUSER)?;
        }
        Ok(())
    }

    /// Takes from the calling process, which has one thread, everything that process 1 has not got.
    ///
    /// # Errors
    ///
    /// `EPERM` where process 1 has filters of system calls that we have not: they cannot be had again.
    pub fn confine(&self) -> io::Result<()> {
        let Bounds {
            effective, permitted, inheritable, ambient, bounding, no_new_privileges, filters, ..
        } = self.bounds;
        if filters > Bounds::parse(&fs::read_to_string("/proc/self/status")?)?.filters {
            return Err(Errno::EPERM.into());
        }
        for number in 0..CAPABILITIES {
            let one = 1 << number;
            if bounding & one == 0 {
                match thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(one)) {
                    // The kernel does not know that many.
                    Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        thread::clear_ambient_capability_set()?;
        let set = CapabilitySet::from_bits_retain;
        let sets = CapabilitySets {
            effective: set(effective),
            permitted: set(permitted),
            inheritable: set(inheritable),
        };
        thread::set_capabilities(None, sets)?;
        for number in (0..CAPABILITIES).filter(|number| ambient & (1 << number) != 0) {
            thread::configure_capability_in_ambient_set(set(1 << number), true)?;
        }
        if no_new_privileges {
            thread::set_no_new_privs(true)?;
        }
        Ok(())
    }
}

impl Bounds {
    fn of(pid: i32) -> io::Result<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/status"))?)
    }

    fn parse(status: &str) -> io::Result<Self> {
        let mut bounds = Self::default();
        let mut known = 0;
        for (name, value) in status.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            let mask = || u64::from_str_radix(value, 16).map_err(io::Error::other);
            match name {
                "PPid" => bounds.parent = number(value)?,
                "NSpid" => {
                    let mut numbers = value.split_whitespace();
                    bounds.leads_namespace = numbers.next_back() == Some("1") && numbers.next().is_some();
                }
                "CapEff" => bounds.effective = mask()?,
                "CapPrm" => bounds.permitted = mask()?,
                "CapInh" => bounds.inheritable = mask()?,
                "CapAmb" => bounds.ambient = mask()?,
                "CapBnd" => bounds.bounding = mask()?,
                "NoNewPrivs" => bounds.no_new_privileges = value != "0",
                // An older kernel tells only whether there are any, one without filters nothing.
                "Seccomp" | "Seccomp_filters" => {
                    let many = if name == "Seccomp" { u32::from(value == "2") } else { number(value)? };
                    bounds.filters = bounds.filters.max(many);
                    continue;
                }
                _ => continue,
            }
            known += 1;
        }
        // A line that is missing must not mean that nothing is to be taken away.
        if known != BOUNDS { Err(io::Error::other("cannot understand /proc/PID/status")) } else { Ok(bounds) }
    }
}

fn number<T: std::str::FromStr<Err = std::num::ParseIntError>>(text: &str) -> io::Result<T> {
    text.parse().map_err(io::Error::other)
}

fn all_processes() -> io::Result<BTreeMap<i32, Bounds>> {
    let entries = fs::read_dir("/proc")?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter_map(|pid| Some((pid, Bounds::of(pid).ok()?))).collect())
}

fn split(environment: &[u8]) -> BTreeMap<OsString, OsString> {
    let own = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    environment
        .split(|byte| *byte == 0)
        .filter_map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=')?;
            Some((own(pair.get(..at)?), own(pair.get(at + 1..)?)))
        })
        .collect()
}

/// Whether a namespace is the caller's own; one that cannot be looked at is not.
fn is_own(path: &Path, kind: &str) -> bool {
    fs::metadata(path).is_ok_and(|found| is_same(&found, kind).unwrap_or(false))
}

fn is_same(found: &fs::Metadata, kind: &str) -> io::Result<bool> {
    let own = fs::metadata(format!("/proc/self/ns/{kind}"))?;
    Ok((own.dev(), own.ino()) == (found.dev(), found.ino()))
}

/// The user namespace that a namespace belongs to.
fn owner_of(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    /// `_IO(0xb7, 1)`, ioctl_nsfs(2).
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    // SAFETY: the descriptor is open as long as the borrow lives, and this request takes no argument.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a result that is not negative is a new descriptor, which belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tx: 1\nPPid:\t7\nNSpid:\t12\t3\t1\nCapInh:\t0000000000000000\n\
        CapPrm:\t00000000000000c0\nCapEff:\t0000000000000080\nCapBnd:\t00000000000000ff\n\
        CapAmb:\t0000000000000001\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";

    #[test]
    fn bounds_are_read() {
        let expected = Bounds {
            parent: 7,
            leads_namespace: true,
            effective: 0x80,
            permitted: 0xc0,
            inheritable: 0,
            ambient: 1,
            bounding: 0xff,
            no_new_privileges: true,
            filters: 3,
        };
        assert_eq!(Bounds::parse(STATUS).unwrap(), expected);
        assert!(!Bounds::parse(&STATUS.replace("12\t3\t1", "1")).unwrap().leads_namespace);
        for missing in ["CapBnd", "CapEff", "NoNewPrivs"] {
            assert!(Bounds::parse(&STATUS.replace(missing, "Other")).is_err(), "{missing}");
        }
        assert!(Bounds::parse(&STATUS.replace("Seccomp_filters", "Other")).unwrap().filters == 1);
    }

    #[test]
    fn an_environment_is_split_at_the_first_sign() {
        let pairs = split(b"A=1\0B=x=y\0nonsense\0\0");
        assert_eq!(pairs.len(), 2);
        assert_eq!(pairs[OsStr::new("B")], "x=y");
    }
}
