//! Runs a command with a time limit and keeps what it printed.
//!
//! Output goes to nameless files and not to pipes: a server that stays in the background keeps its standard error
//! open, and a pipe would never end. Each command leads its own process group, so that Ctrl-C reaches only us and we
//! undo in order. For that the groups of running commands are known here: a maker that works for minutes must not
//! outlive us.

use std::{
    fs::File,
    io::{Read as _, Seek as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, killpg};
use parking_lot::{Mutex, MutexGuard};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::failure::{Failure, Result};

/// The process groups of the commands that run now.
static RUNNING: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// Kills the commands that run now. While the answer is kept no new one starts.
pub fn kill_all() -> MutexGuard<'static, Vec<i32>> {
    let mut running = RUNNING.lock();
    for group in running.drain(..) {
        // Ended meanwhile is as good.
        let _ = killpg(nix::unistd::Pid::from_raw(group), Signal::SIGKILL);
    }
    running
}

/// What a successful command left.
#[derive(Debug)]
pub struct Output {
    /// Standard output.
    pub stdout: String,
    /// From just before the start until the end was seen.
    pub elapsed: Duration,
}

/// Runs a command to its end; anything but success is a failure with the first line of standard error.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    let file = || {
        tempfile::tempfile()
            .map_err(|error| Failure::new(format!("cannot keep the output of {name}: {error}")))
    };
    let (mut stdout, mut stderr) = (file()?, file()?);
    let clone = |file: &File| {
        file.try_clone().map_err(|error| Failure::new(format!("cannot share a descriptor: {error}")))
    };
    command.stdin(Stdio::null()).stdout(clone(&stdout)?).stderr(clone(&stderr)?).process_group(0);
    let start = Instant::now();
    let mut child = {
        let mut running = RUNNING.lock();
        let child = command.spawn().map_err(|error| Failure::new(format!("cannot start {name}: {error}")))?;
        running.push(group_of(&child));
        child
    };
    let status = wait(&mut child, limit).map_err(|failure| Failure::new(format!("{name}: {failure}")));
    let elapsed = start.elapsed();
    RUNNING.lock().retain(|group| *group != group_of(&child));
    let status = status?;
    if status.success() {
        return Ok(Output { stdout: text(&mut stdout), elapsed });
    }
    let said = text(&mut stderr);
    let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("(no message)");
    Err(Failure::new(format!("{name} ended with {}: {said}", ending(status))))
}

/// Waits for a child, kills it when the limit is over.
fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot wait: {error}"));
    let pidfd =
        pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(|errno| failed(errno.into()))?;
    let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
    let limit = Timespec { tv_sec: seconds, tv_nsec: limit.subsec_nanos().into() };
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))
        .map_err(|errno| failed(errno.into()))?;
    if ended > 0 {
        return child.wait().map_err(failed);
    }
    child.kill().map_err(failed)?;
    child.wait().map_err(failed)?;
    Err(Failure::new(format!("did not end within {seconds} s")))
}

/// Each command leads its group.
fn group_of(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap_or(i32::MAX)
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    // What cannot be read is shown as nothing: the status has been judged already.
    let _ = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}
