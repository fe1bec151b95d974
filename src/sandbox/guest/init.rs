//! The life of process 1.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use super::{
    line::{Heard, Line},
    message::{Enter, FromGuest, GUEST_LIMIT, Start, ToGuest},
    program, session, user,
};
use crate::{
    portal::{self, Announcement, Announcements, Wall},
    sys::{
        errno::Errno,
        inherit,
        process::{self, Change, Child, Ended, Forked},
        ready::{self, Interest},
        scm::Channel,
        signal::{Signal, Signals},
        tree::DirFd,
    },
};

/// How long other processes have to end after SIGTERM when the program has ended.
const GRACE: Duration = Duration::from_secs(1);

/// What the program of an instance without one is called.
const PAUSE: &str = "pause";

/// Most sessions at a time; who asks beyond that is not heard.
const MOST_SESSIONS: usize = 1000;

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
    if arguments.get(1).is_some_and(|word| word == PAUSE) {
        return pause();
    }
    let number = arguments
        .get(1)
        .and_then(|number| number.to_str())
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| io::Error::other("fim_init is started by the engine only"))?;
    let channel = Channel::new(inherit::adopt_fd(number)?, GUEST_LIMIT);
    process::hide_from_peers()?;
    let signals = Signals::block(&BLOCKED)?;
    Init {
        line: Line(channel),
        signals,
        program: None,
        group: 0,
        terminal: None,
        deadline: None,
        door: None,
        environment: BTreeMap::new(),
        sessions: BTreeSet::new(),
    }
    .live()
}

/// Is the program of an instance without one: does nothing until it is told to end.
fn pause() -> io::Result<()> {
    let signals = Signals::block(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT])?;
    ready::wait(&[(signals.as_fd(), Interest::Read)], None)?;
    // Taken, lest it kills us when the signals are open again.
    signals.next().map(drop)
}

struct Init {
    line: Line,
    signals: Signals,
    /// The program, until it has ended.
    program: Option<Child>,
    /// Its process group.
    group: i32,
    /// Our own end of the terminal: it keeps the terminal from being hung up as long as the program lives.
    terminal: Option<OwnedFd>,
    /// When the rest is killed.
    deadline: Option<Instant>,
    /// Where requests of others come in; closed when the program has ended.
    door: Option<Door>,
    /// What the program was given, and every session is.
    environment: BTreeMap<OsString, OsString>,
    /// Our children that are sessions.
    sessions: BTreeSet<i32>,
}

/// The portal, as seen from inside.
struct Door {
    announcements: Announcements,
    dispatcher: DirFd,
}

impl Door {
    fn open(portal: &Path) -> io::Result<Self> {
        let daemon = DirFd::open(&portal.join("daemon"))?;
        Ok(Self {
            announcements: Announcements::open(daemon.as_fd(), Wall::Guest.fifo())?,
            dispatcher: DirFd::open(&portal.join(Wall::Guest.dispatcher()))?,
        })
    }
}

impl Init {
    fn live(mut self) -> io::Result<()> {
        let Some(ToGuest::Start(start)) = self.line.next()? else { return Ok(()) };
        if !start.portal.as_os_str().is_empty() {
            // Before there is anybody who could have put something else there.
            self.door = Some(Door::open(&start.portal)?);
        }
        if start.stdio.iter().any(Option::is_none) {
            self.terminal = self.line.open_terminal()?;
            if self.terminal.is_none() {
                return Ok(());
            }
        }
        match program::start(&start, self.terminal.as_ref().map(|fd| fd.as_fd()))? {
            Err(errno) => return self.line.report(&FromGuest::NotStarted(errno)),
            Ok(child) => {
                self.group = child.pid();
                self.program = Some(child);
            }
        }
        self.environment = let_go(start)?;
        self.line.report(&FromGuest::Started(self.group))?;
        self.watch()
    }

