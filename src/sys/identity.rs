//! Which process a number meant when it was written down.
//!
//! A number alone is another process some day. Together with the boot, the pid namespace and the moment of its start
//! (in ticks since the boot, /proc/PID/stat) it is one process for ever.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    errno::Errno,
    process::{self, Pidfd},
};

/// A process, by facts that can be written into a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The boot during which it ran.
    pub boot: String,
    /// The pid namespace in which its number counts.
    pub namespace: String,
    /// Its number.
    pub pid: i32,
    /// When it started, in ticks since the boot.
    pub started: u64,
}

/// What has become of a process.
#[derive(Debug)]
pub enum Life {
    /// It runs; the descriptor is it and no other.
    Running(Pidfd),
    /// It has ended, and nothing can undo that.
    Ended,
    /// Its number counts in another pid namespace: nothing can be said from here.
    Elsewhere,
}

impl Identity {
    /// The calling process.
    ///
    /// # Errors
    ///
    /// What reading `/proc` says.
    pub fn own() -> io::Result<Self> {
        let pid = process::id();
        let (started, _) = start_of(pid)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { boot: boot()?, namespace: namespace()?, pid, started })
    }

    /// What has become of it.
    ///
    /// # Errors
    ///
    /// What pidfd_open(2) and reading `/proc` say.
    pub fn life(&self) -> io::Result<Life> {
        if self.boot != boot()? {
            return Ok(Life::Ended);
        }
        if self.namespace != namespace()? {
            return Ok(Life::Elsewhere);
        }
        let pidfd = match Pidfd::open(self.pid) {
            Ok(pidfd) => pidfd,
            // EINVAL: the number is that of a thread by now, or no number of a process at all.
            Err(error)
                if matches!(
                    error.raw_os_error().map(Errno::from_raw),
                    Some(Errno::ESRCH | Errno::EINVAL)
                ) || error.kind() == io::ErrorKind::InvalidInput =>
            {
                return Ok(Life::Ended);
            }
            Err(error) => return Err(error),
        };
        // Read behind the opening: if this is the process now, it was when it was opened.
        Ok(match start_of(self.pid)? {
            Some((started, true)) if started == self.started => Life::Running(pidfd),
            _ => Life::Ended,
        })
    }
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn namespace() -> io::Result<String> {
    Ok(fs::read_link("/proc/self/ns/pid")?.to_string_lossy().into_owned())
}

/// When a process started, and whether it still runs (a zombie does not).
fn start_of(pid: i32) -> io::Result<Option<(u64, bool)>> {
    match fs::read(Path::new("/proc").join(pid.to_string()).join("stat")) {
        Ok(stat) => {
            parse(&stat).map(Some).ok_or_else(|| io::Error::other("cannot understand /proc/PID/stat"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The 22nd and the third field; the second is a name in parentheses, which may hold anything.
fn parse(stat: &[u8]) -> Option<(u64, bool)> {
    let behind = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let text = std::str::from_utf8(stat.get(behind..)?).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let runs = !matches!(fields.next()?, "Z" | "X" | "x");
    Some((fields.nth(18)?.parse().ok()?, runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pretend_to_be_other_fields() {
        let rest = "1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0";
        assert_eq!(parse(format!("7 (a) Z 9 (x y) S {rest}").as_bytes()), Some((4711, true)));
        assert_eq!(parse(format!("7 (a) Z {rest}").as_bytes()), Some((4711, false)));
        assert_eq!(parse(b"7 (a"), None);
    }

    #[test]
    fn a_process_is_known_by_its_start_and_its_boot() {
        let own = Identity::own().unwrap();
        assert!(matches!(own.life().unwrap(), Life::Running(_)));
        let ended = [
            Identity { started: own.started + 1, ..own.clone() },
            Identity { boot: "x".into(), ..own.clone() },
        ];
        for other in ended {
            assert!(matches!(other.life().unwrap(), Life::Ended), "{other:?}");
        }
        let elsewhere = Identity { namespace: "pid:[1]".into(), ..own };
        assert!(matches!(elsewhere.life().unwrap(), Life::Elsewhere));
    }

    #[test]
    fn a_zombie_has_ended() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let (started, _) = start_of(pid).unwrap().unwrap();
        let identity = Identity { pid, started, ..Identity::own().unwrap() };
        assert!(matches!(identity.life().unwrap(), Life::Running(_)));
        let pidfd = Pidfd::of_program(&child).unwrap();
        pidfd.signal(crate::sys::signal::Signal::SIGKILL).unwrap();
        super::super::ready::first_readable(&[std::os::fd::AsFd::as_fd(&pidfd)], None).unwrap();
        assert!(matches!(identity.life().unwrap(), Life::Ended));
        child.wait().unwrap();
        assert!(matches!(identity.life().unwrap(), Life::Ended));
    }
}
