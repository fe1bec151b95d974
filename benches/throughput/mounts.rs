//! Mounts as guards: a `Stack` holds what was mounted, lowest first, and takes it down from the top.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    cleanup::{self, Guard, Undo},
    command,
    failure::{Failure, Result, cannot},
    host::resident,
};

/// A mount command that has not returned by then has failed.
const MOUNT_LIMIT: Duration = Duration::from_secs(30);

/// Mounts on top of each other.
#[derive(Debug, Default)]
pub struct Stack {
    guards: Vec<Guard>,
    directories: Vec<PathBuf>,
}

impl Drop for Stack {
    fn drop(&mut self) {
        // A vector would drop its first element first.
        while self.guards.pop().is_some() {}
    }
}

impl Stack {
    /// Runs a command that mounts at `directory` and returns when it serves; `probe` (relative) shows that it does.
    pub fn fuse(&mut self, command: &mut Command, directory: &Path, probe: &Path) -> Result<()> {
        cleanup::folder(directory)?;
        let ((), guard) = cleanup::make_known(Undo::Mount(directory.to_owned()), || {
            command::run(command, MOUNT_LIMIT).map(drop)
        })?;
        self.keep(guard, directory);
        within(MOUNT_LIMIT, &self.directories, || answers(&directory.join(probe)))
    }

    /// Mounts a file system of the kernel, with the archive behind a loop device of its own.
    pub fn looped(
        &mut self,
        losetup: &Path,
        kind: &str,
        archive: &Path,
        directory: &Path,
        probe: &Path,
    ) -> Result<()> {
        let device = self.attach(losetup, &["--read-only"], archive)?;
        self.kernel(kind, &device, directory, MsFlags::MS_RDONLY, "")?;
        answers(&directory.join(probe))
    }

    /// Mounts an ext4 disk behind a loop device. Its file is read and written past the page cache: nothing is cached
    /// twice.
    pub fn disk(&mut self, losetup: &Path, image: &Path, directory: &Path) -> Result<()> {
        let device = self.attach(losetup, &["--direct-io=on"], image)?;
        self.kernel("ext4", &device, directory, MsFlags::empty(), "nodiscard")
    }

    /// Mounts kernel overlayfs; lowers from the lowest to the highest.
    pub fn overlay(&mut self, lowers: &[PathBuf], upper: &Path, work: &Path, directory: &Path) -> Result<()> {
        let options = overlay_options(lowers, upper, work);
        self.kernel("overlay", Path::new("overlay"), directory, MsFlags::empty(), &options)
    }

    /// Where something is mounted.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Resident memory of all servers in this stack, in MiB; `None` where there is none.
    pub fn resident(&self) -> Option<f64> {
        resident(&servers(&self.directories))
    }

    fn attach(&mut self, losetup: &Path, options: &[&str], file: &Path) -> Result<PathBuf> {
        let (device, guard) = cleanup::make(|| {
            let mut attach = Command::new(losetup);
            attach.args(["--find", "--show"]).args(options).arg(file);
            let device = PathBuf::from(command::run(&mut attach, MOUNT_LIMIT)?.stdout.trim());
            Ok((device.clone(), Undo::Loop(device)))
        })?;
        self.guards.push(guard);
        Ok(device)
    }

    fn kernel(
        &mut self,
        kind: &str,
        source: &Path,
        directory: &Path,
        flags: MsFlags,
        options: &str,
    ) -> Result<()> {
        cleanup::folder(directory)?;
        let ((), guard) = cleanup::make_known(Undo::Mount(directory.to_owned()), || {
            mount(Some(source), directory, Some(kind), flags, Some(options)).map_err(|errno| {
                Failure::new(format!("cannot mount {kind} at {}: {errno}", directory.display()))
            })
        })?;
        self.keep(guard, directory);
        Ok(())
    }

    fn keep(&mut self, guard: Guard, directory: &Path) {
        self.guards.push(guard);
        self.directories.push(directory.to_owned());
    }
}

/// The options that kernel overlayfs and fuse-overlayfs share: highest lower first.
pub fn overlay_options(lowers: &[PathBuf], upper: &Path, work: &Path) -> String {
    let lowers: Vec<String> = lowers.iter().rev().map(|lower| lower.display().to_string()).collect();
    format!("lowerdir={},upperdir={},workdir={}", lowers.join(":"), upper.display(), work.display())
}

/// Runs work over mounts; when it takes longer than the limit their servers are killed, and the work fails with what
/// the kernel then answers.
pub fn within<T>(limit: Duration, mounts: &[PathBuf], work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (done, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let late = ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
            for server in if late { servers(mounts) } else { Vec::new() } {
                // It may just have ended.
                let _ = kill(Pid::from_raw(server), Signal::SIGKILL);
            }
            late
        });
        let outcome = work();
        drop(done);
        match (watch.join(), outcome) {
            (Ok(true), _) => Err(Failure::new(format!("took longer than {} s", limit.as_secs()))),
            (_, outcome) => outcome,
        }
    })
}

fn servers(mounts: &[PathBuf]) -> Vec<i32> {
    mounts.iter().flat_map(|directory| cleanup::servers_of(directory)).collect()
}

/// The first stat: commands return when their mount answers, so this seldom waits.
fn answers(path: &Path) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        match fs::symlink_metadata(path) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > end => return Err(cannot("find the first file", path)(error)),
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}
