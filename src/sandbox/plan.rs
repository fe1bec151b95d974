//! What will be inside, and why. Pure: nothing here touches disk or clock.
//!
//! The order of mounts is the order in which they are made; a later one may lie inside an earlier one.
//!
//! ```text
//! /                 the merged root
//! /proc /dev /sys   new, minimal, read-only
//! /tmp              private
//! /tmp/fim          FIM_DIR_GLOBAL: a skeleton with the engine's own files, sealed read-only at the end
//!   run/host        the host's root, read-only, private places covered
//! ```

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::{fd::RawFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use super::expand;
use crate::instance::{InstanceId, accounts::User, dirs::AppDirs};

/// Where programs are looked for in a root that says nothing else.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables of the caller that reach programs inside.
const PASSED: [&str; 26] = [
    "ALL_PROXY",
    "COLORTERM",
    "COLUMNS",
    "DEBIAN_FRONTEND",
    "FTP_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LANGUAGE",
    "LINES",
    "LOGNAME",
    "NO_COLOR",
    "NO_PROXY",
    "SOURCE_DATE_EPOCH",
    "TERM",
    "TERM_PROGRAM",
    "TZ",
    "USER",
    "VTE_VERSION",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "FORCE_COLOR",
    "all_proxy",
    "ftp_proxy",
    "http_proxy",
    "https_proxy",
];
/// Variables of the caller that reach programs inside: the rest of the names, and those that begin so.
const PASSED_PREFIXES: [&str; 2] = ["LC_", "no_proxy"];

/// Capabilities of root inside where it is the host's root as well: enough to own, change and install files and to
/// become other users; not enough to mount, to trace processes outside or to open files by handle.
const ROOT_CAPABILITIES: [&str; 13] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// As whom the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// As the calling user.
    User,
    /// As uid 0.
    Root,
}

/// Who the program is inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The host's root, no user namespace.
    HostRoot,
    /// These ids, in a user namespace where they stand for the caller's.
    Mapped {
        /// User id inside.
        uid: u32,
        /// Group id inside.
        gid: u32,
    },
}

/// What root inside may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capabilities {
    /// Nothing special.
    None,
    /// These only.
    Only(Vec<&'static str>),
    /// All of a user namespace that holds nothing but the caller.
    All,
}

/// Whether the host's network is reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// As for any program of the host.
    Host,
    /// Only a loopback device of its own.
    None,
}

/// How a place of the host is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It can be read.
    ReadOnly,
    /// It can be read and written.
    ReadWrite,
    /// Devices in it can be used as well.
    Devices,
}

/// What happens where a place of the host is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is left out.
    Skip,
    /// The start fails.
    Fail,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The processes of the sandbox.
    Proc,
    /// A minimal set of devices.
    Dev,
    /// An empty directory in memory, with this mode.
    Tmpfs {
        /// Its mode.
        mode: u32,
    },
    /// A directory without a mount of its own, inside a `Tmpfs`.
    Directory,
    /// A place of the host.
    Bind {
        /// Which one.
        from: PathBuf,
        /// How.
        access: Access,
        /// What if it is not there.
        missing: Missing,
    },
    /// A program, copied from this descriptor: for one that has no path.
    Program {
        /// Number of the descriptor in the process that becomes bubblewrap.
        number: RawFd,
    },
    /// The mount made here before becomes read-only.
    Seal,
}

/// Where the engine's own program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine<'a> {
    /// In a file.
    At(&'a Path),
    /// In memory, or in a file without a name: open under this number.
    Open(RawFd),
}

/// What made a mount necessary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Every program needs it.
    Basis,
    /// The engine's own files.
    Runtime,
    /// The host's root at `run/host`.
    HostView,
    /// Names on the network.
    Network,
    /// Who the caller is.
    Accounts,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What.
    pub what: What,
    /// Where, as a path inside.
    pub to: PathBuf,
    /// Why.
    pub cause: Cause,
}

/// The program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its arguments, name first.
    pub arguments: Vec<OsString>,
    /// Its environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// Directories to start in: the first one that is there.
    pub directories: Vec<PathBuf>,
}

/// A whole sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Who the program is.
    pub identity: Identity,
    /// What it may do.
    pub capabilities: Capabilities,
    /// Whether it reaches the network.
    pub network: Network,
    /// Its file systems besides the root, in order.
    pub mounts: Vec<Mount>,
    /// Its home, made where it is missing.
    pub home: PathBuf,
    /// The user who must be known inside; none where the accounts are left as they are.
    pub known_user: Option<User>,
    /// Where process 1 finds itself inside.
    pub init: PathBuf,
    /// The program itself.
    pub program: Program,
}

