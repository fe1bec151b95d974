//! Committing while the server runs: the upper stands still while another process makes a layer of it.
//!
//! ```text
//! committer ── Freeze ──────────────────────────> server: the kernel's cache is written, changes wait
//!           <──────────────────────────── Frozen ──┤
//!           (writes, verifies and publishes the layer)
//!           ── Rebase (file, offset, length) ─────>│ the layer joins the stack, the upper is emptied
//!           <─────────────────────────── Rebased ──┤ changes go on
//! ```
//!
//! A committer that hangs up instead, or dies, has changed nothing: changes go on over the old stack.

use std::{fs::File, io, os::fd::AsFd as _, path::Path};

use super::{
    Place, ServerError,
    join::nobody_listens,
    message::{FromServer, Said, ToServer},
    place::Locked,
};
use crate::{
    causes::one_line,
    dwarfs::read::Place as ArchivePlace,
    overlay::LayersView,
    runtime::stack::MountStack,
    sys::{data, scan, scm::Channel},
};

/// The committer's side. While it lives nothing changes in the upper.
#[derive(Debug)]
pub struct Commission {
    channel: Channel,
}

/// What a committer finds at a place.
#[derive(Debug)]
pub enum Found {
    /// A server, which has stopped all changes.
    Server(Commission),
    /// Nobody, and nobody can come while the lock is held.
    Nobody(Locked),
}

/// Asks the server at `place`, if there is one, to stand still.
///
/// # Errors
///
/// [`ServerError`].
pub fn freeze(place: &Place) -> Result<Found, ServerError> {
    let locked = place.lock()?;
    let mut channel = match locked.connect() {
        Ok(channel) => channel,
        Err(error) if nobody_listens(&error) => return Ok(Found::Nobody(locked)),
        Err(source) => return Err(ServerError::Place { path: place.path(), source }),
    };
    // The server counts us as soon as it looks, which it does before it ends.
    drop(locked);
    match ask(&mut channel, &ToServer::Freeze)? {
        FromServer::Frozen => Ok(Found::Server(Commission { channel })),
        other => Err(unexpected(other)),
    }
}

/// The lock of a place without a server; `None` where there is one.
///
/// # Errors
///
/// [`ServerError`].
pub fn alone(place: &Place) -> Result<Option<Locked>, ServerError> {
    let locked = place.lock()?;
    match locked.connect() {
        Ok(_) => Ok(None),
        Err(error) if nobody_listens(&error) => Ok(Some(locked)),
        Err(source) => Err(ServerError::Place { path: place.path(), source }),
    }
}

impl Commission {
    /// Makes the layer part of the stack, and empties the upper.
    ///
    /// # Errors
    ///
    /// [`ServerError`]; the stack is then as it was.
    pub fn rebase(mut self, layer: &Path, offset: u64, len: u64) -> Result<(), ServerError> {
        match ask(&mut self.channel, &ToServer::Rebase { file: layer.to_owned(), offset, len })? {
            FromServer::Rebased => Ok(()),
            other => Err(unexpected(other)),
        }
    }
}

fn ask(channel: &mut Channel, question: &ToServer) -> Result<FromServer, ServerError> {
    channel.send(&question.encode(), &[]).map_err(ServerError::step("speak with the file server"))?;
    let answer = channel.receive_waiting().map_err(ServerError::step("hear the file server"))?;
    let frame = answer.ok_or_else(|| ServerError::Refused { why: "the file server has ended".to_owned() })?;
    Ok(FromServer::decode(frame)?)
}

fn unexpected(answer: FromServer) -> ServerError {
    match answer {
        FromServer::Refused(why) => ServerError::Refused { why },
        _ => ServerError::Refused { why: "the file server gave an answer to another question".to_owned() },
    }
}

/// The server's side, in a thread of its own: from the question to freeze to the end of the conversation.
pub(super) fn attend(channel: &mut Channel, stack: &MountStack, layers: &LayersView, mount: &Path) {
    if let Err(why) = converse(channel, stack, layers, mount) {
        tracing::warn!(why, "a commit breaks off");
        let _ = channel.send(&FromServer::encode_refusal(&why), &[]);
    }
}

fn converse(
    channel: &mut Channel,
    stack: &MountStack,
    layers: &LayersView,
    mount: &Path,
) -> Result<(), String> {
    take_over_changes(stack, mount)
        .map_err(|error| format!("cannot write what programs have changed: {error}"))?;
    let freeze = stack.overlay.freeze().map_err(|error| one_line(&error))?;
    tracing::info!("changes wait for a commit");
    let gone = |error: io::Error| format!("the committer is gone: {error}");
    channel.send(&FromServer::encode(Said::Frozen), &[]).map_err(gone)?;
    let Some(frame) = channel.receive_waiting().map_err(gone)? else {
        tracing::info!("changes go on, nothing was committed");
        return Ok(());
    };
    let ToServer::Rebase { file, offset, len } =
        ToServer::decode(&frame.payload).map_err(|error| error.to_string())?
    else {
        return Err("cannot understand the committer".to_owned());
    };
    let layer = stack
        .open_layer(&file, ArchivePlace::At { offset, len: Some(len) })
        .map_err(|error| one_line(&error))?;
    let rebased = stack.overlay.rebase(freeze, layer);
    // The layer may have joined even where the upper could not be emptied.
    layers.has_grown();
    rebased.map_err(|error| one_line(&error))?;
    tracing::info!("a layer was committed, changes go on");
    channel.send(&FromServer::encode(Said::Rebased), &[]).map_err(gone)
}

/// Takes over what programs have written and the kernel still holds, as far as they had written it when we were asked.
///
/// Syncing the mount begins to write everything, but newer kernels do not wait for the end of that on FUSE. Closing a
/// file does, and asks nothing else of us: neither opening nor closing is a message.
fn take_over_changes(stack: &MountStack, mount: &Path) -> io::Result<()> {
    let root = File::open(mount)?;
    data::sync_file_system(root.as_fd())?;
    for path in stack.overlay.known_files() {
        // One that is gone meanwhile has nothing to write.
        drop(scan::open_beneath(root.as_fd(), &path, scan::Kind::File));
    }
    Ok(())
}
