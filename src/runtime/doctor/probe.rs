//! Finding out by doing: a device is opened, a namespace is made, a file system mounted, a sandbox started.
//!
//! Namespaces and mounts are tried in a forked copy of this process, which tells what came of it and ends; the kernel
//! takes everything away with it.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs,
    io::{self, Read as _, Write as _, pipe},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::AppArmor;
use crate::{
    causes::one_line,
    instance::dirs,
    runtime::{host::Host, site::Site, tools::ToolPaths},
    sandbox::Bwrap,
    sys::{
        fuse_dev, fusermount,
        mount::{self, Access, FuseMount, Unmount, Visitors},
        namespace,
        process::{self, Forked},
        users::effective_ids,
    },
};

/// Longest report of the copy in bytes.
const REPORT_LIMIT: u64 = 16 << 10;

/// What the host said no with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Its number.
    pub errno: i32,
    /// In words.
    pub text: String,
}

/// How far a copy of this process came on its way to a mount that nobody else sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trial {
    /// All the way.
    Mounted,
    /// No namespace.
    Namespace(Refusal),
    /// A namespace, in which it has no rights.
    Rights(Refusal),
    /// A namespace, but no device.
    Device(Refusal),
    /// A device, but no mount.
    Mount(Refusal),
    /// It did not say.
    Unknown(String),
}

/// What fusermount3 does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Helper {
    /// Nobody needs it: root mounts without.
    NotNeeded,
    /// It is not on PATH.
    Missing,
    /// It is there, but is not root's.
    Powerless(PathBuf),
    /// It mounted and unmounted.
    Works,
    /// It said no.
    Refused(String),
}

/// What stands in files of `/proc/sys`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// `user.max_user_namespaces`.
    pub max_user_namespaces: Option<u64>,
    /// `kernel.unprivileged_userns_clone`, on Debian's kernels.
    pub userns_clone: Option<u64>,
}

/// What was found out.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The caller's user id.
    pub uid: u32,
    /// Release of the kernel.
    pub release: String,
    /// Whether the FUSE device opens.
    pub device: Result<(), Refusal>,
    /// The trial of a private mount.
    pub trial: Trial,
    /// What the switches of the kernel say.
    pub switches: Switches,
    /// What AppArmor does.
    pub apparmor: AppArmor,
    /// What fusermount3 does.
    pub helper: Helper,
    /// bubblewrap: which one works, or why none does.
    pub bwrap: Result<PathBuf, String>,
    /// Whether there is no bubblewrap at all.
    pub no_bwrap: bool,
    /// `FIM_DIR_GLOBAL` and whether programs can be started from there, or what is wrong with it.
    pub global: Result<(PathBuf, bool), String>,
    /// Whether the caller has subordinate ids, and the programs that map them are there.
    pub subordinate_ids: bool,
}

/// Finds out what there is to find out; `image` is asked for the bubblewrap that it carries.
#[must_use]
pub fn probe(host: &Host, image: Option<&Path>) -> Facts {
    let uid = host.ids.uid;
    // The copy first: it can be made only as long as there is one thread.
    let trial = try_private_mount().unwrap_or_else(|error| Trial::Unknown(error.to_string()));
    let path = host.variable("PATH");
    let (bwrap, no_bwrap) = try_bwrap(host, image, path);
    Facts {
        uid,
        release: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        device: fuse_dev::open().map(drop).map_err(|error| refusal(&error)),
        trial,
        switches: Switches {
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
        },
        apparmor: AppArmor::read(Path::new("/")),
        helper: try_helper(uid, path),
        bwrap,
        no_bwrap,
        global: try_global(host.choices.global.as_deref()),
        subordinate_ids: has_subordinate_ids(&host.user.name, uid, path),
    }
}

