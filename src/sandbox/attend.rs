//! Between the caller and the program, until the program has ended.
//!
//! One loop waits for everything: signals of the caller, messages of process 1, the end of bubblewrap, the end of the
//! server, both terminals. Nothing here polls on a clock.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{PipeReader, PipeWriter, Read as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    time::Instant,
};

use super::{
    Plan, Sandbox, SandboxError,
    bwrap::with_hint,
    guest::{Enter, FromGuest, Start, ToGuest},
    relay::Relay,
};
use crate::sys::{
    process::Ended,
    pty,
    ready::{self, Interest, Ready},
    scm::{Channel, Received},
    signal::{self, Signal, Signals, Stop},
};

/// Most bytes of what was said on the way to process 1 that are kept.
const SAID_LIMIT: u64 = 4 << 10;

/// One of stdin, stdout and stderr.
#[derive(Debug)]
pub enum Slot<'a> {
    /// A terminal: it stays outside, the program gets one inside.
    Terminal(BorrowedFd<'a>),
    /// Anything else: passed on as it is.
    Given(OwnedFd),
}

/// stdin, stdout and stderr of the caller.
#[derive(Debug)]
pub struct Stdio<'a>(pub [Slot<'a>; 3]);

impl<'a> Stdio<'a> {
    /// Looks at the caller's descriptors.
    ///
    /// # Errors
    ///
    /// [`SandboxError::DirectoryAsStdio`], or what dup(2) says.
    pub fn of(fds: [BorrowedFd<'a>; 3]) -> Result<Self, SandboxError> {
        let [input, output, error] = fds;
        Ok(Self([slot(input, "stdin")?, slot(output, "stdout")?, slot(error, "stderr")?]))
    }

    /// The caller's terminal: the one that shows what is written, if there is one.
    fn terminal(&self) -> Option<BorrowedFd<'a>> {
        let [input, output, error] = &self.0;
        [output, error, input].into_iter().find_map(|slot| match slot {
            Slot::Terminal(fd) => Some(*fd),
            Slot::Given(_) => None,
        })
    }

    fn keyboard(&self) -> Option<BorrowedFd<'a>> {
        match self.0.first() {
            Some(Slot::Terminal(fd)) => Some(*fd),
            _ => None,
        }
    }
}

fn slot<'a>(fd: BorrowedFd<'a>, name: &'static str) -> Result<Slot<'a>, SandboxError> {
    if pty::is_terminal(fd) {
        return Ok(Slot::Terminal(fd));
    }
    let owned = fd.try_clone_to_owned().map_err(SandboxError::step("pass stdin, stdout and stderr on"))?;
    if crate::sys::tree::is_directory(owned.as_fd()) {
        return Err(SandboxError::DirectoryAsStdio { name });
    }
    Ok(Slot::Given(owned))
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It ran and ended.
    Ended(Ended),
    /// It could not be started, for this reason (errno).
    NotStarted(i32),
}

/// What to run in a running instance.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Arguments, name first.
    pub arguments: Vec<OsString>,
    /// Variables that are set over those that are there.
    pub environment: BTreeMap<OsString, OsString>,
    /// Directories to start in: the first that is there.
    pub directories: Vec<PathBuf>,
    /// As whom, by name or number; empty: as the instance.
    pub user: OsString,
    /// Whether the program goes on without us.
    pub is_detached: bool,
}

/// Has `request` carried out by whoever is at the other end of `channel`, and stays until the program has ended, or, where
/// it goes on without us, until it has started. `life` becomes readable when the instance is over.
///
/// # Errors
///
/// [`SandboxError`].
pub fn enter(
    channel: Channel,
    request: Request,
    stdio: Stdio<'_>,
    life: BorrowedFd<'_>,
    signals: &Signals,
) -> Result<Verdict, SandboxError> {
    let mut front = Front::new(channel, &stdio);
    front.leaves = request.is_detached;
    front.ends_with_channel = true;
    front.tell(&ToGuest::Enter(Enter {
        arguments: request.arguments,
        environment: request.environment,
        directories: request.directories,
        user: request.user,
        is_detached: request.is_detached,
        stdio: given(stdio),
    }))?;
    front.run(life, None, signals)?;
    drop(front.relay.take());
    front.verdict.ok_or(SandboxError::Lost)
}

