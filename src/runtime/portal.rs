//! Programs of the host, started from inside: both ends.
//!
//! `fim_portal CMD…` inside asks the **host daemon**, a child of the front that is there where the image has the permission
//! `portal`, and goes with the front. It forks a child for each request (`sandbox::guest::serve`); who asks is taken for
//! hostile: of the environment only what programs show by comes through, directories do not, and a list of programs, where
//! the user has written one, is the end of what can be started:
//!
//! ```text
//! $XDG_CONFIG_HOME/fim/portal.allow     a name or an absolute path a line; # begins a comment
//! ```

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    host::Host,
    instances::InstanceError,
    run::{Finished, PASSED_ON, finished},
};
use crate::{
    portal::{self, Announcement, Announcements, Rendezvous, Wall},
    sandbox::{
        self, Stdio,
        guest::{self, Enter, GUEST_LIMIT, HOST_LIMIT, Start},
    },
    sys::{
        errno::Errno,
        inherit,
        process::{self, Child, Forked},
        ready::{self, Interest},
        signal::{Signal, Signals},
        tree::DirFd,
    },
};

/// How long the host daemon has to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most requests at a time; who asks beyond that is not heard.
const MOST: usize = 256;
/// Size at which the log of requests is turned over, in bytes.
const LOG_LIMIT: u64 = 1 << 20;
/// Largest list of programs that is read, in bytes.
const ALLOW_LIMIT: u64 = 1 << 20;
const LOG: &str = "daemon.log";

/// Variables that a request may set: what a program shows by, and nothing that it is led by.
const TAKEN: [&str; 8] =
    ["TERM", "COLORTERM", "COLUMNS", "LINES", "LANG", "LANGUAGE", "NO_COLOR", "FORCE_COLOR"];

/// What the host daemon needs.
#[derive(Debug)]
struct Daemon {
    announcements: Announcements,
    dispatcher: DirFd,
    logs: DirFd,
    rules: Rules,
}

/// What a request is measured by.
#[derive(Debug)]
struct Rules {
    environment: BTreeMap<OsString, OsString>,
    directory: PathBuf,
    /// None: every program may be started.
    allowed: Option<Vec<OsString>>,
}

/// Starts the host daemon for the instance whose directory is `instance`. It goes with the calling process.
///
/// # Errors
///
/// Its place cannot be opened, or the list of programs not be read.
pub fn start_daemon(host: &Host, instance: &Path) -> io::Result<Child> {
    let portal = DirFd::open(&instance.join("portal/daemon"))?;
    let daemon = Daemon {
        announcements: Announcements::open(portal.as_fd(), Wall::Host.fifo())?,
        dispatcher: DirFd::open(&instance.join("portal").join(Wall::Host.dispatcher()))?,
        logs: DirFd::open(&instance.join("logs/daemon/host"))?,
        rules: Rules::of(host)?,
    };
    let front = process::id();
    match process::fork()? {
        Forked::Parent(child) => Ok(child),
        Forked::Child => {
            let ended = process::die_with_parent(front).and_then(|()| daemon.live());
            process::end(u8::from(ended.is_err()))
        }
    }
}

impl Daemon {
    fn live(mut self) -> io::Result<()> {
        inherit::close_others(&[self.announcements.as_fd(), self.dispatcher.as_fd(), self.logs.as_fd()])?;
        inherit::silence()?;
        process::new_session();
        let signals = Signals::block(&[Signal::SIGCHLD])?;
        let mut children = 0_usize;
        loop {
            let waited = [(signals.as_fd(), Interest::Read), (self.announcements.as_fd(), Interest::Read)];
            let ready = ready::wait(&waited, None)?;
            if ready.first().is_some_and(|signals| signals.read) {
                while signals.next()?.is_some() {}
                children = children.saturating_sub(reap());
            }
            if ready.get(1).is_some_and(|knocked| knocked.read) {
                for announcement in self.announcements.hear()? {
                    if children < MOST && self.serve(&announcement)? {
                        children += 1;
                    }
                }
            }
        }
    }

    /// Makes a child for a request; that there can be none ends nothing.
    fn serve(&self, announcement: &Announcement) -> io::Result<bool> {
        match process::fork() {
            Ok(Forked::Parent(_)) => Ok(true),
            Ok(Forked::Child) => {
                // It does not go with us at once: the line closes when the instance ends, and then it ends its program.
                let served = inherit::close_others(&[self.dispatcher.as_fd(), self.logs.as_fd()])
                    .and_then(|()| portal::connect(self.dispatcher.as_fd(), announcement, GUEST_LIMIT))
                    .and_then(|channel| guest::serve(channel, |enter| self.prepare(enter)));
                process::end(u8::from(served.is_err()))
            }
            Err(_) => Ok(false),
        }
    }

    fn prepare(&self, enter: Enter) -> Result<Start, i32> {
        let words = enter.arguments.clone();
        let prepared = self.rules.prepare(enter);
        let verdict = match &prepared {
            Ok(_) => "start",
            Err(_) => "refuse",
        };
        // A request that cannot be logged is not carried out.
        log(&self.logs, verdict, &words)
            .map_err(|error| error.raw_os_error().unwrap_or(Errno::EIO as i32))?;
        prepared
    }
}

/// Takes the children that have ended; how many.
fn reap() -> usize {
    let mut count = 0;
    while let Ok(Some((_, change))) = process::next_change() {
        count += usize::from(matches!(change, process::Change::Ended(_)));
    }
    count
}

