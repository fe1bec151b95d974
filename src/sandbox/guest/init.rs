//! The life of process 1.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use super::{
    message::{FromGuest, GUEST_LIMIT, Start, ToGuest},
    program,
};
use crate::sys::{
    errno::Errno,
    inherit,
    process::{self, Change, Child, Ended},
    pty::{self, Pair},
    ready::{self, Interest},
    scm::{Channel, Received},
    signal::{Signal, Signals},
};

/// How long other processes have to end after SIGTERM when the program has ended.
const GRACE: Duration = Duration::from_secs(1);

/// Signals that must not stop or kill process 1; all but SIGCHLD are for the program, by message.
const BLOCKED: [Signal; 12] = [
    Signal::SIGCHLD,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Lives as process 1; `arguments` is the number of the channel's descriptor, behind the own name. Returns when nothing
/// is left to do; the kernel ends whoever is left.
///
/// # Errors
///
/// What went wrong before a program could be started. The front sees the end of the sandbox.
pub fn run(arguments: &[OsString]) -> io::Result<()> {
    let number = arguments
        .get(1)
        .and_then(|number| number.to_str())
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| io::Error::other("fim_init is started by the engine only"))?;
    let channel = Channel::new(inherit::adopt_fd(number)?, GUEST_LIMIT);
    process::hide_from_peers()?;
    let signals = Signals::block(&BLOCKED)?;
    Init { channel, signals, program: None, group: 0, terminal: None, deadline: None }.live()
}

struct Init {
    channel: Channel,
    signals: Signals,
    /// The program, until it has ended.
    program: Option<Child>,
    /// Its process group.
    group: i32,
    /// Our own end of the terminal: it keeps the terminal from being hung up as long as the program lives.
    terminal: Option<OwnedFd>,
    /// When the rest is killed.
    deadline: Option<Instant>,
}

impl Init {
    fn live(mut self) -> io::Result<()> {
        let Some(ToGuest::Start(start)) = self.next_message()? else { return Ok(()) };
        if start.stdio.iter().any(Option::is_none) && !self.open_terminal()? {
            return Ok(());
        }
        match program::start(&start, self.terminal.as_ref().map(|fd| fd.as_fd()))? {
            Err(errno) => return self.report(&FromGuest::NotStarted(errno)),
            Ok(child) => {
                self.group = child.pid();
                self.program = Some(child);
            }
        }
        let_go(start)?;
        self.watch()
    }

    /// Opens the terminal and waits until the front has set it up; `false` where the front has gone instead.
    fn open_terminal(&mut self) -> io::Result<bool> {
        let Pair { master, slave } = Pair::open()?;
        process::new_session();
        pty::take_control(slave.as_fd())?;
        self.terminal = Some(slave);
        self.report(&FromGuest::Terminal(master))?;
        loop {
            match self.next_message()? {
                Some(ToGuest::Proceed) => return Ok(true),
                // There is no program yet that could take a signal; those that end it end us.
                Some(ToGuest::Signal(
                    Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGQUIT,
                ))
                | None => return Ok(false),
                Some(_) => {}
            }
        }
    }

    fn next_message(&mut self) -> io::Result<Option<ToGuest>> {
        match self.channel.receive_waiting()? {
            Some(frame) => ToGuest::decode(frame).map(Some).map_err(io::Error::other),
            None => Ok(None),
        }
    }

    fn report(&self, message: &FromGuest) -> io::Result<()> {
        let (payload, fd) = message.encode();
        let fds: Vec<_> = fd.into_iter().map(|fd| fd.as_fd()).collect();
        self.channel.send(&payload, &fds)
    }

    fn watch(&mut self) -> io::Result<()> {
        loop {
            let waited = [(self.channel.as_fd(), Interest::Read), (self.signals.as_fd(), Interest::Read)];
            let ready = ready::wait(&waited, self.deadline)?;
            let (said, signalled) = match ready.as_slice() {
                [channel, signals] => (channel.read, signals.read),
                _ => (false, false),
            };
            if signalled {
                while self.signals.next()?.is_some() {}
                if self.reap()? == Family::Gone {
                    return Ok(());
                }
            }
            if said && !self.take_messages()? {
                // The front is gone: so is everybody here.
                return process::signal_everybody(Signal::SIGKILL);
            }
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return process::signal_everybody(Signal::SIGKILL);
            }
        }
    }

    /// Takes what the front says; `false` where it has gone.
    fn take_messages(&mut self) -> io::Result<bool> {
        loop {
            match self.channel.receive()? {
                Received::Pending => return Ok(true),
                Received::Closed => return Ok(false),
                Received::Frame(frame) => match ToGuest::decode(frame).map_err(io::Error::other)? {
                    ToGuest::Signal(signal) if self.program.is_some() => {
                        process::signal_group(self.group, signal)?;
                    }
                    ToGuest::Signal(_) | ToGuest::Proceed | ToGuest::Start(_) => {}
                },
            }
        }
    }

    fn reap(&mut self) -> io::Result<Family> {
        loop {
            match process::next_change() {
                Ok(None) => return Ok(Family::Alive),
                Ok(Some((pid, change))) => self.note(pid, change)?,
                Err(error) if error.raw_os_error() == Some(Errno::ECHILD as i32) => {
                    return Ok(Family::Gone);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn note(&mut self, pid: i32, change: Change) -> io::Result<()> {
        if self.program.as_ref().is_none_or(|program| program.pid() != pid) {
            return Ok(());
        }
        match change {
            Change::Stopped => self.report(&FromGuest::Stopped),
            Change::Continued => Ok(()),
            Change::Ended(ended) => self.program_ended(ended),
        }
    }

    /// The sandbox is over: who is left is asked to end.
    fn program_ended(&mut self, ended: Ended) -> io::Result<()> {
        self.program = None;
        self.report(&FromGuest::Ended(ended))?;
        process::signal_everybody(Signal::SIGTERM)?;
        process::signal_everybody(Signal::SIGCONT)?;
        self.deadline = Some(Instant::now() + GRACE);
        Ok(())
    }
}

/// The program has its descriptors: ours must not keep pipes open, nor bubblewrap's stderr.
fn let_go(start: Start) -> io::Result<()> {
    drop(start);
    inherit::silence()
}

/// Whether process 1 has children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Alive,
    Gone,
}
