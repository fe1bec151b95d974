//! A way into an instance whose process 1 does not answer: stopped, or with its pipe full.
//!
//! ```text
//! client ── fork ── joins the group and the namespaces ── fork ── confined as process 1 is: a session as any other
//!        <── done ──┴── waits for the session
//! ```
//!
//! The session has the bounds of the others, the environment of the first program, and its terminal inside. It ends with the
//! namespace; its parent stays outside of that to bury it, since a namespace cannot end before.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, PipeWriter, Read as _, Write as _},
    os::fd::AsFd as _,
    path::Path,
};

use crate::{
    instance::state::State,
    sandbox::guest::{self, GUEST_LIMIT, HOST_LIMIT},
    sys::{
        errno::Errno,
        inherit,
        process::{self, Child, Forked},
        reentry::Inside,
        scm::Channel,
    },
};

/// A variable that every first program inside has.
const MARK: &str = "FIM_DIR_INSTANCE";

/// Makes a session in the instance of `state`, which lives; returns the line to it. The calling process has one thread.
///
/// # Errors
///
/// What the system says; `EPERM` where the bounds cannot be put on again.
pub(super) fn reenter(state: &State) -> io::Result<Channel> {
    let inside = Inside::find(state.identity.pid)?;
    let environment = inside.environment(MARK)?;
    let (ours, theirs) = Channel::pair(GUEST_LIMIT.max(HOST_LIMIT))?;
    let (mut hear, say) = io::pipe()?;
    match process::fork()? {
        Forked::Child => {
            let session = go(state, &inside, theirs, &environment, &say);
            let errno = session
                .as_ref()
                .map_or_else(|error| error.raw_os_error().unwrap_or(Errno::EIO as i32), |_| 0);
            let told = (&say).write_all(&errno.to_le_bytes());
            drop(say);
            process::end(u8::from(told.is_err() || session.and_then(Child::wait).is_err()))
        }
        Forked::Parent(_) => {
            drop((theirs, say));
            let mut errno = [0; 4];
            hear.read_exact(&mut errno)?;
            match i32::from_le_bytes(errno) {
                0 => Ok(ours),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}

/// Goes inside and makes the session.
fn go(
    state: &State,
    inside: &Inside,
    channel: Channel,
    environment: &BTreeMap<OsString, OsString>,
    say: &PipeWriter,
) -> io::Result<Child> {
    // Nobody inside may look into a process that is confined only in a moment; a terminal of the caller stays outside.
    process::hide_from_peers()?;
    process::new_session();
    inherit::silence()?;
    inherit::close_others(&[channel.as_fd(), inside.as_fd(), say.as_fd()])?;
    if let Some(group) = &state.group {
        group.enter()?;
    }
    inside.join()?;
    process::change_dir(Path::new("/"))?;
    match process::fork()? {
        Forked::Parent(session) => Ok(session),
        Forked::Child => {
            let served = inside.confine().and_then(|()| {
                inherit::close_others(&[channel.as_fd()])?;
                guest::serve_again(channel, environment)
            });
            process::end(u8::from(served.is_err()))
        }
    }
}
