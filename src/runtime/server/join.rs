//! The front's side: join the server, or start it.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{
    Place, ServerError,
    message::{FromServer, LIMIT, ToServer, Welcome},
    place::Locked,
    serve::{Duty, serve},
};
use crate::{
    instance::InstanceId,
    sync::thread,
    sys::{
        namespace::Namespaces,
        process::{self, Pidfd, Side},
        scm::Channel,
    },
};

/// How often a server may end in our face before we give up: each time another front was the last of its instances.
const PATIENCE: u32 = 16;

/// How long a server that has no instance any more may take to end, where a fresh one is needed.
const LAST_MOMENTS: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(5);

/// What is said of an answer that does not belong to the question.
const OTHER_QUESTION: &str = "the file server gave an answer to another question";

/// A front's share in a server. It ends with this.
#[derive(Debug)]
pub struct Lease {
    channel: Channel,
    /// The server.
    pub server: Pidfd,
    /// The namespaces in which the merged root is mounted.
    pub namespaces: Namespaces,
    /// Where it is in them.
    pub mount: PathBuf,
    /// Where each layer is by itself, there as well.
    pub layers: PathBuf,
    /// Number of this instance.
    pub id: InstanceId,
}

impl Lease {
    /// Has the server write what was recorded, now that the program has ended.
    ///
    /// # Errors
    ///
    /// It could not be written, or the server has ended.
    pub fn save(&mut self) -> Result<(), ServerError> {
        let asked = self.channel.send(&ToServer::Save.encode(), &[]);
        asked.map_err(ServerError::step("speak with the file server"))?;
        let frame = self.channel.receive_waiting().map_err(ServerError::step("hear the file server"))?;
        match FromServer::decode(frame.ok_or(ServerError::Died)?)? {
            FromServer::Saved => Ok(()),
            FromServer::Refused(why) => Err(ServerError::Refused { why }),
            _ => Err(ServerError::Refused { why: OTHER_QUESTION.to_owned() }),
        }
    }

    /// Hangs up when the server has ended.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Joins the server at `place`, or starts one that does `duty`. The calling process has one thread; `pid` is its number,
/// by which its instance is called.
///
/// # Errors
///
/// [`ServerError`].
pub fn join_or_start(place: &Place, pid: i32, duty: &Duty<'_>) -> Result<Lease, ServerError> {
    let deadline = Instant::now() + LAST_MOMENTS;
    let mut patience = PATIENCE;
    while patience > 0 {
        let locked = place.lock()?;
        match locked.connect() {
            // It may be about to end: then the lock is what it waits for.
            Ok(_) if duty.fresh && Instant::now() < deadline => {
                drop(locked);
                thread::sleep(STEP);
            }
            Ok(_) if duty.fresh => return Err(ServerError::Running),
            Ok(channel) => {
                patience -= 1;
                // Connected is enough: the server looks for us before it ends. It answers without our lock.
                drop(locked);
                if let Some(lease) = register(channel, pid, duty)? {
                    return Ok(lease);
                }
            }
            Err(error) if nobody_listens(&error) => return start(place, locked, pid, duty),
            Err(source) => return Err(ServerError::Place { path: place.path(), source }),
        }
    }
    Err(ServerError::Died)
}

pub(super) fn nobody_listens(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Introduces ourselves; `None` where the server ended before it could answer.
fn register(mut channel: Channel, pid: i32, duty: &Duty<'_>) -> Result<Option<Lease>, ServerError> {
    let hello = ToServer::Hello { pid, casefold: duty.casefold.clone(), layers: duty.layers.clone() };
    match channel.send(&hello.encode(), &[]) {
        Ok(()) => {}
        // It has ended; why it could not start is still there to be read.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(source) => return Err(ServerError::Step { step: "speak with the file server", source }),
    }
    let frame = channel.receive_waiting().map_err(ServerError::step("hear the file server"))?;
    let Some(frame) = frame else { return Ok(None) };
    match FromServer::decode(frame)? {
        FromServer::Refused(why) => Err(ServerError::Refused { why }),
        FromServer::Frozen | FromServer::Rebased | FromServer::Saved => {
            Err(ServerError::Refused { why: OTHER_QUESTION.to_owned() })
        }
        FromServer::Welcome(Welcome { id, mount, layers, server, namespaces }) => {
            Ok(Some(Lease { channel, server, namespaces, mount, layers, id }))
        }
    }
}

/// Starts a server. The lock is held until it answers; its first lease is there before it is.
fn start(place: &Place, locked: Locked, pid: i32, duty: &Duty<'_>) -> Result<Lease, ServerError> {
    locked.make_room(place)?;
    let (ours, theirs) = Channel::pair(LIMIT).map_err(ServerError::step("make a channel"))?;
    match process::detach().map_err(ServerError::step("start the file server"))? {
        Side::Copy => serve(place, locked, theirs, duty),
        Side::Original => drop(theirs),
    }
    let lease = register(ours, pid, duty);
    if !matches!(lease, Ok(Some(_))) {
        // Nothing is to be left of a server that never was.
        locked.remove().map_err(|source| ServerError::Place { path: place.path(), source })?;
    }
    lease?.ok_or(ServerError::Died)
}