    fn watch(&mut self) -> io::Result<()> {
        loop {
            let mut waited =
                vec![(self.line.0.as_fd(), Interest::Read), (self.signals.as_fd(), Interest::Read)];
            waited.extend(self.door.as_ref().map(|door| (door.announcements.as_fd(), Interest::Read)));
            let ready = ready::wait(&waited, self.deadline)?;
            let is_ready = |at: usize| ready.get(at).is_some_and(|ready| ready.read);
            let (said, signalled, knocked) = (is_ready(0), is_ready(1), is_ready(2));
            if signalled {
                while self.signals.next()?.is_some() {}
                if self.reap()? == Family::Gone {
                    return Ok(());
                }
            }
            if knocked {
                self.open_the_door()?;
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
            match self.line.hear()? {
                Heard::Nothing => return Ok(true),
                Heard::End => return Ok(false),
                Heard::Message(ToGuest::Signal(signal)) if self.program.is_some() => {
                    process::signal_group(self.group, signal)?;
                }
                Heard::Message(_) => {}
            }
        }
    }

    /// Makes a session for everybody who has been announced. That one cannot be made ends nothing but itself.
    fn open_the_door(&mut self) -> io::Result<()> {
        let Some(door) = &mut self.door else { return Ok(()) };
        for announcement in door.announcements.hear()? {
            if self.sessions.len() >= MOST_SESSIONS {
                return Ok(());
            }
            match process::fork() {
                Ok(Forked::Parent(child)) => {
                    self.sessions.insert(child.pid());
                }
                Ok(Forked::Child) => {
                    let served = serve(&door.dispatcher, &announcement, &self.environment);
                    process::end(u8::from(served.is_err()))
                }
                Err(_) => return Ok(()),
            }
        }
        Ok(())
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
            if matches!(change, Change::Ended(_)) {
                self.sessions.remove(&pid);
            }
            return Ok(());
        }
        match change {
            Change::Stopped => self.line.report(&FromGuest::Stopped),
            Change::Continued => Ok(()),
            Change::Ended(ended) => self.program_ended(ended),
        }
    }

    /// The sandbox is over: who is left is asked to end.
    fn program_ended(&mut self, ended: Ended) -> io::Result<()> {
        self.program = None;
        self.door = None;
        self.line.report(&FromGuest::Ended(ended))?;
        process::signal_everybody(Signal::SIGTERM)?;
        process::signal_everybody(Signal::SIGCONT)?;
        self.deadline = Some(Instant::now() + GRACE);
        Ok(())
    }
}

/// The program has its descriptors: ours must not keep pipes open, nor bubblewrap's stderr. What remains is its
/// environment.
fn let_go(start: Start) -> io::Result<BTreeMap<OsString, OsString>> {
    let Start { environment, .. } = start;
    inherit::silence()?;
    Ok(environment)
}

/// Becomes a session for whoever has been announced, in the child of a fork.
fn serve(
    dispatcher: &DirFd,
    announcement: &Announcement,
    environment: &BTreeMap<OsString, OsString>,
) -> io::Result<()> {
    inherit::close_others(&[dispatcher.as_fd()])?;
    let channel = portal::connect(dispatcher.as_fd(), announcement, GUEST_LIMIT)?;
    session::serve(channel, |enter| prepare(enter, environment))
}

/// Serves one request in the place of process 1, in a process that has gone inside by itself; `environment` is what
/// programs inside were given.
///
/// # Errors
///
/// As [`session::serve`].
pub fn serve_again(channel: Channel, environment: &BTreeMap<OsString, OsString>) -> io::Result<()> {
    session::serve(channel, |enter| prepare(enter, environment))
}

/// What a request means in this instance.
fn prepare(enter: Enter, base: &BTreeMap<OsString, OsString>) -> Result<Start, i32> {
    let mut environment = base.clone();
    let mut directories = enter.directories;
    if !enter.user.is_empty() {
        let user = user::become_user(&enter.user)
            .map_err(|error| error.raw_os_error().unwrap_or(Errno::EPERM as i32))?;
        environment.insert("USER".into(), user.name.clone().into());
        environment.insert("LOGNAME".into(), user.name.into());
        environment.insert("HOME".into(), user.home.clone().into());
        directories.push(user.home);
    }
    environment.extend(enter.environment);
    // As at the start of the instance: where the caller is, else at home.
    directories.extend(environment.get(std::ffi::OsStr::new("HOME")).map(Into::into));
    Ok(Start {
        arguments: enter.arguments,
        environment,
        directories,
        stdio: enter.stdio,
        portal: std::path::PathBuf::new(),
    })
}

/// Whether process 1 has children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Alive,
    Gone,
}
