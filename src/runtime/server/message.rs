//! The messages between fronts and the server.

use std::{
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use crate::{
    instance::{
        InstanceId,
        wire::{Reader, WireError, Writer},
    },
    sys::{namespace::Namespaces, process::Pidfd, scm::Frame},
};

/// Version of these messages; builds with another one do not share a server.
const VERSION: u8 = 4;
/// Largest message, in bytes: a path and a few numbers, or a sentence.
pub(super) const LIMIT: usize = 16 << 10;

/// From a front to the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ToServer {
    /// A front's first message.
    Hello {
        /// The process id of the instance, as its directory is called.
        pid: i32,
        /// How names are to be folded.
        casefold: String,
        /// The layers that the user named, lowest first, in one line.
        layers: String,
    },
    /// A committer's first message: let no change happen until further notice.
    Freeze,
    /// A committer's second message: this archive holds what the upper holds.
    Rebase {
        /// The file.
        file: PathBuf,
        /// Where in it the archive begins.
        offset: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// A front's last message: write what was recorded.
    Save,
}

/// From the server to a front.
#[derive(Debug)]
pub(super) enum FromServer {
    /// The instance is registered, the mount answers.
    Welcome(Welcome),
    /// It cannot be served, and why.
    Refused(String),
    /// Nothing changes any more.
    Frozen,
    /// The archive is part of the stack, the upper is empty, changes go on.
    Rebased,
    /// What was recorded is in its file.
    Saved,
}

/// Answers without contents.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said {
    /// [`FromServer::Frozen`].
    Frozen,
    /// [`FromServer::Rebased`].
    Rebased,
    /// [`FromServer::Saved`].
    Saved,
}

/// What a front needs to use the mount.
#[derive(Debug)]
pub(super) struct Welcome {
    /// Number of the instance.
    pub id: InstanceId,
    /// Where the merged root is, in the namespaces of the server.
    pub mount: PathBuf,
    /// Where each layer is by itself, there as well.
    pub layers: PathBuf,
    /// The server.
    pub server: Pidfd,
    /// Its namespaces.
    pub namespaces: Namespaces,
}

impl ToServer {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello { pid, casefold, layers } => {
                let pid = u32::try_from(*pid).unwrap_or(0);
                Writer::new(VERSION, 0).u32(pid).bytes(casefold.as_bytes()).bytes(layers.as_bytes()).finish()
            }
            Self::Freeze => Writer::new(VERSION, 1).finish(),
            Self::Rebase { file, offset, len } => {
                Writer::new(VERSION, 2).bytes(file.as_os_str().as_bytes()).u64(*offset).u64(*len).finish()
            }
            Self::Save => Writer::new(VERSION, 3).finish(),
        }
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let (kind, mut reader) = Reader::new(payload, VERSION)?;
        let message = match kind {
            0 => Self::Hello {
                pid: process_id(reader.u32()?)?,
                casefold: String::from_utf8_lossy(reader.bytes()?).into_owned(),
                layers: String::from_utf8_lossy(reader.bytes()?).into_owned(),
            },
            1 => Self::Freeze,
            2 => Self::Rebase {
                file: PathBuf::from(reader.os_string()?),
                offset: reader.u64()?,
                len: reader.u64()?,
            },
            3 => Self::Save,
            value => return Err(WireError::Unknown { field: "message", value: u64::from(value) }),
        };
        reader.finish()?;
        Ok(message)
    }
}

fn process_id(number: u32) -> Result<i32, WireError> {
    i32::try_from(number)
        .ok()
        .filter(|pid| *pid > 0)
        .ok_or(WireError::Unknown { field: "process id", value: u64::from(number) })
}

impl FromServer {
    /// A welcome as bytes; its descriptors go with it in this order: pidfd, mount, user namespace.
    pub(super) fn encode_welcome(id: InstanceId, mount: &Path, layers: &Path) -> Vec<u8> {
        let (mount, layers) = (mount.as_os_str().as_bytes(), layers.as_os_str().as_bytes());
        Writer::new(VERSION, 0).u32(id.get()).bytes(mount).bytes(layers).finish()
    }