/// What a plan is made of.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// As whom the program runs.
    pub role: Role,
    /// The calling user: the ids are the real ones, the rest is what passwd says, or a stand-in.
    pub user: &'a User,
    /// The directories of this build.
    pub app: &'a AppDirs,
    /// `FIM_DIR_INSTANCE`.
    pub instance: &'a Path,
    /// Number of the instance.
    pub instance_id: InstanceId,
    /// Process id of the instance.
    pub pid: i32,
    /// `FIM_DIR_DATA`.
    pub data: &'a Path,
    /// `FIM_DIR_LAYERS`.
    pub layers: &'a Path,
    /// Path of the image.
    pub image: &'a Path,
    /// Name of the distribution inside.
    pub distribution: &'a str,
    /// The program that process 1 inside is.
    pub engine: Engine<'a>,
    /// Places below the host's root that `run/host` does not show; empty paths and `/` are left out.
    pub hidden: &'a [PathBuf],
    /// Environment of the caller.
    pub environment: &'a BTreeMap<OsString, OsString>,
    /// Whether all of it is passed on.
    pub pass_all: bool,
    /// Variables that the image sets, as stored.
    pub settings: &'a [(String, String)],
    /// Working directory of the caller.
    pub directory: Option<&'a Path>,
    /// The command.
    pub command: &'a [OsString],
}

impl Plan {
    /// Makes the plan.
    #[must_use]
    pub fn new(inputs: &Inputs<'_>) -> Self {
        let host_root = inputs.user.uid == 0;
        let (identity, capabilities) = match (host_root, inputs.role) {
            (true, _) => (Identity::HostRoot, Capabilities::Only(ROOT_CAPABILITIES.to_vec())),
            (false, Role::Root) => (Identity::Mapped { uid: 0, gid: 0 }, Capabilities::All),
            (false, Role::User) => {
                (Identity::Mapped { uid: inputs.user.uid, gid: inputs.user.gid }, Capabilities::None)
            }
        };
        let environment = environment(inputs);
        let home = environment.get(OsStr::new("HOME")).map_or_else(|| "/".into(), PathBuf::from);
        let directories = inputs
            .directory
            .into_iter()
            .chain([home.as_path(), Path::new("/")])
            .map(Path::to_owned)
            .collect();
        Self {
            identity,
            capabilities,
            network: Network::Host,
            mounts: mounts(inputs),
            home,
            known_user: (inputs.role == Role::User).then(|| inputs.user.clone()),
            init: init(inputs),
            program: Program { arguments: inputs.command.to_vec(), environment, directories },
        }
    }
}

/// Where process 1 finds itself: its name there is the role that it plays.
fn init(inputs: &Inputs<'_>) -> PathBuf {
    inputs.app.runtime().join("fim_init")
}

fn mounts(inputs: &Inputs<'_>) -> Vec<Mount> {
    let basis = |what, to: &str| Mount { what, to: to.into(), cause: Cause::Basis };
    let runtime = |what, to: PathBuf| Mount { what, to, cause: Cause::Runtime };
    let read_only = |from: PathBuf, missing| What::Bind { from, access: Access::ReadOnly, missing };
    let same = |path: PathBuf| runtime(read_only(path.clone(), Missing::Skip), path);
    let engine = match inputs.engine {
        Engine::At(path) => read_only(path.to_owned(), Missing::Fail),
        Engine::Open(number) => What::Program { number },
    };
    let app = inputs.app;

    let mut mounts = vec![
        basis(What::Proc, "/proc"),
        basis(What::Dev, "/dev"),
        basis(read_only("/sys".into(), Missing::Skip), "/sys"),
        basis(What::Tmpfs { mode: 0o1777 }, "/tmp"),
        runtime(What::Tmpfs { mode: 0o755 }, app.global().to_owned()),
        same(app.bin()),
        same(app.sbin()),
        runtime(What::Directory, inputs.instance.to_owned()),
        same(inputs.instance.join("bashrc")),
        same(inputs.instance.join("passwd")),
        same(inputs.instance.join("group")),
        same(inputs.instance.join("layers")),
        runtime(engine, init(inputs)),
    ];
    let host = app.runtime_host();
    let shown = |what, to| Mount { what, to, cause: Cause::HostView };
    mounts.push(shown(read_only("/".into(), Missing::Fail), host.clone()));
    for hidden in covers(inputs.hidden) {
        let to = below(&host, &hidden);
        mounts.push(shown(What::Tmpfs { mode: 0o755 }, to.clone()));
        mounts.push(shown(What::Seal, to));
    }
    for file in ["/etc/resolv.conf", "/etc/hosts"] {
        let what = read_only(file.into(), Missing::Skip);
        mounts.push(Mount { what, to: file.into(), cause: Cause::Network });
    }
    mounts.push(runtime(What::Seal, app.global().to_owned()));
    mounts
}