/// Runs the program of `plan` in `sandbox` and stays until everything inside has ended. `lease` hangs up when the server is
/// gone; `signals` holds what is passed on to the program; `started` gets a byte when it runs.
///
/// # Errors
///
/// [`SandboxError`]; the sandbox has ended then, too.
pub fn attend(
    sandbox: Sandbox,
    plan: &Plan,
    stdio: Stdio<'_>,
    lease: Option<BorrowedFd<'_>>,
    signals: &Signals,
    started: Option<PipeWriter>,
) -> Result<Verdict, SandboxError> {
    let Sandbox { child, channel, errors } = sandbox;
    let mut front = Front::new(channel, &stdio);
    front.started = started;
    let done = front.start(plan, stdio).and_then(|()| front.run(child.pidfd().as_fd(), lease, signals));
    // Whatever happened: nobody is left inside when this returns, and the terminal is the caller's again.
    drop(front.relay.take());
    if done.is_err() {
        child.pidfd().signal(Signal::SIGKILL).map_err(SandboxError::step("end the sandbox"))?;
    }
    child.wait().map_err(SandboxError::step("wait for the sandbox"))?;
    done?;
    front.verdict.ok_or_else(|| nothing_said(errors))
}

/// Why the sandbox ended without a word of process 1.
fn nothing_said(errors: PipeReader) -> SandboxError {
    let mut said = Vec::new();
    let _ = errors.take(SAID_LIMIT).read_to_end(&mut said);
    let said = String::from_utf8_lossy(&said);
    match said.lines().find(|line| !line.trim().is_empty()) {
        Some(line) => {
            SandboxError::NotStarted { cause: with_hint(line.trim_start_matches("bwrap: ").to_owned()) }
        }
        None => SandboxError::Lost,
    }
}

struct Front<'a> {
    channel: Channel,
    terminal: Option<BorrowedFd<'a>>,
    keyboard: Option<BorrowedFd<'a>>,
    relay: Option<Relay<'a>>,
    verdict: Option<Verdict>,
    /// Whether process 1 can still say something.
    speaks: bool,
    /// Whether all is over when it does not; else when the process that is waited for has ended.
    ends_with_channel: bool,
    /// Whether the start of the program is all that we wait for.
    leaves: bool,
    /// Who is told that the program runs.
    started: Option<PipeWriter>,
}

/// The descriptors that are passed on.
fn given(stdio: Stdio<'_>) -> [Option<OwnedFd>; 3] {
    stdio.0.map(|slot| match slot {
        Slot::Terminal(_) => None,
        Slot::Given(fd) => Some(fd),
    })
}

impl<'a> Front<'a> {
    fn new(channel: Channel, stdio: &Stdio<'a>) -> Self {
        Self {
            channel,
            terminal: stdio.terminal(),
            keyboard: stdio.keyboard(),
            relay: None,
            verdict: None,
            speaks: true,
            ends_with_channel: false,
            leaves: false,
            started: None,
        }
    }

    fn start(&self, plan: &Plan, stdio: Stdio<'_>) -> Result<(), SandboxError> {
        let program = &plan.program;
        self.tell(&ToGuest::Start(Start {
            arguments: program.arguments.clone(),
            environment: program.environment.clone(),
            directories: program.directories.clone(),
            stdio: given(stdio),
            portal: plan.portal.clone(),
        }))
    }