    pub(super) fn encode(said: Said) -> Vec<u8> {
        let kind = match said {
            Said::Frozen => 2,
            Said::Rebased => 3,
            Said::Saved => 4,
        };
        Writer::new(VERSION, kind).finish()
    }

    pub(super) fn encode_refusal(why: &str) -> Vec<u8> {
        let mut end = why.len().min(LIMIT / 2);
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        Writer::new(VERSION, 1).bytes(why.get(..end).unwrap_or_default().as_bytes()).finish()
    }

    pub(super) fn decode(frame: Frame) -> Result<Self, WireError> {
        let (kind, mut reader) = Reader::new(&frame.payload, VERSION)?;
        let message = match kind {
            0 => {
                let id = InstanceId::new(reader.u32()?);
                let mount = PathBuf::from(reader.os_string()?);
                let layers = PathBuf::from(reader.os_string()?);
                let (server, namespaces) = descriptors(frame.fds)?;
                Self::Welcome(Welcome { id, mount, layers, server, namespaces })
            }
            1 => Self::Refused(String::from_utf8_lossy(reader.bytes()?).into_owned()),
            2 => Self::Frozen,
            3 => Self::Rebased,
            4 => Self::Saved,
            value => return Err(WireError::Unknown { field: "message", value: u64::from(value) }),
        };
        reader.finish()?;
        Ok(message)
    }
}

fn descriptors(fds: Vec<OwnedFd>) -> Result<(Pidfd, Namespaces), WireError> {
    let found = fds.len();
    let mut fds = fds.into_iter();
    match (fds.next(), fds.next(), fds.next(), fds.next()) {
        (Some(server), Some(mount), user, None) => {
            Ok((Pidfd::from_fd(server), Namespaces::from_fds(mount, user)))
        }
        _ => Err(WireError::Descriptors { found, expected: 3 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn messages_come_back() {
        for message in [
            ToServer::Hello { pid: 77, casefold: "unicode /a".to_owned(), layers: "/x:/y".to_owned() },
            ToServer::Freeze,
            ToServer::Save,
            ToServer::Rebase { file: "/x y".into(), offset: 1 << 40, len: u64::MAX },
        ] {
            assert_eq!(ToServer::decode(&message.encode()).unwrap(), message);
        }
        let answers = [(Said::Frozen, "Frozen"), (Said::Rebased, "Rebased"), (Said::Saved, "Saved")];
        for (said, expected) in answers {
            let answer =
                FromServer::decode(Frame { payload: FromServer::encode(said), fds: vec![] }).unwrap();
            assert_eq!(format!("{answer:?}"), expected);
        }
        let payload = FromServer::encode_welcome(InstanceId::new(5), Path::new("/m"), Path::new("/l"));
        let fds = vec![null(), null()];
        let FromServer::Welcome(welcome) = FromServer::decode(Frame { payload, fds }).unwrap() else {
            panic!()
        };
        assert_eq!((welcome.id.get(), welcome.mount.as_path()), (5, Path::new("/m")));
        assert_eq!(welcome.layers, Path::new("/l"));
        let long = "ü".repeat(LIMIT);
        let payload = FromServer::encode_refusal(&long);
        assert!(payload.len() < LIMIT);
        assert!(matches!(FromServer::decode(Frame { payload, fds: vec![] }), Ok(FromServer::Refused(_))));
    }

    #[test]
    fn nonsense_is_refused() {
        let other = VERSION + 1;
        for payload in
            [vec![], vec![VERSION], vec![VERSION, 0, 0, 0, 0, 0], vec![VERSION, 0, 1], vec![other, 0]]
        {
            assert!(ToServer::decode(&payload).is_err(), "{payload:?}");
        }
        let payload = FromServer::encode_welcome(InstanceId::new(5), Path::new("/m"), Path::new("/l"));
        for count in [0, 1, 4] {
            let fds = (0..count).map(|_| null()).collect();
            assert!(FromServer::decode(Frame { payload: payload.clone(), fds }).is_err(), "{count}");
        }
    }
}
