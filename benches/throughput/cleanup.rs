//! Whatever must be undone: mounts, loop devices, directories, processes. Each has a guard; the guard's drop undoes
//! it, a panic therefore too. Ctrl-C and SIGTERM undo everything in reverse order and end the program.
//!
//! Making something and registering it happen under one lock: a signal in between waits, so nothing slips through.
//! Only what this program made is touched: mounts by their directory, loop devices by their name, servers by having
//! one of our (unique) mount directories among their arguments.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    sys::signal::{SigSet, Signal, kill},
    unistd::{Pid, geteuid},
};
use parking_lot::Mutex;

use crate::{
    command,
    failure::{Failure, Result, cannot},
};

/// How long a server may take to end after its unmount before it is killed.
const SERVER_PATIENCE: Duration = Duration::from_secs(10);

/// Something that must be undone.
#[derive(Debug, Clone)]
pub enum Undo {
    /// A mount, with the server behind it where there is one.
    Mount(PathBuf),
    /// A loop device, by name.
    Loop(PathBuf),
    /// A directory that is ours, with everything in it.
    Directory(PathBuf),
    /// A process group that we started.
    Group(i32),
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { next: 0, entries: Vec::new() });

struct Registry {
    next: u64,
    entries: Vec<(u64, Undo)>,
}

/// Undoes one thing when dropped.
#[derive(Debug)]
pub struct Guard(u64);

impl Drop for Guard {
    fn drop(&mut self) {
        let mut registry = REGISTRY.lock();
        if let Some(at) = registry.entries.iter().position(|(id, _)| *id == self.0) {
            let (_, entry) = registry.entries.remove(at);
            undo(&entry);
        }
    }
}

/// Makes something that must be undone. What `make` returns beside the value says how; where it fails it has
/// cleaned up itself.
pub fn make<T>(make: impl FnOnce() -> Result<(T, Undo)>) -> Result<(T, Guard)> {
    let mut registry = REGISTRY.lock();
    let (value, entry) = make()?;
    registry.next += 1;
    let id = registry.next;
    registry.entries.push((id, entry));
    Ok((value, Guard(id)))
}

/// Makes something whose undoing is known beforehand; a failure half-way is undone too.
pub fn make_known<T>(known: Undo, act: impl FnOnce() -> Result<T>) -> Result<(T, Guard)> {
    make(|| match act() {
        Ok(value) => Ok((value, known)),
        Err(failure) => {
            undo(&known);
            Err(failure)
        }
    })
}

/// Takes Ctrl-C, SIGTERM and SIGHUP for the whole process; call it before any thread starts.
///
/// Children get a clean signal mask from the standard library.
pub fn on_signals() -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(|errno| Failure::new(format!("cannot block signals: {errno}")))?;
    thread::spawn(move || {
        if let Ok(signal) = signals.wait() {
            eprintln!("\n{signal}: undoing mounts");
            let registry = REGISTRY.lock();
            drop(command::kill_all());
            for (_, entry) in registry.entries.iter().rev() {
                undo(entry);
            }
            // Both locks are held until the end: nothing new can be made or started.
            let _running = command::kill_all();
            std::process::exit(130);
        }
    });
    Ok(())
}

/// Makes a directory with its parents; never while everything is being undone.
pub fn folder(path: &Path) -> Result<()> {
    let _registry = REGISTRY.lock();
    fs::create_dir_all(path).map_err(cannot("make", path))
}

/// Removes a directory of ours, but never through a mount that is still there.
pub fn remove_tree(path: &Path) -> Result<()> {
    if let Some(mounted) = mounts_below(path)?.first() {
        return Err(Failure::new(format!(
            "{} is still mounted, {} stays",
            mounted.display(),
            path.display()
        )));
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(cannot("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a directory under another name: work that still runs then fails instead of filling it again.
fn remove_aside(path: &Path) -> Result<()> {
    if mounts_below(path)?.is_empty() && path.exists() {
        let aside = path.with_extension("gone");
        fs::rename(path, &aside).map_err(cannot("rename", path))?;
        return remove_tree(&aside);
    }
    remove_tree(path)
}

/// Tells whether something is mounted at exactly this directory.
pub fn is_mounted(directory: &Path) -> Result<bool> {
    Ok(mounts_below(directory)?.iter().any(|mounted| mounted == directory))
}

/// The processes that serve a mount: those with its directory among their arguments.
pub fn servers_of(directory: &Path) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.split(|byte| *byte == 0).any(|argument| argument == directory.as_os_str().as_bytes())
        })
        .collect()
}

fn undo(entry: &Undo) {
    let outcome = match entry {
        Undo::Mount(directory) => unmount(directory),
        Undo::Loop(device) => release(device),
        Undo::Directory(path) => remove_aside(path),
        Undo::Group(group) => {
            // Gone already is as good as ended.
            let _ = kill(Pid::from_raw(-group), Signal::SIGKILL);
            Ok(())
        }
    };
    if let Err(failure) = outcome {
        eprintln!("warning: {failure}");
    }
}

/// Unmounts and waits for the server, which is killed where it does not end.
fn unmount(directory: &Path) -> Result<()> {
    let servers = servers_of(directory);
    let busy_until = Instant::now() + Duration::from_secs(3);
    let mut outcome = Ok(());
    while is_mounted(directory)? {
        let lazily = Instant::now() > busy_until;
        outcome = if geteuid().is_root() { by_call(directory, lazily) } else { by_helper(directory, lazily) };
        if outcome.is_err() && lazily {
            break;
        }
        if outcome.is_err() {
            thread::sleep(Duration::from_millis(20));
        }
    }
    let end = Instant::now() + SERVER_PATIENCE;
    while servers.iter().any(|pid| alive(*pid)) && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    for pid in servers.into_iter().filter(|pid| alive(*pid)) {
        eprintln!("warning: the server of {} did not end by itself (process {pid})", directory.display());
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    outcome
}

fn by_call(directory: &Path, lazily: bool) -> Result<()> {
    let flags = if lazily { MntFlags::MNT_DETACH } else { MntFlags::UMOUNT_NOFOLLOW };
    match umount2(directory, flags) {
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(cannot("unmount", directory)(errno)),
    }
}

fn by_helper(directory: &Path, lazily: bool) -> Result<()> {
    let mut helper = Command::new("fusermount3");
    helper.arg(if lazily { "-uz" } else { "-u" }).arg(directory);
    command::run(&mut helper, Duration::from_secs(10)).map(drop)
}

fn release(device: &Path) -> Result<()> {
    let mut losetup = Command::new("losetup");
    losetup.arg("-d").arg(device);
    command::run(&mut losetup, Duration::from_secs(10)).map(drop)
}

/// Alive and not merely a zombie that nobody has reaped.
fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

/// Mount points at or below a directory, from the kernel's own list (which a dead server cannot hide).
fn mounts_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let list = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(list).map_err(cannot("read", list))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|mounted| mounted.starts_with(directory))
        .collect())
}
