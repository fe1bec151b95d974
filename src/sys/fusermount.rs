//! `fusermount3`: the set-uid helper of the fuse3 package that mounts and unmounts for ordinary users.
//!
//! It opens `/dev/fuse`, mounts it, and sends the descriptor over the socket that `_FUSE_COMMFD` names. We give it
//! that socket as its standard input, which needs no inherited descriptor.

use std::{
    ffi::OsString,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    process::{Command, Stdio},
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use thiserror::Error;

use super::mount::{Access, FuseMount, Visitors, escape_option};

/// The helper's name; it is looked for in PATH.
const HELPER: &str = "fusermount3";

/// What failed about the helper.
#[derive(Debug, Error)]
pub enum Error {
    /// It is not there.
    #[error("the helper fusermount3 is not installed")]
    Missing,
    /// It could not be started or talked to.
    #[error("cannot run fusermount3")]
    Run(#[source] io::Error),
    /// It said no; the text is its own.
    #[error("{0}")]
    Refused(String),
    /// It succeeded without sending the descriptor.
    #[error("fusermount3 sent no descriptor of the device")]
    NoDevice,
}

/// Mounts as the calling user and returns the device's descriptor. Devices and set-id bits are off whatever `mount`
/// says, and visitors need `user_allow_other` in `/etc/fuse.conf`.
///
/// # Errors
///
/// [`Error`] tells what the helper said.
pub fn mount(mount: &FuseMount<'_>) -> Result<OwnedFd, Error> {
    let (ours, theirs) = UnixStream::pair().map_err(Error::Run)?;
    let mut command = Command::new(HELPER);
    command.arg("-o").arg(options(mount)).arg("--").arg(mount.target);
    command.env("_FUSE_COMMFD", "0").stdin(Stdio::from(OwnedFd::from(theirs)));
    run(&mut command)?;
    // The helper has ended: what it sent is there, or nothing will come.
    drop(command);
    receive(&ours)
}

/// Unmounts what the calling user has mounted at `target`; `lazily` also where somebody uses it.
///
/// # Errors
///
/// [`Error`] tells what the helper said.
pub fn unmount(target: &Path, lazily: bool) -> Result<(), Error> {
    let mut command = Command::new(HELPER);
    command.arg("-u");
    if lazily {
        command.arg("-z");
    }
    run(command.arg("--").arg(target))
}

fn options(mount: &FuseMount<'_>) -> OsString {
    let mut options = OsString::from(match mount.access {
        Access::ReadOnly => "ro",
        Access::ReadWrite => "rw",
    });
    options.push(",nosuid,nodev,default_permissions,subtype=fim,fsname=");
    options.push(escape_option(mount.source));
    if mount.visitors == Visitors::All {
        options.push(",allow_other");
    }
    options
}

fn run(command: &mut Command) -> Result<(), Error> {
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output().map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound { Error::Missing } else { Error::Run(error) }
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or_default().trim();
    Err(Error::Refused(if said.is_empty() {
        format!("fusermount3 ended with {}", output.status)
    } else {
        said.to_owned()
    }))
}

fn receive(socket: &UnixStream) -> Result<OwnedFd, Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        .map_err(|errno| Error::Run(errno.into()))?;
    ancillary
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        })
        .ok_or(Error::NoDevice)
}
