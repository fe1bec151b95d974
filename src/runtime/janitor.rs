//! The janitor (`fim_janitor`): a process that outlives a server that is killed, and removes what that one leaves.
//!
//! ```text
//! server ── pidfd of itself ──> janitor: waits for it, and does nothing else
//!    ╳ killed, perhaps together with its fronts
//!                               removes server/KEY/, and the directories of its instances, each when its lock is free
//! ```
//!
//! Mounts are not among that: all of them are made in the server's private namespace, and the kernel takes them away. A
//! server that ends well has removed its directory, and whoever is alive removes his own: then nothing is left to
//! do. A janitor that was killed is not replaced; the next start sweeps.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

use super::server::Place;
use crate::{
    instance::{self, dirs::AppDirs},
    sys::{
        process::{self, Pidfd},
        ready,
    },
};

/// The name by which the role is called.
pub const NAME: &str = "fim_janitor";

/// Starts the janitor of the calling process, which will serve `place` and has not left the caller's namespaces yet.
///
/// # Errors
///
/// What starting a program says.
pub fn start(place: &Place, dirs: &AppDirs) -> io::Result<()> {
    let server = Pidfd::own()?;
    // Its own program by the link of the kernel: the file may be gone, or never have been one.
    let mut janitor = Command::new("/proc/self/exe");
    janitor.arg0(NAME).args([dirs.global(), &place.path()]);
    janitor.env_clear().stdin(Stdio::from(server.into_fd())).stdout(Stdio::null()).stderr(Stdio::null());
    // A child that nobody waits for: it ends behind its parent, unless it is killed.
    janitor.spawn().map(drop)
}

/// Is the janitor: `arguments` are its name, `FIM_DIR_GLOBAL` and the directory of the server; stdin is the server's
/// process.
///
/// # Errors
///
/// What the system says; nobody hears it but whoever calls the janitor by hand.
pub fn run(arguments: &[OsString]) -> io::Result<()> {
    let [_, global, place] = arguments else {
        return Err(io::Error::other("fim_janitor is started by the engine only"));
    };
    process::new_session();
    process::change_dir(Path::new("/"))?;
    ready::first_readable(&[io::stdin().as_fd()], None)?;
    let dirs = AppDirs::new(global.into());
    let place =
        Place::of_path(Path::new(place)).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    tidy(&place, &dirs)
}

/// Removes what the dead server of `place` has left.
fn tidy(place: &Place, dirs: &AppDirs) -> io::Result<()> {
    let is_of_it = |instance: &Path| {
        std::fs::read_link(instance.join(instance::SERVER_LOGS)).is_ok_and(|logs| logs == place.logs())
    };
    // Listed under the lock of the place: instances of the next server are made behind it.
    let mut orphans = Vec::new();
    let cleaned = place.clean_up_after(|| orphans = instance::those(dirs, is_of_it).unwrap_or_default());
    // A front that was stopped has not ended yet: its directory is its own until it has.
    let swept = instance::sweep(dirs);
    let waited: Vec<io::Result<()>> =
        orphans.iter().map(|name| instance::remove_when_free(dirs, OsStr::new(name))).collect();
    cleaned.map_err(io::Error::other)?;
    swept?;
    waited.into_iter().collect()
}