impl Rules {
    fn of(host: &Host) -> io::Result<Self> {
        let config = host
            .variable("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|place| place.is_absolute())
            .unwrap_or_else(|| host.user.home.join(".config"));
        let allowed = match DirFd::open(&config.join("fim")) {
            Ok(directory) => directory.read("portal.allow", ALLOW_LIMIT)?.map(|list| parse(&list)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let directory = host.directory.clone().unwrap_or_else(|| PathBuf::from("/"));
        Ok(Self { environment: host.environment.clone(), directory, allowed })
    }

    fn prepare(&self, enter: Enter) -> Result<Start, i32> {
        let program = enter.arguments.first().ok_or(Errno::EINVAL as i32)?;
        if !enter.user.is_empty() || !self.may_start(program) {
            return Err(Errno::EPERM as i32);
        }
        let mut environment = self.environment.clone();
        environment.extend(enter.environment.into_iter().filter(|(name, _)| is_taken(name)));
        let mut directories = enter.directories;
        directories.retain(|directory| directory.is_absolute());
        directories.push(self.directory.clone());
        Ok(Start {
            arguments: enter.arguments,
            environment,
            directories,
            stdio: enter.stdio,
            portal: PathBuf::new(),
        })
    }

    /// A relative path could mean anything, and is never on the list.
    fn may_start(&self, program: &OsStr) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|one| one == program))
    }
}

fn parse(list: &[u8]) -> Vec<OsString> {
    list.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
        .map(|line| OsStr::from_bytes(line).to_owned())
        .collect()
}

fn is_taken(name: &OsStr) -> bool {
    TAKEN.iter().any(|taken| name == *taken) || name.as_bytes().starts_with(b"LC_")
}

/// One line a request: when, what became of it, and its words, so that nothing in them looks like another line.
fn log(logs: &DirFd, verdict: &str, words: &[OsString]) -> io::Result<()> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut file = logs.append(LOG)?;
    if file.metadata()?.len() > LOG_LIMIT {
        logs.remove(format!("{LOG}.1"))?;
        logs.rename(LOG, logs, format!("{LOG}.1"))?;
        file = logs.append(LOG)?;
    }
    let mut text = format!("{} {verdict} {words:?}", since.as_secs());
    text.truncate((0..=4000).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
    text.push('\n');
    file.write_all(text.as_bytes())
}

/// Runs a program on the host for somebody inside, and waits for its end: `fim_portal`.
///
/// # Errors
///
/// [`InstanceError`].
pub fn ask(
    instance: &Path,
    request: sandbox::Request,
    stdio: [BorrowedFd<'_>; 3],
) -> Result<Finished, InstanceError> {
    let stdio = Stdio::of(stdio)?;
    let signals = Signals::block(&PASSED_ON).map_err(InstanceError::step("take over the signals"))?;
    // Nothing tells from inside that the host is gone but the line itself.
    let (never, _kept) = io::pipe().map_err(InstanceError::step("make a pipe"))?;
    let channel = Rendezvous::announce(&instance.join("portal"), Wall::Host, HOST_LIMIT)
        .and_then(|rendezvous| rendezvous.wait(never.as_fd(), Instant::now() + PATIENCE))
        .map_err(|source| match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENXIO | Errno::EROFS) => InstanceError::NoPortal,
            _ => InstanceError::Step { step: "reach the host", source },
        })?;
    let program = request.arguments.first().cloned().unwrap_or_default();
    let verdict = sandbox::enter(channel, request, stdio, never.as_fd(), &signals)?;
    Ok(finished(verdict, &program, "on the host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allowed: Option<&[u8]>) -> Rules {
        Rules {
            environment: [("PATH".into(), "/bin".into()), ("LANG".into(), "C".into())].into(),
            directory: "/cwd".into(),
            allowed: allowed.map(parse),
        }
    }

    fn enter(words: &[&str]) -> Enter {
        Enter {
            arguments: words.iter().map(OsString::from).collect(),
            environment: [("LD_PRELOAD", "x"), ("PATH", "/evil"), ("LANG", "de"), ("LC_ALL", "fr")]
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            directories: vec!["rel".into(), "/abs".into()],
            user: OsString::new(),
            is_detached: false,
            stdio: [None, None, None],
        }
    }

    #[test]
    fn a_request_cannot_lead_a_program_of_the_host() {
        let start = rules(None).prepare(enter(&["ls", "-l"])).unwrap();
        let of = |name: &str| start.environment.get(OsStr::new(name)).and_then(|value| value.to_str());
        assert_eq!(
            (of("PATH"), of("LANG"), of("LC_ALL"), of("LD_PRELOAD")),
            (Some("/bin"), Some("de"), Some("fr"), None)
        );
        assert_eq!(start.directories, [Path::new("/abs"), Path::new("/cwd")]);
        assert!(rules(None).prepare(enter(&[])).is_err());
        assert!(rules(None).prepare(Enter { user: "root".into(), ..enter(&["ls"]) }).is_err());
    }

    #[test]
    fn a_list_is_the_end_of_what_can_be_started() {
        let rules = rules(Some(b"# mine\n ls \n/usr/bin/id\n\n"));
        for (program, expected) in [
            ("ls", true),
            ("/usr/bin/id", true),
            ("id", false),
            ("./ls", false),
            ("/bin/ls", false),
            ("", false),
        ] {
            assert_eq!(rules.prepare(enter(&[program])).is_ok(), expected, "{program}");
        }
        assert!(!super::Rules { allowed: Some(vec![]), ..rules }.may_start("ls".as_ref()));
    }

    #[test]
    fn a_request_is_one_line_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let logs = DirFd::open(folder.path()).unwrap();
        log(&logs, "start", &["a\nb".into(), "ü".repeat(5000).into()]).unwrap();
        log(&logs, "refuse", &[]).unwrap();
        let text = std::fs::read_to_string(folder.path().join(LOG)).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.len() < 4200);
    }
}
