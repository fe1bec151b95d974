//! A program that is started in what runs already, at the request of somebody on the other side of the wall.
//!
//! A session is a process of its own, forked by process 1 (or by the host daemon for a request from inside): it starts
//! the program, passes signals on and reports its end. It ends with whoever asked, unless that one wanted to be let go;
//! its program gets a moment to end, then SIGKILL. Whoever asks is not trusted, and does not trust us.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use super::{
    line::{Heard, Line},
    message::{Enter, FromGuest, Start, ToGuest},
    program,
};
use crate::sys::{
    errno::Errno,
    inherit,
    process::{self, Change},
    ready::{self, Interest},
    scm::Channel,
    signal::{Signal, Signals},
    tree::is_directory,
};

/// How long the program has to end when whoever asked is gone.
const GRACE: Duration = Duration::from_secs(1);

/// Signals that a session reads: those of its children, and those that end it.
pub(super) const READ: [Signal; 7] = [
    Signal::SIGCHLD,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Serves one request. The calling process is a child made for it alone; `prepare` makes what is started of what is
/// asked for, or says why it cannot be (errno).
///
/// # Errors
///
/// What the system says; whoever asked sees the end of the line.
pub fn serve(channel: Channel, prepare: impl FnOnce(Enter) -> Result<Start, i32>) -> io::Result<()> {
    let signals = Signals::block(&READ)?;
    process::new_session();
    let mut line = Line(channel);
    let Some(ToGuest::Enter(enter)) = line.next()? else { return Ok(()) };
    let is_detached = enter.is_detached;
    if enter.stdio.iter().flatten().any(|fd| is_directory(fd.as_fd())) {
        // It would be a way through the wall.
        return line.report(&FromGuest::NotStarted(Errno::EISDIR as i32));
    }
    let start = match prepare(enter) {
        Ok(start) => start,
        Err(errno) => return line.report(&FromGuest::NotStarted(errno)),
    };
    let mut terminal = None;
    if start.stdio.iter().any(Option::is_none) {
        terminal = line.open_terminal()?;
        if terminal.is_none() {
            return Ok(());
        }
    }
    match program::start(&start, terminal.as_ref().map(|fd| fd.as_fd()))? {
        Err(errno) => line.report(&FromGuest::NotStarted(errno)),
        Ok(child) => {
            drop(start);
            inherit::silence()?;
            let pid = child.pid();
            line.report(&FromGuest::Started(pid))?;
            Session { line, signals, group: pid, terminal, is_detached, deadline: None }.watch()
        }
    }
}

struct Session {
    line: Line,
    signals: Signals,
    /// The program, and its process group.
    group: i32,
    /// Our own end of its terminal.
    terminal: Option<OwnedFd>,
    /// Whether nobody listens, nor needs to.
    is_detached: bool,
    /// When the program is killed.
    deadline: Option<Instant>,
}

impl Session {
    fn watch(&mut self) -> io::Result<()> {
        loop {
            let mut waited = vec![(self.signals.as_fd(), Interest::Read)];
            if !self.is_detached && self.deadline.is_none() {
                waited.push((self.line.0.as_fd(), Interest::Read));
            }
            let ready = ready::wait(&waited, self.deadline)?;
            if ready.first().is_some_and(|signals| signals.read) && self.take_signals()? {
                return Ok(());
            }
            if ready.get(1).is_some_and(|line| line.read) && !self.take_messages()? {
                self.part()?;
            }
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return process::signal_group(self.group, Signal::SIGKILL);
            }
        }
    }

    /// Takes signals; `true` where the program has ended.
    fn take_signals(&mut self) -> io::Result<bool> {
        while let Some(received) = self.signals.next()? {
            match received.signal {
                Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGQUIT => self.part()?,
                _ => {}
            }
        }
        loop {
            match process::next_change() {
                Ok(None) => return Ok(false),
                Ok(Some((pid, change))) if pid == self.group => match change {
                    Change::Stopped if !self.is_detached => self.line.report(&FromGuest::Stopped)?,
                    Change::Stopped | Change::Continued => {}
                    Change::Ended(ended) => {
                        if !self.is_detached {
                            self.line.report(&FromGuest::Ended(ended))?;
                        }
                        return Ok(true);
                    }
                },
                Ok(Some(_)) => {}
                Err(error) if error.raw_os_error() == Some(Errno::ECHILD as i32) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes what is said; `false` where nobody is there any more, or talks nonsense.
    fn take_messages(&mut self) -> io::Result<bool> {
        loop {
            match self.line.hear() {
                Ok(Heard::Nothing) => return Ok(true),
                Ok(Heard::Message(ToGuest::Signal(signal))) => process::signal_group(self.group, signal)?,
                Ok(Heard::Message(_)) => {}
                Ok(Heard::End) | Err(_) => return Ok(false),
            }
        }
    }

    /// Asks the program to end, as a terminal does that is closed, or as whoever stops a service does.
    fn part(&mut self) -> io::Result<()> {
        if self.deadline.is_none() {
            self.deadline = Some(Instant::now() + GRACE);
            let signal = if self.terminal.is_some() { Signal::SIGHUP } else { Signal::SIGTERM };
            process::signal_group(self.group, signal)?;
            process::signal_group(self.group, Signal::SIGCONT)?;
        }
        Ok(())
    }
}