fn refusal(error: &io::Error) -> Refusal {
    Refusal { errno: error.raw_os_error().unwrap_or_default(), text: error.to_string() }
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Mounts a FUSE file system that nobody serves, in a private namespace of a copy of this process.
fn try_private_mount() -> io::Result<Trial> {
    let (mut hear, mut say) = pipe()?;
    match process::fork()? {
        Forked::Child => {
            drop(hear);
            let told = serde_json::to_vec(&private_mount()).map(|bytes| say.write_all(&bytes));
            process::end(u8::from(told.is_err()))
        }
        Forked::Parent(child) => {
            drop(say);
            let mut told = Vec::new();
            hear.by_ref().take(REPORT_LIMIT).read_to_end(&mut told)?;
            child.wait()?;
            serde_json::from_slice(&told).map_err(io::Error::other)
        }
    }
}

fn private_mount() -> Trial {
    match namespace::enter_private() {
        Ok(()) => {}
        Err(namespace::Error::Unshare(errno)) => return Trial::Namespace(refusal(&errno.into())),
        Err(namespace::Error::Map(error)) => return Trial::Rights(refusal(&error)),
        Err(namespace::Error::Propagation(errno)) => return Trial::Rights(refusal(&errno.into())),
    }
    let device = match fuse_dev::open() {
        Ok(device) => device,
        Err(error) => return Trial::Device(refusal(&error)),
    };
    let (uid, gid) = effective_ids();
    match mount::mount_fuse(&plan(&std::env::temp_dir()), device.as_fd(), uid, gid) {
        Ok(()) => Trial::Mounted,
        Err(errno) => Trial::Mount(refusal(&errno.into())),
    }
}

fn plan(target: &Path) -> FuseMount<'_> {
    FuseMount {
        target,
        source: OsStr::new("fim-doctor"),
        access: Access::ReadOnly,
        visitors: Visitors::Owner,
        devices: false,
        set_id: false,
    }
}

/// Mounts through fusermount3 on a directory of ours, and unmounts.
fn try_helper(uid: u32, path: Option<&OsStr>) -> Helper {
    if uid == 0 {
        return Helper::NotNeeded;
    }
    let Some(program) = on_path("fusermount3", path) else { return Helper::Missing };
    let Ok(place) = tempfile::tempdir() else {
        return Helper::Refused("no scratch directory can be made".to_owned());
    };
    let mounted = fusermount::mount(&plan(place.path()));
    let gone = mount::unmount(place.path(), Unmount::Lazy)
        .map_err(io::Error::from)
        .or_else(|_| fusermount::unmount(place.path(), true));
    match (mounted, gone) {
        (Ok(_), Ok(())) => Helper::Works,
        (Ok(_), Err(error)) => Helper::Refused(format!("it mounts but does not unmount: {error}")),
        (Err(fusermount::Error::Missing), _) => Helper::Missing,
        (Err(error), _) => match fs::metadata(&program) {
            Ok(status) if status.uid() == 0 && status.mode() & 0o4000 != 0 => {
                Helper::Refused(error.to_string())
            }
            _ => Helper::Powerless(program),
        },
    }
}

/// Starts a sandbox with the bubblewrap that a run would take; and whether there is none.
fn try_bwrap(host: &Host, image: Option<&Path>, path: Option<&OsStr>) -> (Result<PathBuf, String>, bool) {
    let embedded = match image.map(|image| embedded(host, image)).transpose() {
        Ok(embedded) => embedded.flatten(),
        Err(error) => return (Err(error), false),
    };
    let chosen = match Bwrap::choose(host.choices.bwrap.as_deref(), embedded, path) {
        Ok(chosen) => chosen,
        Err(error) => return (Err(error.to_string()), true),
    };
    let notes = match tempfile::tempdir() {
        Ok(notes) => notes,
        Err(error) => return (Err(error.to_string()), false),
    };
    let missing = !chosen.program().exists();
    let tried = chosen.check(notes.path()).map_err(|error| error.to_string());
    (tried.map(|()| chosen.program().to_owned()), missing)
}

fn embedded(host: &Host, image: &Path) -> Result<Option<Bwrap>, String> {
    let found = Site::find(host, image).and_then(|site| site.tools());
    let words = found.map(|ToolPaths { bwrap, .. }| bwrap).map_err(|error| one_line(&error))?;
    Ok(words
        .map(VecDeque::from)
        .and_then(|mut words| Some(Bwrap::through(words.pop_front()?.into(), words.into()))))
}

fn try_global(asked: Option<&Path>) -> Result<(PathBuf, bool), String> {
    let place = dirs::choose_global(asked).map_err(|error| one_line(&error))?;
    let runs = place.may_execute().map_err(|error| error.to_string())?;
    Ok((place.path().to_owned(), runs))
}

fn has_subordinate_ids(name: &str, uid: u32, path: Option<&OsStr>) -> bool {
    let listed = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let number = uid.to_string();
        text.lines().any(|line| {
            let owner = line.split(':').next().unwrap_or_default();
            owner == name || owner == number
        })
    };
    let mappers = ["newuidmap", "newgidmap"];
    listed("/etc/subuid")
        && listed("/etc/subgid")
        && mappers.iter().all(|program| on_path(program, path).is_some())
}

fn on_path(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?).map(|folder| folder.join(name)).find(|program| {
        fs::metadata(program).is_ok_and(|status| status.is_file() && status.mode() & 0o111 != 0)
    })
}
