//! The messages between the front and process 1 inside.
//!
//! ```text
//! front ── Start (with the descriptors that are no terminals) ──> init
//!       <── Terminal (with its master end), if one is wanted ──
//!       ── Proceed, when its size and modes are set ──>
//!       ── Signal … ──>    <── Stopped … ──
//!       <── NotStarted | Started, Ended ──
//! ```
//!
//! Whoever wants a program in what runs already says `Enter` instead of `Start` to a session of its own; the rest is the
//! same.
//!
//! Programs inside may be of the same user as process 1: the front believes nothing that comes from there.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::PathBuf,
};

use crate::{
    instance::wire::{Reader, WireError, Writer},
    sys::{
        process::Ended,
        scm::Frame,
        signal::{self, Signal},
    },
};

/// Version of these messages. Both ends are the same file, so another one means another build got in between.
const VERSION: u8 = 2;
/// Largest message to process 1, in bytes: more than the kernel takes as arguments and environment (6 MiB).
pub const GUEST_LIMIT: usize = 8 << 20;
/// Largest message from process 1, in bytes.
pub const HOST_LIMIT: usize = 64;

/// What to run.
#[derive(Debug)]
pub struct Start {
    /// Arguments, name first.
    pub arguments: Vec<OsString>,
    /// Environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// Directories to start in: the first that is there.
    pub directories: Vec<PathBuf>,
    /// stdin, stdout and stderr; none stands for the terminal that process 1 opens.
    pub stdio: [Option<OwnedFd>; 3],
    /// Where requests of others come in, as a path inside; empty where none do.
    pub portal: PathBuf,
}

/// What to run in what runs already.
#[derive(Debug)]
pub struct Enter {
    /// Arguments, name first.
    pub arguments: Vec<OsString>,
    /// Variables that are set over those of the instance.
    pub environment: BTreeMap<OsString, OsString>,
    /// Directories to start in: the first that is there.
    pub directories: Vec<PathBuf>,
    /// As whom, by name or number; empty: as the instance.
    pub user: OsString,
    /// Whether the program goes on without whoever asked.
    pub is_detached: bool,
    /// stdin, stdout and stderr; none stands for the terminal that the session opens.
    pub stdio: [Option<OwnedFd>; 3],
}

/// From the front to process 1.
#[derive(Debug)]
pub enum ToGuest {
    /// What to run; the first message, and once.
    Start(Start),
    /// The terminal is ready.
    Proceed,
    /// For the program's process group.
    Signal(Signal),
    /// What to run in what runs already; the first message to a session, and once.
    Enter(Enter),
}

/// From process 1 to the front.
#[derive(Debug)]
pub enum FromGuest {
    /// The master end of the terminal.
    Terminal(OwnedFd),
    /// The program has been stopped by a signal.
    Stopped,
    /// The program could not be started, for this reason (errno).
    NotStarted(i32),
    /// The program has ended.
    Ended(Ended),
    /// The program runs, and has this number inside.
    Started(i32),
}