    /// Tells process 1 something; that it is gone shows elsewhere.
    fn tell(&self, message: &ToGuest) -> Result<(), SandboxError> {
        let (payload, fds) = message.encode();
        let fds: Vec<_> = fds.into_iter().map(|fd| fd.as_fd()).collect();
        match self.channel.send(&payload, &fds) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
            other => other.map_err(SandboxError::step("speak with the process inside")),
        }
    }

    /// Waits and acts until bubblewrap has ended and everything it showed is on the screen.
    fn run(
        &mut self,
        bwrap: BorrowedFd<'_>,
        lease: Option<BorrowedFd<'_>>,
        signals: &Signals,
    ) -> Result<(), SandboxError> {
        loop {
            let ready = self.wait(bwrap, lease, signals)?;
            if ready.signals.read {
                while let Some(signal::Received { signal, .. }) =
                    signals.next().map_err(SandboxError::step("read a signal"))?
                {
                    self.pass_on(signal)?;
                }
            }
            if ready.channel.read {
                self.listen()?;
            }
            if let Some(relay) = &mut self.relay {
                relay.advance(ready.relay);
            }
            if ready.lease.hung_up {
                return Err(SandboxError::ServerGone);
            }
            if self.ends_with_channel && !self.speaks {
                return self.show_the_rest();
            }
            if ready.bwrap.read {
                // Its last words may have come after we listened.
                self.listen()?;
                self.show_the_rest()?;
                return self.is_explained(lease);
            }
        }
    }

    /// A program whose files are gone may have ended (SIGBUS) before we heard that the server had.
    fn is_explained(&self, lease: Option<BorrowedFd<'_>>) -> Result<(), SandboxError> {
        let Some(lease) = lease else { return Ok(()) };
        let now = Some(Instant::now());
        let ready = ready::wait(&[(lease, Interest::HangUp)], now).map_err(SandboxError::step("wait"))?;
        if ready.iter().any(|ready| ready.hung_up) { Err(SandboxError::ServerGone) } else { Ok(()) }
    }

    fn wait(
        &self,
        bwrap: BorrowedFd<'_>,
        lease: Option<BorrowedFd<'_>>,
        signals: &Signals,
    ) -> Result<Everything, SandboxError> {
        let [master, keyboard, screen] = self.relay.as_ref().map(Relay::interests).unwrap_or_default();
        let places = [
            Some((signals.as_fd(), Interest::Read)),
            self.speaks.then(|| (self.channel.as_fd(), Interest::Read)),
            Some((bwrap, Interest::Read)),
            lease.map(|lease| (lease, Interest::HangUp)),
            master,
            keyboard,
            screen,
        ];
        let waited: Vec<_> = places.iter().flatten().copied().collect();
        let mut answers = ready::wait(&waited, None).map_err(SandboxError::step("wait"))?.into_iter();
        let answers = places.map(|place| place.and_then(|_| answers.next()).unwrap_or_default());
        let [signals, channel, bwrap, lease, master, keyboard, screen] = answers;
        Ok(Everything { signals, channel, bwrap, lease, relay: [master, keyboard, screen] })
    }

    fn pass_on(&mut self, signal: Signal) -> Result<(), SandboxError> {
        match (signal, &mut self.relay) {
            // The terminal inside tells its programs itself.
            (Signal::SIGWINCH, Some(relay)) => relay.resize(),
            (Signal::SIGCONT, Some(relay)) => {
                relay.resume();
                self.tell(&ToGuest::Signal(signal))?;
            }
            _ => self.tell(&ToGuest::Signal(signal))?,
        }
        Ok(())
    }

    fn listen(&mut self) -> Result<(), SandboxError> {
        while self.speaks {
            let received = self.channel.receive().map_err(SandboxError::step("hear the process inside"))?;
            match received {
                Received::Pending => break,
                Received::Closed => self.speaks = false,
                Received::Frame(frame) => self.hear(FromGuest::decode(frame)?)?,
            }
        }
        Ok(())
    }

    fn hear(&mut self, message: FromGuest) -> Result<(), SandboxError> {
        match message {
            FromGuest::Terminal(master) => self.connect(master),
            FromGuest::Stopped => self.stop_too(),
            // The first verdict counts: what is said after it comes from somebody else.
            FromGuest::NotStarted(errno) => {
                self.verdict.get_or_insert(Verdict::NotStarted(errno));
                Ok(())
            }
            FromGuest::Ended(ended) => {
                self.verdict.get_or_insert(Verdict::Ended(ended));
                Ok(())
            }
            FromGuest::Started(_) => {
                if let Some(mut started) = self.started.take() {
                    let _ = started.write_all(b"+");
                }
                if self.leaves {
                    self.verdict.get_or_insert(Verdict::Ended(Ended::Exited(0)));
                    self.speaks = false;
                }
                Ok(())
            }
        }
    }

    fn connect(&mut self, master: OwnedFd) -> Result<(), SandboxError> {
        let Some(terminal) = self.terminal.filter(|_| self.relay.is_none()) else { return Ok(()) };
        let relay = Relay::new(master, terminal, self.keyboard)
            .map_err(SandboxError::step("connect the terminal inside"))?;
        self.relay = Some(relay);
        self.tell(&ToGuest::Proceed)
    }

    /// The program has stopped: so do we, for whoever waits for us, until we are continued.
    fn stop_too(&mut self) -> Result<(), SandboxError> {
        let how = if let Some(relay) = &mut self.relay {
            relay.suspend();
            Stop::FromTerminal
        } else {
            Stop::Always
        };
        signal::stop_self(how).map_err(SandboxError::step("stop together with the program"))?;
        if let Some(relay) = &mut self.relay {
            relay.resume();
        }
        self.tell(&ToGuest::Signal(Signal::SIGCONT))
    }

    /// Everybody inside has ended: what they have written comes to the screen still.
    fn show_the_rest(&mut self) -> Result<(), SandboxError> {
        let Some(relay) = &mut self.relay else { return Ok(()) };
        while !relay.is_done() {
            let [master, _, screen] = relay.interests();
            let places = [master, screen];
            let waited: Vec<_> = places.iter().flatten().copied().collect();
            let mut answers = ready::wait(&waited, None).map_err(SandboxError::step("wait"))?.into_iter();
            let [master, screen] = places.map(|place| place.and_then(|_| answers.next()).unwrap_or_default());
            relay.advance([master, Ready::default(), screen]);
        }
        Ok(())
    }
}

/// What became ready.
struct Everything {
    signals: Ready,
    channel: Ready,
    bwrap: Ready,
    lease: Ready,
    relay: [Ready; 3],
}
