//! The line to whoever has asked for a program: what process 1 and sessions have in common.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use super::message::{FromGuest, ToGuest};
use crate::sys::{
    errno::Errno,
    process,
    pty::{self, Pair},
    scm::{Channel, Received},
    signal::Signal,
};

/// The serving end.
#[derive(Debug)]
pub(super) struct Line(pub(super) Channel);

/// What was said.
#[derive(Debug)]
pub(super) enum Heard {
    /// A message.
    Message(ToGuest),
    /// Nothing more so far.
    Nothing,
    /// The other side is gone.
    End,
}

impl Line {
    /// Waits for the next message; `None` where the other side is gone.
    pub(super) fn next(&mut self) -> io::Result<Option<ToGuest>> {
        match self.0.receive_waiting()? {
            Some(frame) => ToGuest::decode(frame).map(Some).map_err(io::Error::other),
            None => Ok(None),
        }
    }

    /// Takes a message, without waiting.
    pub(super) fn hear(&mut self) -> io::Result<Heard> {
        match self.0.receive()? {
            Received::Pending => Ok(Heard::Nothing),
            Received::Closed => Ok(Heard::End),
            Received::Frame(frame) => ToGuest::decode(frame).map(Heard::Message).map_err(io::Error::other),
        }
    }

    /// Says something. That nobody hears it any more shows where messages come in.
    pub(super) fn report(&self, message: &FromGuest) -> io::Result<()> {
        let (payload, fd) = message.encode();
        let fds: Vec<_> = fd.into_iter().map(|fd| fd.as_fd()).collect();
        match self.0.send(&payload, &fds) {
            Err(error)
                if matches!(
                    error.raw_os_error().map(Errno::from_raw),
                    Some(Errno::EPIPE | Errno::ECONNRESET)
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Opens a terminal for the program and waits until the other side has set it up; `None` where that has gone
    /// instead.
    pub(super) fn open_terminal(&mut self) -> io::Result<Option<OwnedFd>> {
        let Pair { master, slave } = Pair::open()?;
        process::new_session();
        pty::take_control(slave.as_fd())?;
        self.report(&FromGuest::Terminal(master))?;
        loop {
            match self.next()? {
                Some(ToGuest::Proceed) => return Ok(Some(slave)),
                // There is no program yet that could take a signal; those that end it end us.
                Some(ToGuest::Signal(
                    Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGQUIT,
                ))
                | None => return Ok(None),
                Some(_) => {}
            }
        }
    }
}