/// The places to cover, without those that lie inside another one.
fn covers(hidden: &[PathBuf]) -> Vec<PathBuf> {
    let mut sorted: Vec<&PathBuf> =
        hidden.iter().filter(|path| path.is_absolute() && path.as_path() != Path::new("/")).collect();
    sorted.sort();
    let mut covers: Vec<PathBuf> = Vec::new();
    for path in sorted {
        if !covers.iter().any(|cover| path.starts_with(cover)) {
            covers.push(path.clone());
        }
    }
    covers
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn environment(inputs: &Inputs<'_>) -> BTreeMap<OsString, OsString> {
    let mut inside: BTreeMap<OsString, OsString> = inputs
        .environment
        .iter()
        .filter(|(name, _)| !name.as_bytes().starts_with(b"FIM_") && (inputs.pass_all || is_passed(name)))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut set = |name: &str, value: &OsStr| inside.insert(name.into(), value.to_owned());

    let (name, home) = match inputs.role {
        Role::Root => ("root", Path::new("/root")),
        Role::User => (inputs.user.name.as_str(), inputs.user.home.as_path()),
    };
    set("USER", name.as_ref());
    set("LOGNAME", name.as_ref());
    set("HOME", home.as_os_str());
    set("SHELL", "/bin/bash".as_ref());
    for (name, value) in fim_variables(inputs) {
        set(name, &value);
    }
    let path = inside.remove(OsStr::new("PATH")).unwrap_or_else(|| PATH.into());
    for (name, value) in inputs.settings {
        // Root is root whatever the image says of other users.
        if inputs.role == Role::Root && matches!(name.as_str(), "UID" | "GID" | "USER" | "HOME") {
            continue;
        }
        let value = expand(value, &|name| {
            inside.get(OsStr::new(name)).or_else(|| inputs.environment.get(OsStr::new(name))).cloned()
        });
        inside.insert(name.into(), value);
    }
    let mut path = inside.remove(OsStr::new("PATH")).unwrap_or(path);
    for directory in [inputs.app.bin(), inputs.app.sbin()] {
        path.push(":");
        path.push(directory);
    }
    inside.insert("PATH".into(), path);
    inside
}

fn is_passed(name: &OsStr) -> bool {
    PASSED.iter().any(|passed| name == *passed)
        || PASSED_PREFIXES.iter().any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))
}

/// The variables that tell programs where they are.
fn fim_variables(inputs: &Inputs<'_>) -> Vec<(&'static str, OsString)> {
    let app = inputs.app;
    vec![
        ("FIM_VERSION", env!("CARGO_PKG_VERSION").into()),
        ("FIM_COMMIT", env!("FIM_COMMIT").into()),
        ("FIM_TIMESTAMP", env!("FIM_TIMESTAMP").into()),
        ("FIM_DIST", inputs.distribution.into()),
        ("FIM_PID", inputs.pid.to_string().into()),
        ("FIM_INSTANCE", inputs.instance_id.to_string().into()),
        ("FIM_BIN_SELF", inputs.image.into()),
        ("FIM_DIR_SELF", inputs.image.parent().unwrap_or(Path::new("/")).into()),
        ("FIM_DIR_GLOBAL", app.global().into()),
        ("FIM_DIR_APP", app.app().into()),
        ("FIM_DIR_APP_BIN", app.bin().into()),
        ("FIM_DIR_APP_SBIN", app.sbin().into()),
        ("FIM_DIR_INSTANCE", inputs.instance.into()),
        ("FIM_DIR_RUNTIME", app.runtime().into()),
        ("FIM_DIR_RUNTIME_HOST", app.runtime_host().into()),
        ("FIM_DIR_DATA", inputs.data.into()),
        ("FIM_DIR_LAYERS", inputs.layers.into()),
    ]
}

#[cfg(test)]
mod tests;