impl ToGuest {
    /// The message as bytes, and the descriptors that go with it.
    #[must_use]
    pub fn encode(&self) -> (Vec<u8>, Vec<&OwnedFd>) {
        match self {
            Self::Start(start) => {
                let mut writer = Writer::new(VERSION, 0);
                writer.list(start.arguments.iter().map(OsString::as_os_str));
                writer.list(start.environment.keys().map(OsString::as_os_str));
                writer.list(start.environment.values().map(OsString::as_os_str));
                writer.list(start.directories.iter().map(|path| path.as_os_str()));
                writer.bytes(start.portal.as_os_str().as_bytes());
                (encode_stdio(&mut writer, &start.stdio), start.stdio.iter().flatten().collect())
            }
            Self::Enter(enter) => {
                let mut writer = Writer::new(VERSION, 3);
                writer.list(enter.arguments.iter().map(OsString::as_os_str));
                writer.list(enter.environment.keys().map(OsString::as_os_str));
                writer.list(enter.environment.values().map(OsString::as_os_str));
                writer.list(enter.directories.iter().map(|path| path.as_os_str()));
                writer.bytes(enter.user.as_bytes()).u8(u8::from(enter.is_detached));
                (encode_stdio(&mut writer, &enter.stdio), enter.stdio.iter().flatten().collect())
            }
            Self::Proceed => (Writer::new(VERSION, 1).finish(), Vec::new()),
            Self::Signal(signal) => {
                (Writer::new(VERSION, 2).u8(signal::number(*signal)).finish(), Vec::new())
            }
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`WireError`].
    pub fn decode(frame: Frame) -> Result<Self, WireError> {
        let (kind, mut reader) = Reader::new(&frame.payload, VERSION)?;
        let mut fds = frame.fds.into_iter();
        let message = match kind {
            0 | 3 => {
                let arguments = reader.list()?;
                let environment = reader.list()?.into_iter().zip(reader.list()?).collect();
                let directories = reader.list()?.into_iter().map(PathBuf::from).collect();
                if kind == 0 {
                    let portal = reader.os_string()?.into();
                    let stdio = decode_stdio(&mut reader, &mut fds)?;
                    Self::Start(Start { arguments, environment, directories, stdio, portal })
                } else {
                    let (user, is_detached) = (reader.os_string()?, reader.u8()? != 0);
                    let stdio = decode_stdio(&mut reader, &mut fds)?;
                    Self::Enter(Enter { arguments, environment, directories, user, is_detached, stdio })
                }
            }
            1 => Self::Proceed,
            2 => Self::Signal(known_signal(reader.u8()?)?),
            value => return Err(unknown("message", value)),
        };
        reader.finish()?;
        all_used(fds.len())?;
        Ok(message)
    }
}

impl FromGuest {
    /// The message as bytes, and the descriptor that goes with it.
    #[must_use]
    pub fn encode(&self) -> (Vec<u8>, Option<&OwnedFd>) {
        match self {
            Self::Terminal(master) => (Writer::new(VERSION, 0).finish(), Some(master)),
            Self::Stopped => (Writer::new(VERSION, 1).finish(), None),
            Self::NotStarted(errno) => {
                (Writer::new(VERSION, 2).u32(u32::try_from(*errno).unwrap_or(0)).finish(), None)
            }
            Self::Ended(Ended::Exited(status)) => (Writer::new(VERSION, 3).u8(*status).finish(), None),
            Self::Ended(Ended::Killed(signal)) => (Writer::new(VERSION, 4).u8(*signal).finish(), None),
            Self::Started(pid) => {
                (Writer::new(VERSION, 5).u32(u32::try_from(*pid).unwrap_or(0)).finish(), None)
            }
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`WireError`].
    pub fn decode(frame: Frame) -> Result<Self, WireError> {
        let (kind, mut reader) = Reader::new(&frame.payload, VERSION)?;
        let mut fds = frame.fds.into_iter();
        let message = match kind {
            0 => Self::Terminal(fds.next().ok_or(WireError::Descriptors { found: 0, expected: 1 })?),
            1 => Self::Stopped,
            2 => {
                let errno = reader.u32()?;
                Self::NotStarted(
                    i32::try_from(errno)
                        .map_err(|_| WireError::Unknown { field: "errno", value: u64::from(errno) })?,
                )
            }
            3 => Self::Ended(Ended::Exited(reader.u8()?)),
            4 => Self::Ended(Ended::Killed(signal::number(known_signal(reader.u8()?)?))),
            5 => Self::Started(i32::try_from(reader.u32()?).unwrap_or(0)),
            value => return Err(unknown("message", value)),
        };
        reader.finish()?;
        all_used(fds.len())?;
        Ok(message)
    }
}

fn encode_stdio(writer: &mut Writer, stdio: &[Option<OwnedFd>; 3]) -> Vec<u8> {
    for slot in stdio {
        writer.u8(u8::from(slot.is_some()));
    }
    writer.finish()
}

fn decode_stdio(
    reader: &mut Reader<'_>,
    fds: &mut impl Iterator<Item = OwnedFd>,
) -> Result<[Option<OwnedFd>; 3], WireError> {
    let mut stdio = [None, None, None];
    for slot in &mut stdio {
        if reader.u8()? != 0 {
            *slot = Some(fds.next().ok_or(WireError::Descriptors { found: 0, expected: 1 })?);
        }
    }
    Ok(stdio)
}

fn known_signal(number: u8) -> Result<Signal, WireError> {
    signal::from_number(number).ok_or_else(|| unknown("signal", number))
}

fn unknown(field: &'static str, value: u8) -> WireError {
    WireError::Unknown { field, value: u64::from(value) }
}

fn all_used(left: usize) -> Result<(), WireError> {
    if left == 0 { Ok(()) } else { Err(WireError::Descriptors { found: left, expected: 0 }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_comes_back() {
        let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let start = ToGuest::Start(Start {
            arguments: vec!["a".into(), "".into()],
            environment: [("K".into(), "V".into())].into(),
            directories: vec!["/x".into()],
            stdio: [None, Some(null), None],
            portal: "/p".into(),
        });
        let (payload, fds) = start.encode();
        let fds = fds.into_iter().map(|fd| fd.try_clone().unwrap()).collect();
        let ToGuest::Start(back) = ToGuest::decode(Frame { payload, fds }).unwrap() else { panic!() };
        assert_eq!(back.arguments, ["a", ""]);
        assert_eq!(back.environment.len(), 1);
        assert_eq!(back.stdio.map(|slot| slot.is_some()), [false, true, false]);
    }

    #[test]
    fn a_request_comes_back() {
        let enter = ToGuest::Enter(Enter {
            arguments: vec!["a".into()],
            environment: [("K".into(), "V".into())].into(),
            directories: vec!["/x".into()],
            user: "root".into(),
            is_detached: true,
            stdio: [None, None, None],
        });
        let (payload, fds) = enter.encode();
        assert!(fds.is_empty());
        let ToGuest::Enter(back) = ToGuest::decode(Frame { payload, fds: vec![] }).unwrap() else { panic!() };
        assert_eq!((back.user.to_str(), back.is_detached), (Some("root"), true));
        assert_eq!(back.environment[std::ffi::OsStr::new("K")], "V");
    }

    #[test]
    fn reports_come_back() {
        for report in [
            FromGuest::Started(77),
            FromGuest::NotStarted(2),
            FromGuest::Stopped,
            FromGuest::Ended(Ended::Killed(9)),
        ] {
            let payload = report.encode().0;
            let back = FromGuest::decode(Frame { payload: payload.clone(), fds: vec![] }).unwrap();
            assert_eq!(back.encode().0, payload);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let null = || -> OwnedFd { std::fs::File::open("/dev/null").unwrap().into() };
        for (payload, fds) in [
            (vec![], vec![]),
            (vec![9, 1], vec![]),
            (vec![VERSION, 99], vec![]),
            (vec![VERSION, 0], vec![]),
            (vec![VERSION, 0], vec![null(), null()]),
            (vec![VERSION, 1, 0], vec![]),
            (vec![VERSION, 4, 200], vec![]),
            (vec![VERSION, 2, 255, 255, 255, 255], vec![]),
        ] {
            assert!(FromGuest::decode(Frame { payload: payload.clone(), fds }).is_err(), "{payload:?}");
        }
    }
}
